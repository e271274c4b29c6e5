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

from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.voronoi import SEARCH_RADIUS, voronoi_cells

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def crystal_nn_bonds(crystal: Crystal) -> tuple[Ints, Ints]:
    """Bonds of a crystal by CrystalNN; a pair is bonded if either end counts the other.

    Returns:
        ``bonds`` (e, 2), atoms (i, j) with i <= j, and ``images`` (e, 3): j in cell ``+image`` is
        bonded to i. Each bond once, in ascending order.

    Raises:
        InputError: two atoms closer than 0.1 Å, an atom with nobody within 7 Å, or a cell too skewed
            to search (see :mod:`dpcdvae.structures.voronoi`).
    """
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
    try:
        cells = voronoi_cells(crystal)
    except InputError as error:
        raise InputError(f"crystal '{crystal.id}': {error}") from error
    result = []
    for i, cell in enumerate(cells):
        if cell.distances[0] > SEARCH_RADIUS:
            raise InputError(
                f"crystal '{crystal.id}': atom {i + 1} is isolated: nobody within {SEARCH_RADIUS:g} Å, no bond"
            )
        chosen = _coordination(cell.solid_angles)
        result.append((cell.atoms[chosen], cell.images[chosen]))
    return result


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
