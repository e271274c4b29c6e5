"""Distances between the distributions of a property in two sets of crystals, and their intervals.

A distance of few crystals is biased upwards: two samples of the same distribution are never at distance zero. So an
interval around the measured value misses the distance that matters, that of the source of the crystals. The interval
here is of that: of the distance that any number of crystals of the same source would have from these same crystals of
the reference. It is found by asking which true distances would often lead to a value as large as the measured one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpcdvae.intervals import LEVEL, REPLICATES, Interval, Z

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

POPULATION = "interval of what any number of crystals of the same source would have: mostly below the value of a few"
"""For the notes of a report."""

_STEPS = 9  # of the bisection: the lower end is found to 1/512 of the distance
_CELLS = 20_000  # of the grid of an interval, to bound memory: 40 MB for the noise of all replicates


def wasserstein(values: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """1-D Wasserstein distance W1 between two samples, in their unit: the integral of |F - G|.

    Equal to ``scipy.stats.wasserstein_distance`` of the published protocol, which takes over a second to import.
    """
    values, reference = np.sort(np.asarray(values, np.float64)), np.sort(np.asarray(reference, np.float64))
    # Both are constant between neighbours of the merged sample.
    grid = np.unique(np.concatenate([values, reference]))
    return float(np.sum(np.abs(_cumulative(values, grid) - _cumulative(reference, grid)) * np.diff(grid)))


def wasserstein_interval(values: Floats, reference: Floats, *, seed: int) -> Interval | None:
    """95 % interval of the Wasserstein distance between the source of ``values`` (n > 0) and ``reference``.

    None for one value, which says nothing of the spread of its source.
    """
    if len(values) < 2:
        return None
    sample, counts = np.unique(values, return_counts=True)
    grid = np.unique(np.concatenate([sample, reference]))
    # Of a very large sample every second, third ... point: a step that is small beside the sampling noise.
    grid = np.append(grid[: -1 : -(-len(grid) // _CELLS)], grid[-1])
    position = np.searchsorted(sample, grid[:-1], side="right")
    noise = np.zeros((REPLICATES, len(sample) + 1), np.float32)
    np.cumsum(_noise(counts, seed), axis=1, out=noise[:, 1:])
    difference = _cumulative(np.sort(values), grid) - _cumulative(np.sort(reference), grid)
    return _interval(difference, noise[:, position], np.diff(grid))


def total_variation(counts: npt.NDArray[np.int64], reference: npt.NDArray[np.int64]) -> float:
    """Half the sum of the differences between the shares of two histograms: 0 the same, 1 nothing in common."""
    return float(np.abs(counts / counts.sum() - reference / reference.sum()).sum() / 2)


def total_variation_interval(
    counts: npt.NDArray[np.int64], reference: npt.NDArray[np.int64], *, seed: int
) -> Interval | None:
    """95 % interval of the total variation between the source of a histogram of crystals and that of a reference.

    None for a histogram of one crystal.
    """
    if counts.sum() < 2:
        return None
    difference = counts / counts.sum() - reference / reference.sum()
    low, high = _interval(difference, _noise(counts, seed), np.full(len(counts), 0.5))
    return low, min(1.0, high)


def _cumulative(ordered: Floats, grid: Floats) -> Floats:
    """(len(grid) - 1,) cumulative distribution of a sorted sample between the points of a sorted grid."""
    return np.searchsorted(ordered, grid[:-1], side="right") / len(ordered)


def _noise(counts: npt.NDArray[np.int64], seed: int) -> Singles:
    """(replicates, cells) how far the shares of as many crystals, drawn anew, are from those of ``counts`` (cells,)."""
    n = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=REPLICATES)
    noise: Singles = ((drawn - counts) / n).astype(np.float32)
    return noise


def _interval(difference: Floats, noise: Singles, widths: Floats) -> Interval:
    """Interval of the distance D = sum |difference| widths of a population, from its sampling noise.

    At a true distance of t D, for t from 0 to 1, a sample would show sum |t difference + noise| widths. The lower end
    is the least t D for which D is not improbably large. The test is one-sided at zero, where a true distance can
    only be larger, and two-sided far from it. The upper end is that of a normal law, whose spread is that of the
    derivative of the distance along the noise: far from zero there is no bias, and near it the bias is on the safe
    side.

    Args:
        difference: (cells,) of the two distributions.
        noise: (replicates, cells).
        widths: (cells,) what a difference in a cell counts.
    """
    distance = float(np.abs(difference) @ widths)
    single, weights = difference.astype(np.float32), widths.astype(np.float32)
    simulated = np.empty_like(noise)  # once: to ask for so much memory takes longer than to fill it
    derivative = np.where(single == 0, np.abs(noise), np.sign(single) * noise) @ weights
    high = distance + Z * float(derivative.std())

    def possible(part: float) -> bool:
        np.abs(np.add(noise, np.float32(part) * single, out=simulated), out=simulated)
        distances = simulated @ weights
        middle = float(np.median(distances))
        far = min(part * distance / middle, 1.0) if middle > 0 else 1.0
        level = LEVEL + (1 - LEVEL) / 2 * far
        # Round-off of single precision must not reject what is certain.
        return float(np.quantile(distances, level)) >= distance * (1 - 1e-5)

    if possible(0.0):
        return 0.0, high
    rejected, kept = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (rejected + kept) / 2
        if possible(middle):
            kept = middle
        else:
            rejected = middle
    return kept * distance, high
