"""One cell, origin and choice of axes for all descriptions of a crystal: what is alike looks alike when it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.contacts import closest_contacts
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import by_atomic_number
from dpcdvae.structures.quiet_spglib import ask_spglib
from dpcdvae.structures.reduction import minkowski_reduced
from dpcdvae.structures.space_groups import SYMPREC, canonical_order, reduced_cells

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_ATOMS = 200
"""Beyond it a crystal is left as it is described: there is no cell to recognise, and many origins to try."""

NEARLY_RIGHT = 10.0
"""Degrees. A primitive cell whose angles are so near to 90 is drawn; of others the conventional cell is."""

ANGLE, LENGTH, SITE = 3.0, 0.1, 0.02
"""Degrees and Å within which two angles, lengths and distances to the nearest neighbour count as the same."""

_GRID = 1013.7  # steps of a fractional coordinate, none of which ends at a simple fraction


@dataclass(frozen=True)
class CanonicalCell:
    """A crystal as it is drawn.

    Attributes:
        crystal: its atoms where they are, in the chosen cell.
        number: of its space group at :data:`~dpcdvae.structures.space_groups.SYMPREC`, 0 where none was found.
    """

    crystal: Crystal
    number: int


def canonical_cell(crystal: Crystal) -> CanonicalCell:
    """The same cell for all descriptions of a crystal, whatever their cell, origin, orientation and order of atoms.

    The cell is the primitive one where its angles are nearly right, else the conventional one (spglib, 0.1 Å); its
    vertical axis is the one that differs from the others. At the origin is the most symmetric site; among several the
    cations (less electronegative than the mean) where there are two or more, then the one whose nearest neighbour is
    farthest, then the most electronegative, then the heaviest. So the large cation of a perovskite lies in the
    corners. What is left open is decided by the list of the atoms' coordinates.
    Atoms are not moved onto symmetric places.

    A crystal of more than :data:`MOST_ATOMS` atoms, or with atoms nearer than 0.1 Å, is left as it is described.

    Args:
        crystal: one without a :meth:`~dpcdvae.structures.crystal.Crystal.problem`.
    """
    if crystal.num_atoms > MOST_ATOMS or float(closest_contacts([crystal]).distance[0]) <= SYMPREC:
        return CanonicalCell(crystal, 0)
    ((lattice, frac, numbers),) = reduced_cells([crystal])
    order = canonical_order(lattice, frac, numbers)
    described = (lattice, frac[order], numbers[order])
    symmetry = _symmetry(described)
    chosen = None if symmetry is None else _chosen_cell(described)
    inner = None if chosen is None else _symmetry(chosen)
    if symmetry is None or chosen is None or inner is None:
        return CanonicalCell(crystal, 0)
    lattice, frac, numbers = chosen
    bases = _equal_bases(lattice)
    origins = _equal_origins(lattice, frac, numbers, np.asarray(inner.crystallographic_orbits))
    basis, coords, atoms = _first_description(bases, frac, numbers, origins)
    drawn = Crystal(numbers[atoms], coords[atoms], basis @ lattice, crystal.id, crystal.properties)
    return CanonicalCell(drawn, int(symmetry.number))


def canonical_frames(frames: Sequence[Crystal]) -> list[CanonicalCell]:
    """The frames of a film in the cell and with the origin that the last one is drawn with, so that nothing jumps.

    Frames of different cells or numbers of atoms are different crystals: each is drawn as :func:`canonical_cell` says.
    Where the last one is drawn in a cell that is no other choice of its own vectors, a primitive one of a supercell,
    all are left as they are described.

    Args:
        frames: as for :func:`canonical_cell`, at least one.
    """
    alone = [canonical_cell(frame) for frame in frames]
    last = frames[-1]
    if not all(f.num_atoms == last.num_atoms and np.allclose(f.lattice, last.lattice, atol=1e-6) for f in frames):
        return alone
    drawn = alone[-1].crystal
    basis: Floats = np.rint(drawn.lattice @ np.linalg.inv(last.lattice))
    origin: Floats = np.zeros(3)
    if abs(abs(np.linalg.det(basis)) - 1) < 1e-6 and np.allclose(basis @ last.lattice, drawn.lattice, atol=1e-3):
        origin = _common_origin(last.frac_coords @ np.linalg.inv(basis), last.atomic_numbers, drawn)
    else:
        basis = np.eye(3)
    turn = np.linalg.inv(basis)
    moved = [replace(f, frac_coords=f.frac_coords @ turn - origin, lattice=basis @ f.lattice) for f in frames]
    return [CanonicalCell(frame, own.number) for frame, own in zip(moved, alone, strict=True)]


def _common_origin(frac: Floats, numbers: Ints, drawn: Crystal) -> Floats:
    """(3,) what to take from ``frac`` (n, 3), so that the atoms lie where they are drawn."""
    first = drawn.atomic_numbers[0]
    shifts = frac[numbers == first] - drawn.frac_coords[0]

    def misfit(shift: Floats) -> float:
        apart = (frac - shift)[:, None] - drawn.frac_coords
        distances = np.linalg.norm((apart - np.round(apart)) @ drawn.lattice, axis=2)
        distances[numbers[:, None] != drawn.atomic_numbers] = np.inf
        return float(distances.min(axis=1).max())

    best: Floats = min(shifts, key=misfit)
    return best


def _symmetry(cell: Any) -> Any:
    """spglib's description of the symmetry of (lattice, coordinates, numbers); None where it is at a loss."""
    return _asked("get_symmetry_dataset", cell)


