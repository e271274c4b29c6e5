"""The atoms that symmetry operations make of one site whose coordinates were printed with few digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError

Array = npt.NDArray[np.float64]

UNIT = 0.7
"""Error of a printed coordinate in units of its last digit: 1/2 where it was rounded, 2/3 where 0.666... was cut."""

EXACT = 1e-6


@dataclass(frozen=True)
class Operations:
    """The operations of a space group in one setting, in fractional coordinates.

    Attributes:
        rotations: (n, 3, 3) whole numbers. translations: (n, 3), multiples of 1/24.
        number: of the space group, 0 if it is in no table. name: of the setting, for messages.
    """

    rotations: Array
    translations: Array
    number: int
    name: str

    def __len__(self) -> int:
        return len(self.rotations)

    def fit(self, lattice: Array, tolerance: float = 0.02) -> bool:
        """Whether every operation keeps the lengths and angles of a cell, to 2 % of its longest vector."""
        metric = lattice @ lattice.T
        turned = np.transpose(self.rotations, (0, 2, 1)) @ metric @ self.rotations
        return bool(np.abs(turned - metric).max() <= 2 * tolerance * metric.max())


def printed_error(texts: Sequence[str]) -> Array:
    """Error of each coordinate, from its number of decimals; with fewer than two (0, 0.5) it is taken as exact."""
    decimals = [len(text.partition("(")[0].partition(".")[2]) for text in texts]
    exact = [n < 2 or "e" in text.lower() for n, text in zip(decimals, texts, strict=True)]
    return np.array([EXACT if e else max(UNIT * 10.0**-n, EXACT) for n, e in zip(decimals, exact, strict=True)])


def orbit(position: Array, error: Array, operations: Operations) -> Array:
    """The atoms of one site, (m, 3), in [0, 1), the first of them the site itself.

    A site that lies on a special position within the error of its digits is moved onto it, so that images which
    differ by that error alone are one atom, and the symmetry of the crystal is exact.

    Args:
        position: (3,) as printed. error: (3,) of each coordinate.

    Raises:
        InputError: near several special positions that exclude one another, so that the digits do not decide.
    """
    rotations, translations = operations.rotations, operations.translations
    position, fixing = _on_special_position(position, error, operations)
    images = np.mod(rotations @ position + translations, 1.0)
    images[images > 1 - 1e-9] = 0.0
    if fixing == 1:
        return images
    keys = np.round(images / EXACT)
    first = np.sort(np.unique(keys % round(1 / EXACT), axis=0, return_index=True)[1])
    if len(first) * fixing != len(images):  # two that are one were rounded apart
        apart = images[:, None] - images[None]
        same = (np.abs(apart - np.round(apart)) <= EXACT).all(-1)
        first = np.flatnonzero(same.argmax(1) == np.arange(len(images)))
    return images[first]


def _on_special_position(position: Array, error: Array, operations: Operations) -> tuple[Array, int]:
    """The nearby position that the most operations fix, and how many these are."""
    rotations, translations = operations.rotations, operations.translations
    moves = rotations @ position + translations - position
    back = np.round(moves)
    sizes = np.abs(rotations - np.eye(3)) @ error + EXACT
    for part in (1.0, 0.5, 0.25):
        fixing = np.all(np.abs(moves - back) <= part * sizes, axis=1)
        if fixing.sum() == 1:
            return position, 1
        # The mean over a group of operations fixes a point; over some of one, the mean of means goes there.
        turn, shift = rotations[fixing].mean(0), (translations - back)[fixing].mean(0)
        moved = position
        for _ in range(60):
            before, moved = moved, turn @ moved + shift
            if np.abs(moved - before).max() < 1e-13:
                break
        rest = rotations @ moved + translations - moved
        fixed = np.all(np.abs(rest - np.round(rest)) <= EXACT / 10, axis=1)
        if fixed[fixing].all() and (np.abs(moved - position) <= 2 * error.max() + EXACT).all():
            return moved, int(fixed.sum())
    place = ", ".join(f"{x:g}" for x in position)
    raise InputError(f"the site at {place} may lie on one of several special positions: give more digits")
