"""The result of an evaluation: every number with its interval, its crystals and its conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError
from dpcdvae.evaluation.baselines import BASELINES
from dpcdvae.evaluation.comparison_notes import commonest
from dpcdvae.evaluation.crystal_rows import CrystalColumns, crystal_table
from dpcdvae.evaluation.headline import Key, headline
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.reference import Reference
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import LEVEL, Number, shown
from dpcdvae.io import Failure

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SCHEMA = "dpcdvae.evaluation/2"
TOOLS = ("dpcdvae", "numpy", "scipy", "pymatgen", "pymatgen-core", "spglib", "smact", "gemmi", "ase")

WIDE = 112
"""Columns of a terminal from which on the baselines fit."""


@dataclass(frozen=True)
class Report:
    """The result of :func:`dpcdvae.evaluation.evaluate`; ``docs/evaluation.md`` describes its JSON.

    Attributes:
        numbers: (metric, number) in the order of the table of metrics.
        baselines: the same numbers for other crystals, by name of the baseline.
        sample: the crystals that were evaluated, and what was found out about them.
        given_up: comparisons that were cut off, those of the baselines included: what, id, reason.
        settings: all that shaped the numbers.
        versions: of the tools that did.
    """

    numbers: tuple[tuple[str, Number], ...]
    baselines: Mapping[str, Mapping[Key, Number]]
    sample: Sample
    given_up: Sequence[Mapping[str, str]]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def generated(self) -> int:
        """Crystals asked for or found, those that could not be read included."""
        return self.sample.generated

    @property
    def failures(self) -> Sequence[Failure]:
        """What could not be read, or not be built."""
        return self.sample.failures

    @property
    def reference(self) -> Reference:
        return self.sample.reference

    def crystals(self) -> CrystalColumns:
        """What is known of each single crystal, by column; one row for each of ``generated``.

        What the numbers did not ask for, as in a short protocol, is computed now, on the engine of the evaluation.
        """
        return crystal_table(self.sample)

    def __getitem__(self, name: str) -> Number:
        """The number of a metric, e.g. ``report["match_rate"]``; of several gates the first, which is the widest."""
        METRICS[name]
        for key, number in self.numbers:
            if key == name:
                return number
        raise InputError(
            f"the report has no {name}: it needs a paired evaluation, the crystals of the reference, a training "
            "set, energies, or another protocol"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values, schema ``docs/evaluation.schema.json``."""
        return {
            "schema": SCHEMA,
            "crystals": {
                "generated": self.generated,
                "read": self.generated - len(self.failures),
                "failures": [{"id": f.id, "where": f.where, "reason": f.reason} for f in self.failures],
            },
            "reference": {
                "source": self.reference.source,
                "sha256": self.reference.sha256,
                "count": self.reference.count,
                "kind": "statistics" if self.reference.crystals is None else "crystals",
            },
            "metrics": [
                {
                    "name": name,
                    "gate": number.gate,
                    **number.to_json(),
                    "undecided": number.undecided,
                    "unit": METRICS[name].unit,
                    "note": number.note,
                    "baselines": {
                        baseline: values[name, number.gate].to_json()
                        for baseline, values in self.baselines.items()
                        if (name, number.gate) in values
                    },
                }
                for name, number in self.numbers
            ],
            "headline": [
                {"name": line.metric, "gate": line.number.gate, "verdict": line.verdict}
                for line in headline(self.numbers, self.baselines)
            ],
            "given_up": [dict(entry) for entry in self.given_up],
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }

    def table(self, width: int = 120) -> RenderableType:
        """What a person reads on a terminal of so many columns; print it with rich."""
        return _rich_table(self, width)

    def headline(self) -> RenderableType:
        """The few numbers to read first, each with a verdict in words; print it with rich."""
        return _rich_headline(self)

    def markdown(self) -> str:
        """The same for a paper."""
        return _markdown(self)


def tool_versions() -> dict[str, str]:
    """Versions of the installed tools that shape the numbers."""
    versions = {}
    for tool in TOOLS:
        try:
            versions[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True)
class _Row:
    """One number in words; ``begins`` where it is the first of its subject."""

    cells: tuple[str, ...]
    begins: bool


