"""The table of crystals on the page: what is known of each of them, by column."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpcdvae.errors import InputError, printable, reason_of
from dpcdvae.io.tables import unguarded
from dpcdvae.parallel.results import Results
from dpcdvae.structures.contacts import closest_contacts
from dpcdvae.structures.crystal import LATENT_DISTANCE, Crystal
from dpcdvae.structures.neutrality import compositional_problem
from dpcdvae.structures.properties import parse_number, plain_number
from dpcdvae.structures.space_groups import find_space_groups, symbols
from dpcdvae.structures.validity import structural_problem

MOST_CELL_BYTES = 10**6

_KNOWN_HERE = {
    "id", "where", "failure", "formula", "num_atoms", "density", "volume_per_atom", "space_group_number",
    "space_group_symbol", "structurally_valid", "compositionally_valid", "shortest_distance",
}  # fmt: skip
"""Columns of ``evaluate --table`` that the page finds itself."""

_OFTEN_ASKED = (LATENT_DISTANCE, "novel", "energy_above_hull", "same_structure", "matched", "sun")


class Column(NamedTuple):
    """A column of the page.

    Attributes:
        name: what filters call it.
        title: what its head says, with the unit.
        values: one for each crystal: a number, a text, True or False, or None.
        shown: whether it is there before all columns are asked for.
    """

    name: str
    title: str
    values: list[Any]
    shown: bool = True


def columns_of(crystals: Sequence[Crystal], results: Results, table: Mapping[str, Sequence[Any]]) -> list[Column]:
    """All columns, those of ``table`` (of ``dpcdvae evaluate --table``) and the crystals' own properties included."""
    contacts = closest_contacts(crystals)
    groups = find_space_groups(crystals, results).numbers.tolist()
    problems = [_problem(crystal, d) for crystal, d in zip(crystals, contacts.distance.tolist(), strict=True)]
    sound = [crystal.problem() is None for crystal in crystals]
    columns = [
        Column("id", "id", [crystal.id for crystal in crystals]),
        Column("formula", "formula", [crystal.formula for crystal in crystals]),
        Column("atoms", "atoms", [crystal.num_atoms for crystal in crystals]),
        Column("space_group", "space group", [symbols()[group] or None for group in groups]),
        Column("group", "no.", [group or None for group in groups], shown=False),
        Column("density", "density, g/cm³", [c.density if s else None for c, s in zip(crystals, sound, strict=True)]),
        Column(
            "volume",
            "volume, Å³/atom",
            [c.volume / c.num_atoms if s else None for c, s in zip(crystals, sound, strict=True)],
            shown=False,
        ),
        Column("shortest", "shortest distance, Å", contacts.distance.tolist(), shown=False),
    ]
    named = {column.name for column in columns}
    names = dict.fromkeys(name for crystal in crystals for name in crystal.properties)
    more = {name: [crystal.properties.get(name) for crystal in crystals] for name in names}
    more |= _of_table(crystals, table)
    columns += [
        Column(name, name.replace("_", " "), values, _often_asked(name))
        for name, values in more.items()
        if name not in named and any(value is not None for value in values)
    ]
    columns += [
        Column("valid", "valid", [problem is None for problem in problems]),
        Column("problem", "why not valid", problems, shown=any(problems)),
    ]
    return [column._replace(values=[_compact(value) for value in column.values]) for column in columns]


def _problem(crystal: Crystal, distance: float) -> str | None:
    return structural_problem(crystal, distance) or compositional_problem(crystal)


def _often_asked(name: str) -> bool:
    return name in _OFTEN_ASKED or re.search("energy|enthalpy|^predicted_|^evaluated_", name) is not None


def _compact(value: Any) -> Any:
    """Five digits of a float, None for what is not finite; surrogates of file names as what UTF-8 has for them."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    value = None if value is None else plain_number(value)
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _of_table(crystals: Sequence[Crystal], table: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The columns of a table that the page does not find itself, in the order of the crystals, by their ids.

    Raises:
        InputError: the table has no ids, not one of the crystals', or different rows of one.
    """
    if not table:
        return {}
    if "id" not in table:
        raise InputError("the table of crystals has no column 'id': give the one that evaluate --table wrote")
    rows: dict[str, int] = {}
    for row, id in enumerate(table["id"]):
        first = rows.setdefault(str(id), row)
        if any(repr(values[row]) != repr(values[first]) for values in table.values()):
            raise InputError(f"the table of crystals has different rows of the id '{printable(str(id))[:40]}'")
    places = [rows.get(crystal.id) for crystal in crystals]
    if all(place is None for place in places):
        raise InputError("the table of crystals has none of the crystals' ids: is it of another file?")
    return {
        name: [None if place is None else values[place] for place in places]
        for name, values in table.items()
        if name not in _KNOWN_HERE
    }


def read_table(path: Path) -> dict[str, list[Any]]:
    """The columns of a CSV of ``evaluate --table``: numbers, True and False where a cell is one, None where empty.

    Raises:
        InputError: not such a CSV.
    """
    limit = csv.field_size_limit(MOST_CELL_BYTES)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            head = next(reader, [])
            rows = [row for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV that can be read ({reason_of(error)})") from None
    finally:
        csv.field_size_limit(limit)
    if "id" not in head or any(len(row) != len(head) for row in rows):
        raise InputError(f"{path}: no table of crystals: give the .csv that evaluate --table wrote")
    if len(set(head)) < len(head):
        raise InputError(f"{path}: two columns are called '{printable(Counter(head).most_common(1)[0][0])[:40]}'")
    return {name: [_cell(name, row[k]) for row in rows] for k, name in enumerate(head)}


def _cell(name: str, text: str) -> Any:
    if name == "id":
        return unguarded(text)
    number = parse_number(text.capitalize() if text in ("true", "false") else text)
    return (text or None) if number is None else number
