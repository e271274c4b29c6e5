"""The symmetry operations that a CIF states: as a list, a Hall symbol, a Hermann-Mauguin name or a number.

A list and a Hall symbol say everything. A name or a number may leave the setting open (origin, axes, cell choice):
then all settings that fit the cell are returned, and what else the file says of its atoms has to decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import gemmi
import numpy as np
from gemmi import cif

from dpcdvae.errors import InputError
from dpcdvae.io.special_positions import Array, Operations

Items = Mapping[str, Sequence[str]]

MOST_OPERATIONS = 192
"""No space group has more in its conventional cell."""

_LISTS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_MAGNETIC = "_space_group_symop_magn_operation_xyz"
_MAGNETIC_CENTRING = "_space_group_symop_magn_centering_xyz"
_HALLS = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_NAMES = ("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_full")
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_CODE = "_space_group_it_coordinate_system_code"
_ORIGINS = {"S": "1", "Z": "2"}  # of the ICSD: on the highest symmetry, on the centre


def settings(items: Items, lattice: Array, note: Callable[[str], None]) -> list[Operations]:
    """The settings that the items of a block can mean in this cell: one, unless its statements leave it open.

    Args:
        items: values by tag, lower case with ``_`` for ``.``. lattice: (3, 3). note: called with what is contradictory.

    Raises:
        InputError: operations that are none or no group, a name that is not known, statements that contradict each
            other or the cell.
    """
    if any("_ssg_" in tag for tag in items):
        raise InputError("a modulated structure (superspace group): give an ordinary crystal")
    number, listed = _number(items), _listed(items)
    if listed:
        operations = _from_list(listed)
        if number and operations.number not in (0, number):
            note(f"operations of space group {operations.number} under the number {number}: the operations count")
        return _fitting([operations], lattice)
    hall, name = _first(items, _HALLS), _first(items, _NAMES)
    found = _from_hall(hall) if hall else None
    if found is None:
        found = _from_name(name, _first(items, (_CODE,)) or "") if name else None
    if found is None and (hall or name) and not number:
        raise InputError(f"unknown space group '{(name or hall or '')[:40]}': list its operations")
    if found is None:
        return _fitting(_of_number(number), lattice) if number else [_from_list(("x,y,z",))]
    if number and number != found[0].number:
        raise InputError(f"'{found[0].name}' is space group {found[0].number}, but the number given is {number}")
    fitting = _fitting(found, lattice)
    # P 21 is P 1 21 1 wherever the cell allows it; there is no such convention for origins and rhombohedral axes.
    return fitting if any(":" in operations.name for operations in fitting) else fitting[:1]


def _first(items: Items, tags: Sequence[str]) -> str | None:
    """The first value that is given; None if there is none."""
    texts = (" ".join(cif.as_string(items[tag][0]).split()) for tag in tags if items.get(tag))
    return next((text for text in texts if text and text not in (".", "?")), None)


def _number(items: Items) -> int | None:
    text = _first(items, _NUMBERS)
    found = re.match(r"\d{1,3}(?!\d)", text or "")
    return int(found[0]) if found and 1 <= int(found[0]) <= 230 else None


def _listed(items: Items) -> tuple[str, ...]:
    for tag in _LISTS:
        if texts := tuple(text for text in items.get(tag, ()) if text not in (".", "?")):
            return texts
    # x,y,z,+1: the last is the turn of the moments, which do not count here
    magnetic = [cif.as_string(text).rpartition(",")[0] for text in items.get(_MAGNETIC, ())]
    centring = [cif.as_string(text).rpartition(",")[0] for text in items.get(_MAGNETIC_CENTRING, ())] or ["x,y,z"]
    if len(magnetic) * len(centring) > MOST_OPERATIONS:
        raise InputError(f"more than {MOST_OPERATIONS} symmetry operations: no space group has so many")
    return tuple((_operation(move) * _operation(text)).wrap().triplet() for move in centring for text in magnetic)


def _operation(text: str) -> gemmi.Op:
    try:
        operation = gemmi.Op(text)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"symmetry operation '{text[:40]}' cannot be read ({error})") from None
    whole = all(entry % operation.DEN == 0 for row in operation.rot for entry in row)
    if not whole or abs(operation.det_rot()) != operation.DEN**3:
        raise InputError(f"'{text[:40]}' is no symmetry operation of a lattice")
    return operation.wrap()


@lru_cache(maxsize=256)
def _from_list(texts: tuple[str, ...]) -> Operations:
    texts = tuple(dict.fromkeys(text for text in map(cif.as_string, texts) if text))
    if len(texts) > 2 * MOST_OPERATIONS:  # some are written in two ways
        raise InputError(f"{len(texts)} symmetry operations: no space group has more than {MOST_OPERATIONS}")
    operations = {operation.triplet(): operation for operation in (gemmi.Op("x,y,z"), *map(_operation, texts))}
    group = gemmi.GroupOps(list(operations.values()))
    try:
        group.add_missing_elements()
        whole = len(group)
    except (RuntimeError, ValueError):
        whole = 0
    if whole != len(operations):
        needed = f", {whole} are needed" if whole else ""
        raise InputError(f"the {len(operations)} symmetry operations listed are no group{needed}: list all")
    return _operations(list(operations.values()), gemmi.find_spacegroup_by_ops(group), "the operations listed")


@lru_cache(maxsize=256)
def _from_hall(text: str) -> tuple[Operations, ...] | None:
    try:
        group = gemmi.symops_from_hall(text)
    except (ValueError, RuntimeError):
        return None
    return (_operations(list(group), gemmi.find_spacegroup_by_ops(group), text),)


@lru_cache(maxsize=1024)
def _from_name(name: str, code: str) -> tuple[Operations, ...] | None:
    """The settings that go by a name: two for one that leaves the origin or the rhombohedral axes open."""
    text = re.sub(r"\((\d)\)", r"\1", name)
    if match := re.fullmatch(r"(.*[^\s:])\s*:?\s*([SZ])", text):
        text = f"{match[1]}:{_ORIGINS[match[2]]}"
    elif code in ("1", "2", "R", "H") and ":" not in text:
        text = f"{text}:{code}"
    found = gemmi.find_spacegroup_by_name(text)
    if found is None:
        return None
    if ":" in text or text[-1:] in "RH":
        return (_setting(found.xhm()),)
    short = re.sub(r"[\s_]", "", text)
    return tuple(
        _setting(other.xhm())
        for other in gemmi.spacegroup_table()
        if other.number == found.number and (other.hm == found.hm or (_short(other.hm) == _short(found.hm) == short))
    )


def _short(name: str) -> str:
    """P121/c1 -> P21/c: the short name of a monoclinic group, which leaves the unique axis open."""
    words = name.split()
    return words[0] + "".join(word for word in words[1:] if word != "1") if len(words) == 4 else "".join(words)


def _of_number(number: int) -> tuple[Operations, ...]:
    return tuple(_setting(entry.xhm()) for entry in gemmi.spacegroup_table() if entry.number == number)


@lru_cache(maxsize=600)
def _setting(name: str) -> Operations:
    entry = gemmi.find_spacegroup_by_name(name)
    return _operations(list(entry.operations()), entry, name)


def _operations(operations: list[gemmi.Op], entry: gemmi.SpaceGroup | None, name: str) -> Operations:
    identity = next(k for k, operation in enumerate(operations) if operation.triplet() == "x,y,z")
    operations = [operations[identity], *operations[:identity], *operations[identity + 1 :]]
    rotations = np.array([operation.rot for operation in operations], np.float64) / gemmi.Op.DEN
    translations = np.array([operation.tran for operation in operations], np.float64) / gemmi.Op.DEN
    return Operations(rotations, translations, entry.number if entry else 0, name)


def _fitting(found: Sequence[Operations], lattice: Array) -> list[Operations]:
    fitting = [operations for operations in found if len(operations) == 1 or operations.fit(lattice)]
    if not fitting and np.isfinite(lattice).all():
        raise InputError(f"the cell does not have the symmetry of {found[0].name}: state the setting of the axes")
    return fitting or list(found)[:1]
