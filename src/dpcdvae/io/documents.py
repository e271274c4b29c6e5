"""JSON: the package's own compact form (exact), structures as pymatgen writes them, Materials Project documents.

Structures are read as plain numbers here: pymatgen's own decoder imports the modules that a file names.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode
from dpcdvae.io.species import atomic_number, atomic_number_of
from dpcdvae.structures.crystal import Crystal, lattice_from_parameters
from dpcdvae.structures.occupancy import atom_on_place

FORMAT, VERSION = "dpcdvae-crystals", 1
_IDS = ("material_id", "task_id", "entry_id", "id")
_LISTS = ("data", "entries")  # of what the Materials Project and other databases hand out


def parse_json(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Own JSON; a structure of pymatgen, a document or entry that holds one, a list of these, a dictionary by id."""
    try:
        document = json.loads(decode(data))
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON, or cut off (line {error.lineno}: {error.msg})") from None
    except ValueError:  # Python reads no integer of thousands of digits
        raise InputError("JSON with a number too long to be read") from None
    except RecursionError:
        raise InputError("JSON nested too deeply") from None
    for number, (id, entry) in enumerate(_entries(document, stem), 1):
        with collector.item(id, f"{where} item {number}"):
            collector.add(crystal_from_document(entry, id, collector.note))


def _entries(document: Any, stem: str) -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict) and document.get("format") == FORMAT:
        if document.get("version") != VERSION:
            raise InputError(f"version {document.get('version')} of {FORMAT}, this program reads {VERSION}: update it")
        entries = document.get("crystals")
        if not isinstance(entries, list):
            raise InputError(f"{FORMAT} without a list 'crystals'")
        yield from _named(entries, stem)
    elif isinstance(document, dict) and any(key in document for key in ("sites", "lattice", "structure")):
        yield _id(document) or stem, document
    elif isinstance(document, dict) and (key := next((k for k in _LISTS if isinstance(document.get(k), list)), None)):
        yield from _named(document[key], stem)
    elif isinstance(document, dict):
        yield from document.items()
    elif isinstance(document, list):
        yield from _named(document, stem)
    else:
        raise InputError("JSON without crystals: a pymatgen Structure, a list of them, or this package's own is needed")


def _named(entries: Sequence[Any], stem: str) -> Iterator[tuple[str, Any]]:
    yield from ((_id(entry) or f"{stem}-{k}", entry) for k, entry in enumerate(entries))


def _id(entry: Any) -> str:
    given = (entry.get(key) for key in _IDS) if isinstance(entry, dict) else ()
    return next((str(value) for value in given if isinstance(value, (str, int)) and value != ""), "")


def crystal_from_document(entry: Any, id: str, note: Any) -> Crystal:
    """The crystal of one entry: our own, a pymatgen ``Structure`` as a dictionary, or what holds one as ``structure``.

    Args:
        note: called with what was left out (atoms of occupancy 0).

    Raises:
        InputError: no crystal, a structure that is not periodic in three directions, or not ordered.
    """
    if not isinstance(entry, dict):
        raise InputError("not a crystal")
    try:
        if isinstance(entry.get("structure"), dict):
            return _from_structure(entry["structure"], id, entry, note)
        if "sites" in entry:
            return _from_structure(entry, id, entry.get("properties"), note)
        if "formula_pretty" in entry:
            raise InputError("a document without 'structure': ask the Materials Project for that field too")
        if not all(type(z) is int for z in entry["atomic_numbers"]):
            raise InputError("atomic_numbers must be integers")
        return Crystal(
            np.array([atomic_number(z) for z in entry["atomic_numbers"]], np.int64),
            np.array(entry["frac_coords"], np.float64),
            np.array(entry["lattice"], np.float64),
            id,
            finite_numbers(entry.get("properties")),
        )
    except KeyError as error:
        raise InputError(f"not a crystal: no {error}") from None


def _from_structure(structure: Mapping[str, Any], id: str, properties: Any, note: Any) -> Crystal:
    cell = structure["lattice"]
    if not all(cell.get("pbc", (True,))):
        raise InputError(f"periodic only along some axes (pbc {cell['pbc']}): no three-dimensional crystal")
    if "matrix" in cell:
        lattice = np.array(cell["matrix"], np.float64)
    else:
        lengths, angles = ([float(cell[key]) for key in keys] for keys in ("abc", ("alpha", "beta", "gamma")))
        lattice = lattice_from_parameters(np.array(lengths), np.array(angles))
    numbers, coords, left_out = [], [], False
    for site in structure["sites"]:
        amounts: defaultdict[int, float] = defaultdict(float)
        for species in site["species"]:
            amounts[atomic_number_of(str(species["element"]))] += float(species["occu"])
        number = atom_on_place(amounts)
        left_out |= number is None
        if number is not None:
            numbers.append(number)
            coords.append(site["abc"] if "abc" in site else np.linalg.solve(lattice.T, np.array(site["xyz"], float)))
    if left_out:
        note("atoms of occupancy 0 are left out")
    frac_coords = np.array(coords, np.float64).reshape(-1, 3)
    return Crystal(np.array(numbers, np.int64), frac_coords, lattice, id, finite_numbers(properties))


def finite_numbers(properties: Any) -> dict[str, float]:
    """The finite numbers of a dictionary; none of anything else."""
    if not isinstance(properties, dict):
        return {}
    return {
        str(k): float(v)
        for k, v in properties.items()
        if isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e300 and math.isfinite(v)
    }


def render_json(crystals: Sequence[Crystal]) -> bytes:
    """One crystal a line; numbers as ``repr`` prints them, so that reading gives the same bits."""
    lines = [
        json.dumps(
            {
                "id": c.id,
                "atomic_numbers": c.atomic_numbers.tolist(),
                "frac_coords": c.frac_coords.tolist(),
                "lattice": c.lattice.tolist(),
                "properties": {k: float(v) for k, v in c.properties.items()},
            },
            allow_nan=False,
        )
        for c in crystals
    ]
    head = f'{{"format": "{FORMAT}", "version": {VERSION}, "crystals": [\n'
    return (head + ",\n".join(lines) + "\n]}\n").encode()
