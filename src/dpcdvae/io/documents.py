"""JSON: the package's own compact form (exact), and structures as pymatgen writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode
from dpcdvae.structures.crystal import Crystal

FORMAT, VERSION = "dpcdvae-crystals", 1


def parse_json(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Own JSON, one pymatgen ``Structure`` dictionary, a list of them, or a dictionary of them by id."""
    try:
        document = json.loads(decode(data))
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON, or cut off (line {error.lineno}: {error.msg})") from None
    except ValueError:  # Python reads no integer of thousands of digits
        raise InputError("JSON with a number too long to be read") from None
    except RecursionError:
        raise InputError("JSON nested too deeply") from None
    for number, (id, entry) in enumerate(_entries(document, stem), 1):
        place = f"{where} item {number}"
        with collector.item(id, place):
            collector.add(_crystal(entry, id), place)


def _entries(document: Any, stem: str) -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict) and document.get("format") == FORMAT:
        if document.get("version") != VERSION:
            raise InputError(f"version {document.get('version')} of {FORMAT}, this program reads {VERSION}: update it")
        entries = document.get("crystals")
        if not isinstance(entries, list):
            raise InputError(f"{FORMAT} without a list 'crystals'")
        for k, entry in enumerate(entries):
            yield (str(entry.get("id", "")) if isinstance(entry, dict) else "") or f"{stem}-{k}", entry
    elif isinstance(document, dict) and ("sites" in document or "lattice" in document):
        yield stem, document
    elif isinstance(document, dict):
        yield from document.items()
    elif isinstance(document, list):
        yield from ((f"{stem}-{k}", entry) for k, entry in enumerate(document))
    else:
        raise InputError("JSON without crystals: a pymatgen Structure, a list of them, or this package's own is needed")


def _crystal(entry: Any, id: str) -> Crystal:
    if not isinstance(entry, dict):
        raise InputError("not a crystal")
    try:
        if "sites" in entry:
            return _from_structure_dict(entry, id)
        if not all(type(z) is int for z in entry["atomic_numbers"]):
            raise InputError("atomic_numbers must be integers")
        return Crystal(
            np.array(entry["atomic_numbers"], np.int64), np.array(entry["frac_coords"], np.float64),
            np.array(entry["lattice"], np.float64), id, _numbers(entry.get("properties")),
        )  # fmt: skip
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"not a crystal ({type(error).__name__}: {error})") from error


def _from_structure_dict(entry: dict[str, Any], id: str) -> Crystal:
    from pymatgen.core import Structure

    return Crystal.from_pymatgen(Structure.from_dict(entry), id, _numbers(entry.get("properties")))


def _numbers(properties: dict[str, Any] | None) -> dict[str, float]:
    return {
        str(k): float(v)
        for k, v in (properties or {}).items()
        if isinstance(v, (int, float)) and not isinstance(v, bool) and np.isfinite(v)
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
