"""CIF read: gemmi for the syntax and the settings of space groups, the atoms and what contradicts them here.

A block without symmetry keeps the order and the coordinates of its file. In other blocks the atoms of each site follow
one another, wrapped into [0, 1). What a file says twice must agree: the formula and the sites, the operations and the
cell. A crystal that could be two is refused.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import numpy as np
from gemmi import cif

from dpcdvae.errors import InputError, one_line, printable
from dpcdvae.io.cif_sites import Note, Sites, atoms_of, images_of, same_atoms
from dpcdvae.io.cif_symmetry import Items, settings
from dpcdvae.io.cif_writer import CELL, ID, PROPERTY_NAME, PROPERTY_VALUE, SITE
from dpcdvae.io.contradictions import check_volume
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode
from dpcdvae.io.special_positions import Array, Operations
from dpcdvae.io.species import atomic_number_of, number_of_label, parse_formula_sum, proportional
from dpcdvae.structures.crystal import Crystal, lattice_from_parameters
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.occupancy import TOLERANCE
from dpcdvae.structures.properties import is_whole, parse_floats, parse_number

MAX_CIF_BYTES = 10_000_000  # of one data block; a crystal of 100 000 atoms has about 5 MB
MAX_ATOMS = 50_000
"""Atoms of one crystal that symmetry may make of what a file lists."""

_BLOCK_OR_FIELD = re.compile(r"^(?:data_(\S*)|;)", re.MULTILINE | re.IGNORECASE)
_OF_CRYSTAL = re.compile("_cell[_.]|_atom_site[_.]", re.IGNORECASE)
_WANTED = ("_cell_", SITE, "_symmetry_", "_space_group", "_chemical_formula_sum", "_dpcdvae_")
_NOT_GIVEN = (".", "?", "")


def crystal_from_cif(text: str, id: str = "", note: Note = lambda text: None) -> Crystal:
    """The crystal of a CIF with one data block.

    Args:
        text: the CIF. id: name of the crystal; if empty, the one this package wrote into the CIF.
        note: called with a line for what was left out (atoms of occupancy 0) or overruled.

    Raises:
        InputError: no or several data blocks, text that is no CIF, partial occupancies, isotopes, dummy species,
            a symmetry that is not known or is ambiguous, a formula that the sites do not give.
            A NaN lattice is not an error here: see ``Crystal.problem``.
    """
    blocks = _crystal_blocks(text)
    if len(blocks) != 1:
        raise InputError(f"one CIF data block with a cell is needed, found {len(blocks)}")
    return _crystal(_items(blocks[0][1]), id, note)


def parse_cif(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Every data block with a cell; named after the file if it is alone, after the block otherwise."""
    blocks = _crystal_blocks(decode(data))
    if not blocks:
        raise InputError("no CIF data block with a cell in it")
    for number, (name, block) in enumerate(blocks, 1):
        place = where if len(blocks) == 1 else f"{where} block {number} (data_{name})"
        fallback = stem if len(blocks) == 1 else name
        with collector.item(fallback, place):
            crystal = _crystal(_items(block), "", collector.note)
            collector.add(crystal if crystal.id else crystal.with_id(fallback))


def _crystal_blocks(text: str) -> list[tuple[str, str]]:
    return [(name, block) for name, block in split_blocks(text) if _OF_CRYSTAL.search(block)]


