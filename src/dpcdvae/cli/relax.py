"""``dpcdvae relax``, and what ``dpcdvae ground-state`` shares with it."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcdvae.cli.common import OverwriteOption, SchedulerOption, WorkersOption, check_distinct
from dpcdvae.cli.stability import CalculatorOptionsOption, parse_options
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dpcdvae.crystal import Crystal
    from dpcdvae.io import Failure
    from dpcdvae.parallel import Engine
    from dpcdvae.relaxation.minimise import Settings
    from dpcdvae.relaxation.relaxed import Relaxed

CalculatorOption = Annotated[
    str,
    typer.Option(
        "--calculator",
        help="chgnet, sevennet, gpaw, espresso, vasp, or any of ASE's as module:Class; several, with commas, in turn.",
    ),
]
SetOption = Annotated[
    str | None,
    typer.Option("--settings", help="Settings of a DFT code: paper-carbon or screening.", show_default=False),
]
PressureOption = Annotated[
    float | None, typer.Option("--pressure", help="GPa.  [default: the settings', or 0]", show_default=False)
]
OptimizerOption = Annotated[str, typer.Option("--optimizer", help="fire or lbfgs.")]
ForceOption = Annotated[
    float | None,
    typer.Option("--fmax", help="Longest force, eV/Å.  [default: the settings', or 0.01]", show_default=False),
]
StressOption = Annotated[
    float | None,
    typer.Option(
        "--smax", help="Largest unbalanced stress, GPa.  [default: the settings', or 0.1]", show_default=False
    ),
]
StepsOption = Annotated[int, typer.Option("--steps", min=1, help="Not converged by then is not converged.")]
WorkOption = Annotated[
    Path | None,
    typer.Option("--work", help="Folder that keeps results, to go on after a kill.", show_default=False),
]
RetryOption = Annotated[bool, typer.Option("--retry", help="Try again what did not converge before.")]
BatchOption = Annotated[
    int, typer.Option("--batch", min=1, help="Crystals computed together in this process, for a GPU; chgnet can.")
]
TimeLimitOption = Annotated[float, typer.Option("--time-limit", min=0.1, help="Seconds for one crystal.")]


def relax(
    crystals: Annotated[
        Path | None,
        typer.Argument(help="File, folder or zip of crystals (not with --read-jobs).", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write; must not exist yet.", show_default=False)
    ] = None,
    calculator: CalculatorOption = "chgnet",
    calculator_option: CalculatorOptionsOption = None,
    settings: SetOption = None,
    pressure: PressureOption = None,
    ranked: Annotated[
        Path | None,
        typer.Option("--ranked", help="Write each minimum once, the lowest enthalpy first.", show_default=False),
    ] = None,
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
    write_jobs: Annotated[
        Path | None,
        typer.Option("--write-jobs", help="Relax nothing: write input files of vasp or espresso.", show_default=False),
    ] = None,
    read_jobs: Annotated[
        Path | None,
        typer.Option("--read-jobs", help="Relax nothing: read what came of them.", show_default=False),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Relax atoms and cell under pressure; energies, enthalpies, volumes and stresses go into --out with them.

    Results are kept in --work (by default OUT.work) as they come: started again after a kill, it goes on there.

    \b
    Examples:
      dpcdvae relax crystals.extxyz --pressure 10 --out relaxed.extxyz --ranked minima.extxyz
      dpcdvae relax crystals/ --calculator chgnet,gpaw --settings paper-carbon --out relaxed.extxyz
      dpcdvae relax crystals/ --calculator mace.calculators:mace_mp --out relaxed.extxyz
      dpcdvae relax crystals/ --calculator vasp --settings paper-carbon --write-jobs jobs
      dpcdvae relax --read-jobs jobs --out relaxed.extxyz
    """
    from dpcdvae.io import check_destination, read
    from dpcdvae.parallel import engine_for
    from dpcdvae.relaxation.batching import check_one_process

    check_one_process(batch, workers, scheduler)
    if (crystals is None) == (read_jobs is None):
        raise InputError("give the crystals, or --read-jobs FOLDER with what came of them")
    failures: list[Failure] = []
    if write_jobs is not None:
        stages = stages_of(calculator, calculator_option, settings, pressure, optimizer, fmax, smax, steps)
        if out is not None or ranked is not None or work is not None:
            raise InputError("--write-jobs relaxes nothing: leave out --out, --ranked and --work")
        _write_jobs(crystals, stages, write_jobs, failures)
        return
    if out is None:
        raise InputError("where to write? give --out FILE")
    check_distinct(out, ranked)
    for output in filter(None, (out, ranked)):
        check_destination(output, overwrite=overwrite)
    with engine_for(workers, scheduler) as engine:
        if crystals is not None:
            stages = stages_of(calculator, calculator_option, settings, pressure, optimizer, fmax, smax, steps)
            given = read(crystals, failures)
            if not given:
                raise InputError(f"none of the crystals in {crystals} could be read: {failures[0]}")
            work = work or out.with_name(out.name + ".work")
            results = relax_in_stages(given, stages, work, retry, engine, batch, time_limit)
        else:
            from dpcdvae.relaxation.jobs import job_settings
            from dpcdvae.relaxation.jobs import read_jobs as results_of

            assert read_jobs is not None
            stages, results = [job_settings(read_jobs)], results_of(read_jobs)
        arguments = arguments_of(stages, crystals=crystals, read_jobs=read_jobs, work=work, time_limit=time_limit)
        _write_results(results, failures, arguments, out, ranked, overwrite, engine)


