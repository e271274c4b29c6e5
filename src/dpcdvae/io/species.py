"""Element symbols as files write them."""

from __future__ import annotations

import re

from dpcdvae.elements import ATOMIC_NUMBERS
from dpcdvae.errors import InputError

_SPECIES = re.compile(r"([A-Z][a-z]?)(?:\d*[+-]|[+-]\d+)?$")


def atomic_number_of(species: str) -> int | None:
    """Atomic number of ``Fe``, ``Fe3+`` or ``O2-``; None for what is not written like that.

    Raises:
        InputError: an isotope of hydrogen (D, T), a dummy species (X, Vc), or no element.
    """
    if not (match := _SPECIES.match(species)):
        return None
    symbol = match[1]
    if symbol in ("D", "T"):
        raise InputError(f"isotope '{species}': write it as H")
    if symbol not in ATOMIC_NUMBERS:
        raise InputError(f"'{species}' is not an element")
    return ATOMIC_NUMBERS[symbol]
