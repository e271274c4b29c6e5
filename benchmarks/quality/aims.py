"""What the models aim at, beside what they reach: the section "Aims" of docs/reproduction.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import model_validator

from dpcdvae.errors import InputError
from dpcdvae.intervals import shown
from quality.checked import Checked, checked_toml
from quality.judging import markdown_table
from quality.records import Metric, Record
from quality.rows import Row
from speed.record import ROOT

AIMS = ROOT / "benchmarks" / "aims.toml"
HEADER = ["data", "figure", "aim", "default system", "row", "best of all", "row", "best known", "what limits it"]

Figure = tuple[float, Row, Metric]
"""The value of a metric, its row, and all of it."""


class Aim(Checked):
    """An ``[[aim]]``; aims.toml explains the keys."""

    dataset: str
    table: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    best_known: str
    cause: str

    @model_validator(mode="after")
    def fits(self) -> Aim:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the aim {self.dataset}, {self.metric} needs one of at_least and at_most")
        return self

    @property
    def goal(self) -> float:
        return self.at_most if self.at_least is None else self.at_least  # type: ignore[return-value]

    def reached(self, value: float) -> bool:
        return value <= self.goal if self.at_least is None else value >= self.goal


class _File(Checked):
    aim: list[Aim]


def read_aims(titles: Mapping[str, Mapping[str, str]]) -> list[Aim]:
    """The aims; raises InputError where one is not as it must be, or of a metric that is not in ``titles``."""
    found = checked_toml(AIMS, _File).aim
    for aim in found:
        if aim.metric not in titles.get(aim.table, {}):
            raise InputError(f"{AIMS}: {aim.table} has no metric {aim.metric}")
    return found


def table(
    records: Sequence[Record], titles: Mapping[str, Mapping[str, str]], tasks: Mapping[str, Sequence[str]]
) -> str:
    """Every aim of aims.toml beside the default system and the best of all systems, in Markdown.

    Args:
        records: of kept rows. Those with true types are left out: that is an easier task.
        titles: of the metrics of each of the paper's tables.
        tasks: of the rows of each table.
    """
    lines = []
    for aim in read_aims(titles):
        up = aim.at_least is not None
        found = _figures(records, aim, tasks[aim.table])
        best = sorted(found, key=lambda each: each[0], reverse=up)
        default = [each for each in best if each[1].model == aim.dataset.replace("_", "-")]
        reached = bool(default) and aim.reached(default[0][0])
        lines.append(
            [
                f"{aim.dataset}, {aim.table.replace('table', 'Table ')}",
                titles[aim.table][aim.metric],
                f"{'≥' if up else '≤'} {shown(aim.goal, best[0][2].unit if best else '')}".replace("%", ""),
                *_cells(default),
                *_cells(best),
                aim.best_known,
                "reached" if reached else aim.cause,
            ]
        )
    return markdown_table(HEADER, lines)


def _figures(records: Sequence[Record], aim: Aim, tasks: Sequence[str]) -> list[Figure]:
    """Those of an aim's metric that the models of its data set have."""
    found = []
    for record in records:
        row, metric = record.row, record.metric(aim.metric)
        meant = row.dataset == aim.dataset and row.task in tasks and row.model and "force_types" not in record.sampling
        if meant and metric is not None and metric.value is not None:
            found.append((metric.value, row, metric))
    return found


def _cells(figures: Sequence[Figure]) -> tuple[str, str]:
    """The first of them and its row."""
    if not figures:
        return "-", ""
    _, row, metric = figures[0]
    return metric.shown(metric.unit), f"`{row.name}`"
