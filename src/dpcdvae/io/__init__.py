"""Crystals from files and into files: one table of formats, one ``read``, one ``write``."""

from __future__ import annotations

import gzip
import math
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from dpcdvae.errors import InputError, one_line, printable, unknown_name
from dpcdvae.files import atomic_output, check_name, check_output
from dpcdvae.io.ase_files import parse_database, parse_traj
from dpcdvae.io.atoms import RESERVED, parse_extxyz, parse_poscar, render_extxyz, render_poscar
from dpcdvae.io.cif import crystal_from_cif, parse_cif
from dpcdvae.io.cif_writer import cif_text, render_cif
from dpcdvae.io.documents import parse_json, render_json
from dpcdvae.io.failures import Collector, Failure, ReportedError, parser_reason
from dpcdvae.io.peers import parse_npz, parse_pt, render_npz
from dpcdvae.io.sources import Source, files_at
from dpcdvae.io.tables import parse_csv, parse_parquet, render_csv
from dpcdvae.progress import Progress
from dpcdvae.registry import Registry
from dpcdvae.structures.crystal import Crystal

__all__ = [
    "FORMATS",
    "Failure",
    "Format",
    "check_destination",
    "cif_text",
    "crystal_from_cif",
    "read",
    "read_placed",
    "write",
]

Parse = Callable[[bytes, str, str, Collector], None]  # content, where it stands, stem of its name
Render = Callable[[Sequence[Crystal]], bytes]


@dataclass(frozen=True)
class Format:
    """A kind of file: the endings of its name, its parser, and its writer if it has one."""

    suffixes: tuple[str, ...]
    parse: Parse
    render: Render | None


FORMATS: Registry[Format] = Registry(
    "file format",
    {
        "cif": Format((".cif",), parse_cif, render_cif),
        "extxyz": Format((".extxyz", ".xyz"), parse_extxyz, render_extxyz),
        "poscar": Format((".vasp", ".poscar"), parse_poscar, render_poscar),
        "csv": Format((".csv",), parse_csv, render_csv),
        "json": Format((".json",), parse_json, render_json),
        "npz": Format((".npz",), parse_npz, render_npz),
        "pt": Format((".pt",), parse_pt, None),
        "parquet": Format((".parquet",), parse_parquet, None),
        "traj": Format((".traj",), parse_traj, None),
        "db": Format((".db",), parse_database, None),
    },
)
TABLES = ("csv", "parquet")
FOLDER, ZIP = "folder", "zip"  # of CIFs


def read(
    path: str | Path,
    failures: list[Failure] | None = None,
    counts: dict[str, int] | None = None,
    *,
    column: str | None = None,
) -> list[Crystal]:
    """Crystals of a file, or of every file of a folder or ``.zip`` (in natural order of their names).

    The ending of the name says the format: ``.cif`` (one or several data blocks), ``.extxyz``, ``.xyz``,
    ``.vasp``, POSCAR, CONTCAR, ``.csv`` and ``.parquet`` with a column of crystals, ``.json`` (pymatgen's, the
    Materials Project's or our own), ``.npz`` and ``.pt`` (see :mod:`dpcdvae.io.peers`), ``.traj`` and ``.db`` of
    ASE, each also with ``.gz``. In a folder, files with other endings are passed over. Ids are made unique: the
    second ``a`` becomes ``a-2``. What is left out of crystals that are kept (text in a column of numbers, forces,
    atoms of occupancy 0) is named on standard error, once for each kind.

    Args:
        path: what to read.
        failures: if given, items that cannot be used (unparsable, partial occupancy, isotopes, NaN, no
            volume) are added here and reading goes on.
        counts: if given, the number of items of each file is added here, by its path.
        column: that of the crystals in ``.csv`` and ``.parquet``; without it ``cif``, or the only one that holds them.

    Raises:
        InputError: nothing there, a format not known, a file that is no such file, no crystal in it;
            without ``failures`` also the first bad item, naming file, row or block, and reason.
    """
    return read_placed(path, failures, counts, column=column)[0]


