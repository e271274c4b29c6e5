"""Which atom stands on a place that a file fills with occupancies: one rule for every format."""

from __future__ import annotations

from collections.abc import Mapping

from dpcdvae.errors import InputError

TOLERANCE = 1e-3
"""A place whose occupancies of one element add up to 1 within this holds that atom."""


def atom_on_place(amounts: Mapping[int, float]) -> int | None:
    """The atomic number of the one element on a place, or None if every occupancy there is 0.

    Args:
        amounts: occupancy by atomic number, summed over oxidation states.

    Raises:
        InputError: an occupancy below 0 or not a number, more than one atom, less than one, or several elements.
    """
    present = {number: amount for number, amount in amounts.items() if amount != 0}
    if not present:
        return None
    if not all(amount > 0 for amount in present.values()):  # also NaN
        raise InputError(f"an occupancy of {_listed(present)}: it must lie between 0 and 1")
    if sum(present.values()) > 1 + TOLERANCE:
        raise InputError(f"a place with occupancies that add up to {sum(present.values()):g}: more than one atom")
    if len(present) > 1 or sum(present.values()) < 1 - TOLERANCE:
        raise InputError(f"partial occupancies ({_listed(present)}): give an ordered structure")
    return next(iter(present))


def _listed(amounts: Mapping[int, float]) -> str:
    return ", ".join(f"{amount:g}" for amount in list(amounts.values())[:4])
