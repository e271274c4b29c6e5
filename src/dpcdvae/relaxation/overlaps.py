"""Atoms that lie upon one another: found, and pushed apart before any potential sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.contacts import closest_contacts
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import covalent_radii
from dpcdvae.structures.elements import SYMBOLS

# Distances over the sum of the covalent radii (Cordero et al. 2008). Bonds lie near 1, the shortest (in H2,
# triple ones) at 0.8 and above.
TOO_CLOSE = 0.6
"""A start with such a contact is pushed apart first."""
APART = 0.75
"""How far it is pushed."""
MERGED = 0.5
"""A relaxation that ends with such a contact has fallen into a hole of its potential."""

LONELY = 6.0
"""Å. An atom without a neighbour there is no part of a crystal: the longest bonds, those of caesium, are of 5.3."""

PUSHES = 50  # before the cell is made larger
FILLED = 0.5  # most of the cell's volume that spheres of half the wanted distance may take up
EXPANSION = 1.05  # of the cell vectors, where there is no room
EXPANSIONS = 60  # a factor 19 of the cell vectors

Contacts = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]


def closest_contact(crystal: Crystal, within: float) -> tuple[str, float] | None:
    """The closest contact below ``within`` times the sum of the covalent radii: (``C-C``, Å), None without one."""
    found = closest_contacts([crystal])
    if not found.ratio[0] < within:
        return None
    numbers = np.sort(crystal.atomic_numbers[found.ratio_pair[0]])
    distance = found.ratio[0] * covalent_radii()[numbers].sum()
    return "-".join(SYMBOLS[z] for z in numbers), float(distance)


def lonely_atom(crystal: Crystal, within: float = LONELY) -> str | None:
    """The element of the first atom without another, or an image of its own, ``within`` Å; None without one."""
    from ase.neighborlist import neighbor_list

    lonely = np.setdiff1d(np.arange(crystal.num_atoms), neighbor_list("i", crystal.to_ase(), within))
    return SYMBOLS[crystal.atomic_numbers[lonely[0]]] if len(lonely) else None


def push_apart(crystal: Crystal) -> Crystal:
    """The crystal with no contact below ``APART``: atoms move along their contacts, in a cell that stays.

    Only where an atom meets its own image it is stretched, in that direction, and where there is no room it grows.
    """
    rng = np.random.default_rng(0)  # for atoms in one place, which have no direction to go
    crystal = _with_room(_clear_of_images(crystal))
    for _ in range(EXPANSIONS):
        for _ in range(PUSHES):
            if (pushed := _pushed(crystal, rng)) is None:
                return crystal
            crystal = pushed
        crystal = replace(crystal, lattice=EXPANSION * crystal.lattice)
    return crystal


def _pushed(crystal: Crystal, rng: np.random.Generator) -> Crystal | None:
    """Every atom a step away from those that are too close to it; None where none is."""
    first, second, distances, vectors = _contacts(crystal, APART)
    if len(distances) == 0:
        return None
    directions = vectors / np.maximum(distances, 1e-9)[:, None]
    directions[distances < 1e-9] = rng.normal(size=(int((distances < 1e-9).sum()), 3))
    # Each pair is listed from both ends, and each end gives way by half of what is missing; a little
    # more, so that the distance is reached in a finite number of steps.
    missing = 0.5 * (1.01 * APART * _reach(crystal)[first, second] - distances)
    moves = np.zeros((crystal.num_atoms, 3))
    np.subtract.at(moves, first, missing[:, None] * directions)
    coords = np.linalg.solve(crystal.lattice.T, (crystal.cart_coords + moves).T).T
    return replace(crystal, frac_coords=np.asarray(coords, np.float64))


def _clear_of_images(crystal: Crystal) -> Crystal:
    """The crystal stretched along every lattice vector that is too short for its atoms, the shortest first.

    No vector gets shorter by it, so this ends.
    """
    while True:
        first, second, distances, vectors = _contacts(crystal, APART)
        own = first == second
        if not own.any():
            return crystal
        short = 1.01 * APART * _reach(crystal)[first, second][own] / distances[own]
        k = int(np.argmax(short))
        along = vectors[own][k] / distances[own][k]
        crystal = replace(crystal, lattice=crystal.lattice + (short[k] - 1) * np.outer(crystal.lattice @ along, along))


def _with_room(crystal: Crystal) -> Crystal:
    """The crystal in a cell of its shape that is large enough for its atoms."""
    spheres = 4 / 3 * np.pi * float(((APART * covalent_radii()[crystal.atomic_numbers]) ** 3).sum())
    return replace(crystal, lattice=max(1.0, np.cbrt(spheres / FILLED / crystal.volume)) * crystal.lattice)


def _contacts(crystal: Crystal, within: float) -> Contacts:
    """Pairs closer than ``within`` times the sum of their radii: atoms i and j, distance, vector from i to j (Å)."""
    from ase.neighborlist import neighbor_list

    found: Contacts = neighbor_list("ijdD", crystal.to_ase(), within * covalent_radii()[crystal.atomic_numbers])
    return found


def _reach(crystal: Crystal) -> npt.NDArray[np.float64]:
    """(n, n) Å, sums of the covalent radii."""
    radii = covalent_radii()[crystal.atomic_numbers]
    return radii[:, None] + radii[None, :]
