"""The tables of docs/reproduction.md: the paper's figures and, below them, what is kept in results/reproduction/."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpcdvae.datasets import DATASETS
from dpcdvae.errors import InputError
from quality import aims, curves, differences
from quality.checked import checked_toml
from quality.judging import markdown_table
from quality.marked import with_part
from quality.misses import CAUSES
from quality.records import SAMPLING, Metric, Record, read_records
from quality.rows import CEILING, rows
from quality.trained import training
from speed.record import ROOT

PAGE = ROOT / "docs" / "reproduction.md"
PUBLISHED = ROOT / "benchmarks" / "published.toml"
COLUMNS = {
    "table1": {"match_rate": "match rate, %", "match_rms": "mean rms"},
    "table2": {
        "structural_validity": "structural, %",
        "compositional_validity": "compositional, %",
        "coverage_recall": "COV-R, %",
        "coverage_precision": "COV-P, %",
        "density_wasserstein": "W density",
        "energy_wasserstein": "W energy",
        "num_elements_wasserstein": "W elements",
    },
    "table3": {
        "match_rate": "match rate, %",
        "match_rms": "mean rms",
        "delta_volume_rms": "ΔV_rms, Å³/atom",
        "delta_energy_rms": "ΔE_rms, meV/atom",
        "delta_enthalpy_rms": "ΔH_rms, meV/atom",
    },
}
COLUMNS["table3_dft"] = COLUMNS["table3"]
TASKS = {
    "table1": ("reconstruct", CEILING),
    "table2": ("generate",),
    "table3": ("relax",),
    "table3_dft": ("relax-dft",),
}
REAL = "reference"
"""The baseline that is shown: as many real crystals of the test split."""
FEW = 0.9
"""A distance of fewer than this share of a row's crystals, the valid ones, says how many they are."""


def render(page: str, results: Path) -> str:
    """The page with every part between ``<!-- table1 perov_5 -->`` and ``<!-- end -->`` made anew.

    Raises:
        InputError: the page, a result or a file of aims or published figures is not as it has to be.
    """
    records = read_records(results)
    published = read_published()
    for name, dataset in re.findall(r"<!-- (table\d\w*) (\w+) -->", page):
        if name not in COLUMNS or dataset not in DATASETS:
            raise InputError(f"<!-- {name} {dataset} -->: there is no such table: {', '.join(COLUMNS)}, of a data set")
        page = with_part(page, f"{name} {dataset}", table(name, dataset, records, published))
    page = with_part(page, "missing", missing(records))
    page = with_part(page, "misses", misses(records))
    page = with_part(page, "curves", curves.table(records))
    page = with_part(page, "aims", aims.table(records, COLUMNS, TASKS))
    return with_part(page, "differences", differences.table(records))


def missing(records: Sequence[Record]) -> str:
    """The rows of reproduction.toml that nothing is kept of."""
    made = {record.row.name for record in records}
    return ", ".join(f"`{name}`" for name in rows() if name not in made) or "none."


def read_published() -> dict[str, dict[str, dict[str, list[str]]]]:
    """The paper's figures by table, data set and system; raises InputError where a row has too many or too few."""
    found = checked_toml(PUBLISHED, dict[str, dict[str, dict[str, list[str]]]])
    for name, datasets in found.items():
        for dataset, systems in datasets.items():
            if name not in COLUMNS or dataset not in DATASETS:
                raise InputError(f"{PUBLISHED}: there is no table {name}.{dataset}")
            for system, figures in systems.items():
                if len(figures) != len(COLUMNS[name]):
                    raise InputError(f"{PUBLISHED}: {name}.{dataset} '{system}' needs {len(COLUMNS[name])} figures")
    return found


def table(
    name: str,
    dataset: str,
    records: Sequence[Record],
    published: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]],
) -> str:
    """One of the paper's tables for one data set, in Markdown: theirs, ours, and real crystals."""
    columns, theirs = COLUMNS[name], published.get(name, {}).get(dataset, {})
    ours: dict[str, list[list[str]]] = {system: [] for system in theirs}
    real: dict[int, list[str]] = {}
    for record in records:
        row, n = record.row, record.crystals
        if row.dataset != dataset or row.task not in TASKS[name]:
            continue
        last = [_count(record), sampling(record), row.training or training(row.model), f"`{row.name}`"]
        ours.setdefault(row.system, []).append([f"**{row.system}**", *_cells(record, columns), *last])
        of_real = _cells(record, columns, REAL)
        if any(cell != "-" for cell in of_real):
            real[n] = [f"{n} real crystals", *of_real, str(n), "", "", ""]
    lines = []
    for system, made in ours.items():
        if system in theirs:
            lines.append([f"{system}, paper", *theirs[system], "", "", "", ""])
        lines += made
    if not lines:
        return "No row of this table has been run yet."
    return markdown_table(["", *columns.values(), "n", "sampling", "training", "row"], [*lines, *real.values()])


def _count(record: Record) -> str:
    """How many crystals there are, and which of those that were relaxed have no result, and why."""
    if record.not_converged:
        lost = "; ".join(f"{id}: {reason}" for id, reason in record.not_converged.items())
        return f"{record.crystals}, not converged: {lost}"
    relaxed = record.relaxation or {"given": 0, "converged": 0}
    missing = relaxed["given"] - relaxed["converged"]
    return f"{record.crystals}, {missing} not converged" if missing else str(record.crystals)


def misses(records: Sequence[Record]) -> str:
    """For each reconstruction the share of crystals that do not match, by the first part that is wrong."""
    header = ["model", "data", "sampling", "n", *(f"{name}, %" for name in CAUSES)]
    lines = []
    for record in records:
        if record.misses is not None:
            values = [f"{100 * record.misses[name]:.1f}" for name in CAUSES]
            row = record.row
            lines.append([f"`{row.model}`", row.dataset, sampling(record), str(record.crystals), *values])
    return markdown_table(header, lines)


def sampling(record: Record) -> str:
    """How the crystals of a row were sampled, in words."""
    kept = record.sampling
    return ", ".join(words.format(kept[name]) for name, words in SAMPLING.items() if name in kept)


def _cells(record: Record, columns: Mapping[str, str], baseline: str | None = None) -> list[str]:
    """The value of each metric with its interval."""
    return [_cell(record.metric(name), record.crystals, baseline) for name in columns]


def _cell(metric: Metric | None, crystals: int, baseline: str | None) -> str:
    found = metric if baseline is None or metric is None else metric.baselines.get(baseline)
    if metric is None or found is None or found.value is None:
        return "-"
    few = metric.name.endswith("_wasserstein") and found.n < FEW * crystals
    return found.shown(metric.unit) + (f" of {found.n}" if few else "")