def _rich_table(report: Report, width: int) -> Table:
    """For a terminal of ``width`` columns; the baselines stay away where they do not fit."""
    from rich.table import Table

    narrow = bool(report.baselines) and width < WIDE
    if narrow:
        report = replace(report, baselines={})

    table = Table(
        title=_title(report),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption="\n".join([*_footnotes(report), *(["baselines need a wider terminal, --json or --markdown"] * narrow)]),
    )
    for place, column in enumerate(_head(report)):
        table.add_column(column, no_wrap=place >= 2, justify="left" if place < 2 else "right")
    for row in _rows(report):
        if row.begins:
            table.add_section()
        table.add_row(*row.cells)
    return table


def _rich_headline(report: Report) -> Table:
    from rich.table import Table

    training = report.settings["training"]
    table = Table(
        title=_title(report),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption="\n".join([*_without_result(report), *([f"training set {training}"] * (training is not None))]),
    )
    for place, column in enumerate(("", "value", f"{LEVEL:.0%}", "real data", "verdict")):
        table.add_column(column, justify="right" if 0 < place < 4 else "left")
    for line in headline(report.numbers, report.baselines):
        metric = METRICS[line.metric]
        title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
        real = "" if line.real is None else shown(line.real.value, metric.unit)
        table.add_row(title, *line.number.shown(metric.unit), real, line.verdict)
    return table


def _markdown(report: Report) -> str:
    """A table in GitHub's Markdown, with a title before and what shaped the numbers after it."""
    head = _head(report)
    lines = [f"**{_title(report)}**", "", _line(head), _line([":--", ":--", *["--:"] * (len(head) - 2)])]
    lines += [_line(row.cells) for row in _rows(report)]
    return "\n".join([*lines, "", *[f"- {note}" for note in _footnotes(report)], ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _title(report: Report) -> str:
    failed = f", {len(report.failures)} of them not usable" if report.failures else ""
    plural = "" if report.generated == 1 else "s"
    return f"{report.generated} crystal{plural}{failed}, against {report.reference.source}"


def _head(report: Report) -> tuple[str, ...]:
    undecided = ["undecided"] if _any_undecided(report) else []
    others = [BASELINES[name].title for name in report.baselines]
    return ("metric", "gate", "value", f"{LEVEL:.0%}", "n", *undecided, *others, "")


def _any_undecided(report: Report) -> bool:
    return any(number.undecided for _, number in report.numbers)


def _rows(report: Report) -> Iterator[_Row]:
    subject = None
    notes = _notes(report)
    for name, number in report.numbers:
        metric = METRICS[name]
        undecided = [str(number.undecided or "")] if _any_undecided(report) else []
        others = [values.get((name, number.gate)) for values in report.baselines.values()]
        yield _Row(
            (
                f"{metric.title} ({metric.unit})" if metric.unit else metric.title,
                number.gate,
                *number.shown(metric.unit),
                str(number.n),
                *undecided,
                *("" if other is None else shown(other.value, metric.unit) for other in others),
                f"[{notes.index(number.note) + 1}]" if number.note else "",
            ),
            begins=metric.subject != subject,
        )
        subject = metric.subject


def _notes(report: Report) -> list[str]:
    """What must be known to compare the numbers, each once: the table only refers to them."""
    return list(dict.fromkeys(number.note for _, number in report.numbers if number.note))


def _without_result(report: Report) -> list[str]:
    """How many comparisons were given up, and why crystals could not be read or built."""
    notes = [
        f"{what}: {sum(entry['what'] == what for entry in report.given_up)} undecided (reasons: --json or --table)"
        for what in sorted({entry["what"] for entry in report.given_up})
    ]
    if _any_undecided(report):
        notes.append("undecided: no result for these crystals; a rate counts them as failures, a mean leaves them out")
    if report.failures:
        notes.append(f"not usable: {commonest([f.reason for f in report.failures], 5)}")
    return notes


def _footnotes(report: Report) -> list[str]:
    notes = [f"[{place}] {note}" for place, note in enumerate(_notes(report), 1)]
    notes += _without_result(report)
    notes += [f"{BASELINES[name].title}: {BASELINES[name].meaning}" for name in report.baselines]
    training = report.settings["training"]
    if {"training", "substitution"} & set(report.baselines) and not any(training in note for note in _notes(report)):
        notes.append(f"training set {training}")
    notes.append(f"protocol {report.settings['protocol']}, seed {report.settings['seed']}")
    return [*notes, " ".join(f"{tool} {number}" for tool, number in report.versions.items())]
