"""Which crystals are possible at all: atoms apart from each other, charges that balance.

The definitions are CDVAE's (Xie et al., ICLR 2022). What is not a number is not valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import gcd

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.elements import SYMBOLS
from dpcdvae.errors import InputError

MIN_DISTANCE = 0.5  # Å
MIN_VOLUME = 0.1  # Å^3

# Tables of oxidation states in SMACT. The published numbers were made with SMACT 2.2-2.5, whose
# default is "smact14" today; newer versions default to tables drawn from the ICSD.
OXIDATION_TABLES = ("smact14", "icsd24")

_MAX_TRANSLATIONS = 10_000
_MAX_PAIRS = 2_000_000  # pairs of atoms looked at together: 100 MB


def structurally_valid(crystals: Sequence[Crystal]) -> npt.NDArray[np.bool_]:
    """(n,) True where every periodic distance exceeds 0.5 Å and the volume 0.1 Å^3.

    The images of an atom itself count, so a supercell is as valid as its cell. The published
    script leaves them out, which differs only for cells with a lattice vector below 0.5 Å.
    """
    finite = np.array([np.isfinite(c.lattice).all() and np.isfinite(c.frac_coords).all() for c in crystals], bool)
    valid = finite & np.array([c.volume > MIN_VOLUME for c in crystals], bool)
    candidates = np.flatnonzero(valid).tolist()
    distances = shortest_distances([crystals[k] for k in candidates], MIN_DISTANCE)
    valid[candidates] = distances > MIN_DISTANCE
    return valid


def shortest_distances(crystals: Sequence[Crystal], cutoff: float) -> npt.NDArray[np.float64]:
    """(n,) Å, the shortest distance between two atoms of the infinite crystal; inf where it exceeds ``cutoff``.

    Right for any cell, as all the lattice translations that can matter are looked at: two wrapped
    atoms are at most half a cell apart along each axis, so a translation by n cells reaches below the
    cutoff only if (n - 1/2) h <= cutoff, with h the distance between the faces of the cell. For
    ordinary cells and short cutoffs that leaves n = 0 alone. A cell too flat for float64 counts as 0.
    Lattices and coordinates must be finite, volumes positive.
    """
    shortest = np.full(len(crystals), np.inf)
    lattices, coords = [], []
    kinds = np.zeros((len(crystals), 4), np.int64)  # number of atoms and translations: what is looked at together
    for k, crystal in enumerate(crystals):
        lattice, frac = crystal.lattice, crystal.frac_coords
        if (images := _translations(lattice, cutoff)).any():
            # A skewed or thin cell: the reduced one of the same lattice needs the fewest translations.
            lattice, frac = _reduced(lattice, frac)
            # No need to look farther than to the nearest image of an atom itself.
            images = _translations(lattice, min(cutoff, float(np.linalg.norm(lattice, axis=1).min())))
            if (2 * images + 1).prod() > _MAX_TRANSLATIONS:
                shortest[k] = 0.0
                images[:] = 0
        lattices.append(lattice)
        coords.append(frac)
        kinds[k] = crystal.num_atoms, *images
    for kind in np.unique(kinds, axis=0):
        group = np.flatnonzero((kinds == kind).all(axis=1))
        translations = _box(kind[1:])
        size = max(1, _MAX_PAIRS // int(kind[0]) ** 2)
        for chunk in (group[start : start + size] for start in range(0, len(group), size)):
            found = _shortest(
                np.array([lattices[k] for k in chunk]), np.array([coords[k] for k in chunk]), translations
            )
            shortest[chunk] = np.minimum(shortest[chunk], found)
    shortest[shortest > cutoff] = np.inf
    return shortest


def _translations(lattice: npt.NDArray[np.float64], cutoff: float) -> npt.NDArray[np.int64]:
    """(3,) how many cells to each side can hold an atom within the cutoff of a wrapped difference."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    return np.floor(np.minimum(cutoff / heights + 0.5, 1e6)).astype(np.int64)


