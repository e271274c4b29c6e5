"""CrystalNN bonds, the graph that the encoder reads, without building a pymatgen site.

CrystalNN (Pan et al., Inorg. Chem. 60, 1590 (2021), doi:10.1021/acs.inorgchem.0c02996) in the form
CDVAE uses it: no distance cut-offs, no electronegativity weight, no correction for porous crystals.
What remains is geometry. An atom's neighbours are weighted by the solid angle of their Voronoi faces;
the distinct weights cut a quarter of the unit circle into slices, each slice is the probability of one
coordination number, and the neighbours of the likeliest number are bonded. The bonds are those of
pymatgen, which has errors only where this has none: atoms in gases thinner than 180 Å^3 an atom.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SEARCH_RADIUS = 7.0
"""Å. An atom with nobody within it has no bond. For others, neighbours beyond it enter only where the
Voronoi cell is open without them, as in pymatgen."""

MIN_DISTANCE = 0.1
"""Å. Closer atoms are the same atom written twice: no bond length is near it (H2: 0.74 Å), and a
Voronoi face that close would swallow the cell."""

MAX_IMAGES = 2e7
"""Images searched around one atom; a reduced cell of real density needs some thousands."""

_FIRST_TRY = 48
"""Neighbours of the first Voronoi cell; nearly always enough, and checked (see :func:`_voronoi_cell`)."""


def crystal_nn_bonds(crystal: Crystal) -> tuple[Ints, Ints]:
    """Bonds of a crystal by CrystalNN; a pair is bonded if either end counts the other.

    Returns:
        ``bonds`` (e, 2), atoms (i, j) with i <= j, and ``images`` (e, 3): j in cell ``+image`` is
        bonded to i. Each bond once, in ascending order.

    Raises:
        InputError: two atoms closer than :data:`MIN_DISTANCE`, an atom with nobody within
            :data:`SEARCH_RADIUS`, or a cell too skewed to search.
    """
    reason = crystal.problem()
    if reason:
        raise InputError(f"crystal '{crystal.id}': {reason}")
    found = [_with_both_ends(i, *neighbours) for i, neighbours in enumerate(_neighbours_of_all(crystal))]
    edges = np.unique(np.concatenate(found), axis=0)
    return edges[:, :2], edges[:, 2:]


def _with_both_ends(i: int, atoms: Ints, images: Ints) -> Ints:
    """(e, 5) rows (i, j, image) in the one form that stands for both directions of a bond."""
    first_nonzero = np.take_along_axis(images, (images != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    turn = (atoms < i) | ((atoms == i) & (first_nonzero < 0))
    ends = np.stack([np.where(turn, atoms, i), np.where(turn, i, atoms)], axis=1)
    return np.concatenate([ends, np.where(turn[:, None], -images, images)], axis=1)


def _neighbours_of_all(crystal: Crystal) -> list[tuple[Ints, Ints]]:
    """For every atom the (k,) atoms and (k, 3) images that CrystalNN bonds to it."""
    radius = SEARCH_RADIUS
    points = _Surroundings(crystal, radius)
    result = []
    for i in range(crystal.num_atoms):
        if len(points.of(i)[0]) == 0:
            raise InputError(f"crystal '{crystal.id}': atom {i + 1} is isolated: nobody within {radius:g} Å, no bond")
        cell = _voronoi_cell(points, i, radius)
        wider = radius
        while cell is None:
            if wider > points.diagonal:
                raise InputError(f"crystal '{crystal.id}': the Voronoi cell of atom {i + 1} does not close")
            wider = min(2 * wider, points.diagonal + 0.001)
            cell = _voronoi_cell(_Surroundings(crystal, wider, centre=i), i, wider)
        atoms, images, solid_angles = cell
        chosen = _coordination(solid_angles)
        result.append((atoms[chosen], images[chosen]))
    return result


class _Surroundings:
    """Every periodic image within ``radius`` (Å) of each atom, or of the one atom ``centre``, nearest first.

    Attributes:
        diagonal: Å, the longest diagonal of the cell; pymatgen widens its search no further.
    """

    def __init__(self, crystal: Crystal, radius: float, centre: int | None = None) -> None:
        lattice, frac = crystal.lattice, crystal.frac_coords
        corners = np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]]) @ lattice
        self.diagonal = float(np.linalg.norm(corners, axis=1).max()) + 0.01
        shift = np.floor(frac)
        wrapped = frac - shift
        # Wrapped atoms differ by less than one cell, so one cell more than the sphere spans is enough.
        reach = np.ceil(radius * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(np.int64)
        if np.prod(2.0 * reach + 1) * len(frac) > MAX_IMAGES:
            raise InputError(f"crystal '{crystal.id}': the cell is too flat or too skewed to search for neighbours")
        axes = [np.arange(-r, r + 1) for r in reach]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        cart = wrapped @ lattice
        centres = np.arange(len(frac)) if centre is None else np.array([centre])
        images = grid @ lattice
        self._start: dict[int, slice] = {}
        parts = []
        end = 0
        for i in centres:
            vectors = (cart - cart[i])[:, None, :] + images[None, :, :]
            squares = np.einsum("nmk,nmk->nm", vectors, vectors)
            j, m = np.nonzero(squares <= (radius + 1e-8) ** 2)
            order = np.argsort(squares[j, m], kind="stable")[1:]  # the first is the atom itself
            j, m = j[order], m[order]
            distances = np.sqrt(squares[j, m])
            if len(distances) and distances[0] < MIN_DISTANCE:
                raise InputError(
                    f"crystal '{crystal.id}': atoms {i + 1} and {j[0] + 1} are {distances[0]:.3f} Å apart: "
                    "one lies on top of the other"
                )
            offsets = grid[m] + (shift[i] - shift[j]).astype(np.int64)
            parts.append((j, offsets, vectors[j, m], distances))
            self._start[int(i)] = slice(end, end + len(j))
            end += len(j)
        self.atoms, self.images, self.vectors, self.distances = (np.concatenate(p) for p in zip(*parts, strict=True))

    def of(self, i: int) -> tuple[Ints, Ints, Floats, Floats]:
        """(k,) atoms, (k, 3) images, (k, 3) vectors from i in Å and (k,) distances in Å, nearest first."""
        rows = self._start[i]
        return self.atoms[rows], self.images[rows], self.vectors[rows], self.distances[rows]


def _voronoi_cell(points: _Surroundings, i: int, radius: float) -> tuple[Ints, Ints, Floats] | None:
    """Atoms, images and solid angles (sr) of the faces of atom i's Voronoi cell, or None if it is open.

    A point farther away than twice the farthest corner cuts nothing off. So the cell of the nearest few
    points is the cell of all of them as soon as its corners lie within half the distance searched.
    """
    atoms, images, vectors, distances = points.of(i)
    count = min(_FIRST_TRY, len(atoms))
    while count > 3:
        solved = _faces(vectors[:count])
        if count == len(atoms):
            break
        if solved is not None:
            needed = int(np.searchsorted(distances, 2 * solved[1], side="right"))
            if needed <= count:
                break
            count = min(needed, len(atoms))
        else:
            count = min(2 * count, len(atoms))
    else:
        solved = None
    if solved is None:
        return None
    return atoms[:count], images[:count], solved[0]


def _faces(vectors: Floats) -> tuple[Floats, float] | None:
    """Solid angle of each neighbour's Voronoi face, seen from the origin, and the farthest corner (Å).

    The planes midway to the neighbours v, (2 v / |v|^2) . x = 1, are points of the dual; the facets of
    their convex hull are the corners of the cell. None if the cell is open.

    Args:
        vectors: (k, 3) Å, from the atom to its neighbours.
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
    facets = hull.simplices
    # A facet's neighbour k lies across the edge opposite to its vertex k.
    f = np.repeat(np.arange(len(facets)), 3)
    g = hull.neighbors.ravel()
    edges = np.stack([facets[:, [1, 2]], facets[:, [2, 0]], facets[:, [0, 1]]], 1).reshape(-1, 2)
    once = f < g
    f, g, edges = f[once], g[once], edges[once]
    # Each edge of the hull is an edge of two faces. The mean of a face's corners lies inside it, so the
    # triangles it spans with the edges fill the face.
    incident = np.zeros((len(vectors), 3))
    np.add.at(incident, facets.ravel(), np.repeat(corners, 3, axis=0))
    number = np.bincount(facets.ravel(), minlength=len(vectors))
    middle = incident / np.maximum(number, 1)[:, None]
    faces = edges.T.ravel()
    angles = _triangle_solid_angle(middle[faces], np.tile(corners[f], (2, 1)), np.tile(corners[g], (2, 1)))
    farthest = float(np.sqrt((corners**2).sum(1).max()))
    solid_angles = np.bincount(faces, weights=angles, minlength=len(vectors)).astype(np.float64)
    return solid_angles, farthest


