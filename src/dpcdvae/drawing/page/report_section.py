"""The numbers of an evaluation on the page: the headline with intervals, its plot, and all of them below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from dpcdvae.drawing.page.plots import Bar, interval_plot
from dpcdvae.errors import InputError
from dpcdvae.intervals import LEVEL, Number, is_count

_HOLLOW = '<p class="note">Hollow points: the same number for the crystals it is compared with.</p>'


def report_section(report: Mapping[str, Any]) -> str:
    """HTML of the JSON of a report.

    Raises:
        InputError: it is none.
    """
    try:
        metrics = [
            (str(entry["name"]), Number.from_json(entry, str(entry["unit"])), entry) for entry in report["metrics"]
        ]
        source, generated = str(report["reference"]["source"]), is_count(report["crystals"]["generated"])
        first = {name: (number, entry) for name, number, entry in reversed(metrics)}
        verdicts = {(str(line["name"]), str(line["gate"])): str(line["verdict"]) for line in report["headline"]}
        known = {(name, str(entry["gate"])): (name, number, entry) for name, number, entry in metrics}
        headline = [known[key] for key in verdicts]
        bars = [
            _bar(name, number, entry)
            for name, number, entry in metrics
            if _is_headline_rate(name, number, entry, first)
        ]
        tables = _table(headline, verdicts) if headline else "", _table(metrics)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError("the report is not what evaluate --json writes: evaluate the crystals again") from None
    plural = "" if generated == 1 else "s"
    about = f"{generated} crystal{plural}, against {source}; {LEVEL:.0%} intervals"
    hollow = _HOLLOW if any(bar.others for bar in bars) else ""
    plot = f'<div class="plots"><div>{interval_plot(bars, "Rates with intervals")}</div></div>{hollow}'
    return (
        '<section id="report" class="report" aria-label="Evaluation"><h2>Evaluation</h2>'
        f'<p class="note">{escape(about)}</p>{tables[0]}{plot if bars else ""}'
        f"<details><summary>All {len(metrics)} numbers</summary>{tables[1]}</details></section>"
    )


def _is_headline_rate(
    name: str, number: Number, entry: Mapping[str, Any], first: Mapping[str, tuple[Number, Mapping[str, Any]]]
) -> bool:
    """Whether it is a rate with an interval, and the first of its gates."""
    return first[name][1] is entry and not entry["unit"] and number.value is not None and number.interval is not None


def _bar(name: str, number: Number, entry: Mapping[str, Any]) -> Bar:
    assert number.value is not None
    assert number.interval is not None
    others = [Number.from_json(other, "").value for other in entry.get("baselines", {}).values()]
    return Bar(name.replace("_", " "), number.value, *number.interval, [other for other in others if other is not None])


def _table(
    rows: Iterable[tuple[str, Number, Mapping[str, Any]]], verdicts: Mapping[tuple[str, str], str] | None = None
) -> str:
    """HTML of the numbers, with a column of the ``verdicts`` (by metric and gate) where these are given."""
    head = ["number", "of", "value", "interval", "n", "", "for comparison", *(["verdict"] if verdicts else [])]
    lines = [_row("th", head)]
    for name, number, entry in rows:
        unit, gate = str(entry["unit"]), str(entry["gate"])
        others = [
            f"{other}: {Number.from_json(given, unit).shown(unit)[0]}"
            for other, given in entry.get("baselines", {}).items()
        ]
        left = is_count(entry.get("undecided", 0))
        undecided = f"{left} undecided" if left else ""
        title = name.replace("_", " ") + (f", {unit}" if unit else "")
        cells = [title, gate, *number.shown(unit), str(number.n), undecided, "; ".join(others)]
        lines.append(_row("td", [*cells, verdicts[name, gate]] if verdicts else cells))
    return f"<table>{''.join(lines)}</table>"


def _row(kind: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"
