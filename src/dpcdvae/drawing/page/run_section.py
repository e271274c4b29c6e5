"""A training run on the page: its losses, the criterion of the best checkpoint, and the learning rate, by epoch."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from dpcdvae.drawing.page.plots import curve_plot
from dpcdvae.errors import InputError, reason_of

METRICS = "metrics.csv"

_PLOTS = {
    "loss": {"training": "train/loss", "validation (dashed)": "val/loss"},
    "criterion of the best checkpoint": {"criterion": "val/criterion"},
    "learning rate": {"rate": "lr"},
}

_MOST = 1000  # points of a curve


def is_run(path: Path) -> bool:
    """Whether it is a folder that ``dpcdvae train`` writes."""
    return path.is_dir() and (path / METRICS).is_file()


def run_section(folder: Path) -> str:
    """HTML of the curves of a run.

    Raises:
        InputError: no epoch is finished, or the file cannot be read.
    """
    path = folder / METRICS
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, strict=True))
        rows = rows[:: max(1, -(-len(rows) // _MOST))]
        found = {
            title: {name: _points(rows, column) for name, column in curves.items()} for title, curves in _PLOTS.items()
        }
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the epochs of a training run ({reason_of(error)})") from None
    if not any(points for curves in found.values() for points in curves.values()):
        raise InputError(f"{folder}: this run has no finished epoch yet: nothing to show")
    plots = [
        curve_plot(title + (": " + ", ".join(curves) if len(curves) > 1 else ""), curves)
        for title, curves in found.items()
        if all(curves.values())
    ]
    return (
        f'<section id="run" aria-label="Training"><h2>Training</h2><div class="plots">{"".join(plots)}</div></section>'
    )


def _points(rows: list[dict[str, str]], column: str) -> list[tuple[float, float]]:
    """(epoch, value) of every finite value."""
    points = [(float(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
    return [point for point in points if all(map(math.isfinite, point))]
