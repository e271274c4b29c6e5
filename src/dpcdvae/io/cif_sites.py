"""The sites of a CIF and the atoms that symmetry makes of them; sites that share a place are one atom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.io.special_positions import Array, Operations, orbit, printed_error
from dpcdvae.structures.occupancy import TOLERANCE, atom_on_place

Note = Callable[[str], None]


@dataclass(frozen=True)
class Sites:
    """The sites that a block lists: the atoms before symmetry."""

    labels: Sequence[str]
    numbers: Sequence[int]
    coords: Array
    occupancies: Array | None  # None where all are full
    printed: Sequence[Sequence[str]]  # the three coordinates of each, as text


def images_of(sites: Sites, operations: Operations) -> list[Array]:
    """The atoms (m, 3) of each site under the operations of a space group, in fractional coordinates."""
    if len(operations) == 1 or not np.isfinite(sites.coords).all():
        return list(sites.coords[:, None])
    return [
        orbit(position, printed_error(texts), operations)
        for position, texts in zip(sites.coords, sites.printed, strict=True)
    ]


def same_atoms(first: Sequence[Array], second: Sequence[Array]) -> bool:
    """Whether each site has the same atoms in two settings."""
    for a, b in zip(first, second, strict=True):
        if len(a) != len(b):
            return False
        apart = a[:, None] - b[None]
        if np.abs(apart - np.round(apart)).max(-1).min(1).max() > 1e-4:
            return False
    return True


def atoms_of(sites: Sites, orbits: Sequence[Array], note: Note) -> tuple[list[int], Array]:
    """Atomic numbers and positions, where sites that share a place are one atom."""
    if sites.occupancies is None:
        if all(len(atoms) == 1 for atoms in orbits):
            return list(sites.numbers), np.concatenate(orbits)
        kept = list(range(len(orbits)))
        _refuse_listed_twice(sites, orbits)
    else:
        kept, left_out = [], False
        for place in _places(sites, orbits, sites.occupancies):
            amounts: defaultdict[int, float] = defaultdict(float)
            for k in place:
                amounts[sites.numbers[k]] += float(sites.occupancies[k])
            try:
                number = atom_on_place(amounts)
            except InputError as error:
                raise InputError(f"site {sites.labels[place[0]][:20]}: {error}") from None
            left_out |= number is None
            kept += [k for k in place if sites.numbers[k] == number and sites.occupancies[k] != 0][:1]
        if left_out:
            note("atoms of occupancy 0 are left out")
    numbers = [sites.numbers[k] for k in kept for _ in orbits[k]]
    return numbers, np.concatenate([orbits[k] for k in kept]) if kept else np.zeros((0, 3))


def _places(sites: Sites, orbits: Sequence[Array], occupancies: Array) -> list[list[int]]:
    """Sites by place. Two full ones stay apart wherever they are: overlapping atoms are read as they stand."""
    places: list[list[int]] = []
    for k, full in enumerate(np.abs(occupancies - 1) <= TOLERANCE):
        shared = None if full else next((p for p in places if _together(sites, orbits, p[0], k)), None)
        if shared is None:
            places.append([k])
        else:
            shared.append(k)
    return places


def _together(sites: Sites, orbits: Sequence[Array], first: int, second: int) -> bool:
    error = printed_error(sites.printed[first]) + printed_error(sites.printed[second])
    apart = orbits[first] - sites.coords[second]
    return bool((np.abs(apart - np.round(apart)) <= np.maximum(error, 1e-4)).all(-1).any())


def _refuse_listed_twice(sites: Sites, orbits: Sequence[Array]) -> None:
    """Raises InputError where one site is an image of another, as in a list of all atoms beside all operations."""
    by_size = defaultdict(list)
    for k, atoms in enumerate(orbits):
        by_size[sites.numbers[k], len(atoms)].append(k)
    for (_, size), same in by_size.items():
        for k, first in enumerate(same) if size > 1 else ():
            for second in same[k + 1 :]:
                if _together(sites, orbits, first, second):
                    raise InputError(f"sites {sites.labels[first]} and {sites.labels[second]} are one by symmetry")
