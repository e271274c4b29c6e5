"""What a drawing of a unit cell holds: its atoms, with their copies on faces, edges and corners, and their bonds."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import covalent_radii

Array = npt.NDArray[np.float64]

FACE_TOLERANCE = 0.35  # Å; an atom this near to a face is drawn on the opposite face too
BOND_FACTOR = 1.15  # of the sum of the covalent radii
SHELL_FACTOR = 1.2  # of the distance to the nearest neighbour
MIN_HEIGHT = 0.5  # Å; bonds in a flatter cell would be countless


@dataclass(frozen=True)
class DrawnAtoms:
    """Atoms of one cell with their copies on its faces, edges and corners.

    Attributes:
        index: (m,) which atom of the crystal.
        cells: (m, 3) the lattice translation from that atom, wrapped into the cell.
        positions: (m, 3) Å.
    """

    index: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]
    positions: Array


def atoms_of_cell(crystal: Crystal) -> DrawnAtoms:
    """All atoms to draw so that the cell looks complete."""
    wrapped = crystal.frac_coords - np.floor(crystal.frac_coords)
    tolerance = np.minimum(FACE_TOLERANCE / _heights(crystal), 0.2)
    index, cells = [], []
    for k, position in enumerate(wrapped):
        shifts = [(0, 1) if x < t else (0, -1) if x > 1 - t else (0,) for x, t in zip(position, tolerance, strict=True)]
        for shift in itertools.product(*shifts):
            index.append(k)
            cells.append(shift)
    return DrawnAtoms(np.array(index), np.array(cells), (wrapped[index] + cells) @ crystal.lattice)


def bonds_of(crystal: Crystal, atoms: DrawnAtoms) -> Iterator[tuple[int, Array, bool]]:
    """For each drawn atom and each of its bonds: the (3,) vector to the neighbour, Å, and whether that is drawn.

    Bonded are atoms about as near as their covalent radii say which lie in each other's first shell.
    """
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    if _heights(crystal).min() < MIN_HEIGHT:
        return
    wrapped = crystal.frac_coords - np.floor(crystal.frac_coords)
    cell = Atoms(crystal.atomic_numbers, scaled_positions=wrapped, cell=crystal.lattice, pbc=True)
    reach = BOND_FACTOR * drawn_radii()[crystal.atomic_numbers]
    first, second, distance, vector, shift = neighbor_list("ijdDS", cell, reach)
    shell = np.full(len(cell), np.inf)
    np.minimum.at(shell, first, distance)
    # Atoms on top of each other are no bond to look at, and have no direction.
    chosen = (distance <= SHELL_FACTOR * np.minimum(shell[first], shell[second])) & (distance > 0.1)
    drawn = {(int(k), *cell) for k, cell in zip(atoms.index, atoms.cells.tolist(), strict=True)}
    neighbours = defaultdict(list)
    for i, j, toward, to in zip(
        first[chosen].tolist(), second[chosen].tolist(), vector[chosen], shift[chosen], strict=True
    ):
        neighbours[i].append((j, toward, to))
    for place, (k, here) in enumerate(zip(atoms.index.tolist(), atoms.cells, strict=True)):
        for j, toward, to in neighbours[k]:
            yield place, toward, (j, *(here + to).tolist()) in drawn


def drawn_radii() -> Array:
    """(119,) covalent radii in Å by atomic number, 1.5 where none is known."""
    return np.nan_to_num(covalent_radii(), nan=1.5)


def _heights(crystal: Crystal) -> Array:
    """(3,) Å, distances between opposite faces of the cell."""
    heights: Array = 1.0 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    return heights
