"""ASE's own two formats, read as plain numbers: trajectories (``.traj``) and SQLite databases (``.db``).

ASE's readers build objects whose classes the file names (constraints, calculators), and open a database for
writing. Only atomic numbers, positions, cell, periodicity and scalar results are taken here.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, one_line
from dpcdvae.io.atoms import from_cartesian
from dpcdvae.io.documents import numbers_of
from dpcdvae.io.failures import Collector
from dpcdvae.io.species import atomic_number
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import id_of

_ULM = b"- of UlmASE-Trajectory"
_DATABASE_STEPS = 10**8
"""Steps of SQLite's machine for one file; a million rows take 3e7."""


def parse_traj(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Every frame of a trajectory; the energy becomes the property ``energy``.

    The file begins with a table of offsets; at each stands the length of a JSON text and the text, in which arrays
    are given by shape, dtype and the place of their bytes (https://gitlab.com/ase/ase, ``ase/io/ulm.py``).

    Raises:
        InputError: not a trajectory of ASE, or cut off.
    """
    if not data.startswith(_ULM):
        raise InputError("not a trajectory that ASE (3.18 or later) wrote")
    count, table = (int(v) for v in _numbers(data, 32, 2, "<i8"))
    offsets = _numbers(data, table, count, "<i8")
    left = 2 * len(data)  # frames that share their bytes could claim any number of atoms
    first: Mapping[str, Any] = {}
    digits = len(str(max(count - 1, 0)))
    for k, offset in enumerate(offsets):
        id = f"{stem}-{k:0{digits}d}"
        with collector.item(id, f"{where} frame {k + 1}"):
            length = int(_numbers(data, int(offset), 1, "<i8")[0])
            frame = json.loads(_bytes(data, int(offset) + 8, length))
            left -= length
            if not isinstance(frame, dict):
                raise InputError("not a frame of atoms")
            first = first or frame
            # Numbers and periodicity stand in the first frame alone as long as they stay the same.
            numbers, pbc = (_stored(data, frame if key in frame else first, key) for key in ("numbers.", "pbc"))
            positions, cell = (_stored(data, frame, key) for key in ("positions.", "cell"))
            left -= positions.nbytes
            if left < 0:
                raise InputError("frames that claim more than the file holds")
            results = frame.get("calculator.")
            energy = results.get("energy") if isinstance(results, dict) else None
            collector.add(_crystal(numbers, positions, cell, pbc, id, {"energy": energy}))


def _bytes(data: bytes, start: int, length: int) -> bytes:
    if start < 0 or length < 0 or start + length > len(data):
        raise InputError("cut off, or damaged")
    return data[start : start + length]


def _numbers(data: bytes, start: int, count: int, dtype: str) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    return np.frombuffer(_bytes(data, start, count * kind.itemsize), kind)


def _stored(data: bytes, frame: Mapping[str, Any], key: str) -> npt.NDArray[Any]:
    value = frame.get(key, frame.get(key.removesuffix(".") if key.endswith(".") else f"{key}."))
    if isinstance(value, dict):
        shape, dtype, offset = value["ndarray"]
        if np.dtype(dtype).kind not in "fiub":
            raise InputError(f"{key} is no array of numbers")
        return _numbers(data, int(offset), math.prod(map(int, shape)), dtype).reshape(shape)
    if value is None:
        raise InputError(f"no {key.removesuffix('.')}")
    return np.array(value, np.float64)


def parse_database(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Every row of a database; the energy and numbers among the key-value pairs become properties.

    A key ``material_id`` or ``id`` is the id, else name of the file and number of the row.

    Raises:
        InputError: not an SQLite database of ASE, or damaged.
    """
    database = sqlite3.connect(":memory:")
    steps = iter(range(_DATABASE_STEPS // 10**6))
    try:
        database.deserialize(data)
        database.execute("PRAGMA trusted_schema = OFF")
        # No value is longer than the file, so none that is computed (a generated column) may be.
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, len(data))
        database.set_progress_handler(lambda: next(steps, None) is None, 10**6)
        made = database.execute("SELECT sql FROM sqlite_master WHERE name = 'systems' AND type = 'table'").fetchone()
        if made is None or not str(made[0]).upper().startswith("CREATE TABLE"):
            raise InputError("not a database of ASE: it has no table 'systems'")
        rows = database.execute("SELECT id, numbers, positions, cell, pbc, energy, key_value_pairs FROM systems")
        for number, (key, numbers, positions, cell, pbc, energy, pairs) in enumerate(rows, 1):
            id = f"{stem}-{key}"
            with collector.item(id, f"{where} row {number}"):
                values = json.loads(pairs) if pairs else {}
                id = id_of(values) or id
                atoms = np.frombuffer(numbers, "<i4"), np.frombuffer(positions, "<f8").reshape(-1, 3)
                axes = np.array([pbc >> axis & 1 for axis in range(3)])
                cell = np.frombuffer(cell, "<f8").reshape(3, 3)
                collector.add(_crystal(*atoms, cell, axes, id, {**values, "energy": energy}))
    except (sqlite3.Error, OverflowError, MemoryError) as error:
        raise InputError(f"not an SQLite database of ASE, or damaged ({one_line(error)[:100]})") from None
    finally:
        database.close()


def _crystal(
    numbers: npt.NDArray[Any],
    positions: npt.NDArray[Any],
    cell: npt.NDArray[Any],
    pbc: npt.NDArray[Any],
    id: str,
    values: Mapping[str, Any],
) -> Crystal:
    if pbc.size != 3 or not pbc.astype(bool).all():
        raise InputError(f"pbc {pbc.astype(bool).tolist()}: not periodic in three directions, so no crystal")
    given = np.array([atomic_number(int(z)) for z in numbers], np.int64)
    return from_cartesian(given, np.array(positions, np.float64), np.array(cell, np.float64), id, numbers_of(values))
