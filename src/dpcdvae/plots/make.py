"""One figure of a training run, an evaluation or relaxed crystals: all plots of it that what is given allows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.arguments import checked
from dpcdvae.drawing.figures import DPI, check_dpi, check_figure, new_figure, style, write_figure
from dpcdvae.errors import InputError, listed
from dpcdvae.evaluation import EnergyModel, Report, read_generated
from dpcdvae.evaluation.metrics.matching import pairs
from dpcdvae.evaluation.reference import as_reference, training_of
from dpcdvae.evaluation.sample import Sample
from dpcdvae.evaluation.scoring import AnyReference
from dpcdvae.io import CrystalsLike, Failure, as_crystals, read_placed
from dpcdvae.parallel import TIME_LIMIT, Engine, engine_for
from dpcdvae.parallel.results import Results, default_cache
from dpcdvae.plots.of_relaxations import RelaxedSet
from dpcdvae.plots.plot_table import PLOTS
from dpcdvae.plots.report_call import report_in
from dpcdvae.relaxation.ground_state import SCHEMA as GROUND_STATE
from dpcdvae.relaxation.ground_state import GroundState
from dpcdvae.report_files import json_in
from dpcdvae.run_log import RunLog, is_run, read_run
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.space_groups import REDUCED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dpcdvae.plots.plot_table import Panel

Subject = RunLog | Sample | RelaxedSet

WIDTH, HEIGHT, COLUMNS = 3.5, 2.9, 2  # inches of a panel: two are as wide as a page


@checked
def plot(
    source: Report | GroundState | CrystalsLike,
    path: str | Path | None = None,
    *,
    only: Sequence[str] | None = None,
    reference: AnyReference | None = None,
    paired: bool = False,
    training: AnyReference | None = None,
    energy_model: EnergyModel | None = None,
    symmetry: str = REDUCED,
    column: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    engine: Engine | None = None,
    time_limit: float = TIME_LIMIT,
    dpi: int = DPI,
) -> Figure:
    """Plots of a training run, of an evaluation, or of relaxed crystals. A notebook shows the figure.

    Example:
        >>> dpcdvae.plot(report, "report.svg")
        >>> dpcdvae.plot("runs/perov", only=["loss"])

    Args:
        source: the folder of a run; a report, or its JSON, whose crystals its manifest names; crystals with a
            ``reference``; crystals that :func:`dpcdvae.relax` gave, or a :class:`~dpcdvae.GroundState` or its JSON.
        path: ``.svg``, ``.pdf`` or ``.png``: the figure is written there too; what is there is replaced.
        only: names of :data:`~dpcdvae.plots.PLOTS`; by default all of which there is what they need.
        reference, paired, training, energy_model, symmetry, seed, time_limit: as :func:`dpcdvae.evaluate` takes them,
            for crystals. column: of crystals in tables.
        workers: processes, by default one for each core; 0 for none.
        engine: where else to compute.
        dpi: dots per inch of a PNG.

    Raises:
        InputError: an unknown name, a source without what a named plot needs or without any plot, a run without
            epochs, or ``path`` cannot be written.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    check_dpi(dpi)
    if path is not None:
        check_figure(path)
    wanted = {name: PLOTS[name] for name in only} if only else None
    used = engine_for(workers) if engine is None else engine
    with used if engine is None else nullcontext():
        results = Results(used, time_limit, default_cache())
        subject = _subject(source, reference, paired, training, energy_model, symmetry, column, seed, results)
        if wanted is None:
            made = {name: entry.make(subject) for name, entry in PLOTS.items() if isinstance(subject, entry.of)}
            panels: list[Panel] = [panel for panel in made.values() if not isinstance(panel, str)]
            if not panels:
                raise InputError(f"nothing to plot: {next(iter(made.values()))}")
        else:
            panels = [_named(name, subject) for name in wanted]
    with style():
        columns = min(COLUMNS, len(panels))
        rows = -(-len(panels) // columns)
        figure = new_figure(
            WIDTH * columns,
            HEIGHT * rows,
            layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, hspace=0.06, wspace=0.04),
        )
        for place, panel in enumerate(panels):
            panel(figure.add_subplot(rows, columns, place + 1))
    if path is not None:
        write_figure(figure, path, dpi)
    return figure


def _named(name: str, subject: Subject) -> Panel:
    """Raises InputError where the subject lacks what the plot needs."""
    entry = PLOTS[name]
    if not isinstance(subject, entry.of):
        others = [other for other, plot in PLOTS.items() if isinstance(subject, plot.of)]
        raise InputError(f"there is no plot {name} of this: choose from {listed(others)}")
    panel = entry.make(subject)
    if isinstance(panel, str):
        raise InputError(f"no plot {name}: {panel}")
    return panel


def _subject(
    source: Any,
    reference: Any,
    paired: bool,
    training: Any,
    energy_model: EnergyModel | None,
    symmetry: str,
    column: str | None,
    seed: int,
    results: Results,
) -> Subject:
    """What there are plots of."""
    path = Path(source) if isinstance(source, str | Path) else None
    given = reference is not None or paired or training is not None or energy_model is not None
    call = None if path is None else report_in(path)
    if call is not None:
        if given:
            raise InputError(f"{path} is a report, whose manifest says what to compare: give its crystals instead")
        path, reference, paired, training = call.crystals, call.reference, call.paired, call.training
        symmetry, seed, column = call.symmetry, call.seed, call.column
    elif (known := _known(source, path)) is not None:
        if given:
            raise InputError(
                "reference, paired, training and energy_model are only for crystals, not for "
                f"{path or 'a ' + type(source).__name__}"
            )
        return replace(known, results=results, given_up=[], _derived={}) if isinstance(known, Sample) else known
    if reference is None:
        # Of the forces that relax writes there is no plot, so nobody is told that they are left out.
        of_file = None if path is None else read_placed(path, [], notes=False)[0]
        relaxed = RelaxedSet.of_crystals(as_crystals(source) if of_file is None else of_file)
        if relaxed is None:
            raise InputError(
                f"nothing to plot of {path or 'these crystals'}: give --reference, what they are compared with, or "
                "crystals that dpcdvae relax wrote"
            )
        return relaxed
    against = as_reference(reference)
    if call is not None:
        call.check(against)
    if path is None:
        crystals: Sequence[Crystal] = (found := as_crystals(source))
        failures: Sequence[Failure] = found.failures
    else:
        generated = read_generated(path, column)
        crystals, failures = generated.crystals, generated.failures
        against = against.only(generated.ids) if paired and generated.part else against
    learnt = training_of(against) if training is None else as_reference(training)
    sample = Sample(
        crystals, failures, against, paired, results, seed,
        energy_model=energy_model, training=learnt, symmetry=symmetry,
    )  # fmt: skip
    if paired:
        sample.once(pairs)  # which must fit
    return sample


def _known(source: Any, path: Path | None) -> Subject | None:
    """The subject that needs no reference; None for crystals."""
    if isinstance(source, Report):
        return source.sample
    if isinstance(source, GroundState):
        return RelaxedSet.of_ground_state(source.to_json())
    if path is None:
        return None
    if is_run(path):
        return read_run(path)
    content = json_in(path)
    if not isinstance(content, dict) or content.get("schema") != GROUND_STATE:
        return None
    try:
        return RelaxedSet.of_ground_state(content)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{path} is not what ground-state --json writes: write it again") from None
