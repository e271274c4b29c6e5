"""What a file states twice must agree: cell, volume, places, elements, charge and formula."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, one_line
from dpcdvae.io.species import parse_formula_sum, proportional
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import ATOMIC_NUMBERS, SYMBOLS
from dpcdvae.structures.properties import parse_number

Array = npt.NDArray[np.float64]

_LENGTHS, _ANGLES = ("a", "b", "c"), ("alpha", "beta", "gamma")
_LABEL = re.compile(r"([A-Z][a-z]?)(?:\d+[a-z]?|\d*[+-])?", re.ASCII)  # Fe, Fe1, Fe1a, Fe3+; labels may be any text
_RELATIVE, _DEGREES, _PLACE = 1e-3, 0.1, 0.01  # of lengths; of angles; Å: far above rounding, far below another crystal


def floats(value: Any, what: str) -> Array:
    """Numbers of JSON as an array; raises InputError for texts and flags, which numpy would turn into numbers."""
    found = np.asarray(value)
    if found.dtype.kind not in "fiu":
        raise InputError(f"{what}: numbers are needed, not '{one_line(str(value))[:30]}'")
    return found.astype(np.float64)


def check_cell(cell: Mapping[str, Any], lattice: Array) -> None:
    """Raises InputError where lengths (Å), angles (degrees) or volume are not those of the vectors beside them."""
    probe = Crystal(np.ones(1, np.int64), np.zeros((1, 3)), lattice)
    if probe.problem() is not None:
        return  # what reads the crystal refuses it
    found = dict(zip((*_LENGTHS, *_ANGLES), (*probe.lengths, *probe.angles), strict=True)) | {"volume": probe.volume}
    for name, value in found.items():
        if cell.get(name) is None:
            continue
        stated = float(floats(cell[name], f"{name} of the lattice"))
        tolerance = _DEGREES if name in _ANGLES else _RELATIVE * value * (3 if name == "volume" else 1)
        if not abs(stated - value) <= tolerance:
            raise InputError(f"the lattice says {name} = {stated:g}, but its matrix gives {value:g}")


def check_volume(stated: str, parameters: Sequence[str], lattice: Array) -> None:
    """Raises InputError where the volume (Å^3) that a CIF states is not that of its cell, within the digits of both.

    Args:
        stated: as printed; what is no number states nothing.
        parameters: a, b, c (Å) and the three angles (degrees) as printed.
        lattice: (3, 3) vectors of these.
    """
    probe = Crystal(np.ones(1, np.int64), np.zeros((1, 3)), lattice)
    volume = parse_number(stated.partition("(")[0])
    if volume is None or probe.problem() is not None:
        return
    errors = np.array([_rounding(text) for text in parameters])
    cosines, sines = np.cos(np.radians(probe.angles)), np.sin(np.radians(probe.angles))
    # V² / (abc)² = 1 - Σ cos² + 2 Π cos, of which these are the derivatives by the angles
    slopes = np.abs(sines * (cosines - np.roll(cosines, 1) * np.roll(cosines, 2)))
    by_angles = float(np.prod(probe.lengths)) ** 2 / probe.volume * slopes @ np.radians(errors[3:])
    by_lengths = probe.volume * (errors[:3] / probe.lengths).sum()
    tolerance = 3 * _RELATIVE * probe.volume + by_angles + by_lengths + _rounding(stated)
    if abs(volume - probe.volume) > tolerance:
        raise InputError(f"the file says _cell_volume {volume:g}, but its cell has {probe.volume:g} Å^3")


def _rounding(text: str) -> float:
    """Half a unit of the last digit of a printed number."""
    mantissa, _, exponent = text.partition("(")[0].lower().partition("e")
    return 0.5 * 10.0 ** min(int(exponent or 0) - len(mantissa.partition(".")[2]), 300)


def check_place(site: Mapping[str, Any], lattice: Array, where: str) -> None:
    """Raises InputError where ``xyz`` (Å) is neither the place ``abc`` nor an image of it."""
    if site.get("abc") is None or site.get("xyz") is None:
        return
    abc, xyz = (floats(site[key], f"{where}, {key}") for key in ("abc", "xyz"))
    if abc.shape != (3,) or xyz.shape != (3,) or not np.isfinite([*abc, *xyz]).all():
        raise InputError(f"{where}: abc and xyz must be three finite numbers each")
    apart = np.linalg.solve(lattice.T, xyz) - abc
    distance = float(np.linalg.norm((apart - np.round(apart)) @ lattice))
    if distance > _PLACE:
        raise InputError(f"{where}: xyz lies {distance:.3g} Å from where abc says")


def note_labels(sites: Sequence[Any], numbers: Sequence[int], note: Callable[[str], None]) -> None:
    """Says where labels name other elements than the species, which are taken. Labels are free: that is no error."""
    for site, number in zip(sites, numbers, strict=True):
        label = site.get("label")
        match = _LABEL.fullmatch(label) if isinstance(label, str) else None
        named = ATOMIC_NUMBERS.get(match[1], number) if match else number
        if named != number:
            note(
                f"labels of sites name other elements than the species, which are taken: '{label}' is {SYMBOLS[number]}"
            )


def note_charge(structure: Mapping[str, Any], note: Callable[[str], None]) -> None:
    """Says what charge is left out, and where it is not the sum of the oxidation states."""
    charge = structure.get("charge")
    if isinstance(charge, bool) or not isinstance(charge, int | float):
        return
    states = [s.get("oxidation_state") for site in structure["sites"] for s in site["species"]]
    occupied = [float(s["occu"]) for site in structure["sites"] for s in site["species"]]
    if states and all(isinstance(state, int | float) for state in states):
        total = sum(state * amount for state, amount in zip(states, occupied, strict=True))
        if abs(total - charge) > _PLACE:
            note(f"the charge is {charge:g}, but the oxidation states add up to {total:g}; both are left out")
            return
    if charge:
        note(f"the charge of the cell ({charge:g}) is left out")


def check_document(document: Mapping[str, Any], crystal: Crystal) -> None:
    """Raises InputError where the number of sites or the formula beside a structure are not those of the structure."""
    sites = document.get("nsites")
    if isinstance(sites, int) and not isinstance(sites, bool) and sites != crystal.num_atoms:
        raise InputError(f"nsites is {sites}, but the structure has {crystal.num_atoms} atoms")
    stated = document.get("formula_pretty", document.get("pretty_formula"))
    formula = parse_formula_sum(stated) if isinstance(stated, str) else None
    if formula and not proportional(formula, Counter(crystal.atomic_numbers.tolist())):
        raise InputError(f"the formula says {one_line(stated)[:40]}, but the structure is {crystal.formula}")
