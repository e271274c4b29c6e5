"""``dpcdvae relax``, ``dpcdvae ground-state``."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpcdvae.cli.groups import Call, argument, option
from dpcdvae.cli.options import Column, Crystals, Json, Overwrite, Processes, Seed, Symmetrise
from dpcdvae.cli.outputs import check_paths, console, write_crystals, write_report
from dpcdvae.cli.relaxing_options import (
    Relaxing,
    facts_of_relaxations,
    read_some,
    relaxes_nothing,
    resolved,
    usable_of,
)
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dpcdvae.evaluation import Generated
    from dpcdvae.io import Failure
    from dpcdvae.parallel import Engine
    from dpcdvae.relaxation.minimise import Settings
    from dpcdvae.relaxation.relaxed_crystal import Relaxed


def relax(
    *,
    call: Call,
    crystals: Path | None = argument(None, "File, folder or zip of crystals (not with --read-jobs)."),
    out: Path | None = option(None, "Where to write; must not exist yet."),
    relaxing: Relaxing,
    processes: Processes,
    ranked: Path | None = option(None, "Write each minimum once, the lowest enthalpy first."),
    write_jobs: Path | None = option(None, "Relax nothing: write input files of vasp or espresso."),
    read_jobs: Path | None = option(None, "Relax nothing: read the results of these jobs."),
    column: Column = None,
    symmetrise: Symmetrise = None,
    overwrite: Overwrite = False,
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
      dpcdvae relax crystals/ --symmetrise 0.05 --out relaxed/
    """
    from dpcdvae.files import sha256, work_folder
    from dpcdvae.io import check_destination
    from dpcdvae.relaxation.batching import check_one_process
    from dpcdvae.relaxation.jobs import read_jobs as results_of

    if (crystals is None) == (read_jobs is None):
        raise InputError("give the crystals, or --read-jobs FOLDER with what came of them")
    if write_jobs is not None:
        others = {"--read-jobs": read_jobs, "--out": out, "--ranked": ranked, "--symmetrise": symmetrise}
        given = [name for name, value in others.items() if value is not None]
        relaxes_nothing(
            "--write-jobs", given + relaxing.given("optimizer", "fix_symmetry", "work", "retry", "time_limit", "batch")
        )
    elif read_jobs is not None:
        relaxes_nothing("--read-jobs", relaxing.given() + ["--column"] * (column is not None))
    check_one_process(relaxing.batch, processes.workers, processes.scheduler)
    if crystals is not None:
        stages = relaxing.stages()
        if write_jobs is not None:
            _write_jobs(read_some(crystals, column), stages, write_jobs)
            return
    if out is None:
        raise InputError("where to write? give --out FILE")
    check_paths([out, ranked, relaxing.work], [crystals, read_jobs])
    for output in filter(None, (out, ranked)):
        check_destination(output, overwrite=overwrite, symmetrise=symmetrise)
    with processes.engine() as engine:
        if crystals is not None:
            generated = read_some(crystals, column)
            failures, part, digest = generated.failures, generated.part, sha256(crystals)
            results, call = relaxing.run(generated.crystals, stages, call, work_folder(out), engine)
        else:
            assert read_jobs is not None
            results, settings, failures, part = results_of(read_jobs)
            digest = sha256(read_jobs / "jobs.json")
            call = resolved(call, [settings])
            del call.arguments["stages"][0]["optimizer"]  # it was the code's own
        _write_results(call, results, failures, part, digest, out, ranked, symmetrise, overwrite, engine)


