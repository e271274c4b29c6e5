"""Scalar properties as other packages keep them: which entries of a mapping are numbers, and which one is the id."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

ID_KEYS = ("material_id", "id")
"""Under which an id is looked for, the first before the second. It is written as ``material_id``."""

EXACT = 2**53  # beyond it not every integer is a float


def plain_number(value: Any) -> float | None:
    """A finite number as a bool, an int or a float of Python's own; None for anything else."""
    if type(value).__name__ in ("bool", "bool_"):  # numpy's is no number to Python
        return bool(value)
    if not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    if not math.isfinite(number):
        return None
    return int(value) if isinstance(value, numbers.Integral) and abs(number) < EXACT else number


def plain_numbers(values: Mapping[Any, Any]) -> dict[str, float]:
    """The entries that :func:`plain_number` takes for numbers."""
    found = {str(name): plain_number(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def parse_number(text: str) -> float | None:
    """The finite number that a text is, an int where it has digits alone; ``True`` and ``False`` are bools."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = int(text) if re.fullmatch(r"[+-]?\d{1,15}", text, re.ASCII) else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def id_and_numbers(entries: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The id of ``Structure.properties``, ``Atoms.info`` and the like ("" for none), and all numbers among the rest."""
    given = (entries.get(key) for key in ID_KEYS)
    id = next((str(value) for value in given if isinstance(value, str | numbers.Integral) and value != ""), "")
    return id, plain_numbers({key: value for key, value in entries.items() if key not in ID_KEYS})