def _write_jobs(crystals: Path | None, stages: Sequence[Settings], folder: Path, failures: list[Failure]) -> None:
    from dpcdvae.io import read
    from dpcdvae.relaxation.jobs import write_jobs

    if crystals is None or len(stages) > 1:
        raise InputError("--write-jobs takes crystals and one calculator")
    given = read(crystals, failures)
    write_jobs(given, stages[0], folder)
    for failure in failures[:5]:
        print(f"not read: {failure}", file=sys.stderr)
    print(f"{folder}: {len(given)} jobs")


def _write_results(
    results: Sequence[Relaxed],
    failures: Sequence[Failure],
    arguments: dict[str, Any],
    out: Path,
    ranked: Path | None,
    overwrite: bool,
    engine: Engine,
) -> None:
    from rich.console import Console

    from dpcdvae.files import sha256, write_manifest
    from dpcdvae.io import write
    from dpcdvae.relaxation.ranking import rank

    Console(width=None if sys.stdout.isatty() else 120).print(_summary(results, failures))
    usable = [result for result in results if math.isfinite(result.energy)]
    if not usable:
        raise InputError(f"none of {len(results)} crystals could be relaxed: {results[0].reason}")
    facts = {
        "crystals_sha256": sha256(arguments["crystals"] or arguments["read_jobs"] / "jobs.json"),
        "crystals": len(usable),
        "converged": sum(result.converged for result in results),
        "failures": [{"id": failure.id, "reason": failure.reason} for failure in failures]
        + [{"id": r.initial.id, "reason": r.reason} for r in results if not math.isfinite(r.energy)],
    }
    write((result.to_crystal() for result in usable), out, overwrite=overwrite)
    write_manifest(out, "relax", arguments, **facts)
    print(f"{out}: {len(usable)} crystals")
    if ranked is not None:
        minima = rank(results, engine=engine)
        if not minima:
            raise InputError(f"nothing to rank: none of {len(results)} crystals converged")
        write((minimum.to_crystal() for minimum in minima), ranked, overwrite=overwrite)
        write_manifest(ranked, "relax", arguments, **{**facts, "crystals": len(minima), "failures": []})
        print(f"{ranked}: {len(minima)} different minima")