def ground_state(
    call: Call,
    crystals: Crystals,
    relaxing: Relaxing,
    processes: Processes,
    relaxed: Path | None = option(None, "The same crystals relaxed elsewhere: compare, relax nothing."),
    column: Column = None,
    json: Json = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Relax crystals and measure how far they were from their ground states: Table 3 of the paper.

    Results are kept in --work (by default JSON.work, or CRYSTALS.work) as they come: started again after a kill, it
    goes on there.

    \b
    Examples:
      dpcdvae ground-state crystals.extxyz --pressure 10 --work campaign --json table3.json
      dpcdvae ground-state crystals.extxyz --relaxed relaxed.extxyz --pressure 10
    """
    from dpcdvae.evaluation import read_generated
    from dpcdvae.files import check_output, sha256, work_folder
    from dpcdvae.io import columns_of, read
    from dpcdvae.relaxation.batching import check_one_process
    from dpcdvae.relaxation.from_files import pair_relaxed
    from dpcdvae.relaxation.ground_state import ground_state as compare

    check_one_process(relaxing.batch, processes.workers, processes.scheduler)
    check_paths([json, relaxing.work], [crystals, relaxed])
    if json is not None:
        check_output(json, overwrite=overwrite)
    stages, pressure = [], relaxing.pressure or 0.0
    if relaxed is not None:
        relaxes_nothing("--relaxed", [name for name in relaxing.given() if name != "--pressure"])
    else:
        stages = relaxing.stages()
    columns = columns_of(column, [path for path in (crystals, relaxed) if path is not None])
    generated = read_generated(crystals, columns[0])
    hashes = {name: sha256(path) for name, path in (("crystals", crystals), ("relaxed", relaxed)) if path is not None}
    with processes.engine() as engine:
        if relaxed is not None:
            results = pair_relaxed(generated.crystals, read(relaxed, column=columns[1]), pressure)
            call = call.resolved(pressure=pressure)
        else:
            results, call = relaxing.run(generated.crystals, stages, call, work_folder(json or crystals), engine)
        report = compare(results, failures=generated.failures, engine=engine, seed=seed)
    write_report(call, report, json, {f"{name}_sha256": digest for name, digest in hashes.items()})


def _write_jobs(generated: Generated, stages: Sequence[Settings], folder: Path) -> None:
    from dpcdvae.relaxation.jobs import Jobs, write_jobs

    if len(stages) > 1:
        raise InputError("--write-jobs takes one calculator")
    write_jobs(generated.crystals, stages[0], folder, failures=generated.failures, part=generated.part)
    failures = Jobs.of(folder).failures
    for failure in failures[:5]:
        print(f"no job: {failure.id} ({failure})", file=sys.stderr)
    without = len(failures) - len(generated.failures)
    left_out = f", {len(failures)} crystals without one" if failures else ""
    print(f"{folder}: {len(generated.crystals) - without} jobs{left_out}")


def _write_results(
    call: Call,
    results: Sequence[Relaxed],
    failures: Sequence[Failure],
    part: bool,
    digest: str,
    out: Path,
    ranked: Path | None,
    symmetrise: float | None,
    overwrite: bool,
    engine: Engine,
) -> None:
    from dpcdvae.relaxation.ranking import rank

    console().print(_summary(results, failures))
    if not (usable := usable_of(results)):
        raise InputError(f"none of {len(results)} crystals could be relaxed: {results[0].reason}")
    minima = rank(results, engine=engine) if ranked is not None else []
    if ranked is not None and not minima:
        raise InputError(f"nothing to rank: none of {len(results)} crystals converged: leave out --ranked")
    facts = {"crystals_sha256": digest, **facts_of_relaxations(results, failures), "part": part}
    final = [result.to_crystal() for result in usable]
    write_crystals(call, final, out, facts, overwrite=overwrite, symmetrise=symmetrise)
    print(f"{out}: {len(usable)} crystals")
    if ranked is not None:
        crystals = [minimum.to_crystal() for minimum in minima]
        write_crystals(
            call,
            crystals,
            ranked,
            {**facts, "failures": [], "not_converged": [], "initial_energy_unknown": []},
            overwrite=overwrite,
            symmetrise=symmetrise,
        )
        print(f"{ranked}: {len(minima)} different minima")


def _summary(results: Sequence[Relaxed], failures: Sequence[object]) -> RenderableType:
    import numpy as np
    from rich.console import Group
    from rich.table import Table

    from dpcdvae.relaxation.ground_state import reason_lines
    from dpcdvae.relaxation.relaxed_crystal import count_reasons

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
    lines += reason_lines(
        "converged, energy before unknown",
        count_reasons(r.initial_reason for r in results if r.converged and r.initial_reason),
    )
    lines += [f"could not be read or built: {len(failures)}"] if failures else []
    return Group(table, *lines) if converged else Group(str(table.title), *lines)
