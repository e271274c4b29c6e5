"""JSON: structures as pymatgen writes them, Materials Project documents, what earlier versions of this package wrote.

Structures are read as plain numbers here: pymatgen's own decoder imports the modules that a file names.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dpcdvae.errors import InputError, printable
from dpcdvae.io.contradictions import check_cell, check_document, check_place, floats, note_charge, note_labels
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode
from dpcdvae.io.species import atomic_number, atomic_number_of
from dpcdvae.structures.crystal import Crystal, lattice_from_parameters
from dpcdvae.structures.occupancy import atom_on_place
from dpcdvae.structures.properties import ID_KEYS, id_names, id_of, outside_names, plain_numbers

FORMAT, VERSION = "dpcdvae-crystals", 1  # of earlier versions of this package
_IDS = ("material_id", "task_id", "entry_id", "id")  # of documents, the first before the others
_LISTS = ("data", "entries")  # of what the Materials Project and other databases hand out


def parse_json(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Own JSON; a structure of pymatgen, a document or entry that holds one, a list of these, a dictionary by id."""
    try:
        document = json.loads(decode(data), object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON, or cut off (line {error.lineno}: {error.msg})") from None
    except InputError:
        raise
    except ValueError:  # Python reads no integer of thousands of digits
        raise InputError("JSON with a number too long to be read") from None
    except RecursionError:
        raise InputError("JSON nested too deeply") from None
    for number, (id, entry) in enumerate(_entries(document, stem), 1):
        with collector.item(id, f"{where} item {number}"):
            collector.add(crystal_from_document(entry, id, collector.note))


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises InputError for a key that stands twice, of which Python would keep the last alone."""
    if len(found := dict(pairs)) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise InputError(f"the key '{printable(twice)[:30]}' stands twice in one object")
    return found


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
    """That of a document, or of the structure in it."""
    if not isinstance(entry, dict):
        return ""
    structure = entry["structure"] if isinstance(entry.get("structure"), dict) else entry
    properties = structure.get("properties")
    inner = properties if "sites" in structure and isinstance(properties, dict) else {}
    return id_of(entry, _IDS) or id_of(inner)


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
            values = {k: v for k, v in numbers_of(entry).items() if not isinstance(v, bool)}  # not its dozens of flags
            crystal = _from_structure(entry["structure"], id, values, note)
            check_document(entry, crystal)
            return crystal
        if "sites" in entry:
            return _from_structure(entry, id, numbers_of(entry.get("properties")), note)
        if "formula_pretty" in entry:
            raise InputError("a document without 'structure': ask the Materials Project for that field too")
        if not all(type(z) is int for z in entry["atomic_numbers"]):
            raise InputError("atomic_numbers must be integers")
        return Crystal(
            np.array([atomic_number(z) for z in entry["atomic_numbers"]], np.int64),
            floats(entry["frac_coords"], "frac_coords"),
            floats(entry["lattice"], "the lattice"),
            id,
            numbers_of(entry.get("properties")),
        )
    except KeyError as error:
        raise InputError(f"not a crystal: no {error}") from None


def _from_structure(structure: Mapping[str, Any], id: str, properties: Mapping[str, float], note: Any) -> Crystal:
    cell = structure["lattice"]
    if not all(cell.get("pbc", (True,))):
        raise InputError(f"periodic only along some axes (pbc {cell['pbc']}): no three-dimensional crystal")
    if "matrix" in cell:
        lattice = floats(cell["matrix"], "the matrix of the lattice")
        if lattice.shape != (3, 3):
            raise InputError(f"the lattice has the shape {lattice.shape}, where (3, 3) is needed")
        check_cell(cell, lattice)
    else:
        lengths, angles = (
            floats([cell[key] for key in keys], "a cell parameter") for keys in ("abc", ("alpha", "beta", "gamma"))
        )
        lattice = lattice_from_parameters(lengths, angles)
    numbers, coords, kept = [], [], []
    for place, site in enumerate(structure["sites"], 1):
        amounts: defaultdict[int, float] = defaultdict(float)
        for species in site["species"]:
            amounts[atomic_number_of(str(species["element"]))] += float(floats(species["occu"], "an occupancy"))
        number = atom_on_place(amounts)
        if number is not None:
            check_place(site, lattice, f"site {place}")
            kept.append(site)
            numbers.append(number)
            given = floats(site["abc"] if "abc" in site else site["xyz"], f"site {place}")
            coords.append(given if "abc" in site else np.linalg.solve(lattice.T, given))
    note_labels(kept, numbers, note)
    note_charge(structure, note)
    if len(kept) < len(structure["sites"]):
        note("atoms of occupancy 0 are left out")
    frac_coords = np.array(coords, np.float64).reshape(-1, 3)
    return Crystal(np.array(numbers, np.int64), frac_coords, lattice, id, properties)


def numbers_of(entries: Any) -> dict[str, float]:
    """The finite numbers of a dictionary, under the names that they have there, ids aside; none of anything else."""
    if not isinstance(entries, dict):
        return {}
    ids = id_names(entries)
    return plain_numbers({key: value for key, value in entries.items() if key not in ids})


def render_json(crystals: Sequence[Crystal]) -> bytes:
    """A list of pymatgen's structures, one a line, which ``monty.serialization.loadfn`` gives back as such.

    Numbers are written as ``repr`` prints them, so that reading gives the same bits. Id (as ``material_id``) and
    properties are those of the structure.
    """
    return ("[\n" + ",\n".join(json.dumps(_structure(c), allow_nan=False) for c in crystals) + "\n]\n").encode()


def _structure(crystal: Crystal) -> dict[str, Any]:
    """As ``Structure.as_dict(verbosity=0)``."""
    sites = zip(crystal.symbols, crystal.frac_coords.tolist(), strict=True)
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": 0,
        "properties": {ID_KEYS[0]: crystal.id, **outside_names(crystal.properties)},
        "lattice": {"matrix": crystal.lattice.tolist(), "pbc": [True, True, True]},
        "sites": [{"species": [{"element": symbol, "occu": 1}], "abc": abc, "properties": {}} for symbol, abc in sites],
    }
