"""Voronoi cells of the atoms of a crystal: who shares a face with whom, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SEARCH_RADIUS = 7.0
"""Å. Neighbours beyond it enter only where the Voronoi cell is open without them, as in pymatgen."""

MIN_DISTANCE = 0.1
"""Å. Closer atoms are the same atom written twice: no bond length is near it (H2: 0.74 Å), and a
Voronoi face that close would swallow the cell."""

MAX_IMAGES = 2e7
"""Images searched around one atom; a reduced cell of real density needs some thousands."""

_FIRST_TRY = 48
"""Neighbours of the first Voronoi cell; nearly always enough, and checked (see :func:`_hull_of_cell`)."""


@dataclass(frozen=True)
class VoronoiCell:
    """The candidates for a face of one atom's Voronoi cell, nearest first; most have none.

    Attributes:
        atoms: (k,) indices of the neighbours.
        images: (k, 3) cells that they lie in: the neighbour is atom ``atoms`` in cell ``+images``.
        vectors: (k, 3) Å, from the atom to the neighbours.
        distances: (k,) Å.
        solid_angles: (k,) sr, of the faces seen from the atom; 0 without a face.
        areas: (k,) Å^2, of the faces.
    """

    atoms: Ints
    images: Ints
    vectors: Floats
    distances: Floats
    solid_angles: Floats
    areas: Floats


def voronoi_cells(crystal: Crystal, min_distance: float = MIN_DISTANCE) -> list[VoronoiCell]:
    """The Voronoi cell of every atom.

    Raises:
        InputError: no crystal at all, two atoms closer than ``min_distance`` (Å), or a cell too skewed to search.
            The message does not name the crystal, so that it can be kept for all crystals of the same content.
    """
    reason = crystal.problem()
    if reason:
        raise InputError(reason)
    points = Surroundings(crystal, SEARCH_RADIUS, min_distance)
    found: list[tuple[Ints, Ints, Floats, Floats]] = []
    hulls: list[_Hull] = []
    for i in range(crystal.num_atoms):
        around, hull = points.of(i), _hull_of_cell(points.of(i))
        wider = SEARCH_RADIUS
        while hull is None:
            if wider > points.diagonal:
                raise InputError(f"the Voronoi cell of atom {i + 1} does not close")
            wider = min(2 * wider, points.diagonal + 0.001)
            around = Surroundings(crystal, wider, min_distance, centre=i).of(i)
            hull = _hull_of_cell(around)
        found.append(around)
        hulls.append(hull)
    ends = np.cumsum([hull.count for hull in hulls])[:-1]
    solid_angles, areas = (np.split(values, ends) for values in _measure(hulls))
    cells = []
    for (atoms, images, vectors, distances), of_faces, sizes in zip(found, solid_angles, areas, strict=True):
        k = len(sizes)
        cells.append(VoronoiCell(atoms[:k], images[:k], vectors[:k], distances[:k], of_faces, sizes))
    return cells


class Surroundings:
    """Every periodic image within ``radius`` (Å) of each atom, or of the one atom ``centre``, nearest first.

    Attributes:
        diagonal: Å, the longest diagonal of the cell; pymatgen widens its search no further.
    """

    def __init__(self, crystal: Crystal, radius: float, min_distance: float, centre: int | None = None) -> None:
        lattice, frac = crystal.lattice, crystal.frac_coords
        corners = np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]]) @ lattice
        self.diagonal = float(np.linalg.norm(corners, axis=1).max()) + 0.01
        shift = np.floor(frac)
        wrapped = frac - shift
        # Wrapped atoms differ by less than one cell, so one cell more than the sphere spans is enough.
        reach = np.ceil(radius * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(np.int64)
        if np.prod(2.0 * reach + 1) * len(frac) > MAX_IMAGES:
            raise InputError("the cell is too flat or too skewed to search for neighbours")
        axes = [np.arange(-r, r + 1) for r in reach]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        cart = wrapped @ lattice
        images = grid @ lattice
        self._found: dict[int, tuple[Ints, Ints, Floats, Floats]] = {}
        for i in range(len(frac)) if centre is None else [centre]:
            vectors = (cart - cart[i])[:, None, :] + images[None, :, :]
            squares = np.einsum("nmk,nmk->nm", vectors, vectors)
            j, m = np.nonzero(squares <= (radius + 1e-8) ** 2)
            order = np.argsort(squares[j, m], kind="stable")[1:]  # the first is the atom itself
            j, m = j[order], m[order]
            distances = np.sqrt(squares[j, m])
            if len(distances) and distances[0] < min_distance:
                raise InputError(
                    f"atoms {i + 1} and {j[0] + 1} are {distances[0]:.3f} Å apart: one lies on top of the other"
                )
            offsets = grid[m] + (shift[i] - shift[j]).astype(np.int64)
            self._found[i] = (j, offsets, vectors[j, m], distances)

    def of(self, i: int) -> tuple[Ints, Ints, Floats, Floats]:
        """(k,) atoms, (k, 3) images, (k, 3) vectors from i in Å and (k,) distances in Å, nearest first."""
        return self._found[i]


@dataclass(frozen=True)
class _Hull:
    """A closed Voronoi cell as the convex hull of its dual.

    Attributes:
        count: neighbours that it was made of.
        corners: (c, 3) Å, corners of the cell.
        facets: (c, 3) the neighbours whose faces meet in each corner.
        edges: (e, 2) the neighbours whose faces meet in each edge.
        ends: (e, 2) the corners between which each edge runs.
        farthest: Å, from the atom to the farthest corner.
    """

    count: int
    corners: Floats
    facets: Ints
    edges: Ints
    ends: Ints
    farthest: float


def _hull_of_cell(around: tuple[Ints, Ints, Floats, Floats]) -> _Hull | None:
    """The Voronoi cell of the atom at the origin, or None if it is open.

    A point farther away than twice the farthest corner cuts nothing off. So the cell of the nearest few
    points is the cell of all of them as soon as its corners lie within half the distance searched.
    """
    _, _, vectors, distances = around
    count = min(_FIRST_TRY, len(vectors))
    while count > 3:
        hull = _hull(vectors[:count])
        if count == len(vectors):
            return hull
        if hull is not None:
            needed = int(np.searchsorted(distances, 2 * hull.farthest, side="right"))
            if needed <= count:
                return hull
            count = min(needed, len(vectors))
        else:
            count = min(2 * count, len(vectors))
    return None


def _hull(vectors: Floats) -> _Hull | None:
    """The Voronoi cell of the origin among the points ``vectors`` (k, 3), or None if it is open.

    The planes midway to the neighbours v, (2 v / |v|^2) . x = 1, are points of the dual; the facets of
    their convex hull are the corners of the cell.
    """
    from scipy.spatial import ConvexHull, QhullError

    dual = 2 * vectors / np.einsum("ni,ni->n", vectors, vectors)[:, None]
    try:
        hull = ConvexHull(dual)
    except QhullError:  # all neighbours in a plane
        return None
    normals, offsets = hull.equations[:, :3], hull.equations[:, 3]
    if (offsets > -1e-12).any():  # the origin lies outside the hull
        return None
    corners = -normals / offsets[:, None]
    facets = hull.simplices.astype(np.int64)
    # A facet's neighbour k lies across the edge opposite to its vertex k.
    f = np.repeat(np.arange(len(facets)), 3)
    g = hull.neighbors.ravel()
    once = f < g
    edges = facets[:, [[1, 2], [2, 0], [0, 1]]].reshape(-1, 2)[once]
    farthest = float(np.sqrt(np.einsum("ci,ci->c", corners, corners).max()))
    return _Hull(len(vectors), corners, facets, edges, np.stack([f[once], g[once]], axis=1), farthest)


def _measure(hulls: list[_Hull]) -> tuple[Floats, Floats]:
    """Solid angles (sr) and areas (Å^2) of the faces of all neighbours of all cells, one after the other.

    Each edge belongs to two faces. The mean of a face's corners lies inside it, so the triangles it
    spans with the edges fill the face.
    """
    first = np.cumsum([0] + [hull.count for hull in hulls])
    first_corner = np.cumsum([0] + [len(hull.corners) for hull in hulls])
    corners = np.concatenate([hull.corners for hull in hulls])
    incident = np.concatenate([hull.facets + start for hull, start in zip(hulls, first, strict=False)]).ravel()
    faces = np.concatenate([hull.edges + start for hull, start in zip(hulls, first, strict=False)]).T.ravel()
    ends = np.concatenate([hull.ends + start for hull, start in zip(hulls, first_corner, strict=False)])
    total = int(first[-1])
    number = np.maximum(np.bincount(incident, minlength=total), 1)
    repeated = np.repeat(corners, 3, axis=0)
    middle = np.stack([np.bincount(incident, repeated[:, k], minlength=total) / number for k in range(3)], axis=1)
    a, b, c = middle[faces], np.tile(corners[ends[:, 0]], (2, 1)), np.tile(corners[ends[:, 1]], (2, 1))
    angles = np.bincount(faces, _solid_angles(a, b, c), minlength=total)
    areas = np.bincount(faces, 0.5 * _norm(_cross(b - a, c - a)), minlength=total)
    return angles.astype(np.float64, copy=False), areas.astype(np.float64, copy=False)


def _solid_angles(a: Floats, b: Floats, c: Floats) -> Floats:
    """(n,) solid angles of triangles (n, 3) each, seen from the origin (Van Oosterom and Strackee, 1983)."""
    la, lb, lc = _norm(a), _norm(b), _norm(c)
    triple = np.abs(np.einsum("ni,ni->n", a, _cross(b, c)))
    ab, ac, bc = (np.einsum("ni,ni->n", x, y) for x, y in ((a, b), (a, c), (b, c)))
    angles: Floats = 2 * np.arctan2(triple, la * lb * lc + ab * lc + ac * lb + bc * la)
    return angles


def _norm(x: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.einsum("ni,ni->n", x, x))
    return lengths


def _cross(a: Floats, b: Floats) -> Floats:
    """``np.cross`` of (n, 3) each, without what it does for other shapes."""
    x, y, z = a.T
    u, v, w = b.T
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=1)
