"""Plots of generated crystals against those of a reference: density, elements, energy, space groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpcdvae.drawing.figures import BLUE, GREY, LIGHT
from dpcdvae.drawing.picture import group_of
from dpcdvae.evaluation.baselines import BASELINES
from dpcdvae.evaluation.distributions import (
    total_variation,
    total_variation_interval,
    wasserstein,
    wasserstein_interval,
)
from dpcdvae.evaluation.metrics.distributions import predicted_energies, reference_energies
from dpcdvae.evaluation.metrics.symmetry import reference_space_groups, space_groups
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.plots.plot_table import head, plot_of
from dpcdvae.structures.summary import element_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dpcdvae.plots.plot_table import Panel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_BINS, FEWEST_BINS = 40, 8
MOST_GROUPS = 10
TAIL = 0.01
"""Of the generated crystals at each end: these may lie beyond the axis, and are counted then."""

NO_CRYSTALS = "none of the crystals has finite coordinates and a volume"


@plot_of(Sample, "density")
def _density(sample: Sample) -> Panel | str:
    """Histograms of the density, with the Wasserstein distance and what real crystals have."""
    real = sample.once(real_crystals)
    return _histograms(
        sample,
        "Density",
        "g/cm³",
        np.array([crystal.density for crystal in sample.measurable]),
        sample.reference.densities,
        None if real is None else np.array([crystal.density for crystal in real.measurable]),
    )


@plot_of(Sample, "elements")
def _elements(sample: Sample) -> Panel | str:
    """Crystals by their number of different elements."""
    if not sample.measurable:
        return NO_CRYSTALS
    ours, theirs = element_counts(sample.measurable), sample.reference.element_counts
    real = sample.once(real_crystals)
    note = _distance_note(sample, "elements", ours, theirs, None if real is None else element_counts(real.measurable))
    counts = np.arange(int(min(ours.min(), theirs.min())), int(max(ours.max(), theirs.max())) + 1)

    def panel(axes: Axes) -> None:
        head(axes, "Number of elements", note)
        for values, shift, look in ((ours, -0.2, _OURS), (theirs, 0.2, _THEIRS)):
            axes.bar(counts + shift, [100 * float((values == n).mean()) for n in counts], 0.38, **look)
        axes.set_xticks(counts)
        axes.set_xlabel("elements in the crystal")
        axes.set_ylabel("crystals (%)")
        _legend(axes, ours, theirs)

    return panel


@plot_of(Sample, "energy")
def _energy(sample: Sample) -> Panel | str:
    """Histograms of the energy that the property model of the evaluation predicts for both."""
    model = sample.energy_model
    if model is None or sample.reference.crystals is None:
        return "energies need a property model (--energy-model) and the crystals of the reference"
    theirs = sample.once_for_all(reference_energies)
    real = sample.once(real_crystals)
    values = [crystals.once(predicted_energies) for crystals in (sample, real) if crystals is not None]
    ours, *others = (some[np.isfinite(some)] for some in values)
    title = f"Predicted {model.property.replace('_', ' ')}"
    return _histograms(
        sample, title, "unit of the data set", ours, theirs[np.isfinite(theirs)], others[0] if others else None
    )


@plot_of(Sample, "space-groups")
def _space_groups(sample: Sample) -> Panel | str:
    """The commonest space groups of both, with half the sum of the differences of all shares."""
    ours = sample.once(space_groups).histogram()
    if not ours.sum():
        return "no space group is known of the crystals"
    theirs = None if sample.reference.crystals is None else sample.once_for_all(reference_space_groups).histogram()
    note = "the reference has statistics only, no space groups"
    if theirs is not None and theirs.sum():
        distance = Number(
            total_variation(ours, theirs), int(ours.sum()), total_variation_interval(ours, theirs, seed=sample.seed)
        )
        note = f"distance {_with_interval(distance, '')}"
        real = sample.once(real_crystals)
        drawn = None if real is None else real.once(space_groups).histogram()
        if drawn is not None and drawn.sum():
            note += f"\n{100 * total_variation(drawn, theirs):.1f}% for as many real crystals"
    shares = [100 * counts / max(counts.sum(), 1) for counts in (ours, theirs) if counts is not None]
    commonest = np.argsort(-np.sum(shares, axis=0), kind="stable")[:MOST_GROUPS]
    commonest = commonest[np.sum(shares, axis=0)[commonest] > 0]
    rest = [100 - float(share[commonest].sum()) for share in shares]

    def panel(axes: Axes) -> None:
        head(axes, "Space groups", note)
        rows = np.arange(len(commonest) + 1)
        for share, other, shift, look in zip(shares, rest, (-0.2, 0.2), (_OURS, _THEIRS), strict=False):
            axes.barh(rows + shift, [*share[commonest], other], 0.38, **look)
        axes.set_yticks(rows, [*(group_of(int(k) + 1) for k in commonest), "others"])
        axes.invert_yaxis()
        axes.set_xlabel("crystals (%)")
        _legend(axes, *(np.zeros(int(counts.sum())) for counts in (ours, theirs) if counts is not None))

    return panel


_OURS: dict[str, Any] = {"facecolor": BLUE, "edgecolor": BLUE, "linewidth": 0.7, "label": "generated"}
_THEIRS: dict[str, Any] = {
    "facecolor": LIGHT,
    "edgecolor": GREY,
    "linewidth": 0.7,
    "hatch": "////",
    "label": "reference",
}


def real_crystals(sample: Sample) -> Sample | None:
    """As many real crystals: of the reference, else of the training set; None where neither has crystals."""
    made = (BASELINES[name].make(sample) for name in ("reference", "training"))
    return next((real for real in made if real is not None), None)


def _histograms(
    sample: Sample, title: str, unit: str, ours: Floats, theirs: Floats, real: Floats | None
) -> Panel | str:
    if not len(ours) or not len(theirs):
        return NO_CRYSTALS
    note = _distance_note(sample, unit, ours, theirs, real)
    low, high = np.quantile(ours, (TAIL, 1 - TAIL))
    low, high = min(low, theirs.min()), max(high, theirs.max())
    beyond = int(((ours < low) | (ours > high)).sum())
    quarters = np.quantile(theirs, (0.25, 0.75))
    width = 2 * (quarters[1] - quarters[0]) / len(theirs) ** (1 / 3)  # Freedman and Diaconis (1981)
    width = np.clip(width, (high - low) / MOST_BINS or 1.0, (high - low) / FEWEST_BINS or 1.0)
    edges = low + width * np.arange(int(np.ceil((high - low) / width + 1e-9)) + 1)

    def panel(axes: Axes) -> None:
        head(axes, title, note)
        for values, look in (
            (theirs, {**_THEIRS, "hatch": None}),
            (ours, {**_OURS, "facecolor": "none", "linewidth": 1.6}),
        ):
            counts = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(counts, edges, fill=look["facecolor"] != "none", **look)
        axes.set_xlabel(f"{title.lower()} ({unit})" + (f"; {beyond} generated beyond the axis" if beyond else ""))
        axes.set_ylabel("crystals (%)")
        axes.set_ylim(bottom=0)
        _legend(axes, ours, theirs)

    return panel


def _distance_note(sample: Sample, unit: str, ours: Floats, theirs: Floats, real: Floats | None) -> str:
    """The distance of all crystals, as in a report without a gate, and that of as many real ones."""
    interval = wasserstein_interval(ours, theirs, seed=sample.seed)
    number = Number(wasserstein(ours, theirs), len(ours), interval)
    note = f"Wasserstein distance {_with_interval(number, unit)}"
    return note if real is None else f"{note}\n{wasserstein(real, theirs):.3g} for as many real crystals"


def _with_interval(number: Number, unit: str) -> str:
    value, interval = number.shown(unit)
    if unit and number.value is not None and number.interval is not None:
        value, interval = f"{number.value:.3g}", "{:.3g}–{:.3g}".format(*number.interval)
        return f"{value} ({interval}) {unit}"
    return f"{value} ({interval})" if interval else value


def _legend(axes: Axes, ours: Floats, theirs: Floats | None = None) -> None:
    """What is whose, with how many."""
    sizes = {"generated": len(ours), "reference": 0 if theirs is None else len(theirs)}
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles, [f"{name} ({sizes[name]})" for name in names])