def _triangle_solid_angle(a: Floats, b: Floats, c: Floats) -> Floats:
    """(n,) solid angles of triangles (n, 3) each, seen from the origin (Van Oosterom and Strackee, 1983)."""
    la, lb, lc = (np.sqrt(np.einsum("ni,ni->n", x, x)) for x in (a, b, c))
    triple = np.abs(np.einsum("ni,ni->n", a, np.cross(b, c)))
    ab, ac, bc = (np.einsum("ni,ni->n", x, y) for x, y in ((a, b), (a, c), (b, c)))
    return 2 * np.arctan2(triple, la * lb * lc + ab * lc + ac * lb + bc * la)


def _coordination(solid_angles: Floats) -> Ints:
    """Indices of the neighbours that make up the likeliest coordination.

    Weights are solid angles over the largest one, rounded to three digits. With the distinct weights
    w_1 = 1 > w_2 > ... > 0, the coordination of all neighbours of weight >= w_k has the probability of the
    area under the unit circle between w_k+1 and w_k.
    """
    weights = np.round(solid_angles / solid_angles.max(), 3)
    levels = np.unique(weights[weights > 0])[::-1]
    below = np.append(levels[1:], 0.0)
    likeliest = int(np.argmax(_circle_area(levels) - _circle_area(below)))
    return np.flatnonzero(weights >= levels[likeliest])


def _circle_area(x: Floats) -> Floats:
    """Area under the unit circle from 0 to x."""
    return 0.5 * (x * np.sqrt(1 - x**2) + np.arcsin(np.minimum(x, 1.0)))
