"""CSV with a ``cif`` column, the format of CDVAE's data sets."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace

from dpcdvae.errors import InputError
from dpcdvae.io.cif import MAX_CIF_BYTES, cif_text, crystal_from_cif
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode
from dpcdvae.structures.crystal import Crystal

ID_COLUMNS = ("material_id", "id")


def parse_csv(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Adds the crystal of every row, in order; rows count from 1, the header aside.

    ``material_id`` or ``id`` gives the id (else file and row), every finite number in another column
    a property; empty cells and text are left out.

    Raises:
        InputError: not a CSV, or one without a ``cif`` column.
    """
    limit = csv.field_size_limit(MAX_CIF_BYTES)  # the default of 131072 is a crystal of 2000 atoms
    try:
        reader = csv.DictReader(io.StringIO(decode(data), newline=""), strict=True)
        columns = reader.fieldnames or []
        if "cif" not in columns:
            found = ", ".join(repr(c) for c in columns[:12])
            raise InputError(f"no column 'cif' (columns: {found}): name the column that holds the CIF text 'cif'")
        id_column = next((c for c in ID_COLUMNS if c in columns), None)
        numeric = [c for c in columns if c and c not in ("cif", *ID_COLUMNS)]
        for number, row in enumerate(reader, 1):
            id = (row[id_column] if id_column else "") or f"{stem}-{number}"
            place = f"{where} row {number}"
            with collector.item(id, place):
                if not row["cif"]:
                    raise InputError("the cell 'cif' is empty")
                crystal = crystal_from_cif(row["cif"], id)
                numbers = {c: value for c in numeric if (value := _number(row[c])) is not None}
                collector.add(replace(crystal, properties=numbers), place)
    except csv.Error as error:
        raise InputError(f"not a CSV file ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _number(cell: str | None) -> float | None:
    """None for what is empty, text, or not finite ('InF' is indium fluoride, not infinity)."""
    try:
        value = float(cell) if cell and "_" not in cell else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def render_csv(crystals: Sequence[Crystal]) -> bytes:
    """CDVAE's format: material_id, cif, formula, then the properties by name; absent ones are empty."""
    names = sorted({name for crystal in crystals for name in crystal.properties})
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["material_id", "cif", "formula", *names])
    for crystal in crystals:
        cells = [repr(float(crystal.properties[n])) if n in crystal.properties else "" for n in names]
        writer.writerow([crystal.id, cif_text(replace(crystal, properties={})), crystal.formula, *cells])
    return stream.getvalue().encode()
