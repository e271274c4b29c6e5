"""Primitive cells of what is written down in conventional ones, as the International Tables do."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

Vector = Sequence[float]
Cell = tuple[npt.NDArray[np.float64], list[list[Vector]]]
"""Lattice (rows, Å) and, per role, fractional coordinates."""

_CENTRINGS: Final = {  # primitive vectors in units of the conventional ones
    "P": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "F": [[0, 1 / 2, 1 / 2], [1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0]],
    "I": [[-1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [1 / 2, 1 / 2, -1 / 2]],
    "R": [[2 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, 1 / 3], [-1 / 3, -2 / 3, 1 / 3]],
}


def primitive(centring: str, conventional: npt.ArrayLike, *roles: Sequence[Vector]) -> Cell:
    """Primitive cell; ``roles`` are conventional coordinates, one of each set that centring repeats."""
    vectors = np.array(_CENTRINGS[centring], np.float64)
    sites = [np.round(np.array(coords, np.float64) @ np.linalg.inv(vectors), 12) % 1.0 for coords in roles]
    return vectors @ np.asarray(conventional, np.float64), [coords.tolist() for coords in sites]


def tetragonal(a: float, c: float) -> npt.NDArray[np.float64]:
    return np.diag([a, a, c])


def cubic(a: float) -> npt.NDArray[np.float64]:
    return np.diag([a, a, a])


def hexagonal(a: float, c: float) -> npt.NDArray[np.float64]:
    return np.array([[a, 0, 0], [-a / 2, a * sqrt(3) / 2, 0], [0, 0, c]])
