"""A report as a table: for the terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dpcdvae.evaluation.baselines import BASELINES
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.intervals import LEVEL

if TYPE_CHECKING:
    from rich.table import Table

    from dpcdvae.evaluation.report import Report

WIDE = 112
"""Columns of a terminal from which on the baselines fit."""


@dataclass(frozen=True)
class Row:
    """One number in words; ``begins`` where it is the first of its subject."""

    cells: tuple[str, ...]
    begins: bool


def rich_table(report: Report, width: int) -> Table:
    """For a terminal of ``width`` columns; the baselines stay away where they do not fit."""
    from rich.table import Table

    narrow = bool(report.baselines) and width < WIDE
    if narrow:
        report = replace(report, baselines={})

    table = Table(
        title=_title(report), title_justify="left", title_style="bold", caption_justify="left",
        caption="\n".join([*_footnotes(report), *(["baselines need a wider terminal, --json or --markdown"] * narrow)]),
    )  # fmt: skip
    for place, column in enumerate(_head(report)):
        table.add_column(column, no_wrap=place >= 2, justify="left" if place < 2 else "right")
    for row in _rows(report):
        if row.begins:
            table.add_section()
        table.add_row(*row.cells)
    return table


def markdown(report: Report) -> str:
    """A table in GitHub's Markdown, with a title before and what shaped the numbers after it."""
    head = _head(report)
    lines = [f"**{_title(report)}**", "", _line(head), _line([":--", ":--", *["--:"] * (len(head) - 2)])]
    lines += [_line(row.cells) for row in _rows(report)]
    return "\n".join([*lines, "", *[f"- {note}" for note in _footnotes(report)], ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _title(report: Report) -> str:
    failed = f", {len(report.failures)} of them not readable" if report.failures else ""
    plural = "" if report.generated == 1 else "s"
    return f"{report.generated} crystal{plural}{failed}, against {report.reference.source}"


def _head(report: Report) -> tuple[str, ...]:
    return ("metric", "gate", "value", f"{LEVEL:.0%}", "n", *(BASELINES[name].title for name in report.baselines), "")


def _rows(report: Report) -> Iterator[Row]:
    subject = None
    notes = _notes(report)
    for name, number in report.numbers:
        metric = METRICS[name]
        interval = "" if number.interval is None else "–".join(_show(bound, metric.unit) for bound in number.interval)
        others = [values.get((name, number.gate)) for values in report.baselines.values()]
        yield Row(
            (
                f"{metric.title} ({metric.unit})" if metric.unit else metric.title,
                number.gate, _show(number.value, metric.unit), interval, str(number.n),
                *("" if other is None else _show(other.value, metric.unit) for other in others),
                f"[{notes.index(number.note) + 1}]" if number.note else "",
            ),
            begins=metric.subject != subject,
        )  # fmt: skip
        subject = metric.subject


def _notes(report: Report) -> list[str]:
    """What must be known to compare the numbers, each once: the table only refers to them."""
    return list(dict.fromkeys(number.note for _, number in report.numbers if number.note))


def _show(value: float | None, unit: str) -> str:
    """Four digits are more than most of these numbers are good for: see the interval."""
    if value is None:
        return "-"
    return f"{value:.4f}" if unit else f"{100 * value:.1f}%"


def _footnotes(report: Report) -> list[str]:
    notes = [f"[{place}] {note}" for place, note in enumerate(_notes(report), 1)]
    notes += [
        f"{what}: {sum(entry['what'] == what for entry in report.given_up)} given up (see --json or --table)"
        for what in sorted({entry["what"] for entry in report.given_up})
    ]
    notes += [f"{BASELINES[name].title}: {BASELINES[name].meaning}" for name in report.baselines]
    training = report.settings["training"]
    if {"training", "substitution"} & set(report.baselines) and not any(training in note for note in _notes(report)):
        notes.append(f"training set {training}")
    notes.append(f"protocol {report.settings['protocol']}, seed {report.settings['seed']}")
    return [*notes, " ".join(f"{tool} {number}" for tool, number in report.versions.items())]
