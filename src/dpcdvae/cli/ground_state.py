"""``dpcdvae ground-state``: Table 3 of the paper."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dpcdvae.cli.common import OverwriteOption, SchedulerOption, SeedOption, WorkersOption, check_apart, check_distinct
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
    refuse_beside,
    stages_from,
)
from dpcdvae.cli.stability import CalculatorOptionsOption


def ground_state(
    crystals: Annotated[
        Path, typer.Argument(help="File, folder or zip of crystals in any format.", show_default=False)
    ],
    calculator: CalculatorOption = None,
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
    optimizer: OptimizerOption = None,
    fmax: ForceOption = None,
    smax: StressOption = None,
    steps: StepsOption = None,
    work: WorkOption = None,
    retry: RetryOption = False,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    batch: BatchOption = 1,
    time_limit: TimeLimitOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Relax crystals and tell how far they lay from their ground states: Table 3 of the paper.

    Results are kept in --work (by default JSON.work, or CRYSTALS.work) as they come: started again after a kill, it
    goes on there.

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
    from dpcdvae.relaxation.campaign import TIME_LIMIT
    from dpcdvae.relaxation.from_files import pair_relaxed
    from dpcdvae.relaxation.ground_state import ground_state as compare
    from dpcdvae.relaxation.stages import relax_in_stages

    check_one_process(batch, workers, scheduler)
    check_distinct(json, work)
    check_apart([json, work], [crystals, relaxed])
    if json is not None:
        check_output(json, overwrite=overwrite)
    files: dict[str, Any] = {"crystals": crystals, "relaxed": relaxed}
    if relaxed is not None:
        how: dict[str, object] = {
            "--calculator": calculator, "--calculator-option": calculator_option, "--settings": settings,
            "--optimizer": optimizer, "--fmax": fmax, "--smax": smax, "--steps": steps, "--work": work,
            "--retry": retry, "--batch": batch > 1, "--time-limit": time_limit,
        }  # fmt: skip
        refuse_beside("--relaxed", how)
        arguments = {**files, "pressure": pressure or 0.0, "seed": seed}
    else:
        stages = stages_from(calculator, calculator_option, settings, pressure, optimizer, fmax, smax, steps)
        work = work or Path(f"{json or crystals}.work")
        arguments = arguments_of(stages, **files, work=work, time_limit=time_limit or TIME_LIMIT, seed=seed)
    generated = read_generated(crystals)
    with engine_for(workers, scheduler) as engine:
        if relaxed is not None:
            results = pair_relaxed(generated.crystals, read(relaxed), arguments["pressure"])
        else:
            results = relax_in_stages(
                generated.crystals, stages, work=work, engine=engine, batch=batch,
                time_limit=time_limit or TIME_LIMIT, retry=retry,
            )  # fmt: skip
        report = compare(results, failures=generated.failures, engine=engine, seed=seed)
    Console(width=None if sys.stdout.isatty() else 120).print(report.table())
    if json is not None:
        write_json(json, report.to_json())
        facts = {"crystals_sha256": sha256(crystals)}
        if relaxed is not None:
            facts["relaxed_sha256"] = sha256(relaxed)
        write_manifest(json, "ground-state", arguments, **facts)
