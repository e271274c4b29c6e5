"""Crystals with their bonds, from files or data sets: many, or one by its id."""

from __future__ import annotations

import re
from pathlib import Path

from dpcdvae.datasets.building import MAX_ATOMS
from dpcdvae.datasets.description import place_of
from dpcdvae.datasets.loading import is_dataset, load_split
from dpcdvae.datasets.preparation import Prepared, Settings, bonded_table, prepare_one
from dpcdvae.errors import InputError
from dpcdvae.io import Failure, read
from dpcdvae.structures.table import CrystalTable


def bonded_crystals(text: str, column: str | None = None) -> tuple[CrystalTable, list[Failure]]:
    """Crystals with their bonds: those of a file or folder, prepared as data sets are, or DATASET[:split].

    A file or folder comes first where a data set has the same name.

    Args:
        column: of the crystals, where the file is a table, as of :func:`dpcdvae.io.read`.

    Returns:
        The usable crystals, and what could not be read or prepared, with the reason.

    Raises:
        InputError: nothing there, nothing usable in it.
    """
    path = Path(text)
    if not path.exists() or (path.suffix == ".npz" and is_dataset(path)):
        if column is not None:
            raise InputError(f"--column {column}: {text} is a data set, which has no columns of crystals")
        return load_split(text), []
    failures: list[Failure] = []
    crystals = read(path, failures, column=column)
    table, unusable = bonded_table(crystals)
    failures += unusable
    if not len(table):
        raise InputError(f"{text}: none of {len(failures)} crystals can be used: {failures[0]}")
    return table, failures


def bonded_crystal(text: str, column: str | None = None) -> Prepared:
    """A crystal with its bonds: from a file of one, prepared as data sets are, or DATASET[:split]/ID.

    Args:
        column: of the crystals, where the file is a table, as of :func:`dpcdvae.io.read`.

    Raises:
        InputError: nothing there, several crystals, one that cannot be prepared, no such id (the nearest is offered).
    """
    if Path(text).is_file():
        return _from_file(Path(text), column)
    named = re.fullmatch(r"(?P<data>.+?\.npz|[^/:]+)(?P<split>:[^/]*)?/(?P<id>.+)", text)
    if named is None or (Path(text).suffix and Path(text).parent.is_dir()):
        what = f"{text} is a folder" if Path(text).is_dir() else f"no such file: {text}"
        raise InputError(f"{what}; give a file of one crystal, or DATASET[:split]/ID")
    table = load_split(named["data"] + (named["split"] or ""))
    chosen = table.select([place_of(table, named["id"], text[: named.start("id") - 1])])
    return chosen[0], (chosen.bonds, chosen.bond_images)


def _from_file(path: Path, column: str | None) -> Prepared:
    crystals = read(path, column=column)
    if len(crystals) != 1:
        raise InputError(f"{path} holds {len(crystals)} crystals: give a file of one")
    prepared = prepare_one((crystals[0], Settings(max_atoms=MAX_ATOMS)))
    if isinstance(prepared, str):
        raise InputError(f"{path} cannot be used: {prepared}")
    return prepared