def split_blocks(text: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each data block. A ``data_`` within a text field, which may hold anything, begins none."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    starts, in_field = [], False
    for match in _BLOCK_OR_FIELD.finditer(text):
        if match[1] is None:
            in_field = not in_field
        elif not in_field:
            starts.append((match.start(), match[1]))
    for (start, name), (end, _) in pairwise([*starts, (len(text), "")]):
        yield name, text[start:end]


def _items(block: str) -> Items:
    """The values that can matter by their tag, in lower case and with ``_`` for the ``.`` of newer dictionaries.

    Raises:
        InputError: the block is too large, no CIF, or gives an item twice.
    """
    if len(block) > MAX_CIF_BYTES:
        raise InputError(f"a CIF of {len(block) / 1e6:.0f} MB: more than {MAX_CIF_BYTES / 1e6:.0f} MB for one crystal")
    try:
        document = cif.read_string(block, 0)
    except (ValueError, RuntimeError) as error:
        found = re.match(r"string:(\d+)(?::\d+\(\d+\))?(?: in data_\S*)?:? (.*)", one_line(error))
        raise InputError(f"not a CIF ({f'line {found[1]} of the block: {found[2]}' if found else error})") from None
    items: dict[str, Sequence[str]] = {}
    block_items: Any = document[0]
    for item in block_items:
        if (pair := item.pair) is not None:
            tags, values = [pair[0]], [pair[1]]
        elif (loop := item.loop) is not None:
            tags, values = loop.tags, loop.values
        else:
            continue
        for column, tag in enumerate(tags):
            name = _item(tag)
            if not name.startswith(_WANTED):
                continue
            column_values = values[column :: len(tags)]
            if name in items and items[name] != column_values:
                raise InputError(f"two different values of {tag}")
            items[name] = column_values
    return items


def _item(tag: str) -> str:
    return tag.lower().replace(".", "_")


def _crystal(items: Items, id: str, note: Note) -> Crystal:
    id = id or (unquote(cif.as_string(items[ID][0])) if ID in items else "")
    parameters = [_numbers(items, tag)[0] for tag in CELL]
    lattice = lattice_from_parameters(np.array(parameters[:3]), np.array(parameters[3:]))
    if "_cell_volume" in items:
        check_volume(cif.as_string(items["_cell_volume"][0]), [items[tag][0] for tag in CELL], lattice)
    sites = _sites(items)
    found = settings(items, lattice, note)
    total = len(found[0]) * len(sites.numbers)
    if len(found[0]) > 1 and total > MAX_ATOMS:
        raise InputError(f"up to {total} atoms in the cell: more than {MAX_ATOMS}")
    orbits = _orbits(sites, found, items)
    numbers, coords = atoms_of(sites, orbits, note)
    if (formula := _formula(items)) and not proportional(formula, Counter(numbers)):
        composition = " ".join(f"{SYMBOLS[z]}{n}" for z, n in sorted(Counter(numbers).items()))
        raise InputError(
            f"the formula says {cif.as_string(items['_chemical_formula_sum'][0])[:60]}, "
            f"but the sites give {composition}"
        )
    names = [unquote(cif.as_string(name)) for name in items.get(PROPERTY_NAME, ())]
    values = [_property(text) for text in items.get(PROPERTY_VALUE, ())]
    if len(names) != len(values):
        raise InputError(f"{len(names)} {PROPERTY_NAME}, but {len(values)} {PROPERTY_VALUE}")
    if len(set(names)) < len(names):
        raise InputError(f"{PROPERTY_NAME} '{printable(Counter(names).most_common(1)[0][0])[:30]}' stands twice")
    return Crystal(np.array(numbers, np.int64), coords, lattice, id, dict(zip(names, values, strict=True)))


def _property(text: str) -> float:
    if (value := parse_number(text)) is None:
        raise InputError(f"{PROPERTY_VALUE} '{text[:30]}' is not a number")
    return value


def _numbers(items: Items, tag: str) -> list[float]:
    """Numbers without their standard uncertainties."""
    if not items.get(tag):
        raise InputError(f"no {tag}")
    texts = items[tag]
    if any("(" in text for text in texts):
        texts = [re.sub(r"\(\d+\)$", "", text) for text in texts]
    return list(map(float, parse_floats(texts, tag)))


def _sites(items: Items) -> Sites:
    printed = [items.get(f"{SITE}fract_{axis}", ()) for axis in "xyz"]
    if not all(printed):
        raise InputError("no atoms with fractional coordinates (_atom_site_fract_x, _y, _z)")
    coords = np.array([_numbers(items, f"{SITE}fract_{axis}") for axis in "xyz"]).T
    count = len(coords)
    labels = [_bare(text) for text in items.get(SITE + "label", ())] or [f"{k + 1}" for k in range(count)]
    if SITE + "type_symbol" in items:
        numbers = [atomic_number_of(_bare(text)) for text in items[SITE + "type_symbol"]]
    elif SITE + "label" in items:
        numbers = [number_of_label(label, _formula(items)) for label in labels]
    else:
        raise InputError("the sites have no _atom_site_type_symbol and no _atom_site_label")
    if not count == len(numbers) == len(labels):
        raise InputError("the columns of the atom sites differ in length")
    for label, attached in zip(labels, items.get(SITE + "attached_hydrogens", ()), strict=False):
        if attached not in (*_NOT_GIVEN, "0"):
            raise InputError(f"site {label} has {attached[:10]} attached hydrogens that have no coordinates")
    texts = items.get(SITE + "occupancy", ())
    if texts and len(texts) != count:
        raise InputError(f"{count} sites, but {len(texts)} occupancies")
    occupancies = None
    if not all(text == "1" for text in texts):
        given = ["1" if text in _NOT_GIVEN else text for text in texts]
        occupancies = np.array(_numbers({"occupancy": given}, "occupancy"))
        if (np.abs(occupancies - 1) <= TOLERANCE).all():
            occupancies = None
    return Sites(labels, numbers, coords, occupancies, list(zip(*printed, strict=True)))


def _bare(text: str) -> str:
    return cif.as_string(text) if text[0] in "'\";" else text


def _orbits(sites: Sites, found: Sequence[Operations], items: Items) -> list[Array]:
    """The atoms of each site; of several settings, the one that agrees with the rest of the file."""
    ways = [images_of(sites, operations) for operations in found]
    if len(ways) == 1:
        return ways[0]
    fitting = [k for k, orbits in enumerate(ways) if _agrees(sites, orbits, items)]
    names = " or ".join(found[k].name for k in fitting or range(len(found)))
    if not fitting:
        raise InputError(f"the setting is ambiguous: with none of {names} do formula, Z and multiplicities agree")
    if any(not same_atoms(ways[fitting[0]], ways[k]) for k in fitting[1:]):
        raise InputError(f"the setting is ambiguous: {names}? List the operations, or give the Hall symbol")
    return ways[fitting[0]]


def _agrees(sites: Sites, orbits: Sequence[Array], items: Items) -> bool:
    """Whether formula, formula units in the cell and multiplicities, as far as stated, are those of the atoms."""
    for tag in ("symmetry_multiplicity", "site_symmetry_multiplicity"):
        stated = items.get(SITE + tag, ())
        if any(is_whole(text) and int(text) != len(o) for text, o in zip(stated, orbits, strict=False)):
            return False
    counts: defaultdict[int, float] = defaultdict(float)
    for k, (number, atoms) in enumerate(zip(sites.numbers, orbits, strict=True)):
        counts[number] += len(atoms) * (1.0 if sites.occupancies is None else sites.occupancies[k])
    formula = _formula(items)
    if not formula:
        return True
    units = items.get("_cell_formula_units_z", ["?"])[0]
    # Some programs write the formula of the whole cell, beside the number of units in it.
    whole = [sum(formula.values()) * factor for factor in ((int(units), 1) if is_whole(units) else ())]
    fits = not whole or any(abs(sum(counts.values()) - total) < 0.01 * total for total in whole)
    return fits and proportional(formula, counts)


def _formula(items: Items) -> Mapping[int, float] | None:
    """Atoms by atomic number of the formula that the file states; None if it states none that can be read."""
    return (
        parse_formula_sum(cif.as_string(items["_chemical_formula_sum"][0]))
        if "_chemical_formula_sum" in items
        else None
    )
