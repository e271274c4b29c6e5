"""Scalar properties as files and other packages keep them: which entries are numbers, their names, the id."""

from __future__ import annotations

import contextlib
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, printable

ID_KEYS = ("material_id", "id")
"""Under which an id is looked for, in capital or small letters, the first before the second; written as the first."""

EXACT = 2**53  # beyond it not every integer is a float

_TAKEN = frozenset(
    {"", *ID_KEYS, "name", "cif", "formula", "lattice", "pbc", "properties", "species", "pos", "positions", "numbers"}
    | {"symbols", "occupancy", "forces", "stress", "virial", "dipole"}
)
"""What a file format, or ASE when it reads one, has a meaning of its own for, in small letters."""

_PREFIX = "property_"
_INDEX = re.compile(r"Unnamed: \d+|__index_level_\d+__")  # what pandas calls the number of a row
_ODD = re.compile(r"[^\x00-\x7f]|_")


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
    if as_python_alone(text) or not _is_float(text):
        return None
    value = int(text) if re.fullmatch(r"[+-]?\d{1,15}", text) else float(text)
    return value if math.isfinite(value) else None


def parse_floats(words: Sequence[str], what: str) -> npt.NDArray[np.float64]:
    """(n,) numbers as files write them; NaN and infinity are left to :meth:`Crystal.problem`.

    Raises:
        InputError: a word that is no number, with ``what`` it should be.
    """
    if not as_python_alone("".join(words)):
        with contextlib.suppress(ValueError):
            return np.array([float(word) for word in words], np.float64)
    odd = next(word for word in words if as_python_alone(word) or not _is_float(word))
    raise InputError(f"{what} '{printable(odd)[:30]}' is not a number")


def _is_float(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def is_whole(text: str) -> bool:
    """Whether a text is a number of digits 0 to 9 alone."""
    return text.isascii() and text.isdecimal()


def as_python_alone(text: str) -> bool:
    """Whether a number is spelt as Python takes it and no file format: ``1_000``, or in digits of other scripts."""
    return _ODD.search(text) is not None


def is_index(name: str) -> bool:
    """Whether a column is the number of the row, as pandas writes it."""
    return not name or _INDEX.fullmatch(name) is not None


def outside_name(name: str, more: frozenset[str] = frozenset()) -> str:
    """The name of a property in files, tables, ``Atoms.info`` and ``Structure.properties``.

    It is its own, with ``property_`` before one that has a meaning there (``id`` becomes ``property_id``), and before
    one that would be taken for such (``property_id``). :func:`own_name` undoes it.

    Args:
        more: further names that are taken, in small letters.
    """
    name = printable(name)
    bare = name
    while bare.startswith(_PREFIX):
        bare = bare.removeprefix(_PREFIX)
    # monty imports what stands under "@module".
    return _PREFIX + name if bare.lower() in _TAKEN | more or bare[:1] == "@" or is_index(bare) else name


def own_name(name: str) -> str:
    """The name of a property that :func:`outside_name` gave a name outside."""
    inner = name.removeprefix(_PREFIX)
    return inner if outside_name(inner) == name else name


def outside_names(values: Mapping[Any, Any], more: frozenset[str] = frozenset()) -> dict[str, float]:
    """The finite numbers of a crystal's properties, under their names outside.

    Raises:
        InputError: two names that differ in characters alone that cannot be printed.
    """
    found: dict[str, float] = {}
    for name, value in plain_numbers(values).items():
        if (outside := outside_name(name, more)) in found:
            raise InputError(f"two properties are called '{outside[:30]}': rename one")
        found[outside] = value
    return found


def id_names(names: Iterable[Any], keys: Sequence[str] = ID_KEYS) -> list[str]:
    """Those of the names that are one of ``keys`` in capital or small letters, in the order of ``keys``."""
    found = [name for name in names if isinstance(name, str) and name.lower() in keys]
    return sorted(found, key=lambda name: keys.index(name.lower()))


def id_of(entries: Mapping[Any, Any], keys: Sequence[str] = ID_KEYS) -> str:
    """The id of a document, ``Structure.properties``, ``Atoms.info`` and the like; "" for none."""
    given = (entries[name] for name in id_names(entries, keys))
    usable = (v for v in given if isinstance(v, str | numbers.Integral) and not isinstance(v, bool) and v != "")
    return next(map(str, usable), "")


def id_and_numbers(entries: Mapping[Any, Any]) -> tuple[str, dict[str, float]]:
    """:func:`id_of`, and all numbers among the rest under their own names."""
    ids = id_names(entries)
    rest = plain_numbers({key: value for key, value in entries.items() if key not in ids})
    return id_of(entries), {own_name(name): value for name, value in rest.items()}
