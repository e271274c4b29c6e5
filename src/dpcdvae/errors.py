"""The two ways a request can end without a bug: the input is wrong, or the user stopped it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_LISTED = 40  # names in an error, if a near one can be offered instead


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
    """Kind and text of an exception in one line, cut where it goes on: how work on a crystal that failed is counted."""
    return f"{type(error).__name__}: {one_line(error)[:200]}"


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """An :class:`InputError` that lists the choices and offers the nearest one."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    if near and len(choices) > MOST_LISTED:
        return InputError(f"unknown {kind} '{name}': {hint}{len(choices)} are known")
    return InputError(f"unknown {kind} '{name}': {hint}choose from {', '.join(choices)}")
