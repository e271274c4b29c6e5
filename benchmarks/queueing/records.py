"""What the queue reads of a run, checked: its record, what is known of its weights, the rows of its metrics."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.files import json_object

NUMBERS = ("minutes", "minutes_spent", "planned_epochs")
TABLES = ("entry", "init")
TEXTS = ("name", "commit", "state", "error")
COLUMNS = ("cpu_seconds", "val/criterion")


class DamagedError(InputError):
    """A file of one run cannot be used; the other runs do not mind."""


def read_record(file: Path, instead: str) -> dict[str, Any]:
    """A record of the queue, {} where there is none. Of its keys any may be missing, but none is of another kind.

    Raises:
        DamagedError: it is no record; the message ends with what to do ``instead``.
    """
    if not file.exists():
        return {}
    try:
        record = json_object(file, instead)
    except InputError as error:
        raise DamagedError(str(error)) from None
    _check_kinds(record, str(file), instead)
    _check_kinds(record.get("init", {}), f"{file}, init", instead)
    return record


def _check_kinds(record: Mapping[str, Any], where: str, instead: str) -> None:
    for key, value in record.items():
        wrong = ""
        if key in NUMBERS and not _is_number(value):
            wrong = "a number of 0 or more"
        elif key in TABLES and not isinstance(value, dict):
            wrong = "a JSON object"
        elif key in TEXTS and not isinstance(value, str):
            wrong = "a text"
        if wrong:
            raise DamagedError(f"{where} is damaged, {key} is not {wrong} but {value!r}: {instead}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def read_rows(file: Path, instead: str) -> list[dict[str, str]]:
    """Those of a ``metrics.csv``, one an epoch; [] where there is none.

    Raises:
        DamagedError: it is no such file, or a row lacks a number that the queue needs.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DamagedError(f"cannot read {file}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise DamagedError(f"{file} is damaged, it is no table: {instead}") from None
    for number, row in enumerate(rows, start=1):
        for column in COLUMNS:
            if not _is_finite(row.get(column)):
                raise DamagedError(
                    f"{file} is damaged, row {number} has {row.get(column)!r} for {column} and not a number: {instead}"
                )
    return rows


def _is_finite(text: str | None) -> bool:
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False
