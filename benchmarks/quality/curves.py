"""What training brought, and what more of it would bring: the validation criterion against CPU time."""

from __future__ import annotations

from collections.abc import Sequence

from quality.judging import markdown_table, plain
from quality.records import Record
from quality.trained import Curve, curve_of

PARTS = (1 / 8, 1 / 4, 1 / 2, 1)


def table(records: Sequence[Record]) -> str:
    """The best criterion of each model within parts of its CPU minutes, where its card has a curve, in Markdown."""
    names = dict.fromkeys(record.row.model for record in records)
    lines = []
    for name in names:
        curve = curve_of(name)
        if curve is None:
            continue
        best = [best_within(curve, part * curve.cpu_minutes[-1]) for part in PARTS]
        gain = "-" if best[-2] is None else f"{100 * (1 - best[-1] / best[-2]):.1f}"
        lines.append([f"`{name}`", f"{curve.cpu_minutes[-1]:.0f}", *(plain(value) for value in best), gain])
    parts = ["after 1/8", "1/4", "1/2", "all of it"]
    return markdown_table(["model", "CPU minutes", *parts, "lower in the second half by, %"], lines)


def best_within(curve: Curve, minutes: float) -> float | None:
    """The lowest criterion of the epochs that ended within so many CPU minutes; None while none had."""
    ended = [value for time, value in zip(curve.cpu_minutes, curve.criterion, strict=True) if time <= minutes]
    return min(ended, default=None)
