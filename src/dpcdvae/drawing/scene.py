"""What is drawn of a crystal: balls, bonds, edges of the cell and polyhedra, in the viewer's frame, by depth."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dpcdvae.drawing.cell_contents import (
    ATOM_SCALE,
    CellBonds,
    DrawnAtoms,
    atoms_of_cell,
    cell_bonds,
    drawn_radii,
    element_colour,
    viewing_rotation,
)
from dpcdvae.drawing.polyhedra import polyhedra_of
from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal

Array = npt.NDArray[np.float64]
Colour = tuple[float, float, float, float]

BOND_WIDTH = 0.2  # Å
FOG = 0.3  # how far the farthest things fade into the background
GLASS = 0.35  # opacity of a face
EDGE_PIECES = 12  # a cell's edge is cut up so that atoms can hide parts of it
STUMP = 0.4  # of a bond to an atom that is not drawn
CLEAR: Colour = (0.0, 0.0, 0.0, 0.0)

AXES = ("a", "b", "c")


@dataclass(frozen=True)
class Look:
    """How crystals are drawn.

    Attributes:
        bonds, polyhedra: whether they are there.
        outside: whether atoms outside the cell that are bonded to one of it are drawn too.
        along: ``a``, ``b`` or ``c``: look along this axis; empty for a view from the front, a little from above.
        rotate: what is turned after that, about x (right), y (up) and z (towards the viewer): ``90x,-20y``.
    """

    bonds: bool = True
    polyhedra: bool = True
    outside: bool = False
    along: str = ""
    rotate: str = ""

    def rotation(self, lattice: Array) -> Array:
        """(3, 3) to be applied from the right, to the viewer's frame.

        Raises:
            InputError: an unknown axis, or a rotation that cannot be read.
        """
        rotation = viewing_rotation(lattice)
        if self.along:
            if self.along not in AXES:
                raise InputError(f"--along {self.along}: a, b or c is needed")
            rotation = _along(lattice, AXES.index(self.along))
        for turn in filter(None, (part.strip() for part in self.rotate.split(","))):
            found = re.fullmatch(r"([+-]?\d{1,6}(?:\.\d{0,9})?)([xyz])", turn)
            if found is None:
                raise InputError(f"--rotate {self.rotate}: degrees about axes are needed, such as 90x,-20y")
            rotation = rotation @ _turn("xyz".index(found[2]), np.radians(float(found[1])))
        return rotation


class Shape(NamedTuple):
    """A ball (one point), a line (two) or a triangle (three).

    Attributes:
        depth: by which it hides others.
        points: (k, 3) Å. size: radius of a ball, width of a line, Å; 0 for a hairline or a triangle.
        colour: RGBA.
    """

    depth: float
    points: Array
    size: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """A crystal in the viewer's frame: x right, y up, z towards the viewer, Å.

    Attributes:
        numbers: (m,) of the drawn atoms. positions: (m, 3). radii: (m,).
        shapes: in the order in which they are painted.
        low, high: (3,) corners of the box around everything.
    """

    numbers: npt.NDArray[np.int64]
    positions: Array
    radii: Array
    shapes: list[Shape]
    low: Array
    high: Array


def scene_of(crystal: Crystal, look: Look) -> Scene:
    """What is seen of a crystal without a :meth:`~dpcdvae.structures.crystal.Crystal.problem`."""
    rotation = look.rotation(crystal.lattice)
    bonds = cell_bonds(crystal)
    atoms = atoms_of_cell(crystal)
    around = _neighbours(bonds)
    if look.outside:
        atoms = _with_bonded(crystal, atoms, around)
    numbers, positions = crystal.atomic_numbers[atoms.index], atoms.positions @ rotation
    radii = ATOM_SCALE * drawn_radii()[numbers]
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3))) @ crystal.lattice @ rotation
    everything = np.concatenate([corners, positions + radii[:, None], positions - radii[:, None]])
    low, high = everything.min(axis=0), everything.max(axis=0)

    def faded(colour: Array, depth: float, more: float = 0.0, opacity: float = 1.0) -> Colour:
        amount = FOG * (high[2] - depth) / max(high[2] - low[2], 1e-9) + more
        red, green, blue = (float(part) for part in colour * (1 - amount) + amount)
        return red, green, blue, opacity

    shapes = [
        Shape(z + r, np.array([[x, y, z]]), r, faded(element_colour(number), z))
        for number, (x, y, z), r in zip(numbers.tolist(), positions.tolist(), radii.tolist(), strict=True)
    ]
    for corner, other in _edges(corners):
        for start, end in itertools.pairwise(np.linspace(corner, other, EDGE_PIECES + 1)):
            depth = float(start[2] + end[2]) / 2
            shapes.append(Shape(depth, np.array([start, end]), 0.0, faded(np.full(3, 0.25), depth, 0.1)))
    drawn = set(zip(atoms.index.tolist(), *atoms.cells.T.tolist(), strict=True))
    if look.bonds:
        for place, (k, cell) in enumerate(zip(atoms.index.tolist(), atoms.cells, strict=True)):
            for j, vector, image in around.get(k, ()):
                bond, inside = vector @ rotation, (j, *(cell + image).tolist()) in drawn
                length = max(float(np.linalg.norm(bond)), 1e-12)
                if not inside and (look.outside or bond[2] > 0.75 * length):
                    continue  # a stump towards the viewer would be a speck on its own ball
                # From a little inside the ball to the middle, where the neighbour's half begins.
                ends = positions[place] + np.outer(
                    [min(0.8 * radii[place] / length, 0.5), 0.5 if inside else STUMP], bond
                )
                depth = float(ends[:, 2].mean())
                shade = faded(0.9 * element_colour(int(numbers[place])), depth, 0.0 if inside else 0.25)
                shapes.append(Shape(depth, ends, BOND_WIDTH, shade))
    if look.polyhedra:
        for colour, triangles, edges in _polyhedra(crystal, bonds, atoms, drawn):
            for triangle in triangles @ rotation:
                depth = float(triangle[:, 2].mean())
                shapes.append(Shape(depth, triangle, 0.0, faded(colour, depth, opacity=GLASS)))
            for edge in edges @ rotation:
                depth = float(edge[:, 2].mean()) + 1e-3
                shapes.append(Shape(depth, edge, 0.0, faded(0.6 * colour, depth)))
    painted = np.concatenate([shape.points for shape in shapes])
    low, high = np.minimum(low, painted.min(axis=0)), np.maximum(high, painted.max(axis=0))
    return Scene(numbers, positions, radii, sorted(shapes, key=lambda shape: shape.depth), low, high)


def _neighbours(bonds: CellBonds) -> dict[int, list[tuple[int, Array, npt.NDArray[np.int64]]]]:
    """For each atom its bonds: the other atom, the vector to it, and in which cell it lies."""
    around = defaultdict(list)
    for i, j, vector, image in zip(
        bonds.first.tolist(), bonds.second.tolist(), bonds.vectors, bonds.images, strict=True
    ):
        around[i].append((j, vector, image))
    return around


def _with_bonded(
    crystal: Crystal, atoms: DrawnAtoms, around: Mapping[int, list[tuple[int, Array, npt.NDArray[np.int64]]]]
) -> DrawnAtoms:
    """The atoms with all that are bonded to one of them."""
    found = dict.fromkeys(zip(atoms.index.tolist(), *atoms.cells.T.tolist(), strict=True))
    for k, cell in zip(atoms.index.tolist(), atoms.cells, strict=True):
        found |= dict.fromkeys((j, *(cell + image).tolist()) for j, _, image in around.get(k, ()))
    index, cells = np.array([k for k, *_ in found]), np.array([cell for _, *cell in found])
    wrapped = crystal.frac_coords - np.floor(crystal.frac_coords)
    return DrawnAtoms(index, cells, (wrapped[index] + cells) @ crystal.lattice)


def _polyhedra(
    crystal: Crystal, bonds: CellBonds, atoms: DrawnAtoms, drawn: set[tuple[int, ...]]
) -> Iterator[tuple[Array, Array, Array]]:
    """Colour, triangles (t, 3, 3) and edges (m, 2, 3) in Å of each polyhedron whose corners are all drawn."""
    for shape in polyhedra_of(crystal, bonds):
        seconds, images = bonds.second[shape.corners].tolist(), bonds.images[shape.corners]
        for place in np.flatnonzero(atoms.index == shape.centre):
            cells = (atoms.cells[place] + images).tolist()
            if all((j, *cell) in drawn for j, cell in zip(seconds, cells, strict=True)):
                points = atoms.positions[place] + bonds.vectors[shape.corners]
                colour = element_colour(int(crystal.atomic_numbers[shape.centre]))
                yield colour, points[shape.triangles], points[shape.edges]


def _edges(corners: Array) -> Iterator[tuple[Array, Array]]:
    """The twelve edges of the cell, of its eight corners in the order of their binary numbers."""
    for k, j in itertools.combinations(range(8), 2):
        if (k ^ j).bit_count() == 1:
            yield corners[k], corners[j]


def _along(lattice: Array, axis: int) -> Array:
    """(3, 3) the view along one axis, the next one to the right as far as it can be."""
    forward = lattice[axis] / np.linalg.norm(lattice[axis])
    right = lattice[(axis + 1) % 3] - (lattice[(axis + 1) % 3] @ forward) * forward
    right /= np.linalg.norm(right)
    view: Array = np.stack([right, np.cross(forward, right), forward], axis=1)
    return view


def _turn(axis: int, angle: float) -> Array:
    """(3, 3) for row vectors, anticlockwise for who looks against the axis."""
    turn, (i, j) = np.eye(3), ((axis + 1) % 3, (axis + 2) % 3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = np.sin(angle), -np.sin(angle)
    return turn
