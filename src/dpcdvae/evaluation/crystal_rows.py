"""One row for every generated crystal, those that could not be read or built included."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.evaluation.crystal_columns import COLUMNS, Value, column
from dpcdvae.evaluation.sample import Sample
from dpcdvae.files import atomic_output
from dpcdvae.io.tables import guarded

SCHEMA = "dpcdvae.crystals/1"
OF_OTHERS = (" of the reference", " of the training set")
"""Undecided items under such a heading are no generated crystals."""


CrystalColumns = Mapping[str, Sequence[Value]]
"""Columns of equal length by name, one value for each generated crystal."""

_TEXTS = ("id", "where", "failure", "given_up")
"""The columns that are there in any case, and know of what could not be read."""


@column("formula", kind=str)
def _formula(sample: Sample) -> list[str]:
    return [crystal.formula for crystal in sample.crystals]


@column("num_atoms", kind=int)
def _num_atoms(sample: Sample) -> list[int]:
    return [crystal.num_atoms for crystal in sample.crystals]


def crystal_table(sample: Sample) -> CrystalColumns:
    """All :data:`~dpcdvae.evaluation.crystal_columns.COLUMNS`: what the crystals are, then in the order of the metrics.

    The crystals come in their order, then what could not be read or built: of that only ``id``, ``where`` and
    ``failure`` are known. ``given_up`` says what was not computed, for whom and why; to be called after
    the metrics, which fill it. What is not finite is None, and so is all of a column that does not apply.
    """
    read = len(sample.crystals)
    columns: dict[str, Sequence[Value]] = {
        "id": [crystal.id for crystal in sample.crystals] + [failure.id for failure in sample.failures],
        "where": [None] * read + [failure.where for failure in sample.failures],
        "failure": [None] * read + [failure.reason for failure in sample.failures],
    }
    lacking: list[Value] = [None] * len(sample.failures)
    for name, entry in sorted(COLUMNS.items(), key=lambda item: item[1].measure.__module__ != __name__):
        values = [_plain(value, entry.kind) for value in sample.once(entry.measure)] or [None] * read
        if len(values) != read:
            raise ValueError(f"column '{name}' has {len(values)} values for {read} crystals")
        columns[name] = values + lacking
    reasons = _given_up(sample)
    columns["given_up"] = [reasons.get(crystal.id) for crystal in sample.crystals] + lacking
    return columns


def _plain(value: Any, kind: type) -> Value:
    """A Python value of the column's type; None for what is no number."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is None or (isinstance(value, float) and not math.isfinite(value)) else kind(value)


def _given_up(sample: Sample) -> dict[str, str]:
    """id -> what is undecided, with the reason. Crystals of the same id share it."""
    reasons: dict[str, dict[str, None]] = defaultdict(dict)
    for item in sample.given_up:
        if not item["what"].endswith(OF_OTHERS):
            reasons[item["id"]][f"{item['what']}: {item['reason']}"] = None
    return {id: "; ".join(found) for id, found in reasons.items()}


def check_table(path: str | Path) -> None:
    """To be called before any work.

    Raises:
        InputError: the table cannot be written in the format of that suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: the table of crystals is written as .csv or .parquet, not as '{suffix}'")
    if suffix == ".parquet":
        _pyarrow()


def write_table(columns: CrystalColumns, path: str | Path) -> None:
    """Writes ``.csv`` (nothing for None, true and false) or ``.parquet`` (typed, units in the fields' metadata).

    Raises:
        InputError: as :func:`check_table`.
    """
    check_table(path)
    write = _write_parquet if Path(path).suffix.lower() == ".parquet" else _write_csv
    with atomic_output(path) as temporary:
        write(columns, temporary)


def _write_csv(columns: CrystalColumns, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            texts = [str(value).lower() if isinstance(value, bool) else value for value in row]
            writer.writerow([guarded(text) if isinstance(text, str) else text for text in texts])


def _write_parquet(columns: CrystalColumns, path: Path) -> None:
    arrow = _pyarrow()
    types = {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
    fields, arrays = [], []
    for name, values in columns.items():
        kind, unit = (str, "") if name in _TEXTS else (COLUMNS[name].kind, COLUMNS[name].unit)
        if kind is str:  # names of files need not be text
            values = [None if v is None else str(v).encode("utf-8", "replace").decode() for v in values]
        fields.append(arrow.field(name, types[kind], metadata={"unit": unit}))
        arrays.append(arrow.array(values, types[kind]))
    schema = arrow.schema(fields, metadata={"schema": SCHEMA, "dpcdvae": version("dpcdvae")})
    arrow.parquet.write_table(arrow.table(arrays, schema=schema), path)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "a table in .parquet needs pyarrow, which is not installed: pip install 'dpcdvae[parquet]' or write .csv"
        ) from error
    return pyarrow