def read_placed(
    path: str | Path,
    failures: list[Failure] | None = None,
    counts: dict[str, int] | None = None,
    *,
    format: str | None = None,
    column: str | None = None,
) -> tuple[list[Crystal], list[str]]:
    """:func:`read`, with the place of each crystal (file and row, block or frame).

    Args:
        format: a name in ``FORMATS``, to overrule the ending.
        counts, column: as for :func:`read`.
    """
    path = Path(path)
    alone = not os.path.isdir(path) and path.suffix.lower() != ".zip"
    with Progress(f"reading {path.name}") as bar:
        collector, tables = Collector(failures, bar, column), 0
        for source in files_at(path):
            before = collector.count
            name = format or _format_of(source.name)
            tables += name in TABLES
            if alone:
                _read_alone(source, name, collector)
            elif name is not None or source.closed:
                with collector.item(source.stem, source.where):
                    content = source.load()
                    FORMATS[str(name)].parse(content, source.where, source.stem, collector)
            if counts is not None:
                counts[source.path] = collector.count - before
    for line in collector.note_lines():
        print(f"note: {line}", file=sys.stderr)
    if column is not None and not tables:
        raise InputError(f"{path}: no table (.csv, .parquet) that could have a column '{column}': leave out --column")
    if not collector.crystals and not collector.failed:
        raise InputError(f"{path}: no crystals in it (formats: {', '.join(FORMATS)})")
    return _unique([_named(crystal) for crystal in collector.crystals]), collector.places


def _read_alone(source: Source, format: str | None, collector: Collector) -> None:
    """Reads the only file; what makes it unreadable as a whole is an error, not a failure of one of its items."""
    if format is None:
        known = [suffix for entry in FORMATS.values() for suffix in entry.suffixes]
        raise InputError(f"{source.where}: {_unknown_ending(PurePath(source.name).suffix, [*known, '.zip'])}")
    try:
        FORMATS[format].parse(source.load(), source.where, source.stem, collector)
    except ReportedError:
        raise
    except Exception as error:
        raise InputError(f"{source.where}: {one_line(parser_reason(error))}") from error


def _named(crystal: Crystal) -> Crystal:
    """The crystal with an id and names of properties of printable characters."""
    if crystal.id.isprintable() and all(name.isprintable() for name in crystal.properties):
        return crystal
    properties = {printable(name): value for name, value in crystal.properties.items()}
    return replace(crystal, id=printable(crystal.id), properties=properties)


def write(crystals: Iterable[Crystal], path: str | Path, *, format: str | None = None, overwrite: bool = False) -> Path:
    """Writes crystals in the format the name ends in, all of them or, on any error, nothing.

    ``.cif`` (one block each), ``.extxyz``, ``.xyz``, ``.csv`` (CDVAE's columns), ``.json`` (exact), ``.npz``,
    ``.vasp`` or POSCAR (one crystal), each also with ``.gz``; ``.zip``, or a name without ending or with a
    final ``/``, for one CIF per crystal, called by its id. Crystals without id become ``crystal-0`` and so on;
    properties that are not finite, or are called like a field of a format (id, name, cif, formula, pbc), are left out.
    CIF, CSV, POSCAR and npz keep lengths and angles, or a right-handed setting, not the orientation in space.

    Args:
        crystals: at least one. path: where to. format: a name in ``FORMATS``, ``"folder"`` or ``"zip"``,
            to overrule the ending. overwrite: replace what is there.

    Raises:
        InputError: an unknown format, a path that exists or cannot be written, a folder to replace that
            holds other files, a crystal with NaN or without volume, no crystals at all, or several in a POSCAR.
    """
    name, path = check_destination(path, format=format, overwrite=overwrite), Path(path)
    crystals = _unique([_writable(crystal, number) for number, crystal in enumerate(crystals)])
    if not crystals:
        raise InputError(f"no crystals to write to {path}")
    for crystal in crystals:
        if (reason := crystal.problem()) is not None:
            raise InputError(f"crystal '{crystal.id}' cannot be written to {path}: {reason}")
    render = None if name in (FOLDER, ZIP) else FORMATS[name].render
    content = render(crystals) if render else b""
    with atomic_output(path) as temporary:
        if name == FOLDER:
            temporary.mkdir()
            for file, crystal in _file_names(crystals):
                (temporary / file).write_text(cif_text(crystal), encoding="ascii")
        elif name == ZIP:
            with zipfile.ZipFile(temporary, "w") as archive:
                for file, crystal in _file_names(crystals):  # ZipInfo's fixed date: the same bytes every time
                    archive.writestr(zipfile.ZipInfo(file), cif_text(crystal), zipfile.ZIP_DEFLATED)
        else:
            temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix.lower() == ".gz" else content)
    return path


