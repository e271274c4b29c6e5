"""Content hashes, by which results are found again, and the version of pymatgen on which some of them depend."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import CrystalTable


def content_hash(*crystals: Crystal) -> str:
    """Hex digest of the atoms, lattice and coordinates of one or several crystals, to the last bit.

    Ids and properties do not count. Stored relaxations are found by it: another hash would make them lost.
    """
    return _digest(array for c in crystals for array in (c.atomic_numbers, c.lattice, c.frac_coords))


def table_hash(table: CrystalTable) -> str:
    """Hex digest of all of a table but its properties: ids, crystals and bonds, to the last bit."""
    return _digest(getattr(table, item.name) for item in fields(table) if item.name != "properties")


def _digest(arrays: Iterable[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@cache
def pymatgen_version() -> str:
    """The version of the package that holds pymatgen's algorithms."""
    try:
        return version("pymatgen-core")
    except PackageNotFoundError:  # one package until 2026
        return version("pymatgen")
