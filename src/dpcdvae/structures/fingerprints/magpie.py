"""Composition fingerprints: Magpie's statistics of element properties.

(Ward et al., npj Comput. Mater. 2, 16028 (2016), doi:10.1038/npjcompumats.2016.28.) The 22 properties and
6 statistics are those of matminer's ``ElementProperty`` (preset "magpie"); the scaling is that of the
published coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import table

Floats = npt.NDArray[np.float64]

STATISTICS = ("minimum", "maximum", "range", "mean", "avg_dev", "mode")


def composition_fingerprints(crystals: Sequence[Crystal]) -> Floats:
    """(n, 132): for each property its :data:`STATISTICS` over the atoms.

    ``avg_dev`` is the mean absolute deviation from the mean, ``mode`` the value of the most frequent
    element, the smallest where several are.
    """
    compositions: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    which = []
    for crystal in crystals:
        numbers, counts = np.unique(crystal.atomic_numbers, return_counts=True)
        key = (tuple(numbers.tolist()), tuple(counts.tolist()))
        which.append(compositions.setdefault(key, len(compositions)))
    rows = [_statistics(np.array(numbers), np.array(counts, np.float64)) for numbers, counts in compositions]
    return np.array(rows, np.float64).reshape(len(rows), -1)[which] if rows else np.zeros((0, 132))


def _statistics(numbers: npt.NDArray[np.int64], counts: Floats) -> Floats:
    """(132,) of one composition: atomic numbers and how many atoms of each."""
    values = _properties()[:, numbers]
    low, high = values.min(axis=1), values.max(axis=1)
    mean = values @ counts / counts.sum()
    deviation = np.abs(values - mean[:, None]) @ counts / counts.sum()
    mode = values[:, counts == counts.max()].min(axis=1)
    return np.stack([low, high, high - low, mean, deviation, mode], axis=1).ravel()


@cache
def _properties() -> Floats:
    """(22, 119) by property and atomic number; what is not known is the mean over the elements, as in matminer."""
    values = np.stack(list(table("magpie_elements").values()))
    values = np.where(np.isnan(values), np.nanmean(values, axis=1, keepdims=True), values)
    return np.pad(values, ((0, 0), (1, 0)))


def standardise_compositions(fingerprints: Floats) -> Floats:
    """(n, 132) with the means and deviations of the published coverage."""
    scaler = table("magpie_scaler")
    return (fingerprints - scaler["mean"]) / scaler["std"]
