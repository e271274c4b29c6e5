"""Tables with a crystal in each row: CSV, the format of CDVAE's data sets, and Parquet."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from dpcdvae.errors import InputError, listed, printable, unknown_name
from dpcdvae.io.cif import MAX_CIF_BYTES, crystal_from_cif
from dpcdvae.io.cif_sites import Note
from dpcdvae.io.cif_writer import cif_text
from dpcdvae.io.documents import crystal_from_document, unique_keys
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode, most_unpacked
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import ID_KEYS, id_names, is_index, outside_names, parse_number, plain_number

Row = Mapping[str, Any]

_ABSENT = {"", "nan", "na", "n/a", "none", "null", "-", "--", "inf", "-inf"}
_NUMBER_AND_MORE = re.compile(r"[<>=~≈≤≥±+\-−\s]*[.,]?\d")  # 7.1 eV, <0.1, 6,6: not NaCl, P1
_LIKE_FORMULA = re.compile("'*[=+@-]")
_BEYOND = "\0"  # where a row's cells beyond the header are kept
_GUARD = "'"  # keeps a spreadsheet from working out a cell that begins like a formula


def parse_csv(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Adds the crystal of every row, in order; rows count from 1, the header aside.

    ``material_id`` or ``id`` gives the id (else file and row), every finite number in another column
    a property; empty cells and columns of text are left out.

    Raises:
        InputError: not a CSV, or one without a column of crystals.
    """
    limit = csv.field_size_limit(MAX_CIF_BYTES)  # the default of 131072 is a crystal of 2000 atoms
    try:
        reader = csv.DictReader(io.StringIO(decode(data), newline=""), restkey=_BEYOND, strict=True)
        twice = [name for name, count in Counter(reader.fieldnames or ()).items() if name and count > 1]
        if twice:
            raise InputError(f"two columns are called '{printable(twice[0])[:30]}': rename or remove one")
        _add_rows(reader, reader.fieldnames or [], where, stem, collector)
    except csv.Error as error:
        raise InputError(f"not a CSV file ({error})") from error
    finally:
        csv.field_size_limit(limit)


