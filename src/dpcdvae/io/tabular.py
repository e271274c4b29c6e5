"""CSV with a ``cif`` column, the format of CDVAE's data sets."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dpcdvae.crystal import Crystal
from dpcdvae.errors import InputError
from dpcdvae.io.cif import MAX_CIF_BYTES, cif_text, crystal_from_cif, decode
from dpcdvae.io.failures import Collector, Failure

ID_COLUMNS = ("material_id", "id")


def read_csv(path: str | Path, failures: list[Failure] | None = None) -> list[Crystal]:
    """Crystals of a ``.csv`` or ``.csv.gz`` with a ``cif`` column, in the order of the rows.

    ``material_id`` or ``id`` gives the id (else the number of the row), every finite number in another
    column a property; empty cells and text are left out.

    Raises:
        InputError: no such file, not a CSV, no ``cif`` column; without ``failures`` also the first
            row that holds no usable crystal. Rows count from 1, the header aside.
    """
    collector = Collector(failures)
    parse_csv(read_bytes(path), str(path), Path(path).stem, collector)
    return collector.crystals


def parse_csv(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Adds every row to ``collector``."""
    limit = csv.field_size_limit(MAX_CIF_BYTES)
    try:
        reader = csv.DictReader(io.StringIO(decode(data, where), newline=""))
        columns = reader.fieldnames or []
        if "cif" not in columns:
            found = ", ".join(c or "''" for c in columns[:12]) or "none"
            raise InputError(f"{where}: no column 'cif' (columns: {found}): name the column with the CIF text 'cif'")
        id_column = next((c for c in ID_COLUMNS if c in columns), None)
        numeric = [c for c in columns if c and c not in ("cif", id_column)]
        for number, row in enumerate(reader, 1):
            id = (row[id_column] if id_column else "") or f"{stem}-{number}"
            place = f"{where} row {number}"
            with collector.item(id, place):
                if not row["cif"]:
                    raise InputError(f"the cell 'cif' of '{id}' is empty")
                crystal = crystal_from_cif(row["cif"], id)
                numbers = {c: value for c in numeric if (value := _number(row[c])) is not None}
                collector.add(replace(crystal, properties=numbers), place)
    except csv.Error as error:
        raise InputError(f"{where}: not a CSV file ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _number(cell: str | None) -> float | None:
    """None for what is empty, text, or not finite ('InF' is indium fluoride, not infinity)."""
    try:
        value = float(cell) if cell and "_" not in cell else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def csv_text(crystals: Sequence[Crystal]) -> str:
    """CDVAE's format: material_id, cif, formula, then the properties by name; absent ones are empty."""
    names = sorted({name for crystal in crystals for name in crystal.properties})
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["material_id", "cif", "formula", *names])
    for crystal in crystals:
        cells = [repr(float(crystal.properties[n])) if n in crystal.properties else "" for n in names]
        writer.writerow([crystal.id, cif_text(replace(crystal, properties={})), crystal.formula, *cells])
    return stream.getvalue()


def read_bytes(path: str | Path) -> bytes:
    """Content of a file, decompressed if its name ends in ``.gz``."""
    path = Path(path)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not data.strip():
        raise InputError(f"{path} is empty")
    return data
