"""What studies.py has measured, as markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.files import json_object
from quality.judging import cell, markdown_table, plain
from quality.misses import CAUSES

INSTEAD = "measure that run again, or leave the file out of the pattern"
LOSSES = ("num_atoms", "lattice", "composition", "coords", "types", "kl")
TITLES = {
    "coverage_recall": "COV-R",
    "coverage_precision": "COV-P",
    "density_wasserstein": "W density",
    "num_elements_wasserstein": "W elements",
    "structural_validity": "valid struct.",
    "uniqueness": "unique",
    "novelty": "novel",
    "metre": "METRe",
    "crmse": "cRMSE",
}


def tables(files: list[Path], pattern: str) -> str:
    """Markdown: training and reconstruction, a row for each run; generation, a row for each run and prior."""
    if not files:
        raise InputError(f"{pattern}: no such files")
    records = [json_object(file, INSTEAD) for file in files]
    for file, record in zip(files, records, strict=True):
        try:
            _tables([record])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise InputError(f"{file} is damaged or no file of this script: {INSTEAD}") from None
    return _tables(records)


def _tables(records: list[dict[str, Any]]) -> str:
    ks = sorted({int(k) for record in records for k in record["reconstruction"]})
    first = []
    for r in records:
        trained = [plain(r["training"].get(name)) for name in ("cpu_minutes", "epochs", *LOSSES)]
        by_k = [r["reconstruction"].get(str(k), {}) for k in ks]
        matches = [cell(found.get(name)) for found in by_k for name in ("match_rate", "match_rms")]
        shares = [plain(by_k[0].get("misses", {}).get(name)) for name in CAUSES] if by_k else []
        first.append([r["name"], str(r["n"]), *trained, *matches, *shares])
    missed = [f"missed: {name} (K={ks[0]})" for name in CAUSES] if ks else []
    matched = [title for k in ks for title in (f"match K={k}", f"rms K={k}")]
    header = ["run", "n", "CPU min", "epochs", *(f"val {name}" for name in LOSSES), *matched, *missed]
    shown = {name: title for name, title in TITLES.items() if any(name in g for r in records for g in generations(r))}
    second = [
        [
            r["name"],
            prior,
            *(cell(found.get(name)) for name in shown),
            plain(found["median_distance_to_training"]),
            plain(r["held_out_distance"]),
        ]
        for r in records
        for prior, found in r["generation"].items()
    ]
    columns = ["run", "z from", *shown.values(), "distance of z", "held out"]
    return markdown_table(header, first) + "\n\n" + markdown_table(columns, second)


def generations(record: dict[str, Any]) -> list[dict[str, Any]]:
    return list(record["generation"].values())
