"""What a drawing of a unit cell holds: its atoms, with their copies on faces, edges and corners, and their bonds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import covalent_radii

Array = npt.NDArray[np.float64]

FACE_TOLERANCE = 0.35  # Å; an atom this near to a face is drawn on the opposite face too
ATOM_SCALE = 0.42  # of the covalent radius
AZIMUTH, ELEVATION = np.radians(24.0), np.radians(14.0)  # from where the cell is looked at
BOND_FACTOR = 1.15  # of the sum of the covalent radii
SHELL_FACTOR = 1.2  # of the distance to the nearest neighbour
MIN_HEIGHT = 0.5  # Å; bonds in a flatter cell would be countless
MAX_PAIRS = 2e6  # of atoms within reach of each other; a real crystal of 10 000 atoms has a tenth of that


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
    tolerance = np.minimum(FACE_TOLERANCE / cell_heights(crystal), 0.2)
    index, cells = [], []
    for k, position in enumerate(wrapped):
        shifts = [(0, 1) if x < t else (0, -1) if x > 1 - t else (0,) for x, t in zip(position, tolerance, strict=True)]
        for shift in itertools.product(*shifts):
            index.append(k)
            cells.append(shift)
    return DrawnAtoms(np.array(index), np.array(cells), (wrapped[index] + cells) @ crystal.lattice)


@dataclass(frozen=True)
class CellBonds:
    """The bonds of every atom of a crystal, each bond from both of its ends.

    Attributes:
        first, second: (e,) atoms; ``second`` in cell ``+images`` is bonded to ``first`` in this one, both wrapped.
        images: (e, 3).
        vectors: (e, 3) Å, from the first to the second.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    vectors: Array


def cell_bonds(crystal: Crystal) -> CellBonds:
    """Bonded are atoms about as near as their covalent radii say which lie in each other's first shell.

    There are none in a cell so flat or so crowded that they would be countless.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    reach = BOND_FACTOR * drawn_radii()[crystal.atomic_numbers]
    expected = crystal.num_atoms**2 * 4.2 * (2 * float(reach.max())) ** 3 / crystal.volume
    if cell_heights(crystal).min() < MIN_HEIGHT or expected > MAX_PAIRS:
        none = np.zeros(0, np.int64)
        return CellBonds(none, none, np.zeros((0, 3), np.int64), np.zeros((0, 3)))
    wrapped = crystal.frac_coords - np.floor(crystal.frac_coords)
    positions, periodic = wrapped @ crystal.lattice, np.ones(3, np.int64)
    first, second, images, distance = find_points_in_spheres(
        positions, positions, 2 * float(reach.max()), periodic, np.ascontiguousarray(crystal.lattice)
    )
    apart = distance > 0.1  # nearer atoms are no bond to look at
    shell = np.full(crystal.num_atoms, np.inf)
    np.minimum.at(shell, first[apart], distance[apart])
    near = distance <= np.minimum(reach[first] + reach[second], SHELL_FACTOR * np.minimum(shell[first], shell[second]))
    chosen = apart & near
    first, second, images = first[chosen], second[chosen], images[chosen].astype(np.int64)
    return CellBonds(first, second, images, positions[second] - positions[first] + images @ crystal.lattice)


def drawn_radii() -> Array:
    """(119,) covalent radii in Å by atomic number, 1.5 where none is known."""
    return np.nan_to_num(covalent_radii(), nan=1.5)


def element_colour(number: int) -> Array:
    """RGB of an element after Jmol; beyond its table, grey."""
    from ase.data.colors import jmol_colors

    return np.array(jmol_colors[number]) if number < len(jmol_colors) else np.full(3, 0.6)


def viewing_rotation(lattice: Array) -> Array:
    """(3, 3) rotation, to be applied from the right, to the viewer's frame: x right, y up, z towards the viewer."""
    up = lattice[2] / np.linalg.norm(lattice[2])
    right = lattice[0] - (lattice[0] @ up) * up
    right /= np.linalg.norm(right)
    back = np.cross(up, right)
    if back @ lattice[1] < 0:  # a left-handed cell: look at it from the other side
        back, right = -back, -right  # both, or it would be its mirror image
    cos_a, sin_a, cos_e, sin_e = np.cos(AZIMUTH), np.sin(AZIMUTH), np.cos(ELEVATION), np.sin(ELEVATION)
    x = cos_a * right + sin_a * back
    away = -sin_a * right + cos_a * back
    rotation: Array = np.stack([x, cos_e * up + sin_e * away, sin_e * up - cos_e * away], axis=1)
    return rotation


def cell_heights(crystal: Crystal) -> Array:
    """(3,) Å, distances between opposite faces of the cell."""
    heights: Array = 1.0 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    return heights
