"""How the lattice of one crystal can be laid onto that of another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.tolerances import Tolerances

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_MOST_VECTORS = 5000
"""Lattice vectors of a length: with more of them, as in a sliver of 1 x 1 x 400 Å, the search would take for ever."""
_HELD = 5_000_000  # entries of a table at a time: 40 MB of cosines
TOO_FLAT = "a cell is too flat or too long to be compared"


def lattice_mappings(first: Crystal, second: Crystal, tolerances: Tolerances) -> Integers:
    """(m, 3, 3) integer matrices, determinant 1 or -1, that make vectors like the second's of those of ``first``.

    None for crystals of different composition or size.

    Raises:
        ValueError: a cell so flat that there are too many vectors to look at.
    """
    if first.num_atoms != second.num_atoms or first.formula != second.formula:
        return np.zeros((0, 3, 3), np.int64)
    target = second.lattice / second.volume ** (1 / 3)
    lengths, angles = vector_lengths(target), np.radians(angles_between(target))
    radius = lengths.max() * (1 + tolerances.ltol)
    # A radius of few values, so that the vectors of a crystal are found once for many others.
    vectors = _vectors(first.lattice.tobytes(), 1.3 ** math.ceil(math.log(radius, 1.3)))
    starts = np.searchsorted(vectors.norms, lengths / (1 + tolerances.ltol), side="right")
    stops = np.searchsorted(vectors.norms, lengths * (1 + tolerances.ltol), side="left")
    if (stops - starts).max() > _MOST_VECTORS:
        raise ValueError(TOO_FLAT)
    ranges = [slice(start, stop) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    a, b, c = (vectors.units[part] for part in ranges)
    width = math.radians(tolerances.angle_tol)
    least, most = np.cos(np.minimum(angles + width, np.pi)) - 1e-12, np.cos(np.maximum(angles - width, 0)) + 1e-12
    alpha = _within(b, c, least[0], most[0])
    whole_a, whole_b, whole_c = (vectors.whole[part] for part in ranges)
    found = [np.zeros((0, 3, 3), np.int64)]
    for some in _slices(len(a), max(len(b), len(c))):
        beta, gamma = _within(a[some], c, least[1], most[1]), _within(a[some], b, least[2], most[2])
        i, j = np.nonzero(gamma)
        for rows in _slices(len(i), len(c)):
            pairs, k = np.nonzero(beta[i[rows]] & alpha[j[rows]])
            triples = np.stack([whole_a[some][i[rows][pairs]], whole_b[j[rows][pairs]], whole_c[k]], axis=1)
            found.append(triples[np.abs(_determinants(triples)) == 1])
    return np.concatenate(found)


def _within(rows: Floats, columns: Floats, least: float, most: float) -> Flags:
    """(r, c) whether the cosine of the angle between two unit vectors lies between these."""
    flags = np.empty((len(rows), len(columns)), bool)
    for some in _slices(len(rows), len(columns)):
        cosines = rows[some] @ columns.T
        flags[some] = (cosines >= least) & (cosines <= most)
    return flags


def _slices(rows: int, columns: int) -> Iterator[slice]:
    """Of so many rows that a table of them is held at a time."""
    size = max(1, _HELD // max(1, columns))
    return (slice(start, start + size) for start in range(0, rows, size))


def _determinants(triples: Integers) -> Integers:
    x, y, z = triples.transpose(1, 2, 0)
    return np.asarray(
        x[0] * (y[1] * z[2] - y[2] * z[1]) + x[1] * (y[2] * z[0] - y[0] * z[2]) + x[2] * (y[0] * z[1] - y[1] * z[0])
    )


@dataclass(frozen=True)
class _Vectors:
    """Vectors of a lattice of unit volume: (v,) lengths, rising; (v, 3) directions; (v, 3) integers that make them."""

    norms: Floats
    units: Floats
    whole: Integers


@lru_cache(maxsize=2048)
def _vectors(lattice: bytes, radius: float) -> _Vectors:
    """All vectors up to a length."""
    rows = np.frombuffer(lattice).reshape(3, 3)
    rows = rows / abs(np.linalg.det(rows)) ** (1 / 3)
    bounds = np.floor(radius * vector_lengths(np.linalg.inv(rows).T) + 1e-8)
    if np.prod(2.0 * bounds + 1) > 100 * _MOST_VECTORS:
        raise ValueError(TOO_FLAT)
    grids = np.meshgrid(*(np.arange(-n, n + 1) for n in bounds.astype(int)), indexing="ij")
    whole = np.stack(grids, -1).reshape(-1, 3)
    vectors = whole @ rows
    norms = vector_lengths(vectors)
    order = np.argsort(norms, kind="stable")
    order = order[(norms[order] <= radius) & (norms[order] > 0)]
    return _Vectors(norms[order], vectors[order] / norms[order, None], whole[order])


def vector_lengths(vectors: Floats) -> Floats:
    lengths: Floats = np.sqrt((vectors**2).sum(axis=-1))
    return lengths


def angles_between(lattice: Floats) -> Floats:
    """(..., 3) alpha, beta, gamma in degrees."""
    unit = lattice / vector_lengths(lattice)[..., None]
    cosines = np.stack([(unit[..., i, :] * unit[..., j, :]).sum(axis=-1) for i, j in ((1, 2), (0, 2), (0, 1))], -1)
    angles: Floats = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    return angles
