"""The log of a training run, ``metrics.csv``: what every epoch ended with."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, reason_of

RUN, METRICS = "run.json", "metrics.csv"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunLog:
    """The epochs of a run.

    Attributes:
        columns: (epochs,) by name, as ``dpcdvae train`` names them; NaN where a cell is empty, but for ``epoch``.
    """

    columns: dict[str, Floats]

    @property
    def epochs(self) -> Floats:
        return self.columns["epoch"]

    def curve(self, name: str) -> tuple[Floats, Floats]:
        """The epochs at which a column is finite, and its values there; both empty where there is no such column."""
        values = self.columns.get(name, np.full(len(self.epochs), np.nan))
        known = np.isfinite(values) & np.isfinite(self.epochs)
        return self.epochs[known], values[known]


def is_run(path: Path) -> bool:
    """Whether it is a folder that ``dpcdvae train`` writes."""
    return path.is_dir() and any((path / name).is_file() for name in (RUN, METRICS))


def read_run(folder: Path) -> RunLog:
    """Raises InputError where no epoch is finished, or the log cannot be read."""
    path = folder / METRICS
    none_yet = InputError(f"{folder}: this run has no finished epoch yet: nothing to show")
    if not path.exists():
        raise none_yet
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            head, *rows = (row for row in csv.reader(stream, strict=True) if row)
        values = np.array([[float(cell or "nan") for cell in row] for row in rows]).reshape(len(rows), len(head))
        values = values[np.isfinite(values[:, head.index("epoch")])]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError) as error:
        raise InputError(f"{path}: not the epochs of a training run ({reason_of(error)})") from None
    if not len(values):
        raise none_yet
    return RunLog(dict(zip(head, values.T, strict=True)))
