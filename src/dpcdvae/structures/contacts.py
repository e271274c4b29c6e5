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
from dpcdvae.structures.element_data import by_atomic_number

Floats = npt.NDArray[np.float64]

_ROUNDS = 1000  # of the reduction; ordinary cells need two or three
_PAIRS = 500_000  # pairs of atoms looked at together: 12 MB for their vectors

_TRANSLATIONS = np.array([(i, j, k) for i in (0, 1, -1) for j in (0, 1, -1) for k in (0, 1, -1)], np.float64)


@dataclass(frozen=True)
class Contacts:
    """The closest two atoms of each crystal, images of the same atom included.

    Attributes:
        distance: (n,) Å, NaN for what is no crystal.
        pair: (n, 2) which atoms these are, equal for an atom and its own image.
        ratio: (n,) the smallest distance over the sum of the covalent radii, not always of the same
            two atoms; NaN too where an element has no radius.
    """

    distance: Floats
    pair: npt.NDArray[np.int64]
    ratio: Floats


def closest_contacts(crystals: Sequence[Crystal]) -> Contacts:
    """The shortest distances of all crystals, in Å and relative to the radii of :func:`covalent_radii`."""
    distance, ratio = np.full((2, len(crystals)), np.nan)
    pair = np.zeros((len(crystals), 2), np.int64)
    sound = np.array([k for k, crystal in enumerate(crystals) if crystal.problem() is None], np.int64)
    if len(sound) == 0:
        return Contacts(distance, pair, ratio)
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
            distance[k], pair[k], ratio[k] = _closest(lattices[some], frac, radii[numbers])
    return Contacts(distance, pair, ratio)


def covalent_radii() -> Floats:
    """(119,) Å by atomic number (Cordero et al., Dalton Trans. 2008, 2832), NaN beyond Cm."""
    return by_atomic_number("crystal_nn", "covalent_radius")


def minkowski_reduced(lattices: Floats) -> tuple[Floats, Floats]:
    """Shortest bases of the same lattices, by the greedy algorithm (Semaev 2001; Nguyen and Stehlé 2009).

    Args:
        lattices: (n, 3, 3) finite, with a volume; rows are the vectors.

    Returns:
        (n, 3, 3) bases of ascending length, and (n, 3, 3) integers T with ``frac_coords @ T`` the
        coordinates in them.
    """
    bases = lattices.copy()
    transforms = np.tile(np.eye(3), (len(lattices), 1, 1))
    active = np.arange(len(lattices))
    for _ in range(_ROUNDS):
        basis, transform = bases[active], transforms[active]
        before = np.linalg.norm(basis, axis=2).sum(axis=1)
        order = np.argsort(np.linalg.norm(basis, axis=2), axis=1, kind="stable")
        basis = np.take_along_axis(basis, order[:, :, None], axis=1)
        transform = np.take_along_axis(transform, order[:, None, :], axis=2)
        a, b = basis[:, 0], basis[:, 1]
        times = np.round(_dot(a, b) / _dot(a, a))
        basis[:, 1] -= times[:, None] * a
        transform[:, :, 0] += times[:, None] * transform[:, :, 1]
        nearest = _nearest_in_plane(basis)
        basis[:, 2] -= np.einsum("nk,nki->ni", nearest, basis[:, :2])
        transform[:, :, :2] += transform[:, :, 2, None] * nearest[:, None, :]
        bases[active], transforms[active] = basis, transform
        active = active[np.linalg.norm(basis, axis=2).sum(axis=1) < before * (1 - 1e-12)]
        if len(active) == 0:
            break
    order = np.argsort(np.linalg.norm(bases, axis=2), axis=1, kind="stable")
    return np.take_along_axis(bases, order[:, :, None], 1), np.take_along_axis(transforms, order[:, None, :], 2)


def _nearest_in_plane(basis: Floats) -> Floats:
    """(n, 2) integers: the point of the lattice of the first two vectors that is nearest to the third."""
    a, b, c = basis[:, 0], basis[:, 1], basis[:, 2]
    aa, ab, bb, ac, bc = _dot(a, a), _dot(a, b), _dot(b, b), _dot(a, c), _dot(b, c)
    determinant = np.maximum(aa * bb - ab**2, np.finfo(float).tiny)
    foot = np.stack([(bb * ac - ab * bc) / determinant, (aa * bc - ab * ac) / determinant], -1)
    # Zero stays in the choice, so that round-off in a flat plane can never make the third vector longer.
    corners = np.stack([np.floor(foot) + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))] + [0 * foot], axis=1)
    rests = c[:, None] - corners @ basis[:, :2]
    return np.take_along_axis(corners, np.argmin(_dot(rests, rests), axis=1)[:, None, None], axis=1)[:, 0]


def _dot(x: Floats, y: Floats) -> Floats:
    return np.einsum("...i,...i->...", x, y)


def _closest(lattices: Floats, frac: Floats, radii: Floats) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Distance (n,), pair (n, 2) and ratio (n,); lattices (n, 3, 3) reduced, frac (n, atoms, 3), radii (n, atoms)."""
    n = np.arange(len(lattices))
    shortest = _dot(lattices[:, 0], lattices[:, 0])  # of the lattice: an atom and its own image
    pair = np.zeros((len(lattices), 2), np.int64)
    ratio = shortest / (2 * radii.max(axis=1)) ** 2
    heights = 1 / np.linalg.norm(np.linalg.inv(lattices), axis=1)
    for first, second in _pairs(frac.shape[1]):
        difference = frac[:, first] - frac[:, second]
        difference -= np.round(difference)
        vectors = difference @ lattices
        sums = (radii[:, first] + radii[:, second]) ** 2
        squares = _dot(vectors, vectors)
        # Nothing beyond this distance can be closer, in Å or relative to the radii.
        bound = np.maximum(squares.min(axis=1), (squares / sums).min(axis=1) * (2 * radii.max(axis=1)) ** 2)
        for translation in _TRANSLATIONS[1:]:
            if (((heights * np.abs(translation)).max(axis=1) / 2) ** 2 > bound).all():
                continue
            moved = vectors + (translation @ lattices)[:, None]
            np.minimum(squares, _dot(moved, moved), out=squares)
        closest = squares.argmin(axis=1)
        nearer = squares[n, closest] < shortest
        shortest[nearer] = squares[n, closest][nearer]
        pair[nearer] = np.stack([first[closest], second[closest]], axis=1)[nearer]
        ratio = np.minimum(ratio, (squares / sums).min(axis=1))
    return np.sqrt(shortest), pair, np.sqrt(ratio)


def _pairs(num_atoms: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs of different atoms, some rows of the triangle at a time."""
    rows = max(1, _PAIRS // num_atoms)
    for start in range(0, num_atoms - 1, rows):
        first, second = np.triu_indices(min(rows, num_atoms - start), k=1, m=num_atoms - start)
        yield first + start, second + start
