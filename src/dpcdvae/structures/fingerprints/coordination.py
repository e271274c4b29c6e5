"""How likely each coordination number of an atom is: CrystalNN with the weights that fingerprints use.

CrystalNN (Pan et al., Inorg. Chem. 60, 1590 (2021), doi:10.1021/acs.inorgchem.0c02996) with its default
settings, which are those of matminer's ``CrystalNNFingerprint``; :mod:`dpcdvae.structures.bonds` has it in its purely
geometric form. A neighbour's weight is the solid angle of its Voronoi face, times solid angle over area
(for porous crystals), times a factor for different electronegativities, times one that falls from 1 to 0
between 0.5 and 1 Å beyond the sum of the covalent radii.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import by_atomic_number, covalent_radii
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.voronoi import voronoi_cells

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MIN_DISTANCE = 1e-3
"""Å. Generated crystals may be wrong, and are described as they are down to here."""

DISTANCE_CUTOFFS = (0.5, 1.0)  # Å beyond the sum of the covalent radii
ELECTRONEGATIVITY_WEIGHT = 3.0
LARGEST_DIFFERENCE = 3.3  # of two electronegativities


@dataclass(frozen=True)
class Coordination:
    """One atom's possible coordinations.

    Attributes:
        numbers: (c,) coordination numbers, ascending.
        likelihoods: (c,) of each; what they lack to 1 is that of no neighbour at all.
        units: (k, 3) unit vectors to the neighbours, the heaviest first: a coordination number n is that
            of the first n.
        weights: (k,) of the neighbours, not rounded.
    """

    numbers: Ints
    likelihoods: Floats
    units: Floats
    weights: Floats


def coordinations(crystal: Crystal) -> list[Coordination]:
    """The possible coordinations of every atom.

    Raises:
        InputError: as :func:`dpcdvae.structures.voronoi.voronoi_cells`, or an element without a radius.
    """
    radii = covalent_radii()[crystal.atomic_numbers]
    if np.isnan(radii).any():
        symbol = SYMBOLS[crystal.atomic_numbers[np.isnan(radii)][0]]
        raise InputError(f"no covalent radius of {symbol} is known, so no fingerprint")
    electronegativities = by_atomic_number("crystal_nn", "electronegativity")[crystal.atomic_numbers]
    cells = voronoi_cells(crystal, MIN_DISTANCE)
    centre = np.repeat(np.arange(len(cells)), [len(cell.atoms) for cell in cells])
    atoms = np.concatenate([cell.atoms for cell in cells])
    distances = np.concatenate([cell.distances for cell in cells])
    angles = np.concatenate([cell.solid_angles for cell in cells])
    areas = np.concatenate([cell.areas for cell in cells])
    units = np.concatenate([cell.vectors for cell in cells]) / distances[:, None]

    difference = np.abs(electronegativities[centre] - electronegativities[atoms])
    chemistry = 1.0 + ELECTRONEGATIVITY_WEIGHT * np.sqrt(difference / LARGEST_DIFFERENCE)
    porosity = np.where(areas > 0, angles / np.where(areas > 0, areas, 1.0), 0.0)
    weights = angles * porosity * np.where(np.isnan(chemistry), 1.0, chemistry)
    largest = np.zeros(len(cells))
    np.maximum.at(largest, centre, weights)
    low, high = (radii[centre] + radii[atoms] + beyond for beyond in DISTANCE_CUTOFFS)
    weights = weights / largest[centre] * _falling((distances - low) / (high - low))
    rounded = np.round(weights, 3)

    found = []
    for i in range(len(cells)):
        mine = np.flatnonzero((centre == i) & (rounded > 0))
        mine = mine[np.argsort(-weights[mine], kind="stable")]
        found.append(Coordination(*_likelihoods(rounded[mine]), units[mine], weights[mine]))
    return found


def _falling(x: Floats) -> Floats:
    """1 up to 0, half a cosine to 0 at 1."""
    return 0.5 * (np.cos(np.pi * np.clip(x, 0.0, 1.0)) + 1.0)


def _likelihoods(weights: Floats) -> tuple[Ints, Floats]:
    """Coordination numbers and their likelihoods from weights in descending order.

    Every distinct weight w_k ends a coordination; its likelihood is the area of the quarter of the unit
    circle between w_k+1 and w_k.
    """
    last = np.flatnonzero(np.append(weights[1:], 0.0) < weights)
    levels = np.append(weights[last], 0.0)
    areas = (levels * np.sqrt(1.0 - levels**2) + np.arcsin(np.minimum(levels, 1.0))) * 2.0 / np.pi
    return last + 1, areas[:-1] - areas[1:]
