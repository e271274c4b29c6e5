"""Reference phases of chemical systems from the Materials Project, with the user's key, for a file to keep.

The client is pymatgen's. Answers are read as plain JSON: no class that they name is imported.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from dpcdvae.errors import InputError, one_line, unknown_name
from dpcdvae.evaluation.phase_files import phase_of
from dpcdvae.evaluation.phases import Phases
from dpcdvae.structures.elements import ATOMIC_NUMBERS

KEY, ENDPOINT = "MP_API_KEY", "MP_API_ENDPOINT"
"""Environment variables, the same as those of the package mp-api."""

THERMO_TYPE = "GGA_GGA+U"
"""PBE and PBE+U, mixed by the corrections of 2020."""

FIELDS = ("material_id", "formula_pretty", "energy_per_atom", "thermo_type")
KEY_LENGTH = 32
LARGEST_SYSTEM = 8  # elements: 255 subsystems, and no hull of more is of use
DASHBOARD = "https://materialsproject.org/dashboard"


def fetch_phases(systems: Iterable[str]) -> list[dict[str, Any]]:
    """Every phase made of the elements of each chemical system.

    Args:
        systems: such as ``Sr-Ti-O``.

    Returns:
        Records that :func:`~dpcdvae.evaluation.read_phases` reads: ``material_id``, ``formula_pretty``,
        ``energy_per_atom`` (eV/atom, corrected), ``thermo_type``; each once, by id.

    Raises:
        InputError: no key or one that is refused, no elements, no connection, an answer of another form, or an
            element without a phase.
    """
    wanted = [_elements(system) for system in systems]
    if not wanted:
        raise InputError("no chemical system is given: name one, such as Sr-Ti-O")
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise InputError(f"the Materials Project needs your key: set {KEY} to that of {DASHBOARD}")
    if len(key) != KEY_LENGTH or not (key.isascii() and key.isalnum()):
        raise InputError(f"{KEY} is no key of the Materials Project: take that of {DASHBOARD}")
    subsystems = {
        "-".join(subset)
        for elements in wanted
        for size in range(1, len(elements) + 1)
        for subset in itertools.combinations(elements, size)
    }
    records = _request(key, sorted(subsystems))
    phases = {record["material_id"]: record for record in map(_checked, records)}
    hull = Phases("the Materials Project", [phase_of(record) for record in phases.values()])
    if missing := hull.missing({element for elements in wanted for element in elements}):
        raise InputError(
            f"the Materials Project gave {len(phases)} phases, but none of {', '.join(missing)} alone: "
            "without it there is no hull"
        )
    return [phases[id] for id in sorted(phases)]


def _elements(system: str) -> Sequence[str]:
    symbols = [symbol.strip() for symbol in system.split("-")]
    for symbol in symbols:
        if symbol not in ATOMIC_NUMBERS:
            why = unknown_name("element", symbol, ATOMIC_NUMBERS)
            raise InputError(f"chemical system '{system}', which has to be like Sr-Ti-O: {why}")
    if len(set(symbols)) > LARGEST_SYSTEM:
        raise InputError(f"chemical system '{system}': at most {LARGEST_SYSTEM} elements")
    return sorted(set(symbols))


def _request(key: str, systems: Sequence[str]) -> list[Any]:
    """The documents of these chemical systems, as plain JSON."""
    from pymatgen.ext.matproj import MPRester

    rester = MPRester(key)
    rester.preamble = (os.environ.get(ENDPOINT) or rester.preamble).rstrip("/") + "/"
    query = {"chemsys": ",".join(systems), "thermo_types": THERMO_TYPE}
    try:
        with rester:
            return rester.request(
                f"materials/thermo/?_fields={','.join(FIELDS)}", payload=query, mp_decode=False, timeout=60
            )
    except Exception as error:  # whatever the client and its connection raise
        text = one_line(error)
        if re.search(r"status code (401|403)\b", text):
            raise InputError(f"the Materials Project refuses the key in {KEY}: take that of {DASHBOARD}") from None
        cause = text.rpartition("(Caused by ")[2]  # which the address of the request comes before
        raise InputError(f"no answer from the Materials Project ({rester.preamble}): {cause[:200]}") from None


def _checked(record: Any) -> dict[str, Any]:
    """The fields of a document; InputError where they are no phase."""
    found = {name: record.get(name) for name in FIELDS} if isinstance(record, dict) else {}
    if isinstance(parts := found.get("material_id"), dict):  # newer answers take ids apart
        found["material_id"] = parts.get("identifier")
    try:
        if not isinstance(found.get("material_id"), str):
            raise InputError("no id")
        phase_of(found)
    except InputError as error:
        shown = one_line(str(record))[:100]
        raise InputError(f"the Materials Project gave what is no phase ({error}): {shown}") from None
    return found
