"""``id_prop.csv``: the properties of crystals that lie in files of their own, as CGCNN and ALIGNN take them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from dpcdvae.errors import InputError
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import parse_number

NAME = "id_prop.csv"

Values = dict[str, float]


def parse_id_prop(data: bytes, where: str, collector: Collector) -> dict[str, Values]:
    """Values of each file by name, with or without ending: ``17.cif,1.25`` or ``17,1.25``.

    A first line whose second cell is no number names the columns. Without one a single column is ``target``, several
    are ``target_1`` and so on. Cells that are no numbers are left out, with a note.

    Raises:
        InputError: rows of different lengths, less than two columns, a name twice.
    """
    rows = [row for row in csv.reader(io.StringIO(decode(data), newline="")) if any(cell.strip() for cell in row)]
    width = len(rows[0]) if rows else 0
    if width < 2:
        raise InputError("a name and at least one value are needed in each line")
    names = [f"target_{k}" for k in range(1, width)] if width > 2 else ["target"]
    if parse_number(rows[0][1].strip()) is None:
        names = [name.strip() for name in rows.pop(0)[1:]]
    table: dict[str, Values] = {}
    for number, row in enumerate(rows, 1):
        key = row[0].strip()
        if len(row) != width:
            raise InputError(f"row {number} has {len(row)} cells, {width} are needed")
        if key in table:
            raise InputError(f"row {number}: '{key}' stands in a row before")
        values = {name: parse_number(cell.strip()) for name, cell in zip(names, row[1:], strict=True)}
        table[key] = {name: value for name, value in values.items() if value is not None}
        if len(table[key]) < len(values):
            collector.note("cells that are no numbers were left out", where)
    return table


def with_values(
    crystals: Sequence[Crystal], files: Sequence[str], table: Mapping[str, Values], where: str, collector: Collector
) -> list[Crystal]:
    """Crystals with the values of their files; what has no partner is counted in a note.

    Args:
        files: the name of the file of each crystal.
        table: of :func:`parse_id_prop`.
    """
    found, used = [], set()
    for crystal, file in zip(crystals, files, strict=True):
        key = next((name for name in (file, PurePath(file).stem, crystal.id) if name in table), None)
        used.add(key)
        found.append(crystal if key is None else replace(crystal, properties={**crystal.properties, **table[key]}))
    without, unused = sum(f is c for f, c in zip(found, crystals, strict=True)), len(table.keys() - used)
    if without or unused:
        collector.note(f"{without} of {len(crystals)} crystals have no row, {unused} rows no crystal", where)
    return found
