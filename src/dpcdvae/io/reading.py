"""Crystals from files: one ``read`` for every format."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from dpcdvae.arguments import checked
from dpcdvae.errors import InputError, one_line, printable
from dpcdvae.io import id_prop
from dpcdvae.io.crystal_list import CrystalList
from dpcdvae.io.failures import Collector, Failure, ReportedError, parser_reason
from dpcdvae.io.formats import FORMATS, TABLES, format_of, unknown_ending
from dpcdvae.io.sources import Source, files_at
from dpcdvae.progress import Progress
from dpcdvae.structures.crystal import Crystal


@checked
def read(
    path: str | Path,
    failures: list[Failure] | None = None,
    counts: dict[str, int] | None = None,
    *,
    column: str | None = None,
) -> CrystalList:
    """Crystals of a file, or of every file of a folder or ``.zip`` (in natural order of their names).

    The ending of the name says the format: ``.cif`` (one or several data blocks), ``.extxyz``, ``.xyz``,
    ``.vasp``, POSCAR, CONTCAR, ``.csv`` and ``.parquet`` with a column of crystals, ``.json`` (pymatgen's, the
    Materials Project's or our own), ``.npz`` and ``.pt`` (see :mod:`dpcdvae.io.peers`), ``.traj`` and ``.db`` of
    ASE, each also with ``.gz``. In a folder, files with other endings are passed over, and ``id_prop.csv`` in it or
    beside it gives properties (:mod:`dpcdvae.io.id_prop`). Ids are made unique: the second ``a`` becomes ``a-2``.
    What is left out of crystals that are kept (text in a column of numbers, forces, atoms of occupancy 0) is named
    on standard error, once for each kind.

    Example:
        >>> crystals = dpcdvae.read("crystals.extxyz")

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
    notes: bool = True,
) -> tuple[CrystalList, list[str]]:
    """:func:`read`, with the place of each crystal (file and row, block or frame).

    Args:
        format: a name in ``FORMATS``, to overrule the ending.
        counts, column: as for :func:`read`.
        notes: whether it is said what is left out.
    """
    path = Path(path)
    alone = not os.path.isdir(path) and path.suffix.lower() != ".zip"
    with Progress(f"reading {path.name}") as bar:
        collector, tables = Collector(failures, bar, column), 0
        files: list[str] = []  # that each crystal is from
        values: dict[str, dict[str, float]] = {}
        for source in _files(path):
            before = collector.count
            if not alone and source.name == id_prop.NAME:
                with collector.item(source.stem, source.where):
                    values |= id_prop.parse_id_prop(source.load(), source.where, collector)
                continue
            name = format or format_of(source.name)
            tables += name in TABLES
            if alone:
                _read_alone(source, name, collector)
            elif name is not None or source.closed:
                with collector.item(source.stem, source.where):
                    content = source.load()
                    FORMATS[str(name)].parse(content, source.where, source.stem, collector)
            files += [source.name] * (len(collector.crystals) - len(files))
            if counts is not None:
                counts[source.path] = collector.count - before
        if values:
            collector.crystals = id_prop.with_values(collector.crystals, files, values, id_prop.NAME, collector)
    for line in collector.note_lines() if notes else ():
        print(f"note: {line}", file=sys.stderr)
    if column is not None and not tables:
        raise InputError(f"{path}: no table (.csv, .parquet) that could have a column '{column}': leave out --column")
    if not collector.crystals and not collector.failed:
        raise InputError(f"{path}: no crystals in it (formats: {', '.join(FORMATS)})")
    crystals = unique([_named(crystal) for crystal in collector.crystals])
    return CrystalList(crystals, failures or ()), collector.places


def columns_of(column: str | None, paths: Sequence[str | Path]) -> list[str | None]:
    """The column of crystals for each path: the one that is named for tables, None for others.

    Raises:
        InputError: a column is named, and none of the paths is a table or may hold one.
    """
    files = [format_of(PurePath(path).name.removesuffix(".gz")) in TABLES for path in paths]
    may_hold = files if any(files) else [os.path.isdir(path) or str(path).lower().endswith(".zip") for path in paths]
    if column is not None and not any(may_hold):
        raise InputError(f"no table (.csv, .parquet) that could have a column '{column}': leave out --column")
    return [column if table else None for table in may_hold]


def _files(path: Path) -> Iterator[Source]:
    """The files at ``path``; of a folder without its own ``id_prop.csv`` also one beside it."""
    own = False
    for source in files_at(path):
        own |= source.name == id_prop.NAME
        yield source
    beside = path.parent / id_prop.NAME
    if path.is_dir() and not own and beside.is_file():
        yield from files_at(beside)


def _read_alone(source: Source, format: str | None, collector: Collector) -> None:
    """Reads the only file; what makes it unreadable as a whole is an error, not a failure of one of its items."""
    if format is None:
        known = [suffix for entry in FORMATS.values() for suffix in entry.suffixes]
        raise InputError(f"{source.where}: {unknown_ending(PurePath(source.name).suffix, [*known, '.zip'])}")
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


def unique(crystals: Sequence[Crystal]) -> list[Crystal]:
    taken: dict[str, int] = {}
    return [c if (id := free(c.id, taken)) == c.id else c.with_id(id) for c in crystals]


def free(name: str, taken: dict[str, int], fold: Callable[[str], str] = str) -> str:
    """``name``, or ``name-2``, ``name-3`` ... if it is taken; takes it. ``taken`` has the last number of each name."""
    candidate, number = name, taken.get(fold(name), 1)
    while fold(candidate) in taken:
        number += 1
        candidate = f"{name}-{number}"
    taken[fold(candidate)] = 1
    taken[fold(name)] = number
    return candidate
