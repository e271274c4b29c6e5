"""How different crystals are from one another: the mean distance of two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOST = 10_000
"""Rows that are compared each with each: time grows with their square, and the mean hardly changes."""

_PAIRS = 2_000_000  # distances held at a time: 16 MB


def compared(count: int, seed: int) -> Integers:
    """Indices, ascending, of the rows to be compared: all of them, or :data:`MOST` of more drawn at random."""
    if count <= MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MOST, replace=False))


def mean_distances(rows: Floats) -> Floats:
    """(n,) mean Euclidean distance of each row of (n, d) to all the others (n > 1).

    Equal rows are looked at once, and no more than some rows at a time.
    """
    from scipy.spatial.distance import cdist

    unique, which, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros(len(unique))
    start = 0
    while start < len(unique):
        stop = start + max(1, _PAIRS // (len(unique) - start))
        # The upper triangle alone: each block against itself and what comes after.
        block = cdist(unique[start:stop], unique[start:])
        sums[start:stop] += block @ counts[start:]
        sums[stop:] += counts[start:stop] @ block[:, stop - start :]
        start = stop
    return sums[which.ravel()] / (len(rows) - 1)
