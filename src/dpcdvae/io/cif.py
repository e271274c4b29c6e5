"""CIF: a quick strict reader for plain P1 files, pymatgen's parser for all others, and a writer.

The quick path reads what pymatgen, ASE and this module write for a crystal without symmetry, about
ten times faster than a full parser; it gives up (and pymatgen takes over) on anything it does
not know. Both keep the coordinates as printed: pymatgen's habit of moving 0.3333 to 1/3 is off.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, unquote

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode
from dpcdvae.io.species import atomic_number_of
from dpcdvae.structures.crystal import Crystal, lattice_from_parameters

MAX_CIF_BYTES = 10_000_000  # of one data block; a crystal of 100 000 atoms has about 5 MB

_TOKEN = re.compile(r"""'(?:[^'\n]|'(?=\S))*'|"(?:[^"\n]|"(?=\S))*"|\#[^\n]*|\S+""")
_CELL = [f"_cell_{kind}" for kind in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")]
_SITE = "_atom_site_"
# Our own items; CIF reserves no prefix for them, and other readers pass over what they do not know.
_ID, _PROPERTY_NAME, _PROPERTY_VALUE = "_dpcdvae_id", "_dpcdvae_property_name", "_dpcdvae_property_value"
_OWN_ID = re.compile(rf"^{_ID}\s+'([^']*)'", re.MULTILINE)
_NOT_GIVEN = (".", "?")
_PARSER_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, AssertionError)


def crystal_from_cif(text: str, id: str = "") -> Crystal:
    """The crystal of a CIF with one data block.

    Atoms keep the order of the file in the quick path; pymatgen sorts those of other files by
    electronegativity. Coordinates are as printed or wrapped into [0, 1).

    Args:
        text: the CIF. id: name of the crystal; if empty, the one this package wrote into the CIF.

    Raises:
        InputError: no or several data blocks, partial occupancies, isotopes, dummy species, or text
            that pymatgen cannot parse. A NaN lattice is not an error here: see ``Crystal.problem``.
    """
    blocks = _crystal_blocks(text)
    if len(blocks) != 1:
        raise InputError(f"one CIF data block with a cell is needed, found {len(blocks)}")
    return _crystal_from_block(blocks[0][1], id or _own_id(blocks[0][1]))


