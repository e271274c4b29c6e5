"""``dpcdvae plot``: curves of a run, distributions of an evaluation, energies of a relaxation."""

from __future__ import annotations

from pathlib import Path

from dpcdvae.cli.energies import energy_model_of
from dpcdvae.cli.evaluate import complete_references
from dpcdvae.cli.groups import Call, argument, option
from dpcdvae.cli.options import Column, Dpi, Out, Overwrite, Processes, Seed
from dpcdvae.cli.outputs import check_paths
from dpcdvae.drawing.figures import DPI
from dpcdvae.errors import InputError
from dpcdvae.parallel import TIME_LIMIT


def plot(
    *,
    call: Call,
    source: Path = argument(
        ...,
        "A run folder, the JSON of evaluate or ground-state, relaxed crystals, or crystals with --reference.",
        metavar="SOURCE",
    ),
    out: Out,
    processes: Processes,
    only: list[str] | None = option(
        None, "A plot by its name, repeatable.", shown="all that there is data for", autocompletion=lambda: _names()
    ),
    reference: str | None = option(
        None, "What crystals are compared with, as in evaluate.", autocompletion=complete_references
    ),
    paired: bool = option(False, "Each crystal reconstructs one of the reference.", "--paired"),
    training: str | None = option(None, "Training set of the generator, as in evaluate."),
    energy_model: str | None = option(None, "A property model, for the distribution of energies."),
    column: Column = None,
    time_limit: float = option(TIME_LIMIT, "Seconds of CPU time for one comparison.", min=0.1),
    seed: Seed = 0,
    dpi: Dpi = DPI,
    overwrite: Overwrite = False,
) -> None:
    """Plot a training run, an evaluation or relaxed crystals into one figure (.svg, .pdf or .png).

    A report is plotted with the crystals and the reference that its manifest names.

    \b
    Examples:
      dpcdvae plot runs/perov --out training.svg
      dpcdvae plot numbers.json --out evaluation.pdf
      dpcdvae plot crystals/ --reference perov_5:test --only density --only space-groups --out two.png
      dpcdvae plot relaxed.extxyz --out relaxation.svg
    """
    from dpcdvae.drawing.figures import check_figure
    from dpcdvae.evaluation import resolve_reference
    from dpcdvae.files import check_output, refuse_device, sha256
    from dpcdvae.io import columns_of
    from dpcdvae.model_store import find_property_model
    from dpcdvae.plots import PLOTS
    from dpcdvae.plots import plot as make_plot
    from dpcdvae.plots.report_call import ReportCall, report_in

    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    refuse_device(source)
    check_paths([out], [source, reference, training])
    check_output(check_figure(out), overwrite=overwrite)
    for name in only or ():
        PLOTS[name]
    compared = {"--reference": reference, "--paired": paired, "--training": training, "--energy-model": energy_model}
    given = [name for name, value in compared.items() if value]
    asked = ReportCall(source, reference or "", paired, training, energy_model, seed, column=column)
    if (behind := report_in(source)) is not None:
        if given:
            raise InputError(f"{source} is a report, whose manifest says {', '.join(given)}: give its crystals instead")
        asked = behind
    elif given and reference is None:
        raise InputError(f"{', '.join(given)}: only for crystals with a --reference")
    energy = None if asked.energy_model is None else find_property_model(asked.energy_model)
    crystals_column, reference_column = columns_of(asked.column, [asked.crystals, asked.reference])
    against = resolve_reference(asked.reference, reference_column) if asked.reference else None
    if against is not None:
        asked.check(against)
    facts = {"source_sha256": sha256(source)}
    with processes.engine() as engine:
        make_plot(
            asked.crystals,
            out,
            only=only,
            reference=against,
            paired=asked.paired,
            training=asked.training,
            energy_model=None
            if energy is None or against is None
            else energy_model_of(energy, against, engine, time_limit),
            symmetry=asked.symmetry,
            column=crystals_column,
            engine=engine,
            time_limit=time_limit,
            seed=asked.seed,
            dpi=dpi,
        )
    call.write_manifest(out, facts)


def _names() -> list[str]:
    from dpcdvae.plots import PLOTS

    return sorted(PLOTS)
