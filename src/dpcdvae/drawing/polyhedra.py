"""Coordination polyhedra: a cation among its anions, as crystallographers draw it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.drawing.cell_contents import CellBonds
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import by_atomic_number

Ints = npt.NDArray[np.int64]

FEWEST, MOST = 4, 16
"""Neighbours of a centre: three lie in a plane, and more than sixteen are no coordination."""

COPLANAR = 1e-2
"""Of the unit normals of two triangles of the same face: the edge between them is not drawn."""


@dataclass(frozen=True)
class Polyhedron:
    """One coordination polyhedron.

    Attributes:
        centre: which atom of the crystal.
        corners: (k,) places in the :class:`CellBonds` of the bonds to its corners.
        triangles: (t, 3) corners of each triangle of its surface.
        edges: (m, 2) corners at the ends of each edge.
    """

    centre: int
    corners: Ints
    triangles: Ints
    edges: Ints


def polyhedra_of(crystal: Crystal, bonds: CellBonds) -> list[Polyhedron]:
    """The polyhedra of all atoms that have four or more neighbours which are more electronegative (Pauling).

    Other bonded atoms must lie farther away than all of these.
    """
    if not len(bonds.first):
        return []
    strength = _electronegativities()[crystal.atomic_numbers]
    stronger = strength[bonds.second] > strength[bonds.first]  # False too where one is unknown
    lengths = np.linalg.norm(bonds.vectors, axis=1)
    order = np.argsort(bonds.first, kind="stable")
    atoms, starts = np.unique(bonds.first[order], return_index=True)
    found = []
    for atom, around in zip(atoms.tolist(), np.split(order, starts[1:]), strict=True):
        corners, others = around[stronger[around]], around[~stronger[around]]
        if not FEWEST <= len(corners) <= MOST or (lengths[others] <= lengths[corners].max()).any():
            continue
        surface = _surface(bonds.vectors[corners])
        if surface is not None:
            found.append(Polyhedron(atom, corners, *surface))
    return found


def _surface(points: npt.NDArray[np.float64]) -> tuple[Ints, Ints] | None:
    """Triangles and edges of the convex hull of (k, 3) points about the origin; None where they lie in a plane."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(points)
    except QhullError:
        return None
    if hull.volume < 0.02 * float(np.linalg.norm(points, axis=1).max()) ** 3:
        return None
    normals, edges = hull.equations[:, :3], []
    for face, (corners, neighbours) in enumerate(zip(hull.simplices, hull.neighbors, strict=True)):
        for opposite, other in enumerate(neighbours):
            if face < other and normals[face] @ normals[other] < 1 - COPLANAR:
                edges.append(np.delete(corners, opposite))
    return hull.simplices.astype(np.int64), np.array(edges, np.int64).reshape(-1, 2)


def _electronegativities() -> npt.NDArray[np.float64]:
    """(119,) by atomic number, NaN where none is known."""
    return by_atomic_number("crystal_nn", "electronegativity")
