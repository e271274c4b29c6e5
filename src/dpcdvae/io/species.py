"""Element symbols and formulas as files write them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Mapping
from functools import lru_cache

from dpcdvae.errors import InputError
from dpcdvae.structures.elements import ATOMIC_NUMBERS, MAX_ATOMIC_NUMBER

_SPECIES = re.compile(r"([A-Za-z]{1,3})(?:\d*(?:\.\d+)?[+-]?|[+-]\d+(?:\.\d+)?)$", re.ASCII)  # Fe3+, Fe+3, O2-, Na1


# Labels that begin like V, W and U. Without any of these in the formula they are none.
_NO_ELEMENT = re.compile(r"(?P<vacancy>va(c|cancy)?|vc)(?![a-z])|(?P<water>wat(er)?)(?![a-z])|(?P<name>uu[a-z])", re.I)
_MEANT = {"vacancy": "a vacancy", "water": "water", "name": "an element by its systematic name"}


def atomic_number_of(species: str) -> int:
    """Atomic number of ``Fe``, ``FE``, ``Fe3+`` or ``O2-``.

    Raises:
        InputError: an isotope of hydrogen (D, T), a dummy species (X, Vac), or no element.
    """
    match = _SPECIES.match(species.strip())
    symbol = match[1].capitalize() if match else species
    if symbol in ATOMIC_NUMBERS:
        return ATOMIC_NUMBERS[symbol]
    if symbol in ("D", "T"):
        raise InputError(f"isotope '{species}': write it as H")
    raise InputError(f"'{species[:20]}' is not an element")


def atomic_number(value: int) -> int:
    """A number that a file gives for an element.

    Raises:
        InputError: it is none of 1 to 118.
    """
    if not 1 <= value <= MAX_ATOMIC_NUMBER:
        shown = str(value) if abs(value) < 10**9 else "an atomic number of many digits"
        raise InputError(f"{shown} is not an atomic number: they lie in 1..{MAX_ATOMIC_NUMBER}")
    return value


def number_of_label(label: str, formula: Container[int] | None) -> int:
    """Atomic number of a site that has a label alone, such as ``Fe1``, ``O2a`` or ``OW``.

    Args:
        formula: the atomic numbers of the crystal, where known, for labels such as ``CO1`` (Co, or C).

    Raises:
        InputError: no element, or two that it may be.
    """
    match = re.match(r"([A-Za-z])([A-Za-z]?)", label, re.ASCII)
    if match is None:
        raise InputError(f"label '{label[:20]}' names no element: add _atom_site_type_symbol")
    if (named := _NO_ELEMENT.match(label)) and (formula is None or ATOMIC_NUMBERS[label[0].upper()] not in formula):
        raise InputError(f"label '{label[:20]}' stands for {_MEANT[named.lastgroup or '']}: add _atom_site_type_symbol")
    two, one = (match[1] + match[2]).capitalize(), match[1].upper()
    if match[2].islower() and two in ATOMIC_NUMBERS:
        return ATOMIC_NUMBERS[two]
    found = {ATOMIC_NUMBERS[s] for s in (one, two) if s in ATOMIC_NUMBERS}
    likely = {number for number in found if formula is None or number in formula}
    if len(likely or found) > 1:
        raise InputError(f"label '{label[:20]}' may be {two} or {one}: add _atom_site_type_symbol")
    return (likely or found).pop() if found else atomic_number_of(label)


@lru_cache(maxsize=4096)
def parse_formula_sum(text: str) -> Mapping[int, float] | None:
    """Atoms by atomic number of a formula such as ``Sr1 Ti1 O3``; None where it cannot be read."""
    if text.isupper() and re.search(r"[A-Z]{2}", text):  # CO: Co, or C and O
        return None
    counts: defaultdict[int, float] = defaultdict(float)
    for symbol, amount, wrong in re.findall(r"([A-Z][a-z]?)([0-9]+\.?[0-9]*|\.[0-9]+)?(?:\([0-9]+\))?|([^\s,'])", text):
        number = ATOMIC_NUMBERS.get("H" if symbol == "D" else symbol)
        if wrong or number is None:
            return None
        counts[number] += float(amount or 1)
    return {number: count for number, count in counts.items() if count} or None


def proportional(formula: Mapping[int, float], counts: Mapping[int, float]) -> bool:
    """Whether two compositions agree: exactly if all are whole numbers, to 1 % of each element if not."""
    counts = {number: count for number, count in counts.items() if count}
    if set(formula) != set(counts):
        return False
    all_formula, all_counts = sum(formula.values()), sum(counts.values())
    if all(formula[z] * all_counts == counts[z] * all_formula for z in counts):
        return True
    whole = all(float(value).is_integer() for value in (*formula.values(), *counts.values()))
    return not whole and all(
        abs(formula[z] * all_counts - counts[z] * all_formula) <= 0.01 * counts[z] * all_formula for z in counts
    )
