"""What the models aim at, beside what they reach: the section "Aims" of docs/reproduction.md."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from dpcdvae.intervals import shown
from quality.judging import markdown_table, metric_of, with_interval
from speed.record import ROOT

AIMS = ROOT / "benchmarks" / "aims.toml"
HEADER = ["data", "figure", "aim", "default system", "row", "best of all", "row", "best known", "what limits it"]

Figure = tuple[Mapping[str, Any], dict[str, Any]]
"""A row, and a metric of its results."""


def table(
    records: Sequence[Mapping[str, Any]], titles: Mapping[str, Mapping[str, str]], tasks: Mapping[str, Sequence[str]]
) -> str:
    """Every aim of aims.toml beside the default system and the best of all systems, in Markdown.

    Args:
        records: of kept rows. Those with true types are left out: that is an easier task.
        titles: of the metrics of each of the paper's tables.
        tasks: of the rows of each table.
    """
    lines = []
    for aim in tomllib.loads(AIMS.read_text(encoding="utf-8"))["aim"]:
        up = "at_least" in aim
        goal = aim["at_least" if up else "at_most"]
        found = _figures(records, aim, tasks[aim["table"]])
        best = sorted(found, key=lambda each: each[1]["value"], reverse=up)
        default = [each for each in best if each[0]["model"] == aim["dataset"].replace("_", "-")]
        missed = not default or (default[0][1]["value"] < goal if up else default[0][1]["value"] > goal)
        sign, unit = "≥" if up else "≤", best[0][1]["unit"] if best else ""
        lines.append(
            [
                f"{aim['dataset']}, {aim['table'].replace('table', 'Table ')}",
                titles[aim["table"]][aim["metric"]],
                f"{sign} {shown(goal, unit)}".replace("%", ""),
                *_cells(default),
                *_cells(best),
                aim["best_known"],
                aim["cause"] if missed else "reached",
            ]
        )
    return markdown_table(HEADER, lines)


def _figures(records: Sequence[Mapping[str, Any]], aim: Mapping[str, Any], tasks: Sequence[str]) -> list[Figure]:
    """Those of an aim's metric that the models of its data set have."""
    found = []
    for record in records:
        row = record["row"]
        if row["dataset"] == aim["dataset"] and row["task"] in tasks and "force_types" not in record["sampling"]:
            metric = metric_of(record, aim["metric"])
            if row["model"] and metric is not None and metric["value"] is not None:
                found.append((row, metric))
    return found


def _cells(figures: Sequence[Figure]) -> tuple[str, str]:
    """The first of them and its row."""
    if not figures:
        return "-", ""
    row, metric = figures[0]
    return with_interval(metric, metric["unit"]), f"`{row['name']}`"
