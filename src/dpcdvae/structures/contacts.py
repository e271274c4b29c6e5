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

_MANY = 200
"""Atoms from which on only neighbours are looked at, not all pairs: the time grows with the atoms, not their square."""

_PAIRS = 500_000  # pairs of atoms looked at together: 12 MB for their vectors

_AT_A_TIME = 1000  # atoms whose neighbours are held together

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
            find = _closest if num_atoms < _MANY else _closest_of_many
            distance[k], pair[k], ratio[k], ratio_pair[k] = find(lattices[some], frac, radii[numbers])
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


def _closest_of_many(
    lattices: Floats, frac: Floats, radii: Floats
) -> tuple[Floats, npt.NDArray[np.int64], Floats, npt.NDArray[np.int64]]:
    """As :func:`_closest`, by a search tree for each crystal."""
    found = [_nearest_neighbours(*one) for one in zip(lattices, frac - np.floor(frac), radii, strict=True)]
    distance, pair, ratio, ratio_pair = zip(*found, strict=True)
    return np.array(distance), np.array(pair), np.array(ratio), np.array(ratio_pair)


def _nearest_neighbours(
    lattice: Floats, frac: Floats, radii: Floats
) -> tuple[float, tuple[int, int], float, tuple[int, int]]:
    """Of a reduced lattice, frac (atoms, 3) from 0 to 1 and radii (atoms,)."""
    from scipy.spatial import cKDTree

    order = np.lexsort(frac.T)
    if (same := np.flatnonzero((np.diff(frac[order], axis=0) == 0).all(axis=1))).size:  # no tree divides these
        pair = (int(order[same[0]]), int(order[same[0] + 1]))
        return 0.0, pair, 0.0 * float(radii.sum()), pair
    n, own, largest = len(frac), float(np.linalg.norm(lattice[0])), 2 * float(radii.max())
    # No more than in the closest packing of spheres can all atoms be apart.
    packed = (np.sqrt(2) * abs(np.linalg.det(lattice)) / n) ** (1 / 3)
    positions, atoms = _with_images(lattice, frac, min(own, packed) * (1 + 1e-9))
    distances, places = cKDTree(positions).query(positions[:n], k=2)
    other = np.where(places[:, 0] == np.arange(n), 1, 0)  # the first is the atom itself, or one in the same place
    distances, neighbours = (np.take_along_axis(a, other[:, None], 1)[:, 0] for a in (distances, atoms[places]))
    nearest = int(distances.argmin())
    distance, pair = float(distances[nearest]), (nearest, int(neighbours[nearest]))
    if distance >= own:
        distance, pair = own, (0, 0)
    ratios = distances / (radii + radii[neighbours])
    widest = int(radii.argmax())  # also the first without a radius
    ratio, ratio_pair = own / largest, (widest, widest)
    if np.isfinite(largest) and ratios.min() < ratio:
        closest = int(ratios.argmin())
        ratio, ratio_pair = float(ratios[closest]), (closest, int(neighbours[closest]))
    if not ratio > 0:  # NaN, or two atoms in one place
        return distance, pair, ratio, ratio_pair
    # The nearest of an atom need not be the one that is nearest relative to the radii.
    positions, atoms = _with_images(lattice, frac, ratio * largest * (1 + 1e-9))
    tree = cKDTree(positions)
    for start in range(0, n, _AT_A_TIME):
        some = cKDTree(positions[start : min(start + _AT_A_TIME, n)])
        near = some.sparse_distance_matrix(tree, ratio * largest, output_type="ndarray")
        near = near[near["i"] + start != near["j"]]
        first, second = near["i"] + start, atoms[near["j"]]
        ratios = near["v"] / (radii[first] + radii[second])
        if len(ratios) and ratios.min() < ratio:
            closest = int(ratios.argmin())
            ratio, ratio_pair = float(ratios[closest]), (int(first[closest]), int(second[closest]))
    return distance, pair, ratio, ratio_pair


def _with_images(lattice: Floats, frac: Floats, reach: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(m, 3) Å, the atoms and then all images within ``reach`` of the cell; (m,) which atom each is an image of."""
    pads = reach * np.linalg.norm(np.linalg.inv(lattice), axis=0)
    images, atoms = frac, np.arange(len(frac))
    for axis, pad in enumerate(pads):
        shifted, of = [images], [atoms]
        for shift in range(1, int(np.ceil(pad)) + 1):
            for sign in (shift, -shift):
                moved = images[:, axis] + sign
                inside = (moved >= -pad) & (moved <= 1 + pad)
                shifted.append(images[inside] + sign * np.eye(3)[axis])
                of.append(atoms[inside])
        images, atoms = np.concatenate(shifted), np.concatenate(of)
    return images @ lattice, atoms


def _squares(vectors: Floats) -> Floats:
    """Squared lengths."""
    squares: Floats = np.einsum("...i,...i->...", vectors, vectors)
    return squares


def _pairs(num_atoms: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs of different atoms, some rows of the triangle at a time."""
    rows = max(1, _PAIRS // num_atoms)
    for start in range(0, num_atoms - 1, rows):
        first, second = np.triu_indices(min(rows, num_atoms - start), k=1, m=num_atoms - start)
        yield first + start, second + start
