"""``dpcdvae evaluate``: numbers about anyone's crystals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpcdvae.cli.common import OverwriteOption, SchedulerOption, SeedOption, WorkersOption, check_apart, check_distinct
from dpcdvae.cli.stability import (
    CalculatorOption,
    CalculatorOptionsOption,
    EnergyPropertyOption,
    PhasesOption,
    load_stability,
)
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from dpcdvae.evaluation import EnergyModel, Reference
    from dpcdvae.parallel import Engine


def evaluate(
    crystals: Annotated[
        Path, typer.Argument(help="File, folder or zip of crystals in any format.", show_default=False)
    ],
    reference: Annotated[
        str, typer.Option("--reference", help="DATASET[:split], a file of crystals, or a MODEL.", show_default=False)
    ],
    paired: Annotated[
        bool, typer.Option("--paired", help="Crystal k reconstructs one of the reference, found by id or order.")
    ] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Write all numbers here too, for machines.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write the table here too, for a paper.")] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Write a row for each crystal here (.csv or .parquet).")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw the first sixteen crystals (PNG).")] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", help="full: every number; cdvae: those of CDVAE's tables, as published.")
    ] = "full",
    training: Annotated[
        str | None,
        typer.Option(
            "--training",
            help="What the generator has learnt from, given like --reference: for novelty and baselines.  "
            "[default: the training split, if the reference is a split of a data set]",
            show_default=False,
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            "--baselines",
            help="Take the same numbers of other crystals: of reference, training, substitution; or none.  "
            "[default: reference,training, as far as there are]",
            show_default=False,
        ),
    ] = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.1, help="Seconds for one comparison or fingerprint.")
    ] = 60.0,
    cutoffs: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--cutoffs",
            help="Distances of structure and composition that count as covered.  [default: the data set's]",
            show_default=False,
        ),
    ] = None,
    energy_model: Annotated[
        str | None,
        typer.Option("--energy-model", help="A property model, for the distribution of energies.", show_default=False),
    ] = None,
    phases: PhasesOption = None,
    energy_property: EnergyPropertyOption = None,
    calculator: CalculatorOption = None,
    calculator_option: CalculatorOptionsOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Tell how good crystals are: validity, distances to a reference, coverage, matches, uniqueness, novelty.

    \b
    Examples:
      dpcdvae evaluate crystals/ --reference perov_5:test
      dpcdvae evaluate reconstructed.extxyz --reference perov_5:test --paired --json numbers.json
      dpcdvae evaluate crystals/ --reference perov_5:test --protocol cdvae --markdown table.md
      dpcdvae evaluate relaxed.extxyz --reference mp_20:test --phases phases.csv --energy-property energy_eV_per_atom
    """
    from rich.console import Console

    from dpcdvae.evaluation import evaluate as score
    from dpcdvae.evaluation import read_generated, resolve_reference
    from dpcdvae.evaluation.crystal_table import check_table, write_table
    from dpcdvae.files import check_output, sha256, write_json, write_manifest, write_text
    from dpcdvae.parallel import engine_for

    outputs = [output for output in (json, markdown, table, picture) if output is not None]
    check_distinct(*outputs)
    check_apart(outputs, [crystals, reference, training, phases])
    for output in outputs:
        check_output(output, overwrite=overwrite)
        if output.is_dir():
            raise InputError(f"{output} is a folder: name a file in it")
    if table is not None:
        check_table(table)
    if picture is not None and picture.suffix.lower() != ".png":
        raise InputError(f"{picture}: a picture is written as .png")
    engine = engine_for(workers, scheduler)
    generated = read_generated(crystals)
    target = resolve_reference(reference)
    stability = load_stability(phases, energy_property, calculator, calculator_option, generated.crystals, crystals)
    if paired and generated.part:
        target = target.only(generated.ids)
    with engine:
        report = score(
            generated.crystals, target, paired=paired, failures=generated.failures, protocol=protocol,
            training=training, baselines=_names(baselines),
            engine=engine, seed=seed, time_limit=time_limit, cutoffs=cutoffs,
            energy_model=_load_energy_model(energy_model, target, engine, time_limit) if energy_model else None,
            stability=stability,
        )  # fmt: skip
        columns = report.crystals() if table is not None else {}
    # Into a file or a pipe the table comes whole, whatever the width of the terminal.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(report.table(console.width))
    arguments = {
        "crystals": crystals, "reference": reference, "paired": paired, "protocol": protocol,
        "training": training, "baselines": baselines, "workers": workers, "scheduler": scheduler,
        "time_limit": time_limit, "cutoffs": cutoffs, "energy_model": energy_model,
        "phases": phases, "energy_property": energy_property, "calculator": calculator,
        "calculator_option": calculator_option, "seed": seed,
    }  # fmt: skip
    facts = {"crystals_sha256": sha256(crystals), "reference_sha256": target.sha256}
    if stability is not None:
        facts["phases_sha256"] = stability.phases.sha256
    if json is not None:
        write_json(json, report.to_json())
    if markdown is not None:
        write_text(markdown, report.markdown())
    if table is not None:
        write_table(columns, table)
    if picture is not None:
        from dpcdvae.report.picture import draw

        draw(generated.crystals, picture)
    for output in outputs:
        write_manifest(output, "evaluate", arguments, **facts)


def _names(baselines: str | None) -> list[str] | None:
    """None for the default ones."""
    return None if baselines is None else [name.strip() for name in baselines.split(",") if name.strip() != "none"]


def _load_energy_model(name: str, reference: Reference, engine: Engine, time_limit: float) -> EnergyModel:
    """Raises InputError where it was trained for other crystals or another property than the reference's."""
    from dpcdvae.checkpoints.checkpoint import load_regressor
    from dpcdvae.evaluation import EnergyModel
    from dpcdvae.model.regressor import predict_crystals

    model = load_regressor(name, "cpu")
    if reference.energy and reference.energy != model.target:
        raise InputError(
            f"--energy-model {name} predicts '{model.target}', but {reference.dataset}'s energy is "
            f"'{reference.energy}': train one with dpcdvae train {reference.dataset} --preset energy"
        )
    numbers = {int(z) for crystal in reference.crystals or () for z in crystal.atomic_numbers}
    if unknown := model.unknown_elements(sorted(numbers)):
        symbols = ", ".join(unknown[:8]) + (" ..." if len(unknown) > 8 else "")
        raise InputError(
            f"--energy-model {name} was trained without {symbols}, which {reference.source} holds: "
            "it is a model for another data set"
        )
    return EnergyModel(
        name, model.target, lambda crystals: predict_crystals(model, crystals, engine=engine, time_limit=time_limit)
    )
