"""The queue's file: which runs, in which order, for how long."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, printable, unknown_name
from dpcdvae.files import read_toml

# What the queue sets itself: the budget, what is left for the end, and what has a key of its own.
OWN_OPTIONS = ("train.max_epochs", "train.max_minutes", "train.finish", "train.seed", "model.property")
KINDS = {"seed": int, "minutes": (int, float), "set": list}  # the others are texts
MOST_MINUTES = 1_000_000  # two years
REQUIRED = ("name", "dataset", "preset", "seed", "minutes")


@dataclass(frozen=True)
class Entry:
    """One ``[[run]]``.

    Attributes:
        minutes: CPU minutes of one thread.
        set: ``section.option=value``, as ``dpcdvae train --set`` takes them.
        property: the column to learn; empty: none, or the energy for a property model.
        register: the bundled model that it becomes; empty: none.
        requires: a flag of /proc/cpuinfo without which it is skipped; empty: none.
    """

    name: str
    dataset: str
    preset: str
    seed: int
    minutes: float
    set: tuple[str, ...] = ()
    property: str = ""
    register: str = ""
    requires: str = ""

    def recipe(self) -> dict[str, Any]:
        """What decides the trained model, the length of the training aside; as JSON holds it."""
        return {
            "dataset": self.dataset,
            "preset": self.preset,
            "seed": self.seed,
            "set": list(self.set),
            "property": self.property,
        }


def read_queue(path: Path) -> list[Entry]:
    """The runs of a queue's file in their order.

    Raises:
        InputError: no such file, an unknown, missing or wrong key, a name that occurs twice.
    """
    values = read_toml(path, "queue")
    for key in values.keys() - {"run"}:
        raise InputError(f"queue {path}: unknown key '{key}': it holds nothing but [[run]] tables")
    tables = values.get("run", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"queue {path} has no [[run]]: add one")
    entries = [_entry(table, f"queue {path}, run {number}") for number, table in enumerate(tables, start=1)]
    for what in ("name", "register"):
        given = [getattr(entry, what) for entry in entries if getattr(entry, what)]
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise InputError(f"queue {path}: {what} '{twice[0]}' occurs twice: each run needs its own")
    return entries


def chosen(entries: Sequence[Entry], names: Sequence[str] | None) -> list[Entry]:
    """Those of ``names`` (all without), in the order of the file; raises InputError for a name that is not there."""
    known = [entry.name for entry in entries]
    for name in names or ():
        if name not in known:
            raise unknown_name("run", name, known)
    return [entry for entry in entries if not names or entry.name in names]


def _entry(table: dict[str, Any], where: str) -> Entry:
    known = [field.name for field in fields(Entry)]
    for key, value in table.items():
        if key not in known:
            error = unknown_name("key", key, known)
            raise InputError(f"{where}: {error}")
        if not isinstance(value, KINDS.get(key, str)) or isinstance(value, bool):  # type: ignore[arg-type]
            kind = {"seed": "a whole number", "minutes": "a number", "set": "a list of texts"}.get(key, "a text")
            raise InputError(f"{where}: {key} must be {kind}, not {value!r}")
    if missing := [key for key in REQUIRED if key not in table]:
        raise InputError(f"{where}: {missing[0]} is missing")
    where = f"{where} ('{printable(table['name'])[:40]}')"
    for key in ("name", "register"):
        # No dot: a name stands before the suffix of files, and of temporary files.
        if table.get(key) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", table[key]):
            raise InputError(
                f"{where}: {key} must be made of letters, digits, '_' and '-', not '{printable(table[key])[:40]}'"
            )
    if not table["name"]:
        raise InputError(f"{where}: name is empty")
    if not 0 < table["minutes"] <= MOST_MINUTES:
        raise InputError(f"{where}: minutes must be above 0, {MOST_MINUTES} at most, not {str(table['minutes'])[:40]}")
    if table["preset"].endswith(".toml"):
        raise InputError(
            f"{where}: preset {table['preset']} is a file, which a commit does not keep: name a preset of the package, "
            "and put what differs into set"
        )
    if table["seed"] < 0:
        raise InputError(f"{where}: seed must be 0 or more, not {table['seed']}")
    for option in table.get("set", []):
        if not isinstance(option, str):
            raise InputError(f"{where}: set must be a list of texts, not {option!r}")
        if (name := option.partition("=")[0].strip()) in OWN_OPTIONS:
            raise InputError(f"{where}: set {option}: {name} follows from minutes, seed and property")
    return Entry(**{**table, "minutes": float(table["minutes"]), "set": tuple(table.get("set", ()))})