def parse_cif(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Every data block with a cell; named after the file if it is alone, after the block otherwise."""
    blocks = _crystal_blocks(decode(data))
    if not blocks:
        raise InputError("no CIF data block with a cell in it")
    for number, (name, block) in enumerate(blocks, 1):
        id = _own_id(block) or (stem if len(blocks) == 1 else name)
        place = where if len(blocks) == 1 else f"{where} block {number} (data_{name})"
        with collector.item(id, place):
            collector.add(_crystal_from_block(block, id), place)


def _crystal_blocks(text: str) -> list[tuple[str, str]]:
    return [(name, block) for name, block in split_blocks(text) if "_cell_" in block or _SITE in block]


def _own_id(block: str) -> str:
    match = _OWN_ID.search(block)
    return unquote(match[1]) if match else ""


def split_blocks(text: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each data block. Text fields, which may hold anything, become a placeholder."""
    lines: list[str] = []
    name, in_field = None, False
    for line in text.splitlines():
        if line.startswith(";"):
            in_field = not in_field
            line = "'text field'" if in_field else ""
        elif in_field:
            continue
        elif line[:5].lower() == "data_":
            if name is not None:
                yield name, "\n".join(lines)
            name, lines = line[5:].strip(), []
        lines.append(line)
    if name is not None:
        yield name, "\n".join(lines)


def _crystal_from_block(block: str, id: str) -> Crystal:
    if len(block) > MAX_CIF_BYTES:
        raise InputError(f"a CIF of {len(block) / 1e6:.0f} MB: more than {MAX_CIF_BYTES / 1e6:.0f} MB for one crystal")
    items = _items(block)
    if items is None:
        return _with_pymatgen(block, id)
    # Checked here because pymatgen takes Vac for vanadium and drops atoms whose occupancy is not given.
    for text in items.get(_SITE + "type_symbol", ()):
        atomic_number_of(_unquoted(text))
    crystal = _plain_p1(items, id)
    if crystal is None and any(v in _NOT_GIVEN for v in items.get(_SITE + "occupancy", ())):
        raise InputError("an occupancy is not given ('.' or '?'): write 1")
    return crystal if crystal is not None else _with_pymatgen(block, id)


def _items(block: str) -> dict[str, list[str]] | None:
    """Values by tag (lower case), one or a column of them; None if the text is no plain CIF."""
    tokens = [t for t in _TOKEN.findall(block) if t[0] != "#"]
    items: dict[str, list[str]] = {}
    i, end = 1, len(tokens)  # tokens[0] is data_...
    while i < end:
        token = tokens[i]
        if token[0] == "_" and i + 1 < end and tokens[i + 1][0] != "_" and tokens[i + 1].lower() != "loop_":
            items[token.lower()] = [tokens[i + 1]]
            i += 2
        elif token.lower() == "loop_":
            first = i + 1
            i = first
            while i < end and tokens[i][0] == "_":
                i += 1
            tags, start = tokens[first:i], i
            while i < end and tokens[i][0] != "_" and tokens[i].lower() != "loop_":
                i += 1
            if not tags or i == start or (i - start) % len(tags):
                return None
            for column, tag in enumerate(tags):
                items[tag.lower()] = tokens[start + column : i : len(tags)]
        else:
            return None
    return items


def _plain_p1(items: Mapping[str, Sequence[str]], id: str) -> Crystal | None:
    """The crystal of a block without symmetry, esds or unusual columns; None leaves it to pymatgen."""
    if not _is_p1(items) or _SITE + "attached_hydrogens" in items:
        return None
    try:
        parameters = np.array([float(items[tag][0]) for tag in _CELL])
        columns = [np.array([float(v) for v in items[f"{_SITE}fract_{axis}"]]) for axis in "xyz"]
        occupancies = [1.0 if v in _NOT_GIVEN else float(v) for v in items.get(_SITE + "occupancy", ())]
        species = items[_SITE + "type_symbol"]
        names, values = items.get(_PROPERTY_NAME, ()), items.get(_PROPERTY_VALUE, ())
        properties = {unquote(_unquoted(n)): float(v) for n, v in zip(names, values, strict=True)}
    except (KeyError, ValueError):
        return None
    numbers = [atomic_number_of(_unquoted(text)) for text in species]
    if len({len(numbers), *map(len, columns)}) > 1:
        return None
    if any(o != 1.0 for o in occupancies):
        raise InputError(f"crystal '{id}' has partial occupancies: give an ordered structure")
    lattice = lattice_from_parameters(parameters[:3], parameters[3:])
    return Crystal(np.array(numbers, np.int64), np.stack(columns, -1), lattice, id, properties)


def _is_p1(items: Mapping[str, Sequence[str]]) -> bool:
    """Symmetry is stated, and every statement says P1."""
    statements = []
    for tag in ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz"):
        if tag in items:
            statements.append([_unquoted(v).replace(" ", "").lower() for v in items[tag]] == ["x,y,z"])
    for tag in ("_symmetry_space_group_name_h-m", "_space_group_name_h-m_alt"):
        if tag in items:
            statements.append(_unquoted(items[tag][0]).replace(" ", "") == "P1")
    for tag in ("_symmetry_int_tables_number", "_space_group_it_number"):
        if tag in items:
            statements.append(items[tag][0] == "1")
    return bool(statements) and all(statements)


def _unquoted(token: str) -> str:
    return token[1:-1] if token[0] in "'\"" and len(token) > 1 and token[-1] == token[0] else token


def _with_pymatgen(block: str, id: str) -> Crystal:
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parser = CifParser.from_str(block, frac_tolerance=0.0)
            structures = parser.parse_structures(primitive=False, check_occu=True, on_error="raise")
        except _PARSER_ERRORS as error:  # whatever a third-party parser meets in arbitrary text
            raise InputError(f"not a CIF that pymatgen can parse ({type(error).__name__}: {error})") from error
    return Crystal.from_pymatgen(structures[0], id)


def cif_text(crystal: Crystal) -> str:
    """P1 CIF with 8 decimals, ASCII, the same for the same crystal; id and properties as own items.

    A left-handed cell (a, b, c) is written as (-a, -b, -c) with negated coordinates: the same atoms in
    space. Lengths and angles alone would turn it into its mirror image.
    """
    crystal = right_handed(crystal)
    label = re.sub(r"[^A-Za-z0-9_.+-]", "_", crystal.id)[:70] or crystal.formula
    # + 0.0 and round: no "-0.00000000"
    lengths, angles, coords = (np.round(v, 8) + 0.0 for v in (crystal.lengths, crystal.angles, crystal.frac_coords))
    lines = [f"data_{label}"]
    if crystal.id:
        lines.append(f"{_ID} '{_quoted(crystal.id)}'")
    lines += [f"{tag} {value:.8f}" for tag, value in zip(_CELL, [*lengths, *angles], strict=True)]
    composition = " ".join(f"{symbol}{count}" for symbol, count in crystal.composition.items())
    lines += [
        f"_cell_volume {crystal.volume:.8f}",
        f"_chemical_formula_sum '{composition}'",
        "_symmetry_space_group_name_H-M 'P 1'",
        "_symmetry_Int_Tables_number 1",
        "loop_",
        " _symmetry_equiv_pos_site_id",
        " _symmetry_equiv_pos_as_xyz",
        "  1 'x, y, z'",
    ]
    if crystal.properties:
        lines += ["loop_", f" {_PROPERTY_NAME}", f" {_PROPERTY_VALUE}"]
        lines += [f"  '{_quoted(name)}' {float(value)!r}" for name, value in crystal.properties.items()]
    columns = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += ["loop_", *(f" {_SITE}{column}" for column in columns)]
    lines += [
        f"  {symbol} {symbol}{index} 1 {x:.8f} {y:.8f} {z:.8f} 1"
        for index, (symbol, (x, y, z)) in enumerate(zip(crystal.symbols, coords, strict=True))
    ]
    return "\n".join(lines) + "\n"


def render_cif(crystals: Sequence[Crystal]) -> bytes:
    return "\n".join(cif_text(crystal) for crystal in crystals).encode("ascii")


def right_handed(crystal: Crystal) -> Crystal:
    """The same atoms in space, described by a cell with a positive triple product."""
    if np.linalg.det(crystal.lattice) >= 0:
        return crystal
    return Crystal(
        crystal.atomic_numbers, -crystal.frac_coords, -crystal.lattice, crystal.id, crystal.properties
    )  # fmt: skip


def _quoted(text: str) -> str:
    """Any text as printable ASCII without quotes; ``unquote`` undoes it."""
    return quote(text, safe=" !$&()*+,-./:;<=>?@[]^_`{|}~")
