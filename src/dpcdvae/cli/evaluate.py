"""``dpcdvae evaluate``: numbers about anyone's crystals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dpcdvae.cli.energies import HullEnergies, energy_model_of
from dpcdvae.cli.groups import Call, option
from dpcdvae.cli.options import Column, Crystals, Json, Overwrite, Processes, Seed, complete_datasets, complete_models
from dpcdvae.cli.outputs import check_paths, console, write_together
from dpcdvae.errors import InputError
from dpcdvae.parallel import TIME_LIMIT


def complete_references() -> list[str]:
    return [*complete_datasets(), *complete_models()]


def evaluate(
    *,
    call: Call,
    crystals: Crystals,
    reference: str = option(
        ..., "DATASET[:split], a file of crystals, or a MODEL.", autocompletion=complete_references
    ),
    processes: Processes,
    hull: HullEnergies,
    paired: bool = option(False, "Each crystal reconstructs one of the reference, found by id or order.", "--paired"),
    json: Json = None,
    markdown: Path | None = option(None, "Write the table here too, for a paper."),
    table: Path | None = option(None, "Write a row for each crystal here (.csv or .parquet)."),
    picture: Path | None = option(None, "Draw the first sixteen crystals (.svg, .pdf or .png)."),
    protocol: str = option(
        "full", "full: every number; cdvae: those of CDVAE's tables, as published; stability: those of the hull."
    ),
    training: str | None = option(
        None,
        "Training set of the generator, named as in --reference, for novelty and baselines.",
        shown="the training split, if the reference is a split of a data set",
    ),
    baselines: str | None = option(
        None,
        "The same numbers for other crystals: reference, training, substitution; or none.",
        shown="reference,training, as far as there are",
    ),
    time_limit: float = option(TIME_LIMIT, "Seconds of CPU time for one comparison or fingerprint.", min=0.1),
    cutoffs: tuple[float, float] | None = option(
        None,
        "Distances of structure and composition that count as covered.",
        shown="the data set's",
        metavar="<float> <float>",
    ),
    energy_model: str | None = option(None, "A property model, for the distribution of energies."),
    symmetry: str = option("reduced", "Method for space groups: reduced, or pymatgen (its SpacegroupAnalyzer)."),
    relaxed: Path | None = option(None, "The same crystals after relaxation, for the RMSD to them."),
    all_: bool = option(False, "Show every number, not only the headline.", "--all"),
    column: Column = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate crystals: validity, distances to a reference, coverage, matches, uniqueness, novelty.

    \b
    Examples:
      dpcdvae evaluate crystals/ --reference perov_5:test
      dpcdvae evaluate reconstructed.extxyz --reference perov_5:test --paired --json numbers.json
      dpcdvae evaluate crystals/ --reference perov_5:test --protocol cdvae --markdown table.md
      dpcdvae evaluate relaxed.extxyz --reference mp_20:test --phases phases.csv --energy-property energy_eV_per_atom
    """
    from dpcdvae.drawing.figures import check_figure, write_figure
    from dpcdvae.evaluation import evaluate as score
    from dpcdvae.evaluation import read_generated, resolve_reference
    from dpcdvae.evaluation.crystal_rows import check_table, write_table
    from dpcdvae.files import check_output, sha256, write_json, write_text
    from dpcdvae.io import CrystalList, columns_of
    from dpcdvae.model_store import find_property_model

    outputs = [output for output in (json, markdown, table, picture) if output is not None]
    check_paths(outputs, [crystals, reference, training, hull.phases, relaxed])
    for output in outputs:
        check_output(output, overwrite=overwrite)
        if output.is_dir():
            raise InputError(f"{output} is a folder: name a file in it")
    if table is not None:
        check_table(table)
    if picture is not None:
        check_figure(picture)
    hull.check()
    energy = None if energy_model is None else find_property_model(energy_model)
    engine = processes.engine()
    columns = columns_of(column, [crystals, reference, training or ""])
    target = resolve_reference(reference, columns[1])
    learnt = None if training is None else resolve_reference(training, columns[2])
    generated = read_generated(crystals, columns[0])
    figure = None
    if picture is not None:
        from dpcdvae.drawing.picture import draw

        figure = draw(generated.crystals)  # what cannot be drawn is said before any work
    after = None if relaxed is None else read_generated(relaxed)
    # Of what was read, not of what lies there when the work is done.
    hashes = {"crystals_sha256": sha256(crystals), **({} if relaxed is None else {"relaxed_sha256": sha256(relaxed)})}
    stability = hull.load(generated.crystals, crystals)
    if paired and generated.part:
        target = target.only(generated.ids)
    with engine:
        report = score(
            generated.crystals,
            target,
            failures=generated.failures,
            training=learnt,
            paired=paired,
            protocol=protocol,
            baselines=_names(baselines),
            cutoffs=cutoffs,
            energy_model=None if energy is None else energy_model_of(energy, target, engine, time_limit),
            stability=stability,
            symmetry=symmetry,
            relaxed=None if after is None else CrystalList(after.crystals, after.failures),
            engine=engine,
            time_limit=time_limit,
            seed=seed,
        )
        rows = report.crystals() if table is not None else {}
    screen = console()
    if all_ or protocol != "full":
        screen.print(report.table(screen.width))
    else:
        screen.print(report.headline())
        print("every number: --all, --json FILE or --markdown FILE")
    phases = None if stability is None else stability.phases
    used = {"reference": target, "training": learnt, "energy_model": energy, "phases": phases}
    facts = hashes | {f"{name}_sha256": source.sha256 for name, source in used.items() if source is not None}
    writers: dict[Path | None, Callable[[Path], object]] = {
        json: lambda path: write_json(path, report.to_json()),
        markdown: lambda path: write_text(path, report.markdown()),
        table: lambda path: write_table(rows, path),
    }
    if figure is not None:
        writers[picture] = partial(write_figure, figure)
    write_together(call, writers, facts)


def _names(baselines: str | None) -> list[str] | None:
    """The names in ``--baselines``; None for the default ones."""
    return None if baselines is None else [name.strip() for name in baselines.split(",") if name.strip() != "none"]
