"""The table of file formats: the endings of names, the parser, and the writer of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from dpcdvae.errors import InputError, unknown_name
from dpcdvae.io.ase_files import parse_database, parse_traj
from dpcdvae.io.atoms import parse_extxyz, parse_poscar, render_extxyz, render_poscar
from dpcdvae.io.cif import parse_cif
from dpcdvae.io.cif_writer import render_cif
from dpcdvae.io.documents import parse_json, render_json
from dpcdvae.io.failures import Collector
from dpcdvae.io.peers import parse_npz, parse_pt, render_npz
from dpcdvae.io.tables import parse_csv, parse_parquet, render_csv
from dpcdvae.registry import Registry
from dpcdvae.structures.crystal import Crystal

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


def format_of(name: str) -> str | None:
    """The format of a file by its name; None for an ending that no format has."""
    if re.match(r"(POSCAR|CONTCAR)([._-]|$)", name) and not name.lower().endswith(".cif"):
        return "poscar"
    suffix = PurePath(name).suffix.lower()
    return next((key for key, format in FORMATS.items() if suffix in format.suffixes), None)


def unknown_ending(suffix: str, known: Sequence[str]) -> InputError:
    """With all endings: they are what a user asks for next."""
    return unknown_name("ending", suffix, known, most=len(known))
