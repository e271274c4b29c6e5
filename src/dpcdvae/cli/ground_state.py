"""``dpcdvae ground-state``: Table 3 of the paper."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dpcdvae.cli.common import OverwriteOption, SchedulerOption, SeedOption, WorkersOption
from dpcdvae.cli.relax import (
    BatchOption,
    CalculatorOption,
    ForceOption,
    OptimizerOption,
    PressureOption,
    RetryOption,
    SetOption,
    StepsOption,
    StressOption,
    TimeLimitOption,
    WorkOption,
    arguments_of,
    relax_in_stages,
    stages_of,
)
from dpcdvae.cli.stability import CalculatorOptionsOption
from dpcdvae.errors import InputError


def ground_state(
    crystals: Annotated[
        Path, typer.Argument(help="File, folder or zip of crystals in any format.", show_default=False)
    ],
    calculator: CalculatorOption = "chgnet",
    calculator_option: CalculatorOptionsOption = None,
    settings: SetOption = None,
    pressure: PressureOption = None,
    relaxed: Annotated[
        Path | None,
        typer.Option(
            "--relaxed", help="The same crystals relaxed elsewhere: compare, relax nothing.", show_default=False
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write all numbers here too, for machines.")] = None,
    optimizer: OptimizerOption = "fire",
    fmax: ForceOption = None,
    smax: StressOption = None,
    steps: StepsOption = 1000,
    work: WorkOption = None,
    retry: RetryOption = False,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    batch: BatchOption = 1,
    time_limit: TimeLimitOption = 3600.0,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Relax crystals and tell how far they lay from their ground states: Table 3 of the paper.

    \b
    Examples:
      dpcdvae ground-state crystals.extxyz --pressure 10 --work campaign --json table3.json
      dpcdvae ground-state crystals.extxyz --relaxed relaxed.extxyz --pressure 10
    """
    from rich.console import Console

    from dpcdvae.evaluation import read_generated
    from dpcdvae.files import check_output, sha256, write_json, write_manifest
    from dpcdvae.io import read
    from dpcdvae.parallel import engine_for
    from dpcdvae.relaxation.batching import check_one_process
    from dpcdvae.relaxation.from_files import pair_relaxed
    from dpcdvae.relaxation.ground_state import ground_state as compare

    check_one_process(batch, workers, scheduler)
    if json is not None:
        check_output(json, overwrite=overwrite)
    if relaxed is not None and (work is not None or retry):
        raise InputError("--relaxed compares files and relaxes nothing: leave out --work and --retry")
    stages = stages_of(calculator, calculator_option, settings, pressure, optimizer, fmax, smax, steps)
    generated = read_generated(crystals)
    with engine_for(workers, scheduler) as engine:
        if relaxed is not None:
            results = pair_relaxed(generated.crystals, read(relaxed), stages[-1].pressure)
        else:
            results = relax_in_stages(generated.crystals, stages, work, retry, engine, batch, time_limit)
        report = compare(results, failures=generated.failures, engine=engine, seed=seed)
    Console(width=None if sys.stdout.isatty() else 120).print(report.table())
    if json is not None:
        write_json(json, report.to_json())
        files = {"crystals": crystals, "relaxed": relaxed, "work": work}
        arguments = arguments_of(stages, **files, time_limit=time_limit, seed=seed)
        facts = {"relaxed_sha256": sha256(relaxed)} if relaxed is not None else {}
        write_manifest(json, "ground-state", arguments, crystals_sha256=sha256(crystals), **facts)
