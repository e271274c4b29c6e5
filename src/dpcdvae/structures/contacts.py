"""The closest atoms of a crystal, exactly, whatever its cell.

In a Minkowski-reduced cell the nearest image of a wrapped difference lies at most one cell away along each
axis (Nguyen and Stehlé, ACM Trans. Algorithms 5, 46 (2009)): 27 translations are enough for any crystal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import covalent_radii
from dpcdvae.structures.reduction import minkowski_reduced

Floats = npt.NDArray[np.float64]

_PAIRS = 500_000  # pairs of atoms looked at together: 12 MB for their vectors

_TRANSLATIONS = np.array([(i, j, k) for i in (0, 1, -1) for j in (0, 1, -1) for k in (0, 1, -1)], np.float64)


@dataclass(frozen=True)
class Contacts:
    """The closest two atoms of each crystal, in Å and relative to their radii, images of the same atom included.

    Attributes:
        distance: (n,) Å, NaN for what is no crystal.
        pair: (n, 2) which atoms these are, equal for an atom and its own image.
        ratio: (n,) the smallest distance over the sum of the covalent radii; NaN too where an element has no radius.
        ratio_pair: (n, 2) which atoms these are, not always those of ``pair``.
    """

    distance: Floats
    pair: npt.NDArray[np.int64]
    ratio: Floats
    ratio_pair: npt.NDArray[np.int64]


def closest_contacts(crystals: Sequence[Crystal]) -> Contacts:
    """The shortest distances of all crystals, in Å and relative to the covalent radii."""
    distance, ratio = np.full((2, len(crystals)), np.nan)
    pair, ratio_pair = np.zeros((2, len(crystals), 2), np.int64)
    sound = np.array([k for k, crystal in enumerate(crystals) if crystal.problem() is None], np.int64)
    if len(sound) == 0:
        return Contacts(distance, pair, ratio, ratio_pair)
    lattices, transforms = minkowski_reduced(np.array([crystals[k].lattice for k in sound]))
    radii = covalent_radii()
    sizes = np.array([crystals[k].num_atoms for k in sound])
    for num_atoms in np.unique(sizes).tolist():
        group = np.flatnonzero(sizes == num_atoms)
        size = max(1, _PAIRS // (num_atoms * (num_atoms - 1) // 2 + 1))
        for some in (group[start : start + size] for start in range(0, len(group), size)):
            frac = np.array([crystals[k].frac_coords for k in sound[some]])
            # Wrapped first: what lies far away would lose its digits in the other cell.
            frac = (frac - np.floor(frac)) @ transforms[some]
            numbers = np.array([crystals[k].atomic_numbers for k in sound[some]])
            k = sound[some]
            distance[k], pair[k], ratio[k], ratio_pair[k] = _closest(lattices[some], frac, radii[numbers])
    return Contacts(distance, pair, ratio, ratio_pair)


def _closest(
    lattices: Floats, frac: Floats, radii: Floats
) -> tuple[Floats, npt.NDArray[np.int64], Floats, npt.NDArray[np.int64]]:
    """The fields of :class:`Contacts`, of lattices (n, 3, 3) reduced, frac (n, atoms, 3) and radii (n, atoms)."""
    n = np.arange(len(lattices))
    shortest = _squares(lattices[:, 0])  # of the lattice: an atom and its own image
    pair = np.zeros((len(lattices), 2), np.int64)
    ratio_pair = np.repeat(radii.argmax(axis=1)[:, None], 2, axis=1)
    ratio = shortest / (2 * radii.max(axis=1)) ** 2
    spacings = 1 / np.linalg.norm(np.linalg.inv(lattices), axis=1)
    for first, second in _pairs(frac.shape[1]):
        difference = frac[:, first] - frac[:, second]
        difference -= np.round(difference)
        vectors = difference @ lattices
        sums = (radii[:, first] + radii[:, second]) ** 2
        squares = _squares(vectors)
        # Nothing beyond this distance can be closer, in Å or relative to the radii.
        bound = np.maximum(squares.min(axis=1), (squares / sums).min(axis=1) * (2 * radii.max(axis=1)) ** 2)
        for translation in _TRANSLATIONS[1:]:
            if (((spacings * np.abs(translation)).max(axis=1) / 2) ** 2 > bound).all():
                continue
            moved = vectors + (translation @ lattices)[:, None]
            np.minimum(squares, _squares(moved), out=squares)
        closest = squares.argmin(axis=1)
        nearer = squares[n, closest] < shortest
        shortest[nearer] = squares[n, closest][nearer]
        pair[nearer] = np.stack([first[closest], second[closest]], axis=1)[nearer]
        ratios = squares / sums
        closest = ratios.argmin(axis=1)
        nearer = ratios[n, closest] < ratio
        ratio[nearer] = ratios[n, closest][nearer]
        ratio_pair[nearer] = np.stack([first[closest], second[closest]], axis=1)[nearer]
    return np.sqrt(shortest), pair, np.sqrt(ratio), ratio_pair


def _squares(vectors: Floats) -> Floats:
    """Squared lengths."""
    return np.einsum("...i,...i->...", vectors, vectors)


def _pairs(num_atoms: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs of different atoms, some rows of the triangle at a time."""
    rows = max(1, _PAIRS // num_atoms)
    for start in range(0, num_atoms - 1, rows):
        first, second = np.triu_indices(min(rows, num_atoms - start), k=1, m=num_atoms - start)
        yield first + start, second + start
