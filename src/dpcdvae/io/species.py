"""Element symbols as files write them."""

from __future__ import annotations

import re

from dpcdvae.errors import InputError
from dpcdvae.structures.elements import ATOMIC_NUMBERS

_SPECIES = re.compile(r"([A-Za-z]{1,3})(?:\d*(?:\.\d+)?[+-]?|[+-]\d+(?:\.\d+)?)$")  # Fe, Fe3+, Fe+3, O2-, Na1


def atomic_number_of(species: str) -> int:
    """Atomic number of ``Fe``, ``Fe3+`` or ``O2-``.

    Raises:
        InputError: an isotope of hydrogen (D, T), a dummy species (X, Vac), or no element.
    """
    match = _SPECIES.match(species)
    symbol = match[1] if match else species
    if symbol in ATOMIC_NUMBERS:
        return ATOMIC_NUMBERS[symbol]
    if symbol in ("D", "T"):
        raise InputError(f"isotope '{species}': write it as H")
    near = symbol.capitalize()
    hint = f": did you mean '{near}'?" if near in ATOMIC_NUMBERS else ""
    raise InputError(f"'{species[:20]}' is not an element{hint}")
