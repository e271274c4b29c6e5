"""Plots of a paired evaluation: how many reconstructions match, and whether the latent distance says which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpcdvae.drawing.figures import BLUE, ORANGE
from dpcdvae.evaluation.metrics.matching import SITE_TOLERANCES, matches, pairs, truths
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number, drawable
from dpcdvae.plots.plot_table import head, plot_of
from dpcdvae.structures.crystal import LATENT_DISTANCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dpcdvae.plots.plot_table import Panel

FEW, MOST_BINS, BIN = 20, 8, 25
"""Crystals below which there is no calibration, its most points, and the fewest crystals of a point."""

PAIRED = "a match rate needs crystals that reconstruct those of the reference (--paired)"


@plot_of(Sample, "match-rate")
def _match_rate(sample: Sample) -> Panel | str:
    """The share of the ground truths that are matched, by rms distance and by site tolerance."""
    if not sample.paired:
        return PAIRED
    found, n = sample.once(matches), len(truths(sample))
    rms = np.sort(found.rms[found.matched])
    rates = [Number.rate(np.isfinite(column), n) for column in found.by_tolerance.T]
    undecided = f", {len(found.reasons)} undecided" if found.reasons else ""
    note = f"{100 * (rates[-1].value or 0):.1f}% of {n} match{undecided}"
    note += f"; mean rms distance {rms.mean():.3g}" if len(rms) else ""

    def panel(axes: Axes) -> None:
        head(axes, "Match rate", note)
        steps = np.concatenate([[0.0], rms, [SITE_TOLERANCES[-1]]])
        shares = np.append(np.arange(len(rms) + 1), len(rms)) * 100 / n
        axes.step(steps, shares, where="post", color=BLUE, label="rms distance below x")
        axes.errorbar(
            SITE_TOLERANCES,
            [100 * (rate.value or 0) for rate in rates],
            _bars(rates),
            fmt="s",
            ms=4,
            mfc="white",
            color=ORANGE,
            capsize=2,
            label="match within site tolerance x (95%)",
        )
        axes.set_xlim(0, SITE_TOLERANCES[-1] * 1.04)
        axes.set_ylim(0, 104)
        axes.set_xlabel("x, in units of $(V/N)^{1/3}$")
        axes.set_ylabel("crystals of the reference (%)")
        axes.legend(loc="lower right")

    return panel


@plot_of(Sample, "latent-distance")
def _latent_distance(sample: Sample) -> Panel | str:
    """The match rate among crystals of about the same latent distance: what the distance promises."""
    if not sample.paired:
        return PAIRED
    found, chosen = sample.once(matches), sample.once(pairs).predictions
    distances = drawable([sample.crystals[k].properties.get(LATENT_DISTANCE, np.nan) for k in chosen.tolist()])
    known = np.isfinite(distances)
    if known.sum() < FEW:
        return f"{FEW} crystals with a latent distance are needed, there are {known.sum()} (reconstruct --candidates 4)"
    order = np.argsort(distances[known], kind="stable")
    bins = np.array_split(order, min(MOST_BINS, max(2, len(order) // BIN)))
    matched, distances = found.matched[known], distances[known]
    rates = [Number.rate(matched[some], len(some)) for some in bins]

    def panel(axes: Axes) -> None:
        head(axes, "Match rate by latent distance", f"{len(order)} crystals in {len(bins)} groups, 95% intervals")
        middles = [float(np.median(distances[some])) for some in bins]
        ends = np.array(
            [[m - distances[some].min(), distances[some].max() - m] for m, some in zip(middles, bins, strict=True)]
        )
        shares = [100 * (rate.value or 0) for rate in rates]
        axes.errorbar(
            middles, shares, _bars(rates), np.maximum(ends, 0).T, fmt="o", ms=4, mfc="white", color=BLUE, elinewidth=1
        )
        if distances.min() > 0 and distances.max() > 10 * distances.min():
            axes.set_xscale("log")
        axes.set_ylim(0, 104)
        axes.set_xlabel("latent distance (standard deviations)")
        axes.set_ylabel("crystals that match (%)")

    return panel


def _bars(rates: list[Number]) -> list[list[float]]:
    """(2, rates) percent from each value down and up to the ends of its interval."""
    known = [(rate.value or 0.0, rate.interval or (0.0, 0.0)) for rate in rates]
    return [
        [100 * max(value - low, 0.0) for value, (low, _) in known],
        [100 * max(high - value, 0.0) for value, (_, high) in known],
    ]
