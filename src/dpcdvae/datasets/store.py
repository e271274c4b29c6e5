"""Prepared data sets on disk: where they lie, and how one or a split of one is loaded. Needs numpy alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpcdvae.datasets.catalogue import DATASETS
from dpcdvae.datasets.origin import with_origin
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.table import CrystalTable, load_tables


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


def home() -> Path:
    """Folder of everything cached: ``$DPCDVAE_HOME``, else ``dpcdvae`` in the user's cache folder."""
    if named := os.environ.get("DPCDVAE_HOME"):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "dpcdvae"


def dataset_file(name: str) -> Path:
    """Where the prepared data set of a name lies or would lie."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"'{name}' cannot name a data set: use letters, digits, '_', '-' and '.'")
    return home() / "datasets" / f"{name}.npz"


def dataset_path(name: str) -> Path:
    """The file of a data set given as :func:`load_dataset` takes it: by name, or as the path of its ``.npz``."""
    return Path(name) if name.endswith(".npz") else dataset_file(name)


def prepared_names() -> list[str]:
    """Names of the data sets that are there, the user's own included."""
    return sorted(path.stem for path in (home() / "datasets").glob("[!.]*.npz"))


def load_dataset(name: str) -> Dataset:
    """A prepared data set by name, or from the path of its ``.npz`` file.

    ``prototypes`` is built on first use, without a download.

    Raises:
        InputError: an unknown name (the nearest is offered), one not prepared yet, a broken file.
    """
    if name.endswith(".npz"):
        tables, metadata = load_tables(name)
        return Dataset(str(metadata.get("name", Path(name).stem)), tables, with_origin(metadata, tables))
    path = dataset_file(name)
    if name == "prototypes":
        from dpcdvae.datasets.building import get_prototypes

        return get_prototypes()
    if not path.is_file():
        if name not in DATASETS:
            raise unknown_name("data set", name, {*DATASETS, *prepared_names()})
        raise InputError(f"data set '{name}' is not here yet: run 'dpcdvae data get {name}'")
    tables, metadata = load_tables(path)
    return Dataset(name, tables, with_origin(metadata, tables))


def load_split(text: str, default: str = "test") -> CrystalTable:
    """One split from ``NAME``, ``NAME:split``, ``FILE.npz`` or ``FILE.npz:split``.

    Raises:
        InputError: as :func:`load_dataset`, or no such split.
    """
    name, _, split = text.partition(":")
    return load_dataset(name)[split or default]
