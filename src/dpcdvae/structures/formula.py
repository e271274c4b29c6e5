"""Reduced formulas as pymatgen writes them: the less electronegative element first, NaCl and SrTiO3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

from dpcdvae.structures.element_data import by_atomic_number
from dpcdvae.structures.elements import SYMBOLS

POLYANION = 1.65
"""The last two elements stand in parentheses, as in Ca(OH)2, where their electronegativities differ by less."""

NOT_REDUCED = {
    **{symbol: f"{symbol}2" for symbol in ("H", "N", "O", "F", "Cl")},
    **{f"{symbol}O": f"{symbol}2O2" for symbol in ("H", "Li", "Na", "K", "Rb", "Cs")},
}
"""Molecules and peroxides."""


def reduced_formula(counts: Mapping[str, int]) -> str:
    """The formula of the atoms in a cell, by symbol: one for each composition, whatever the cell.

    It is pymatgen's ``Composition.reduced_formula``, computed here because training has no chemistry library. Elements
    without an electronegativity come last.
    """
    symbols = sorted(counts, key=lambda symbol: (_rank(symbol), symbol))
    divisor = math.gcd(*counts.values())
    amounts = {symbol: counts[symbol] // divisor for symbol in symbols}
    group, tail = "", symbols[-2:]
    if len(symbols) > 2 and _rank(tail[1]) < math.inf and _rank(tail[1]) - _rank(tail[0]) < POLYANION:
        times = math.gcd(*(amounts[symbol] for symbol in tail))
        if times > 1:
            inner = {symbol: amounts.pop(symbol) // times for symbol in tail}
            group = f"({_written(inner)}){times}"
    formula = _written(amounts) + group
    return NOT_REDUCED.get(formula, formula)


def _written(amounts: Mapping[str, int]) -> str:
    return "".join(f"{symbol}{amount if amount > 1 else ''}" for symbol, amount in amounts.items())


@cache
def _rank(symbol: str) -> float:
    """Pauling's electronegativity, infinite where there is none."""
    values = by_atomic_number("crystal_nn", "electronegativity")
    value = float(values[SYMBOLS.index(symbol)])
    return math.inf if math.isnan(value) else value
