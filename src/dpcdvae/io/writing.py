"""Crystals into files: one ``write`` for every format, all of them or nothing."""

from __future__ import annotations

import gzip
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from dpcdvae.arguments import checked
from dpcdvae.errors import InputError, printable, unknown_name
from dpcdvae.files import atomic_output, check_name, check_output
from dpcdvae.io.cif_writer import cif_text, joined, render_cif
from dpcdvae.io.conversion import CrystalsLike, as_crystals
from dpcdvae.io.formats import FOLDER, FORMATS, ZIP, format_of, unknown_ending
from dpcdvae.io.reading import free, unique
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import outside_names, plain_numbers
from dpcdvae.structures.symmetrised import check_tolerance, symmetrised


@checked
def write(
    crystals: CrystalsLike,
    path: str | Path,
    *,
    format: str | None = None,
    overwrite: bool = False,
    symmetrise: float | None = None,
) -> Path:
    """Writes crystals in the format the name ends in, all of them or, on any error, nothing.

    ``.cif`` (one block each), ``.extxyz``, ``.xyz``, ``.csv`` (CDVAE's columns), ``.json`` (exact), ``.npz``,
    ``.vasp`` or POSCAR (one crystal), each also with ``.gz``; ``.zip``, or a name without ending or with a
    final ``/``, for one CIF per crystal, called by id and formula. Crystals without id become ``crystal-0`` and so on;
    properties that are not finite are left out. A property that is called like a field of a format (id, cif, formula,
    pbc ...) is written with ``property_`` before its name, which :func:`~dpcdvae.read` takes away.
    CIF, CSV, POSCAR and npz keep lengths and angles, or a right-handed setting, not the orientation in space.

    Example:
        >>> dpcdvae.write([Structure.from_file("POSCAR")], "crystals.extxyz")

    Args:
        crystals: at least one, anything that :func:`~dpcdvae.io.as_crystals` takes.
        path: where to. format: a name in ``FORMATS``, ``"folder"`` or ``"zip"``, to overrule the ending.
        overwrite: replace what is there.
        symmetrise: Å by which atoms may miss their symmetric places. CIFs then have the space group, in the standard
            setting, and atoms on these places (:func:`~dpcdvae.structures.symmetrised.symmetrised`). Crystals without
            symmetry at this tolerance stay in P1; the number of those that spglib cannot handle is said.

    Raises:
        InputError: an unknown format, a path that exists or cannot be written, a folder to replace that
            holds other files, a crystal with NaN or without volume, no crystals at all, or several in a POSCAR.
    """
    name, path = check_destination(path, format=format, overwrite=overwrite, symmetrise=symmetrise), Path(path)
    crystals = unique([_writable(crystal, number) for number, crystal in enumerate(as_crystals(crystals))])
    if not crystals:
        raise InputError(f"no crystals to write to {path}")
    for crystal in crystals:
        if (reason := crystal.problem()) is not None:
            raise InputError(f"crystal '{crystal.id}' cannot be written to {path}: {reason}")
    render = None if name in (FOLDER, ZIP) else FORMATS[name].render
    texts = _cifs(crystals, symmetrise)
    content = joined(texts) if render is render_cif else render(crystals) if render else b""
    with atomic_output(path) as temporary:
        if name == FOLDER:
            temporary.mkdir()
            for file, text in zip(_file_names(crystals), texts, strict=True):
                (temporary / file).write_text(text, encoding="ascii")
        elif name == ZIP:
            with zipfile.ZipFile(temporary, "w") as archive:
                for file, text in zip(_file_names(crystals), texts, strict=True):
                    # ZipInfo's fixed date: the same bytes every time
                    archive.writestr(zipfile.ZipInfo(file), text, zipfile.ZIP_DEFLATED)
        else:
            temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix.lower() == ".gz" else content)
    return path


def _cifs(crystals: Sequence[Crystal], symmetrise: float | None) -> Iterator[str]:
    lacking = 0
    for crystal in crystals:
        symmetry = None if symmetrise is None else symmetrised(crystal, symmetrise)
        lacking += symmetry is None
        yield cif_text(crystal, symmetry)
    if lacking and symmetrise is not None:
        print(
            f"note: {lacking} of {len(crystals)} crystals stay in P1: no symmetry at {symmetrise:g} Å", file=sys.stderr
        )


def check_destination(
    path: str | Path, *, format: str | None = None, overwrite: bool = False, symmetrise: float | None = None
) -> str:
    """The name of the format that :func:`write` will use, or its InputError: to ask before hours of work."""
    check_name(Path(path))
    name = _output_format(path, format)
    if symmetrise is not None:
        check_tolerance(symmetrise)
        if name not in ("cif", FOLDER, ZIP):
            raise InputError(f"--symmetrise is for CIFs, and {path} is {name}: write .cif, .zip or a folder")
    path = check_output(path, overwrite=overwrite)
    if path.exists() and (name == FOLDER) != path.is_dir():
        what = "folder" if path.is_dir() else "file"
        raise InputError(f"will not replace {path}: it is a {what}: remove it, or give another name")
    if name == FOLDER and path.is_dir() and (other := [p.name for p in path.iterdir() if not _is_ours(p)]):
        raise InputError(f"will not replace {path}: it holds other files (such as {other[0]}): give another folder")
    return name


def _writable(crystal: Crystal, number: int) -> Crystal:
    """The crystal with a printable id, and properties that can be written: finite, and of different names."""
    id = printable(crystal.id) or f"crystal-{number}"
    try:
        outside_names(crystal.properties)
    except InputError as error:
        raise InputError(f"crystal '{id}': {error}") from None
    return replace(crystal, id=id, properties=plain_numbers(crystal.properties))


def _is_ours(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".cif" or path.name == "manifest.json")


def _output_format(path: str | Path, format: str | None) -> str:
    """The name of the format to write."""
    writable = [name for name, entry in FORMATS.items() if entry.render is not None]
    if format is not None:
        if format not in (*writable, FOLDER, ZIP):
            raise unknown_name("output format", format, [*writable, FOLDER, ZIP])
        return format
    name = Path(path).name
    name = name[:-3] if name.lower().endswith(".gz") else name
    if (by_name := format_of(name)) in writable:
        return str(by_name)
    suffix = PurePath(name).suffix.lower()
    if suffix == ".zip":
        return ZIP
    if not suffix or str(path).endswith("/") or Path(path).is_dir():
        return FOLDER
    if format_of(name) is not None:
        raise InputError(f"{path}: '{suffix}' is a format that is read, not written")
    suffixes = [s for key in writable for s in FORMATS[key].suffixes]
    raise InputError(f"{path}: {unknown_ending(suffix, [*suffixes, '.zip'])}; without an ending it becomes a folder")


def _file_names(crystals: Sequence[Crystal]) -> list[str]:
    """``<id>_<formula>.cif`` with characters that every file system takes, unique also where case makes no difference.

    The formula is left out where the id says it.
    """
    taken: dict[str, int] = {}
    names = []
    for crystal in crystals:
        stem = re.sub(r"[^A-Za-z0-9_.+-]", "_", crystal.id)[:100].lstrip(".") or "crystal"
        if crystal.formula not in re.split(r"[^A-Za-z0-9()]", crystal.id):
            stem += "_" + re.sub(r"\W", "-", crystal.formula[:100])  # no parentheses, which a shell takes for its own
        names.append(free(stem, taken, str.lower) + ".cif")
    return names
