"""Prepared data sets: what they hold, and where they lie on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, unknown_name
from dpcdvae.files import home
from dpcdvae.structures.table import CrystalTable


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared data set.

    Attributes:
        tables: the splits by name.
        metadata: JSON values: ``title``, ``version`` (of this package), ``source`` (hash of every file, and what it is
            beside the published one), ``notes`` (for the figures of a split that has not the published crystals),
            ``settings``, ``max_atoms``, ``energy``, ``columns`` (units), ``failures`` (id, split, where, reason).
    """

    name: str
    tables: Mapping[str, CrystalTable]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, split: str) -> CrystalTable:
        """Raises InputError with the splits that are there."""
        if split not in self.tables:
            raise unknown_name(f"split of data set '{self.name}'", split, self.tables)
        return self.tables[split]


def dataset_file(name: str) -> Path:
    """The file of a prepared data set by its name, whether it is there or not."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"'{name}' cannot name a data set: use letters, digits, '_', '-' and '.'")
    return home() / "datasets" / f"{name}.npz"


def dataset_path(name: str) -> Path:
    """The file of a data set given as :func:`load_dataset` takes it: by name, or as the path of its ``.npz``."""
    return Path(name) if name.endswith(".npz") else dataset_file(name)


def prepared_names() -> list[str]:
    """Names of the data sets that are there, the user's own included."""
    return sorted(path.stem for path in (home() / "datasets").glob("[!.]*.npz"))
