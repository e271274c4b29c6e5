"""A crystal in the standard setting of its space group, made exactly symmetric, by spglib."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.structures.contacts import closest_contacts
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.quiet_spglib import ask_spglib
from dpcdvae.structures.space_groups import canonical_order, reduced_cells
from dpcdvae.structures.standardise import wrap

LARGEST = 1.0
"""Å. More than atoms of a crystal may be moved and still be the same crystal."""

EXACT = 1e-4
"""Fraction of a cell vector by which an atom that was made symmetric may miss the image of another."""

OF_THE_CELL = ("energy", "free_energy")
"""Properties that are sums over the cell, as ASE has them."""


@dataclass(frozen=True)
class Symmetrised:
    """A crystal in the conventional cell of its space group.

    Attributes:
        crystal: all atoms of that cell.
        number: 1 to 230. symbol: Hermann-Mauguin. hall: the setting, by its Hall symbol.
        operations: as CIFs have them, ``x, y, z`` first.
        sites: the atoms of which all others are images. multiplicities: atoms that each of them stands for.
    """

    crystal: Crystal
    number: int
    symbol: str
    hall: str
    operations: tuple[str, ...]
    sites: tuple[int, ...]
    multiplicities: tuple[int, ...]


def check_tolerance(tolerance: float) -> None:
    """Raises InputError for a tolerance that is none."""
    if not 0 < tolerance <= LARGEST:
        raise InputError(f"--symmetrise {tolerance:g}: a tolerance above 0 and at most {LARGEST:g} Å is needed")


def symmetrised(crystal: Crystal, tolerance: float) -> Symmetrised | None:
    """The crystal in the standard setting of its space group: axes and origin of spglib's first choice (origin 1,
    hexagonal axes, unique axis b), atoms moved onto their symmetric places.

    Args:
        tolerance: Å by which atoms may miss these places.

    Returns:
        None where spglib finds no symmetry, not even P1, or atoms are closer to each other than the tolerance.
    """
    if crystal.problem() is not None or float(closest_contacts([crystal]).distance[0]) <= tolerance:
        return None
    ((lattice, frac, numbers),) = reduced_cells([crystal])
    order = canonical_order(lattice, frac, numbers)
    given: Any = (lattice, frac[order], numbers[order])
    found, _ = ask_spglib("get_symmetry_dataset", given, symprec=tolerance)
    cell, _ = ask_spglib("refine_cell", given, symprec=tolerance)
    listed = None if found is None else ask_spglib("get_symmetry_from_database", found.hall_number)[0]
    if found is None or cell is None or listed is None:
        return None
    rotations, translations = listed["rotations"], listed["translations"]
    vectors, coords, types = (np.asarray(part) for part in cell)
    atoms = np.lexsort((*wrap(coords).round(6).T[::-1], types))
    standard = Crystal(types[atoms], coords[atoms], vectors, crystal.id, crystal.properties)
    orbits = _orbits(standard, rotations, translations)
    if orbits is None or standard.formula != crystal.formula:
        return None
    times = standard.num_atoms / crystal.num_atoms
    scaled = {name: standard.properties[name] * times for name in OF_THE_CELL if name in standard.properties}
    return Symmetrised(
        replace(standard, properties={**standard.properties, **scaled}),
        found.number,
        found.international,
        found.hall,
        tuple(_written(r, t) for r, t in zip(rotations, translations, strict=True)),
        tuple(orbits),
        tuple(orbits.values()),
    )


def _orbits(
    crystal: Crystal, rotations: npt.NDArray[np.int64], translations: npt.NDArray[np.float64]
) -> dict[int, int] | None:
    """How many atoms each first one stands for; None where an image of an atom is none."""
    orbits: dict[int, int] = {}
    left = np.ones(crystal.num_atoms, bool)
    for site in range(crystal.num_atoms):
        if not left[site]:
            continue
        images = rotations @ crystal.frac_coords[site] + translations  # (operations, 3)
        off = images[:, None] - crystal.frac_coords
        near = (np.abs(off - np.round(off)) < EXACT).all(-1) & (crystal.atomic_numbers == crystal.atomic_numbers[site])
        members = near.any(0)
        if not near.any(1).all() or not left[members].all():
            return None
        orbits[site] = int(members.sum())
        left &= ~members
    return orbits


def _written(rotation: npt.NDArray[np.int64], translation: npt.NDArray[np.float64]) -> str:
    """``-y, x-y, z+1/3``"""
    parts = []
    for row, shift in zip(rotation.tolist(), translation.tolist(), strict=True):
        terms = "".join({1: "+", -1: "-"}[factor] + axis for factor, axis in zip(row, "xyz", strict=True) if factor)
        fraction = Fraction(shift % 1).limit_denominator(24)
        parts.append(terms.removeprefix("+") + (f"+{fraction}" if fraction else ""))
    return ", ".join(parts)
