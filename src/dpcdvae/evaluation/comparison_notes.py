"""What the notes of several numbers say in the same words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from dpcdvae.structures.match_candidates import NEAREST

THESE_CRYSTALS = "interval over the reference alone: other generated crystals would give another value"
"""Of a recall, which is a mean over the reference."""


def joined(*notes: str) -> str:
    """Those that are not empty."""
    return ", ".join(filter(None, notes))


def bounded(left_out: int) -> str:
    """That not all of the candidates were looked at."""
    return f"{left_out} compared with the {NEAREST} nearest only" if left_out else ""


def commonest(reasons: Iterable[str], most: int = 3) -> str:
    """The commonest reasons with their counts; those that differ in numbers alone count as one, in its first words."""
    counts: Counter[str] = Counter()
    words: dict[str, str] = {}
    for reason in reasons:
        kind = re.sub(r"\d+", "0", reason)
        words.setdefault(kind, reason)
        counts[kind] += 1
    listed = [f"{words[kind]} ({count})" for kind, count in counts.most_common(most)]
    rest = counts.total() - sum(count for _, count in counts.most_common(most))
    return ", ".join(listed + ([f"other reasons ({rest})"] if rest else []))