def check_destination(path: str | Path, *, format: str | None = None, overwrite: bool = False) -> str:
    """The name of the format that :func:`write` will use, or its InputError: to ask before hours of work."""
    check_name(Path(path))
    name = _output_format(path, format)
    path = check_output(path, overwrite=overwrite)
    if path.exists() and (name == FOLDER) != path.is_dir():
        what = "folder" if path.is_dir() else "file"
        raise InputError(f"will not replace {path}: it is a {what}: remove it, or give another name")
    if name == FOLDER and path.is_dir() and (other := [p.name for p in path.iterdir() if not _is_ours(p)]):
        raise InputError(f"will not replace {path}: it holds other files (such as {other[0]}): give another folder")
    return name


def _writable(crystal: Crystal, number: int) -> Crystal:
    """The crystal with a printable id, and only the finite properties not named like a format's field."""
    id = printable(crystal.id) or f"crystal-{number}"
    taken = ("", "cif", "formula", *RESERVED)
    properties = {k: float(v) for k, v in crystal.properties.items() if k not in taken and math.isfinite(v)}
    return replace(crystal, id=id, properties=properties)


def _is_ours(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".cif" or path.name == "manifest.json")


def _format_of(name: str) -> str | None:
    """The format of a file by its name; None for an ending that no format has."""
    if re.match(r"(POSCAR|CONTCAR)([._-]|$)", name) and not name.lower().endswith(".cif"):
        return "poscar"
    suffix = PurePath(name).suffix.lower()
    return next((key for key, format in FORMATS.items() if suffix in format.suffixes), None)


def _output_format(path: str | Path, format: str | None) -> str:
    """The name of the format to write."""
    writable = [name for name, entry in FORMATS.items() if entry.render is not None]
    if format is not None:
        if format not in (*writable, FOLDER, ZIP):
            raise unknown_name("output format", format, [*writable, FOLDER, ZIP])
        return format
    name = Path(path).name
    name = name[:-3] if name.lower().endswith(".gz") else name
    if (by_name := _format_of(name)) in writable:
        return str(by_name)
    suffix = PurePath(name).suffix.lower()
    if suffix == ".zip":
        return ZIP
    if not suffix or str(path).endswith("/") or Path(path).is_dir():
        return FOLDER
    if _format_of(name) is not None:
        raise InputError(f"{path}: '{suffix}' is a format that is read, not written")
    suffixes = [s for key in writable for s in FORMATS[key].suffixes]
    raise InputError(f"{path}: {_unknown_ending(suffix, [*suffixes, '.zip'])}; without an ending it becomes a folder")


def _unknown_ending(suffix: str, known: Sequence[str]) -> InputError:
    """With all endings: they are what a user asks for next."""
    return unknown_name("ending", suffix, known, most=len(known))


def _unique(crystals: Sequence[Crystal]) -> list[Crystal]:
    taken: dict[str, int] = {}
    return [c if (id := _free(c.id, taken)) == c.id else c.with_id(id) for c in crystals]


def _file_names(crystals: Sequence[Crystal]) -> list[tuple[str, Crystal]]:
    """``<id>.cif`` with characters that every file system takes, unique also where case makes no difference."""
    taken: dict[str, int] = {}
    stems = (re.sub(r"[^A-Za-z0-9_.+-]", "_", c.id)[:100].lstrip(".") or "crystal" for c in crystals)
    return [(_free(stem, taken, str.lower) + ".cif", c) for stem, c in zip(stems, crystals, strict=True)]


def _free(name: str, taken: dict[str, int], fold: Callable[[str], str] = str) -> str:
    """``name``, or ``name-2``, ``name-3`` ... if it is taken; takes it. ``taken`` has the last number of each name."""
    candidate, number = name, taken.get(fold(name), 1)
    while fold(candidate) in taken:
        number += 1
        candidate = f"{name}-{number}"
    taken[fold(candidate)] = 1
    taken[fold(name)] = number
    return candidate
