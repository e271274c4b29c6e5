"""One cell for one crystal: primitive if wanted, Niggli-reduced, in the standard orientation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.reduction import minkowski_reduced

PRIMITIVE_TOLERANCE = 0.01
"""Å. Atoms of a primitive cell repeat within this distance: more would average away tilts and dimers."""

LONGER = 1.01
"""A cell whose vectors are together longer than the shortest ones by more than this factor is skewed."""


def standardise(crystal: Crystal, *, primitive: bool = False) -> Crystal:
    """The Niggli-reduced cell with c along z and a in the xz plane, coordinates wrapped into [0, 1).

    As CDVAE prepares its data. Standardising twice changes nothing but the last digits. A crystal given
    in a left-handed cell keeps its handedness: the reduced cell is right-handed. The reduction is
    pymatgen's, which takes angles within one degree for equal: a nearly right angle may stay on the
    wrong side of 90.

    Args:
        primitive: go to the primitive cell first, where atoms repeat within ``PRIMITIVE_TOLERANCE``.

    Raises:
        InputError: NaN, a cell without volume, or a cell that cannot be reduced.
    """
    reason = crystal.problem()
    if reason:
        raise InputError(f"crystal '{crystal.id}': {reason}")
    try:
        structure = crystal.to_pymatgen()
        if primitive:
            structure = structure.get_primitive_structure(PRIMITIVE_TOLERANCE)
        reduced = structure.get_reduced_structure()
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise InputError(f"crystal '{crystal.id}': the cell cannot be reduced ({error})") from error
    return Crystal.from_parameters(
        [site.specie.Z for site in reduced],
        wrap(reduced.frac_coords),
        reduced.lattice.lengths,
        reduced.lattice.angles,
        crystal.id,
        crystal.properties,
    )


def calculation_cell(crystal: Crystal) -> Crystal:
    """The same atoms at the same places in a right-handed cell of short vectors, as DFT codes and potentials need it.

    A skewed cell becomes that of Minkowski; one that is not skewed keeps its vectors, of which a left-handed one turns
    all three round. Nothing is rotated, and the atoms keep their order.

    Args:
        crystal: with finite numbers and a volume (:meth:`Crystal.problem`).
    """
    (shortest,), (transform,) = minkowski_reduced(crystal.lattice[None])
    lattice, coords = crystal.lattice, crystal.frac_coords
    if crystal.lengths.sum() > LONGER * np.linalg.norm(shortest, axis=1).sum():
        lattice, coords = shortest, wrap(coords @ transform)
    if np.linalg.det(lattice) < 0:
        lattice, coords = -lattice, -coords
    return crystal if lattice is crystal.lattice else replace(crystal, lattice=lattice, frac_coords=coords)


def wrap(frac_coords: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Into [0, 1); a coordinate a hair below zero becomes 0, not the 1 that rounding makes of it."""
    wrapped = frac_coords - np.floor(frac_coords)
    return np.where(wrapped >= 1.0, 0.0, wrapped)
