"""Space groups, by spglib."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from dpcdvae.parallel.results import Kind, Result, Results
from dpcdvae.registry import Registry
from dpcdvae.structures.contacts import closest_contacts
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.quiet_spglib import ask_spglib
from dpcdvae.structures.reduction import minkowski_reduced

ALGORITHM = "2"
"""To be raised with every change of the numbers."""

SYMPREC = 0.1
"""Å by which atoms may miss their symmetric places. Generated crystals never hit them exactly."""

CROWD_RADIUS = 5.0
"""Å around an atom within which its neighbours distinguish it from others of its element."""

_PAIRS = 100_000  # of an atom and an image, looked at together

NUM_SPACE_GROUPS = 230

CRYSTAL_SYSTEMS = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}
"""The number of the last space group of each."""


@dataclass(frozen=True)
class Convention:
    """In which description of a crystal, and how strictly, symmetry is looked for.

    Attributes:
        meaning: for people.
        angle_tolerance: of spglib, degrees; negative for its own, which follows from the distances.
        canonical: in a reduced basis, the atoms in :func:`canonical_order`; else as the crystal is described.
    """

    meaning: str
    angle_tolerance: float
    canonical: bool


REDUCED = "reduced"

CONVENTIONS: Registry[Convention] = Registry(
    "symmetry convention",
    {
        REDUCED: Convention("no angle tolerance of its own, atoms in an order that every description has", -1.0, True),
        "pymatgen": Convention("angle tolerance 5°, cell and order of atoms as in the file (pymatgen)", 5.0, False),
    },
)

Cell = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class SpaceGroups:
    """Result of :func:`find_space_groups`.

    Attributes:
        numbers: (n,) 1 to 230, 0 where none was found.
        reasons: crystal -> why none was found; what is no crystal at all is left out.
    """

    numbers: npt.NDArray[np.int64]
    reasons: dict[int, str]

    def histogram(self) -> npt.NDArray[np.int64]:
        """(230,) crystals in each space group."""
        return np.bincount(self.numbers, minlength=NUM_SPACE_GROUPS + 1)[1:]


def find_space_groups(crystals: Sequence[Crystal], results: Results, convention: str = REDUCED) -> SpaceGroups:
    """The space group of each crystal at :data:`SYMPREC` in one of :data:`CONVENTIONS`; the time limit is for each.

    Atoms within :data:`SYMPREC` of each other cannot be distinguished, and spglib may search for long: such a
    crystal has no space group.
    """
    numbers = np.zeros(len(crystals), np.int64)
    reasons: dict[int, str] = {}
    sound = []
    for k, distance in enumerate(closest_contacts(crystals).distance.tolist()):
        if distance > SYMPREC:
            sound.append(k)
        elif distance <= SYMPREC:  # neither is true of what is no crystal
            reasons[k] = f"atoms are {distance:.3f} Å apart, which is within the tolerance of {SYMPREC:g} Å"
    chosen, some = CONVENTIONS[convention], [crystals[k] for k in sound]
    cells = reduced_cells(some) if chosen.canonical else [(c.lattice, c.frac_coords, c.atomic_numbers) for c in some]
    settings: dict[str, str | float] = {"symprec": SYMPREC, "spglib": version("spglib")}
    if not chosen.canonical:
        settings["as"] = convention
    found, lacking = results.compute(
        partial(space_group, chosen),
        cells,
        [content_hash(crystal) for crystal in some],
        Kind("space-groups", ALGORITHM, settings),
        "space groups",
    )
    numbers[sound] = [0 if vector is None else int(vector[0]) for vector in found]
    reasons |= {sound[n]: reason for n, reason in lacking.items()}
    return SpaceGroups(numbers, dict(sorted(reasons.items())))


def reduced_cells(crystals: Sequence[Crystal]) -> list[Cell]:
    """In reduced, right-handed bases: spglib gives up on skewed cells, and its tolerance acts on the basis it gets."""
    if not crystals:
        return []
    lattices, transforms = minkowski_reduced(np.array([crystal.lattice for crystal in crystals]))
    signs = np.sign(np.linalg.det(lattices))[:, None, None]
    return [
        (lattice, (c.frac_coords - np.floor(c.frac_coords)) @ transform, c.atomic_numbers)
        for c, lattice, transform in zip(crystals, signs * lattices, signs * transforms, strict=True)
    ]


def space_group(convention: Convention, cell: Cell) -> Result:
    """(1,) the number of the space group, or the reason why there is none."""
    lattice, frac, numbers = cell
    order = canonical_order(lattice, frac, numbers) if convention.canonical else np.arange(len(numbers))
    found, reason = ask_spglib(
        "get_symmetry_dataset",
        (lattice, frac[order], numbers[order]),
        symprec=SYMPREC,
        angle_tolerance=convention.angle_tolerance,
    )
    return reason or np.array([found.number], np.float64)


def canonical_order(
    lattice: npt.NDArray[np.float64], frac: npt.NDArray[np.float64], numbers: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(n,) the rarest element first, and of each element the most crowded atom: the same in every description.

    spglib measures displacements from the first atom of the rarest element. Of crystals that miss their symmetry
    by about the tolerance, as generated ones do, it finds another group with another atom in that place.
    """
    _, which, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    spacings = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    reach = [np.arange(-n, n + 1) for n in np.ceil(CROWD_RADIUS / spacings).astype(int)]
    images = np.stack(np.meshgrid(*reach, indexing="ij"), -1).reshape(-1, 3) @ lattice
    cart = (frac - np.floor(frac)) @ lattice
    differences = cart - cart[:, None]
    crowding = np.zeros(len(frac))
    size = max(1, _PAIRS // len(frac) ** 2)
    for some in (images[start : start + size] for start in range(0, len(images), size)):
        squares = ((differences + some[:, None, None]) ** 2).sum(-1)
        crowding += numbers @ (np.maximum(0.0, 1.0 - squares / CROWD_RADIUS**2) ** 2).sum(axis=0)
    return np.lexsort((-crowding, numbers, counts[which.ravel()]))


@cache
def symbols() -> tuple[str, ...]:
    """(231,) international short symbols by number, "" for 0."""
    import spglib

    found = [""] * (NUM_SPACE_GROUPS + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for hall_number in range(1, 531):
            kind = spglib.get_spacegroup_type(hall_number)
            if kind is not None and not found[kind.number]:
                found[kind.number] = kind.international_short
    return tuple(found)


def by_crystal_system(histogram: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(7,) crystals in each of :data:`CRYSTAL_SYSTEMS`, of the (230,) in each space group."""
    starts = [0, *list(CRYSTAL_SYSTEMS.values())[:-1]]
    return np.add.reduceat(histogram, starts)
