"""``dpcdvae relax``, and what ``dpcdvae ground-state`` shares with it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcdvae.cli.common import OverwriteOption, SchedulerOption, WorkersOption, check_apart, check_distinct
from dpcdvae.cli.stability import CalculatorOptionsOption, parse_options
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dpcdvae.evaluation import Generated
    from dpcdvae.io import Failure
    from dpcdvae.parallel import Engine
    from dpcdvae.relaxation.minimise import Settings
    from dpcdvae.relaxation.relaxed import Relaxed

CalculatorOption = Annotated[
    str | None,
    typer.Option(
        "--calculator",
        help="chgnet, sevennet, gpaw, espresso, vasp, or any of ASE's as module:Class; several, with commas, in turn."
        "  [default: chgnet]",
        show_default=False,
    ),
]
SetOption = Annotated[
    str | None,
    typer.Option("--settings", help="Settings of a DFT code: paper-carbon or screening.", show_default=False),
]
PressureOption = Annotated[
    float | None, typer.Option("--pressure", help="GPa.  [default: the settings', or 0]", show_default=False)
]
OptimizerOption = Annotated[
    str | None, typer.Option("--optimizer", help="fire or lbfgs.  [default: fire]", show_default=False)
]
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
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Not converged by then is not converged.  [default: 1000]", show_default=False),
]
WorkOption = Annotated[
    Path | None,
    typer.Option("--work", help="Folder that keeps results, to go on after a kill.", show_default=False),
]
RetryOption = Annotated[
    bool, typer.Option("--retry", help="Try again what did not converge before; more --steps may be given.")
]
BatchOption = Annotated[
    int, typer.Option("--batch", min=1, help="Crystals computed together in this process, for a GPU; chgnet can.")
]
TimeLimitOption = Annotated[
    float | None,
    typer.Option("--time-limit", min=0.1, help="Seconds for one crystal.  [default: 3600]", show_default=False),
]


def relax(
    crystals: Annotated[
        Path | None,
        typer.Argument(help="File, folder or zip of crystals (not with --read-jobs).", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write; must not exist yet.", show_default=False)
    ] = None,
    calculator: CalculatorOption = None,
    calculator_option: CalculatorOptionsOption = None,
    settings: SetOption = None,
    pressure: PressureOption = None,
    ranked: Annotated[
        Path | None,
        typer.Option("--ranked", help="Write each minimum once, the lowest enthalpy first.", show_default=False),
    ] = None,
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
    from dpcdvae.io import check_destination
    from dpcdvae.parallel import engine_for
    from dpcdvae.relaxation.batching import check_one_process
    from dpcdvae.relaxation.campaign import TIME_LIMIT
    from dpcdvae.relaxation.jobs import job_origin, job_settings
    from dpcdvae.relaxation.jobs import read_jobs as results_of
    from dpcdvae.relaxation.stages import relax_in_stages

    if (crystals is None) == (read_jobs is None):
        raise InputError("give the crystals, or --read-jobs FOLDER with what came of them")
    how: dict[str, object] = {
        "--calculator": calculator, "--calculator-option": calculator_option, "--settings": settings,
        "--pressure": pressure, "--fmax": fmax, "--smax": smax, "--steps": steps,
    }  # fmt: skip
    live: dict[str, object] = {
        "--optimizer": optimizer, "--work": work, "--retry": retry, "--time-limit": time_limit, "--batch": batch > 1,
    }  # fmt: skip
    if write_jobs is not None:
        refuse_beside("--write-jobs", {"--read-jobs": read_jobs, "--out": out, "--ranked": ranked, **live})
    elif read_jobs is not None:
        refuse_beside("--read-jobs", how | live)
    check_one_process(batch, workers, scheduler)
    if crystals is not None:
        stages = stages_from(calculator, calculator_option, settings, pressure, optimizer, fmax, smax, steps)
        if write_jobs is not None:
            _write_jobs(_read(crystals), stages, write_jobs)
            return
    if out is None:
        raise InputError("where to write? give --out FILE")
    check_distinct(out, ranked, work)
    check_apart([out, ranked, work], [crystals, read_jobs])
    for output in filter(None, (out, ranked)):
        check_destination(output, overwrite=overwrite)
    with engine_for(workers, scheduler) as engine:
        if crystals is not None:
            generated = _read(crystals)
            failures, part = generated.failures, generated.part
            work = work or out.with_name(out.name + ".work")
            time_limit = time_limit or TIME_LIMIT
            results = relax_in_stages(
                generated.crystals, stages, work=work, engine=engine, batch=batch, time_limit=time_limit, retry=retry
            )
        else:
            assert read_jobs is not None
            stages, results = [job_settings(read_jobs)], results_of(read_jobs)
            failures, part = job_origin(read_jobs)
        arguments = arguments_of(stages, crystals=crystals, read_jobs=read_jobs, work=work, time_limit=time_limit)
        if read_jobs is not None:
            del arguments["stages"][0]["optimizer"]  # it was the code's own
        _write_results(results, failures, part, arguments, out, ranked, overwrite, engine)


def refuse_beside(option: str, others: Mapping[str, object]) -> None:
    """Raises InputError where an option is given beside one with which nothing is relaxed here."""
    if given := [name for name, value in others.items() if value is not None and value is not False]:
        raise InputError(f"{option} relaxes nothing here: leave out {', '.join(given)}")


def _read(crystals: Path) -> Generated:
    from dpcdvae.evaluation import read_generated

    generated = read_generated(crystals)
    if not generated.crystals:
        why = f": {generated.failures[0]}" if generated.failures else ""
        raise InputError(f"none of the crystals in {crystals} could be read{why}")
    return generated


def _write_jobs(generated: Generated, stages: Sequence[Settings], folder: Path) -> None:
    from dpcdvae.relaxation.jobs import write_jobs

    if len(stages) > 1:
        raise InputError("--write-jobs takes one calculator")
    write_jobs(generated.crystals, stages[0], folder, failures=generated.failures, part=generated.part)
    for failure in generated.failures[:5]:
        print(f"not read: {failure}", file=sys.stderr)
    print(f"{folder}: {len(generated.crystals)} jobs")


def _write_results(
    results: Sequence[Relaxed],
    failures: Sequence[Failure],
    part: bool,
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
        "failures": [asdict(failure) for failure in failures]
        + [{"id": r.initial.id, "reason": r.reason} for r in results if not math.isfinite(r.energy)],
        "not_converged": [
            {"id": r.initial.id, "reason": r.reason} for r in results if not r.converged and math.isfinite(r.energy)
        ],
        "part": part,
    }
    write((result.to_crystal() for result in usable), out, overwrite=overwrite)
    write_manifest(out, "relax", arguments, **facts)
    print(f"{out}: {len(usable)} crystals")
    if ranked is not None:
        minima = rank(results, engine=engine)
        if not minima:
            raise InputError(f"nothing to rank: none of {len(results)} crystals converged")
        write((minimum.to_crystal() for minimum in minima), ranked, overwrite=overwrite)
        write_manifest(
            ranked, "relax", arguments, **{**facts, "crystals": len(minima), "failures": [], "not_converged": []}
        )
        print(f"{ranked}: {len(minima)} different minima")


def stages_from(
    calculator: str | None,
    calculator_options: Sequence[str] | None,
    set_name: str | None,
    pressure: float | None,
    optimizer: str | None,
    fmax: float | None,
    smax: float | None,
    steps: int | None,
) -> list[Settings]:
    """The stages that the options of a command line ask for."""
    from dpcdvae.relaxation.calculators import DEFAULT
    from dpcdvae.relaxation.stages import stages_of

    rules = {
        "pressure": pressure, "optimizer": optimizer, "max_force": fmax, "max_stress": smax, "max_steps": steps,
    }  # fmt: skip
    return stages_of(
        calculator or DEFAULT, parse_options(calculator_options or ()), settings=set_name,
        **{name: value for name, value in rules.items() if value is not None},
    )  # fmt: skip


def arguments_of(stages: Sequence[Settings], **more: Any) -> dict[str, Any]:
    """For the manifest: all that was chosen, defaults included; ``calculator`` is the one whose energies they are."""
    return {"calculator": stages[-1].calculator, "stages": [stage.to_json() for stage in stages], **more}


def _summary(results: Sequence[Relaxed], failures: Sequence[object]) -> RenderableType:
    import numpy as np
    from rich.console import Group
    from rich.table import Table

    from dpcdvae.relaxation.ground_state import reason_lines
    from dpcdvae.relaxation.relaxed import count_reasons

    converged = [result for result in results if result.converged]
    table = Table(title=f"{len(converged)} of {len(results) + len(failures)} crystals converged", title_justify="left")
    for header in ("median of the converged", "before", "after"):
        table.add_column(header, justify="left" if header.startswith("median") else "right")
    rows = (
        ("energy (eV/atom)", "initial_energy", "energy", ".4f"),
        ("enthalpy (eV/atom)", "initial_enthalpy", "enthalpy", ".4f"),
        ("volume (Å^3/atom)", "initial_volume", "volume", ".4f"),
        ("steps", "", "steps", ".0f"),
        ("time (s)", "", "seconds", ".3g"),
    )
    for title, before, after, digits in rows if converged else ():
        medians = [
            float(np.median([getattr(r, name) for r in converged])) if name else math.nan for name in (before, after)
        ]
        table.add_row(title, *(format(value, digits) if math.isfinite(value) else "" for value in medians))
    lines = reason_lines("not converged", count_reasons(r.reason for r in results if not r.converged))
    lines += [f"could not be read or built: {len(failures)}"] if failures else []
    return Group(table, *lines) if converged else Group(str(table.title), *lines)
