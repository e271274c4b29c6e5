"""Whether the charges of a composition can balance: SMACT's test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from math import gcd

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import SYMBOLS

# Tables of oxidation states in SMACT. The published numbers were made with SMACT 2.2-2.5, whose
# default is "smact14" today; newer versions default to tables drawn from the ICSD.
OXIDATION_TABLES = ("smact14", "icsd24")


def compositionally_valid(crystals: Iterable[Crystal], table: str = "smact14") -> npt.NDArray[np.bool_]:
    """(n,) True where SMACT's test passes: charges can balance, and cations are the less electronegative.

    Single elements and alloys of metals pass. ``table`` is one of :data:`OXIDATION_TABLES`.

    Raises:
        InputError: SMACT is not installed.
    """
    return np.array([_neutral(_reduced_composition(crystal.atomic_numbers), table) for crystal in crystals], bool)


def compositional_problem(crystal: Crystal, table: str = "smact14") -> str | None:
    """Why :func:`compositionally_valid` says no, or None where it says yes."""
    return imbalance(crystal.atomic_numbers, table)


def imbalance(atomic_numbers: npt.ArrayLike, table: str = "smact14") -> str | None:
    """:func:`compositional_problem` of atomic numbers (n,) alone."""
    return _why_not_neutral(_reduced_composition(atomic_numbers), table)


def _reduced_composition(atomic_numbers: npt.ArrayLike) -> tuple[tuple[int, int], ...]:
    numbers, counts = np.unique(np.asarray(atomic_numbers), return_counts=True)
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
    import smact

    elements: dict[str, tuple[tuple[int, ...], float | None]] = {}
    for symbol in SYMBOLS[1:104]:  # SMACT's elements end at Lr
        element = smact.Element(symbol)
        states = getattr(element, f"oxidation_states_{table}")
        if states:
            elements[symbol] = (tuple(states), element.pauling_eneg)
    return elements, frozenset(smact.metals)
