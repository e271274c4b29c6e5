"""The log of a training run, ``metrics.csv``: what every epoch ended with."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, printable, reason_of
from dpcdvae.files import read_whole
from dpcdvae.intervals import drawable

RUN_FILE, METRICS_FILE = "run.json", "metrics.csv"
EPOCH = "epoch"
MOST_EPOCHS = 10**9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunLog:
    """The epochs of a run.

    Attributes:
        columns: (epochs,) by name, as ``dpcdvae train`` names them; NaN where a cell is empty or holds nothing that
            can be drawn (:func:`~dpcdvae.intervals.drawable`), as of a loss that diverged. ``epoch`` increases.
        source: the file, for messages.
    """

    columns: dict[str, Floats]
    source: str = "metrics.csv"

    @property
    def epochs(self) -> Floats:
        return self.columns[EPOCH]

    def curve(self, name: str) -> tuple[Floats, Floats]:
        """The epochs at which a column is finite, and its values there; both empty where there is no such column."""
        values = self.columns.get(name, np.full(len(self.epochs), np.nan))
        known = np.isfinite(values)
        return self.epochs[known], values[known]

    def total(self, name: str) -> float:
        """The sum of a column over all epochs; raises InputError where an epoch has no number for it."""
        epochs, values = self.curve(name)
        if len(values) < len(self.epochs):
            epoch = next(epoch for epoch in self.epochs if epoch not in epochs)
            raise InputError(
                f"{self.source}: no number for '{name}' in epoch {epoch:.0f}: it is damaged, or of another version"
            )
        return float(values.sum())


def is_run(path: Path) -> bool:
    """Whether it is a folder that ``dpcdvae train`` writes."""
    return path.is_dir() and any((path / name).is_file() for name in (RUN_FILE, METRICS_FILE))


def read_run(folder: Path) -> RunLog:
    """Raises InputError where no epoch is finished, or the log cannot be read."""
    path = folder / METRICS_FILE
    none_yet = InputError(f"{folder}: this run has no finished epoch yet: nothing to show")
    if not path.exists():
        raise none_yet
    try:
        text = read_whole(path).decode("utf-8-sig")  # a spreadsheet puts a mark before the first name
        head, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
        log = RunLog({name: drawable(values) for name, values in _columns(head, rows).items()}, str(path))
        _check_epochs(log.epochs)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        why = error if isinstance(error, InputError) else reason_of(error)
        raise InputError(f"{path}: not the epochs of a training run: {why}") from None
    if not rows:
        raise none_yet
    return log


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """The numbers of each column; raises InputError, with the row and the column, for what is none."""
    if EPOCH not in head:
        raise InputError(f"it has no column '{EPOCH}'")
    if twice := next((name for name in head if head.count(name) > 1), None):
        raise InputError(f"two columns are called '{printable(twice)[:40]}'")
    columns: dict[str, list[float]] = {name: [] for name in head}
    for number, row in enumerate(rows, 1):
        if len(row) != len(head):
            raise InputError(f"row {number} has {len(row)} cells, the first line {len(head)} names")
        for name, cell in zip(head, row, strict=True):
            try:
                columns[name].append(float(cell or "nan"))
            except ValueError:
                raise InputError(
                    f"row {number}, '{printable(name)[:40]}': '{printable(cell)[:30]}' is no number"
                ) from None
    return columns


def _check_epochs(epochs: Floats) -> None:
    if not ((epochs >= 1) & (epochs <= MOST_EPOCHS) & (epochs == np.round(epochs))).all():
        raise InputError(f"'{EPOCH}' must count, 1, 2, ... in each row")
    if (np.diff(epochs) <= 0).any():
        raise InputError(f"'{EPOCH}' must increase from row to row")
