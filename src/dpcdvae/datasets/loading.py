"""Data sets and their splits by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dpcdvae.arguments import checked
from dpcdvae.datasets.building import get_prototypes
from dpcdvae.datasets.catalogue import DATASETS
from dpcdvae.datasets.origin import with_origin
from dpcdvae.datasets.store import Dataset, dataset_file, prepared_names
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.structures.table import CrystalTable, load_tables


@checked
def load_dataset(name: str) -> Dataset:
    """A prepared data set by name, or from the path of its ``.npz`` file.

    ``prototypes`` is built on first use, without a download.

    Example:
        >>> table = dpcdvae.load_dataset("prototypes")["test"]
        >>> len(table), table[0].formula

    Raises:
        InputError: an unknown name (the nearest is offered), one not prepared yet, a broken file.
    """
    if name.endswith(".npz"):
        tables, metadata = load_tables(name)
        return Dataset(str(metadata.get("name", Path(name).stem)), tables, with_origin(metadata, tables))
    path = dataset_file(name)
    if name == "prototypes":
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


def is_dataset(path: Path) -> bool:
    """Whether an ``.npz`` is a prepared data set rather than a list of crystals."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return "metadata" in stored.files
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no .npz file: {error}") from error
