"""``dpcdvae stability``: relaxation, convex hull and S.U.N. in one command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dpcdvae.cli.groups import Call, option
from dpcdvae.cli.options import Column, Crystals, Json, Overwrite, Processes, Seed
from dpcdvae.cli.outputs import check_paths, console, write_crystals, write_together
from dpcdvae.cli.relaxing_options import Relaxing, facts_of_relaxations, read_some, usable_of
from dpcdvae.errors import InputError


def stability(
    *,
    call: Call,
    crystals: Crystals,
    phases: Path = option(..., "Reference phases, with energies of the same method as the calculator's."),
    relaxing: Relaxing,
    processes: Processes,
    training: str | None = option(None, "Training set of the generator, for S.U.N.: DATASET[:split] or a file."),
    out: Path | None = option(None, "Write the relaxed crystals."),
    table: Path | None = option(None, "Write a row for each crystal (.csv)."),
    json: Json = None,
    column: Column = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Relax crystals and tell which are stable, unique and novel, and how far they were from their minima.

    Results are kept in --work (by default CRYSTALS.work) as they come: started again after a kill, it goes on there.

    \b
    Examples:
      dpcdvae stability crystals.extxyz --calculator chgnet --phases phases.csv --training mp_20:train --table table.csv
      dpcdvae stability crystals.extxyz --phases phases.json --work campaign --json numbers.json --out relaxed.extxyz
    """
    from dpcdvae.evaluation import read_phases, resolve_reference
    from dpcdvae.evaluation.crystal_rows import write_table
    from dpcdvae.files import check_output, sha256, work_folder, write_json
    from dpcdvae.io import check_destination
    from dpcdvae.relaxation.batching import check_one_process
    from dpcdvae.screening import against_hull, check_elements

    check_one_process(relaxing.batch, processes.workers, processes.scheduler)
    check_paths([out, table, json, relaxing.work], [crystals, phases, training])
    for output in filter(None, (table, json)):
        check_output(output, overwrite=overwrite)
    if out is not None:
        check_destination(out, overwrite=overwrite)
    if table is not None and table.suffix.lower() != ".csv":
        raise InputError(f"{table}: the table is written as .csv")
    stages, hull = relaxing.stages(), read_phases(phases)
    learnt = None if training is None else resolve_reference(training)
    generated = read_some(crystals, column)
    check_elements(generated.crystals, hull)
    facts = {"crystals_sha256": sha256(crystals), "phases_sha256": hull.sha256, "part": generated.part}
    if learnt is not None:
        facts["training_sha256"] = learnt.sha256
    with processes.engine() as engine:
        relaxed, call = relaxing.run(generated.crystals, stages, call, work_folder(crystals), engine)
        result = against_hull(
            relaxed,
            hull,
            stages[-1].calculator,
            failures=generated.failures,
            training=learnt,
            engine=engine,
            seed=seed,
        )
        columns = result.crystals()
    screen = console()
    screen.print(result.table(screen.width))
    final = [item.to_crystal() for item in usable_of(relaxed)]
    if out is not None and not final:
        raise InputError(f"none of {len(relaxed)} crystals could be relaxed: leave out --out for the other outputs")
    writers: dict[Path | None, Callable[[Path], object]] = {
        json: lambda path: write_json(path, result.to_json()),
        table: lambda path: write_table(columns, path),
    }
    write_together(call, writers, facts)
    if out is not None:
        facts |= facts_of_relaxations(relaxed, generated.failures)
        write_crystals(call, final, out, facts, overwrite=overwrite)
