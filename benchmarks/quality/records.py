"""What is kept of each row: results/reproduction/ROW.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from dpcdvae.errors import InputError
from dpcdvae.intervals import Number
from dpcdvae.model_store import bundled_models, find_model
from quality.checked import Checked, checked_json
from quality.rows import Row, rows
from queueing.state import MODELS
from speed.record import ROOT

SAMPLING = {
    "candidates": "candidates {}",
    "steps": "steps {}",
    "prior": "prior {}",
    "lattice": "lattice {}",
    "sample_latent": "z drawn",
    "force_types": "true N_a and types",
}
"""Options of sampling that are kept with a row, and how they are shown."""
AGAIN = "measure the row again"


class Figure(Checked, extra="ignore"):
    """A value with its interval, of ``n`` crystals or pairs."""

    value: float | None
    interval: list[float] | None
    n: int

    def shown(self, unit: str) -> str:
        """The value with its interval, as the paper's tables have them: rates in percent, without the sign."""
        value, interval = Number.from_json(self.model_dump(), unit).shown(unit)
        return (f"{value} ({interval})" if interval else value).replace("%", "")


class Metric(Figure):
    """A metric of a report, and the same of sets of real crystals."""

    name: str
    unit: str
    baselines: dict[str, Figure] = Field(default_factory=dict)


class Record(Checked):
    """The numbers of a row, and where they come from.

    Attributes:
        made: machine, date and commit of the crystals; ``machine`` are those of their evaluation.
        data_sha256: of the prepared data set whose crystals were reconstructed or judged.
        misses: the share of the crystals that do not match, by cause.
        delta_energies: of each relaxed crystal, meV/atom.
        not_converged: the other crystals, and why.
    """

    row: Row
    commands: list[str]
    model_sha256: str = ""
    data_sha256: str = ""
    sampling: dict[str, str | int | float | bool]
    passes: int | None = None
    crystals: int
    metrics: list[Metric]
    misses: dict[str, float] | None = None
    relaxation: dict[str, Any] | None = None
    delta_energies: dict[str, float] | None = None
    not_converged: dict[str, str] | None = None
    made: dict[str, Any] | None = None
    machine: dict[str, Any]

    def metric(self, name: str) -> Metric | None:
        """A metric, of the first gate that the report has; None where it has none."""
        return next((metric for metric in self.metrics if metric.name == name), None)


def model_place(model: str) -> Path | str:
    """What a model of reproduction.toml is found by: its name if it is bundled, else its folder."""
    return model if model in bundled_models() else MODELS / model


def read_records(folder: Path) -> list[Record]:
    """The kept numbers of all rows, in the order of reproduction.toml.

    Raises:
        InputError: a file is damaged, or is not of a row as it is now and of its model.
    """
    known = rows()
    found = {path.stem: _read(path, known) for path in sorted(folder.glob("*.json"))}
    return [found[name] for name in known if name in found]


def _read(path: Path, known: Mapping[str, Row]) -> Record:
    where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    if path.stem not in known:
        raise InputError(f"{where}: reproduction.toml has no such row: remove the file, or name it after its row")
    record, row = checked_json(path, Record, AGAIN), known[path.stem]
    if record.row != row:
        other = next(key for key, value in row if getattr(record.row, key) != value)
        raise InputError(f"{where} is of a row with another {other} than reproduction.toml has: {AGAIN}")
    if record.crystals != row.crystals:
        raise InputError(f"{where} is of {record.crystals} crystals, not {row.crystals}: {AGAIN}")
    if row.model and record.model_sha256 != find_model(model_place(row.model)).sha256:
        raise InputError(f"{where} is of another model {row.model} than is here: {AGAIN}")
    return record
