"""A prepared data set in numbers and words."""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dpcdvae.datasets.origin import long_words
from dpcdvae.datasets.preparation import by_reason
from dpcdvae.datasets.store import Dataset, dataset_file
from dpcdvae.errors import InputError, printable
from dpcdvae.files import sha256
from dpcdvae.intervals import shown
from dpcdvae.io.failures import Failure
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.properties import is_whole
from dpcdvae.structures.table import CrystalTable


def describe(dataset: Dataset, path: Path | None = None) -> dict[str, Any]:
    """JSON values: counts, atoms, bonds, elements, properties with coverage, failures by reason, file.

    Args:
        path: its file, if it was not loaded by name.
    """
    path = path or dataset_file(dataset.name)
    metadata = dataset.metadata
    failures = [Failure(f["id"], f["where"], f["reason"]) for f in metadata.get("failures", [])]
    tables = dataset.tables
    numbers = np.concatenate([table.atomic_numbers for table in tables.values()])
    elements = Counter({SYMBOLS[z]: int(n) for z, n in enumerate(np.bincount(numbers)) if n})
    return {
        "name": dataset.name,
        **{
            key: metadata[key]
            for key in ("title", "licence", "citation", "version", "settings", "source", "notes")
            if metadata.get(key)
        },
        "splits": {split: _split_facts(table) for split, table in tables.items()},
        "elements": dict(elements.most_common()),
        "properties": _property_facts(tables, metadata.get("columns", {})),
        "energy": metadata.get("energy"),
        "failures": dict(by_reason(failures)),
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }


def _split_facts(table: CrystalTable) -> dict[str, Any]:
    return {
        "crystals": len(table),
        "atoms": {
            "min": int(table.num_atoms.min()),
            "mean": round(float(table.num_atoms.mean()), 3),
            "max": int(table.num_atoms.max()),
        },
        "bonds_per_atom": round(2 * int(table.num_bonds.sum()) / int(table.num_atoms.sum()), 3),
    }


def _property_facts(tables: Any, columns: dict[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name in sorted({name for table in tables.values() for name in table.properties}):
        values = np.concatenate([t.properties.get(name, np.full(len(t), np.nan)) for t in tables.values()])
        known = values[~np.isnan(values)]
        facts[name] = {"unit": columns.get(name, ""), "coverage": round(len(known) / len(values), 4)}
        if len(known):
            facts[name] |= {"min": float(known.min()), "mean": float(known.mean()), "max": float(known.max())}
    return facts


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts of a data set as lines for a terminal."""
    result = [f"{facts['name']}: {facts.get('title', '')}"]
    for split, numbers in facts["splits"].items():
        atoms = numbers["atoms"]
        result.append(
            f"  {split:6} {numbers['crystals']:6} crystals, {atoms['min']}-{atoms['max']} atoms "
            f"(mean {atoms['mean']:.1f}), {numbers['bonds_per_atom']:.2f} bonds an atom"
        )
    elements = list(facts["elements"])
    first = " ".join(elements[:24]) + (" ..." if len(elements) > 24 else "")
    result.append(f"elements: {len(elements)} ({first})")
    for name, numbers in facts["properties"].items():
        span = f"{numbers['min']:.4g} to {numbers['max']:.4g}" if "min" in numbers else "no value"
        mark = " [the energy of the protocol]" if name == facts["energy"] else ""
        result.append(
            f"property: {name}, {numbers['unit'] or 'unit unknown'}, {span}, "
            f"{shown(numbers['coverage'], '')} of the crystals{mark}"
        )
    for part, source in facts.get("source", {}).items():
        origin = ", ".join(filter(None, [source.get("git_blob") or source.get("sha256"), long_words(source)]))
        result.append(f"source: {part} {source['file']} {origin}")
    if "settings" in facts:
        result.append("settings: " + ", ".join(f"{key} {value}" for key, value in facts["settings"].items()))
    result.append(f"left out: {sum(facts['failures'].values())}")
    result += [f"  {count} x {reason}" for reason, count in facts["failures"].items()]
    result += [f"{key}: {facts[key]}" for key in ("licence", "citation") if key in facts]
    result.append(f"file: {facts['file']} ({facts['bytes'] / 1e6:.1f} MB, sha256 {facts['sha256']})")
    return result


def place_of(table: CrystalTable, id: str, where: str) -> int:
    """The row of a crystal by its id, or by ``#`` and the number of the row.

    Raises:
        InputError: there is none, with the nearest id and the name of the table (``where``).
    """
    ids = table.ids.tolist()
    if id in ids:
        return int(ids.index(id))
    if id[:1] == "#" and is_whole(id[1:]) and int(id[1:]) < len(ids):
        return int(id[1:])
    near = difflib.get_close_matches(id, ids, n=1, cutoff=0)
    hint = f": did you mean '{near[0]}'?" if near else ""
    raise InputError(f"no crystal '{id}' among the {len(ids)} of {where}{hint}")


def crystal_lines(table: CrystalTable, place: int) -> list[str]:
    """One crystal of a table in words."""
    crystal, alone = table[place], table.select([place])
    bonds = np.bincount(alone.bonds.ravel(), minlength=crystal.num_atoms)
    properties = [f"property: {name} {value:g}" for name, value in crystal.properties.items()]
    lengths, angles = (" ".join(f"{v:.4f}" for v in values) for values in (crystal.lengths, crystal.angles))
    return [
        f"{printable(crystal.id)}: {crystal.formula}, {crystal.num_atoms} atoms",
        f"cell: {lengths} Å, {angles}°, {crystal.volume:.3f} Å^3, {crystal.density:.3f} g/cm^3",
        *properties,
        "atom  x       y       z       bonds",
        *(
            f"{symbol:4} " + " ".join(f"{x:7.4f}" for x in row) + f" {count:5}"
            for symbol, row, count in zip(crystal.symbols, crystal.frac_coords.tolist(), bonds.tolist(), strict=True)
        ),
    ]