def parse_parquet(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """:func:`parse_csv` for a Parquet file. Needs pyarrow.

    Raises:
        InputError: not a Parquet file, one that claims far more than it holds, no column of crystals, no pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'dpcdvae[parquet]'") from None
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"not a Parquet file, or cut off ({error})") from error
    about = file.metadata
    claimed = sum(about.row_group(k).total_byte_size for k in range(about.num_row_groups))
    # A repeated value takes no room in the file, but time and memory as crystals.
    if claimed > most_unpacked(len(data)) or about.num_rows > len(data):
        raise InputError(f"claims {about.num_rows} rows and {claimed} bytes in a file of {len(data)}: refused")

    def rows() -> Iterator[Row]:
        for batch in file.iter_batches(batch_size=1000):
            yield from batch.to_pylist()

    _add_rows(rows(), file.schema_arrow.names, where, stem, collector)


def _add_rows(rows: Iterable[Row], columns: Sequence[str], where: str, stem: str, collector: Collector) -> None:
    rows = iter(rows)
    first = next(rows, None)
    column = _crystal_column(columns, first or {}, collector.column)
    ids = id_names(columns)
    candidates = [name for name in columns if name not in (column, *ids) and not is_index(name)]
    numeric: set[str] = set()
    texts: dict[str, Counter[str]] = {name: Counter() for name in candidates}
    for number, row in enumerate([] if first is None else chain([first], rows), 1):
        given = (str(row[name]) for name in ids if row[name] is not None)
        id = unguarded(next(filter(None, given), "")) or f"{stem}-{number}"
        with collector.item(id, f"{where} row {number}"):
            if any(row.get(_BEYOND) or ()):
                raise InputError("more cells than columns (a comma in a number, or a quote that is missing?)")
            if not row[column]:
                raise InputError(f"the cell '{column}' is empty")
            crystal = _crystal(row[column], id, collector.note)
            numbers = {}
            for name in candidates:
                if (value := _number(row[name])) is not None:
                    numbers[unguarded(name)] = value
                    numeric.add(name)
                elif isinstance(row[name], str) and row[name].strip().lower() not in _ABSENT:
                    texts[name][row[name] if len(texts[name]) < 1000 else ""] += 1
            collector.add(replace(crystal, properties=numbers))
    for name, cells in texts.items():
        odd = next((text for text in cells if _NUMBER_AND_MORE.match(text)), None)
        if cells and (name in numeric or odd is not None):
            example = odd if odd is not None else next(iter(cells))
            collector.note(
                f"column '{name}': {cells.total()} cells are no numbers and were left out, such as '{example[:30]}'",
                where,
            )


def _crystal_column(columns: Sequence[str], row: Row, named: str | None) -> str:
    """The one that is named; else ``cif`` or, without such a column, the only one whose first cell is a crystal."""
    if named is not None:
        if named not in columns:
            raise unknown_name("column", named, filter(None, columns))
        return named
    if "cif" in columns:
        return "cif"
    found = [name for name in columns if name and _looks_like_crystal(row.get(name))]
    if len(found) == 1:
        return found[0]
    what = "several columns hold crystals" if found else "no column 'cif', and none that holds crystals"
    each = listed([repr(name) for name in found or columns])
    raise InputError(f"{what} (columns: {each}): name the column of the crystals, by --column or in the file as 'cif'")


def _looks_like_crystal(cell: Any) -> bool:
    if isinstance(cell, dict):
        return "sites" in cell and "lattice" in cell
    if not isinstance(cell, str):
        return False
    return ("_cell_length_a" in cell) if "data_" in cell else (cell.lstrip()[:1] == "{" and "lattice" in cell)


def _crystal(cell: Any, id: str, note: Note) -> Crystal:
    """A CIF, or a pymatgen ``Structure`` as a dictionary, in JSON's or Python's notation."""
    if isinstance(cell, dict):
        return crystal_from_document(cell, id, note)
    if isinstance(cell, bytes):
        cell = decode(cell)
    if not isinstance(cell, str):
        raise InputError(f"'{str(cell)[:30]}' is no crystal: a CIF is needed, or a dictionary of pymatgen's")
    if cell.lstrip()[:1] != "{":
        return crystal_from_cif(cell, id, note)
    if len(cell) > MAX_CIF_BYTES:
        raise InputError(f"a dictionary of {len(cell) / 1e6:.0f} MB for one crystal")
    try:
        document = _dictionary(cell)
    except (RecursionError, MemoryError):  # what json and ast raise
        raise InputError("a dictionary nested too deeply") from None
    return crystal_from_document(document, id, note)


def _dictionary(cell: str) -> Any:
    try:
        return json.loads(cell, object_pairs_hook=unique_keys)
    except InputError:
        raise
    except ValueError:
        try:
            return ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError) as error:
            raise InputError(f"a dictionary in neither JSON's nor Python's notation ({error})") from None


def _number(cell: Any) -> float | None:
    """A finite number in a cell; None for anything else ('InF' is indium fluoride, not infinity)."""
    if isinstance(cell, str):
        return parse_number(cell.strip())
    return plain_number(cell)


def render_csv(crystals: Sequence[Crystal]) -> bytes:
    """CDVAE's format: material_id, cif, formula, then the properties by name; absent ones are empty."""
    properties = [outside_names(crystal.properties) for crystal in crystals]
    names = sorted({name for values in properties for name in values})
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([ID_KEYS[0], "cif", "formula", *map(guarded, names)])
    for crystal, values in zip(crystals, properties, strict=True):
        cells = [repr(values[name]) if name in values else "" for name in names]
        writer.writerow([guarded(crystal.id), cif_text(replace(crystal, properties={})), crystal.formula, *cells])
    return stream.getvalue().encode()


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula: an apostrophe stands before what begins like one."""
    return _GUARD + text if _LIKE_FORMULA.match(text) else text


def unguarded(text: str) -> str:
    return text[1:] if text[:1] == _GUARD and _LIKE_FORMULA.match(text) else text