def stages_of(
    calculators: str,
    options: Sequence[str] | None,
    set_name: str | None,
    pressure: float | None,
    optimizer: str,
    fmax: float | None,
    smax: float | None,
    steps: int,
) -> list[Settings]:
    """One for each calculator. Options and set are the last one's; those before come as near as is their default."""
    from dpcdvae.relaxation.calculators import CALCULATORS
    from dpcdvae.relaxation.dft import SETTINGS
    from dpcdvae.relaxation.minimise import Settings

    names = [name.strip() for name in calculators.split(",")]
    chosen = parse_options(options or ())
    rules: dict[str, Any] = {}
    if set_name is not None:
        if names[-1] not in CALCULATORS or not CALCULATORS[names[-1]].writes_files:
            raise InputError(f"--settings is for a DFT code, and {names[-1]} is none: leave it out")
        default = SETTINGS[set_name]
        chosen["settings"] = set_name
        rules = {"pressure": default.pressure, "max_force": default.max_force, "max_stress": default.max_stress}
    given = {"pressure": pressure, "max_force": fmax, "max_stress": smax}
    rules |= {name: value for name, value in given.items() if value is not None}
    last = Settings(names[-1], chosen, optimizer=optimizer, max_steps=steps, **rules)
    first = [Settings(name, pressure=last.pressure, optimizer=optimizer, max_steps=steps) for name in names[:-1]]
    return [*first, last]


def relax_in_stages(
    crystals: Sequence[Crystal],
    stages: Sequence[Settings],
    work: Path | None,
    retry: bool,
    engine: Engine,
    batch: int,
    time_limit: float,
) -> list[Relaxed]:
    """Each stage starts where the one before ended, keeps its results in a folder of its own, and compares with
    the crystals as they were generated."""
    from dpcdvae.relaxation.calculators import batch_evaluator, build_calculator, check_elements
    from dpcdvae.relaxation.campaign import relax_all

    for stage in stages[1:]:  # the first one's is built at once; these would be missed hours later
        calculator = build_calculator(stage.calculator, stage.options)
        check_elements(stage.calculator, calculator, crystals)
        if batch > 1:
            batch_evaluator(stage.calculator, calculator)
    results: list[Relaxed] = []
    for number, stage in enumerate(stages, 1):
        folder = work if work is None or len(stages) == 1 else work / f"{number}-{stage.calculator.replace(':', '.')}"
        starts = [result.final for result in results] if results else None
        results = relax_all(
            crystals, stage, work=folder, starts=starts, engine=engine, batch=batch, time_limit=time_limit,
            retry=retry,
        )  # fmt: skip
    return results


def arguments_of(stages: Sequence[Settings], **more: Any) -> dict[str, Any]:
    """For the manifest: all that was chosen, defaults included; ``calculator`` is the one whose energies they are."""
    return {"calculator": stages[-1].calculator, "stages": [stage.to_json() for stage in stages], **more}


def _summary(results: Sequence[Relaxed], failures: Sequence[object]) -> RenderableType:
    import numpy as np
    from rich.console import Group
    from rich.table import Table

    converged = [result for result in results if result.converged]
    table = Table(title=f"{len(converged)} of {len(results) + len(failures)} crystals converged", title_justify="left")
    for header in ("median of the converged", "before", "after"):
        table.add_column(header, justify="left" if header.startswith("median") else "right")
    rows = (
        ("energy (eV/atom)", "initial_energy", "energy"),
        ("enthalpy (eV/atom)", "initial_enthalpy", "enthalpy"),
        ("volume (Å^3/atom)", "initial_volume", "volume"),
        ("steps", "", "steps"),
        ("time (s)", "", "seconds"),
    )
    for title, before, after in rows if converged else ():
        medians = [np.median([getattr(r, name) for r in converged]) if name else None for name in (before, after)]
        table.add_row(
            title, *(f"{value:.4f}" if value is not None and math.isfinite(value) else "" for value in medians)
        )
    reasons = Counter(r.reason.split(" (")[0].split(", at ")[0] for r in results if not r.converged)
    lines = [f"not converged: {count} × {reason}" for reason, count in reasons.most_common()]
    lines += [f"could not be read: {len(failures)}"] if failures else []
    return Group(table, *lines) if converged else Group(str(table.title), *lines)
