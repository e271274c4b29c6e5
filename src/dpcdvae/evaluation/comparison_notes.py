"""What the notes of several numbers say in the same words."""

from __future__ import annotations

from collections.abc import Sequence

from dpcdvae.structures.match_search import NEAREST


def joined(*notes: str) -> str:
    """Those that are not empty."""
    return ", ".join(filter(None, notes))


def bounded(left_out: int) -> str:
    """That not all of the candidates were looked at."""
    return f"{left_out} compared with the {NEAREST} nearest only" if left_out else ""


def undecided(good: Sequence[bool | None], what: str) -> str:
    """What is not known to be good counts as not good, in every rate of a report."""
    count = sum(one is None for one in good)
    return f"{count} undecided, counted as not {what}" if count else ""
