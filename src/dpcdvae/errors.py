"""The two ways a request can end without a bug: the input is wrong, or the user stopped it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

MOST_LISTED = 8  # names in an error, before "and 12 more"

_NEEDED = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of fewer digits", "float_type": "a number", "float_parsing": "a number",
    "finite_number": "a finite number", "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "text", "list_type": "a list", "dict_type": "a table", "model_type": "a table",
    "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}", "less_than": "less than {lt}",
    "less_than_equal": "at most {le}", "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them", "literal_error": "{expected}",
}  # fmt: skip
"""Kinds of errors of pydantic, in the words of a user, who knows no 'valid integer' or 'instance of _Failed'."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line: what is wrong, where, and what to do about it. The command line
    prints it without a traceback and exits with code 2.
    """


def printable(text: str) -> str:
    """One line without control characters, which a terminal or a table would obey."""
    return " ".join((text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)).split())


def one_line(error: object) -> str:
    """The text of an exception, or of what a program wrote, as one line without control characters."""
    return printable(str(error))


def reason_of(error: Exception) -> str:
    """Kind and text of an exception in one line, cut where it goes on: how work on a crystal that failed is counted.

    Of what the system does not give, what it says: ``is a directory: folder``.
    """
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f": {error.filename}"
        return one_line(error.strerror[:1].lower() + error.strerror[1:] + where)[:200]
    return f"{type(error).__name__}: {one_line(error)[:200]}".removesuffix(": ")


def misfit(error: ValidationError) -> str:
    """What is wrong with the first value that pydantic refuses: ``place: at least 1 is needed, not 0``."""
    first = error.errors()[0]
    kind, context, value = first["type"], first.get("ctx", {}), repr(first["input"])
    place = ".".join(map(str, first["loc"]))
    if kind == "missing":
        return f"{place} is missing"
    if kind == "extra_forbidden":
        return f"{place} is not known"
    if kind in _NEEDED:
        said = f"{_NEEDED[kind].format(**context)} is needed"
    elif "\\x00" in value:
        said = "text without a NUL character is needed"
    else:  # what a validator of ours says, or a kind that is not foreseen
        said = one_line(context.get("error", first["msg"]))
    shown = value if len(value) <= 60 else f"{value[:60]}..."
    return f"{place}: {said}, not {shown}" if place else f"{said}, not {shown}"


def listed(names: Sequence[object], most: int = MOST_LISTED) -> str:
    """``a, b, c`` or, of more than ``most``, the first of them: ``a, b and 12 more``."""
    shown = ", ".join(map(str, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def unknown_name(kind: str, name: str, choices: Iterable[str], most: int = MOST_LISTED) -> InputError:
    """An :class:`InputError` that offers the nearest of the choices and lists ``most`` of them."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    named = f"{hint}choose from {listed(choices, most)}" if choices else "there are none"
    return InputError(f"unknown {kind} '{name}': {named}")
