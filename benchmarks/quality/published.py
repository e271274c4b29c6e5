"""The tables of docs/reproduction.md: the paper's figures and, below them, what is kept in results/reproduction/."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from quality import aims, curves, differences
from quality.judging import markdown_table, metric_of, with_interval
from quality.marked import with_part
from quality.misses import CAUSES
from quality.rows import CEILING, rows
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
SAMPLING = {
    "candidates": "candidates {}",
    "steps": "steps {}",
    "prior": "prior {}",
    "lattice": "lattice {}",
    "sample_latent": "z drawn",
    "force_types": "true N_a and types",
}
"""Options of sampling that are kept with a row, and how they are shown."""
TASKS = {
    "table1": ("reconstruct", CEILING),
    "table2": ("generate",),
    "table3": ("relax",),
    "table3_dft": ("relax-dft",),
}
REAL = "reference"
"""The baseline that is shown: as many real crystals of the test split."""


def render(page: str, results: Path) -> str:
    """The page with every part between ``<!-- table1 perov_5 -->`` and ``<!-- end -->`` made anew."""

    records = kept(results)
    for name, dataset in re.findall(r"<!-- (table[1-3](?:_dft)?) (\w+) -->", page):
        page = with_part(page, f"{name} {dataset}", table(name, dataset, records))
    page = with_part(page, "misses", misses(records))
    page = with_part(page, "curves", curves.table(records))
    page = with_part(page, "aims", aims.table(records, COLUMNS, TASKS))
    return with_part(page, "differences", differences.table(records))


def kept(results: Path) -> list[dict[str, Any]]:
    """The numbers of all rows that have been made, in the order of reproduction.toml."""
    order, found = list(rows()), {}
    for path in results.glob("*.json"):
        if path.stem not in order:
            raise InputError(f"{path}: reproduction.toml has no such row: remove the file, or name it after its row")
        found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    return [found[name] for name in order if name in found]


def table(name: str, dataset: str, records: Sequence[Mapping[str, Any]]) -> str:
    """One of the paper's tables for one data set, in Markdown: theirs, ours, and real crystals."""
    columns = COLUMNS[name]
    published = tomllib.loads(PUBLISHED.read_text(encoding="utf-8")).get(name, {}).get(dataset, {})
    lines = [
        f"| | {' | '.join(columns.values())} | n | sampling | training | row |",
        "|---" * (len(columns) + 5) + "|",
    ]
    ours: dict[str, list[str]] = {system: [] for system in published}
    real: dict[int, str] = {}
    for record in records:
        row = record["row"]
        if row["dataset"] != dataset or row["task"] not in TASKS[name]:
            continue
        last = (_count(record), sampling(record), row["training"], f"`{row['name']}`")
        cells = [f"**{row['system']}**", *_cells(record, columns), *last]
        ours.setdefault(row["system"], []).append(f"| {' | '.join(cells)} |")
        of_real = _cells(record, columns, REAL)
        if any(cell != "-" for cell in of_real):
            n = record["crystals"]
            real[n] = f"| {n} real crystals | {' | '.join(of_real)} | {n} | | | |"
    for system, made in ours.items():
        if system in published:
            lines.append(f"| {system}, paper | {' | '.join(published[system])} | | | | |")
        lines += made
    return "\n".join([*lines, *real.values()])


def _count(record: Mapping[str, Any]) -> str:
    """How many crystals there are, and which of those that were relaxed have no result, and why."""
    lost = [f"{id}: {reason}" for id, reason in record.get("not_converged", {}).items()]
    return str(record["crystals"]) + (f", not converged: {'; '.join(lost)}" if lost else "")


def misses(records: Sequence[Mapping[str, Any]]) -> str:
    """For each reconstruction the share of crystals that do not match, by the first part that is wrong."""
    found = [record for record in records if "misses" in record]
    header = ["model", "data", "sampling", "n", *(f"{name}, %" for name in CAUSES)]
    rows = []
    for record in found:
        row, shares = record["row"], record["misses"]
        values = [f"{100 * shares[name]:.1f}" for name in CAUSES]
        rows.append([f"`{row['model']}`", row["dataset"], sampling(record), str(record["crystals"]), *values])
    return markdown_table(header, rows)


def sampling(record: Mapping[str, Any]) -> str:
    """How the crystals of a row were sampled, in words."""
    kept = record["sampling"]
    return ", ".join(words.format(kept[name]) for name, words in SAMPLING.items() if name in kept)


def _cells(record: Mapping[str, Any], columns: Mapping[str, str], baseline: str | None = None) -> list[str]:
    """The value of each metric with its interval, of the first gate that the report has."""
    cells = []
    for metric in columns:
        row = metric_of(record, metric)
        found = row if baseline is None or row is None else row.get("baselines", {}).get(baseline)
        if row is None or found is None or found["value"] is None:
            cells.append("-")
            continue
        cells.append(with_interval(found, row["unit"]))
    return cells