def _asked(function: str, cell: Any, **options: Any) -> Any:
    return ask_spglib(function, cell, symprec=SYMPREC, **options)[0]


def _chosen_cell(cell: Any) -> tuple[Floats, Floats, Ints] | None:
    """Primitive where that is nearly right-angled, else conventional, with shortest vectors, right-handed."""
    for primitive in (True, False):
        found = _asked("standardize_cell", cell, to_primitive=primitive, no_idealize=True)
        if found is None:
            return None
        lattice, frac, numbers = (np.asarray(part) for part in found)
        (reduced,), (transform,) = minkowski_reduced(lattice[None])
        if np.linalg.det(reduced) < 0:
            reduced, transform = -reduced, -transform
        if not primitive or np.abs(_angles(reduced) - 90).max() <= NEARLY_RIGHT:
            break
    return reduced, frac @ transform, numbers.astype(np.int64)


def _equal_bases(lattice: Floats) -> Floats:
    """(b, 3, 3) integer combinations of the vectors that are equally good axes, right-handed."""
    vectors = _combinations() @ lattice
    lengths, angles = np.linalg.norm(vectors, axis=2), _angles(vectors)
    skew = np.abs(angles - 90)
    kept = _least(
        (lengths.sum(axis=1), LENGTH),
        (skew.sum(axis=1), ANGLE),
        (skew[:, 0] + skew[:, 1], ANGLE),  # the only oblique angle lies between the first two
        ((angles < 90 - ANGLE).sum(axis=1), 0.5),
        (np.abs(lengths[:, 0] - lengths[:, 1]), LENGTH),  # the axis that differs is the third
        (lengths[:, 0], LENGTH),
    )
    return _combinations()[kept]


def _equal_origins(lattice: Floats, frac: Floats, numbers: Ints, orbits: Ints) -> Ints:
    """(m,) the atoms that may equally well lie at the origin; ``orbits`` (n,) are the same for equivalent atoms."""
    _, orbit, counts = np.unique(orbits, return_inverse=True, return_counts=True)
    images = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    nearest = np.full(len(frac), np.inf)
    for image in images:  # of a reduced basis no other is needed
        distances = np.linalg.norm((frac - frac[:, None] + image) @ lattice, axis=2)
        distances[distances < 1e-3] = np.inf  # the atom itself
        nearest = np.minimum(nearest, distances.min(axis=1))
    strength = np.nan_to_num(by_atomic_number("crystal_nn", "electronegativity"))[numbers]
    left = _least((counts[orbit.ravel()], 0.5))
    cations = left[strength[left] < strength.mean()]
    left = cations if len(np.unique(orbits[cations])) > 1 else left
    return _least((-nearest, SITE), (-strength, 1e-6), (-numbers, 0.5), among=left)


def _first_description(bases: Floats, frac: Floats, numbers: Ints, origins: Ints) -> tuple[Floats, Floats, Ints]:
    """Of all choices of axes and origin that whose list of atoms comes first.

    Returns:
        The basis (3, 3), the coordinates (n, 3) in [0, 1), and the order of the atoms (n,).
    """
    best: tuple[bytes, Floats, Floats, Ints] | None = None
    for basis in bases:
        turned = frac @ np.linalg.inv(basis)
        for origin in origins:
            shifted = turned - turned[origin] + 1e-4  # a coordinate a hair below zero is zero
            coords = shifted - np.floor(shifted)
            steps = np.floor(coords * _GRID).astype(">u4")
            order = np.lexsort((*steps.T[::-1], numbers))
            key = np.column_stack([numbers[order], steps[order]]).astype(">u4").tobytes()
            if best is None or key < best[0]:
                best = key, basis, np.maximum(coords - 1e-4, 0.0), order
    assert best is not None
    return best[1:]


def _least(*judgements: tuple[npt.NDArray[Any], float], among: Ints | None = None) -> Ints:
    """Places that are, in one judgement after the other, as low as the lowest of those left, within its tolerance."""
    kept = np.arange(len(judgements[0][0])) if among is None else among
    for values, tolerance in judgements:
        kept = kept[values[kept] <= values[kept].min() + tolerance]
    return kept


@cache
def _combinations() -> Floats:
    """(m, 3, 3) matrices of -1, 0 and 1 with determinant 1."""
    rows = np.stack(np.meshgrid(*[(-1.0, 0.0, 1.0)] * 9, indexing="ij"), -1).reshape(-1, 3, 3)
    proper: Floats = rows[np.round(np.linalg.det(rows)) == 1]
    return proper


def _angles(vectors: Floats) -> Floats:
    """(..., 3) degrees of bases (..., 3, 3): between the second and third vector, first and third, first and second."""
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    cosines = np.stack([(unit[..., i, :] * unit[..., j, :]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))], -1)
    angles: Floats = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    return angles