def _reduced(
    lattice: npt.NDArray[np.float64], frac_coords: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A basis of short vectors of the same lattice (greedy reduction, Semaev 2001), and the coordinates in it."""
    basis = lattice
    for _ in range(100):  # each round shortens a vector by a good part; a handful is usual
        basis = basis[np.argsort(np.linalg.norm(basis, axis=1))]
        a, b, c = basis
        b = b - np.round(a @ b / (a @ a)) * a
        plane = np.stack([a, b])
        foot = np.linalg.lstsq(plane.T, c, rcond=None)[0]
        around = np.floor(foot) + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        rests = c - around @ plane
        shorter = np.stack([a, b, rests[np.argmin(np.linalg.norm(rests, axis=1))]])
        if np.linalg.norm(shorter, axis=1).sum() > np.linalg.norm(basis, axis=1).sum() * (1 - 1e-9):
            break
        basis = shorter
    return basis, frac_coords @ lattice @ np.linalg.inv(basis)


def _box(images: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(m, 3) all translations up to ``images`` along each axis, the zero first."""
    axes = np.meshgrid(*(np.arange(-n, n + 1) for n in images), indexing="ij")
    box = np.stack(axes, -1).reshape(-1, 3).astype(np.float64)
    return box[np.argsort((box**2).sum(-1), kind="stable")]


def _shortest(
    lattices: npt.NDArray[np.float64], coords: npt.NDArray[np.float64], translations: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(n,) shortest distance over all pairs of atoms and all translations; lattices (n, 3, 3), coords (n, atoms, 3)."""
    first, second = np.triu_indices(coords.shape[1], k=1)
    difference = coords[:, first] - coords[:, second]
    difference -= np.round(difference)
    shortest = np.full(len(coords), np.inf)
    for k, translation in enumerate(translations):
        vectors = np.einsum("npi,nij->npj", difference + translation, lattices)
        squares = np.einsum("npj,npj->np", vectors, vectors)
        shortest = np.minimum(shortest, squares.min(axis=1, initial=np.inf))
        if k > 0:  # the images of an atom itself
            own = np.einsum("i,nij->nj", translation, lattices)
            shortest = np.minimum(shortest, np.einsum("nj,nj->n", own, own))
    return np.sqrt(shortest)


def compositionally_valid(crystals: Iterable[Crystal], table: str = "smact14") -> npt.NDArray[np.bool_]:
    """(n,) True where SMACT's test passes: charges can balance, and cations are the less electronegative.

    Single elements and alloys of metals pass. ``table`` is one of :data:`OXIDATION_TABLES`.

    Raises:
        InputError: SMACT is not installed.
    """
    return np.array([_neutral(_reduced_composition(crystal), table) for crystal in crystals], bool)


def compositional_problem(crystal: Crystal, table: str = "smact14") -> str | None:
    """Why :func:`compositionally_valid` says no, or None where it says yes."""
    return _why_not_neutral(_reduced_composition(crystal), table)


def _reduced_composition(crystal: Crystal) -> tuple[tuple[int, int], ...]:
    numbers, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    divisor = gcd(*counts.tolist())
    return tuple((int(z), int(n) // divisor) for z, n in zip(numbers, counts, strict=True))


@cache
def _neutral(composition: tuple[tuple[int, int], ...], table: str) -> bool:
    """SMACT's ``smact_validity`` of a reduced composition, in a time that grows with the number of atoms only.

    SMACT tries every combination of oxidation states, a product that explodes for many elements. But
    Pauling's test asks only that all cations lie below all anions in electronegativity: so for every
    place of that border, the reachable sums of charge are collected element by element.
    """
    elements, metals = _smact_elements(table)
    symbols = [SYMBOLS[z] for z, _ in composition]
    if len(composition) == 1 or all(symbol in metals for symbol in symbols):
        return True
    if not all(symbol in elements for symbol in symbols):
        return False
    states = [elements[symbol][0] for symbol in symbols]
    electronegativities = [elements[symbol][1] for symbol in symbols]
    if any(e is None for e in electronegativities):
        return False  # as in SMACT: without an electronegativity the test cannot pass
    for border in sorted({e for e in electronegativities if e is not None}):
        sums = {0}
        for (_, count), charges, electronegativity in zip(composition, states, electronegativities, strict=True):
            allowed = [q for q in charges if (q >= 0 if electronegativity <= border else q <= 0)]  # type: ignore[operator]
            sums = {total + count * q for total in sums for q in allowed}
        if 0 in sums:
            return True
    return False


@cache
def _why_not_neutral(composition: tuple[tuple[int, int], ...], table: str) -> str | None:
    if _neutral(composition, table):
        return None
    elements, _ = _smact_elements(table)
    symbols = [SYMBOLS[z] for z, _ in composition]
    for what, missing in (
        ("oxidation state", [symbol for symbol in symbols if symbol not in elements]),
        ("electronegativity", [symbol for symbol in symbols if symbol in elements and elements[symbol][1] is None]),
    ):
        if missing:
            return f"no {what} is known of {', '.join(missing)}"
    sums = {0}
    for symbol, (_, count) in zip(symbols, composition, strict=True):
        sums = {total + count * charge for total in sums for charge in elements[symbol][0]}
    return "charges balance only against the electronegativities" if 0 in sums else "charges cannot balance"


@cache
def _smact_elements(table: str) -> tuple[Mapping[str, tuple[tuple[int, ...], float | None]], frozenset[str]]:
    """Oxidation states and Pauling electronegativity of each element that has states in the table; the metals."""
    try:
        import smact
    except ImportError as error:
        raise InputError(
            "compositional validity needs SMACT, which is not installed: pip install 'dpcdvae[evaluation]'"
        ) from error

    elements: dict[str, tuple[tuple[int, ...], float | None]] = {}
    for symbol in SYMBOLS[1:104]:  # SMACT's elements end at Lr
        element = smact.Element(symbol)
        states = getattr(element, f"oxidation_states_{table}")
        if states:
            elements[symbol] = (tuple(states), element.pauling_eneg)
    return elements, frozenset(smact.metals)
