"""Reference phases from the user's files. Nothing is downloaded, and no class that a file names is imported."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from dpcdvae.errors import InputError, listed
from dpcdvae.evaluation.phases import Phase, Phases
from dpcdvae.files import manifest_path, read_whole, sha256
from dpcdvae.io import read
from dpcdvae.io.sources import Source, decode, files_at
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import ATOMIC_NUMBERS
from dpcdvae.structures.properties import as_python_alone

TOTAL, PER_ATOM = "energy", "energy_per_atom"
"""Names of energies: eV for all atoms of the composition as written (or of the cell), and eV/atom."""

RELAXED = "energy_eV_per_atom"
"""What a relaxed crystal calls the latter."""

COMPOSITIONS = ("composition", "formula")
PRETTY = "formula_pretty"
"""What the Materials Project calls a formula, beside others of the same record."""

IDS = ("id", "material_id", "entry_id")
COUNTS = ("nsites", "num_atoms")
ENTRIES = ("PDEntry", "ComputedEntry", "ComputedStructureEntry")
DIAGRAMS = ("PhaseDiagram", "PatchedPhaseDiagram")
AGREEMENT = 1e-3
"""eV/atom, between a total energy and an energy per atom of the same record."""

FORMS = "a CSV, JSON (.gz too) of compositions and energies, or crystals with an energy, are needed"


def read_phases(path: str | Path) -> Phases:
    """Reads reference phases; ``docs/stability.md`` shows the forms.

    ``.csv`` and ``.json`` (each also with ``.gz``): ``composition`` (or ``formula``) with ``energy_per_atom``
    (eV/atom) or ``energy`` (eV, for all atoms of the composition as written), and optionally an id and the
    ``calculator``. JSON may also hold pymatgen's entries, a ``PhaseDiagram`` or a ``PatchedPhaseDiagram``; they are
    read as data, no class is instantiated. Any other file or folder is read as crystals with one of the
    two energies as a property; so is a CSV with a ``cif`` column, and JSON of crystals.

    Raises:
        InputError: nothing there, a file of another form, a row or item without a composition or with none or two
            different energies, or phases of several calculators.
    """
    path = Path(path)
    source = None if path.is_dir() else next(files_at(path))
    suffix = "" if source is None else PurePath(source.name).suffix.lower()
    try:
        if source is None or suffix not in (".csv", ".json"):
            found = None
        else:
            found = _csv(source) if suffix == ".csv" else _json(source)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if found is None:
        found = [(place, _crystal_record(crystal)) for place, crystal in _crystals(path)]
    try:
        return _phases(path, found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _phases(path: Path, records: Sequence[tuple[str, Mapping[str, Any]]]) -> Phases:
    if not records:
        raise InputError(f"no phases in it: {FORMS}")
    phases, calculators = [], set()
    functionals: dict[str, str] = {}
    for place, record in records:
        try:
            phases.append(phase_of(record))
            calculators.add(_calculator(record))
            functionals.setdefault(_functional(record), place)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    if len(named := calculators - {""}) > 1:
        raise InputError(f"energies of several calculators ({', '.join(sorted(named))}): a hull needs those of one")
    if len(several := {name: where for name, where in functionals.items() if name}) > 1:
        listed = " and ".join(f"{name} ({where})" for name, where in several.items())
        raise InputError(
            f"energies of several functionals, {listed}, without corrections for mixing them: a hull needs those of one"
        )
    calculator = next(iter(named), "") if calculators == named else ""
    return Phases(str(path), tuple(phases), sha256(path), calculator or calculator_of(path))


def calculator_of(path: str | Path) -> str:
    """The calculator that gave a file's energies, the last of several in turn, as its manifest says; else ""."""
    try:
        arguments = json.loads(read_whole(manifest_path(path)))["arguments"]
        return str(arguments.get("calculator") or "").rpartition(",")[2].strip()
    except Exception:  # files of others have no manifest, or another kind of file of that name
        return ""


def phase_of(record: Mapping[str, Any]) -> Phase:
    """A composition with its energy, as a row or item of a file holds them; raises InputError where it does not."""
    given = {PRETTY} & record.keys() or COMPOSITIONS
    amounts = _amounts(record[_only(record, tuple(given), "composition")])
    id = next((str(record[name]) for name in IDS if _given(record.get(name))), "")
    return Phase(amounts, _energy_per_atom(record, amounts), id)


def _energy_per_atom(record: Mapping[str, Any], amounts: Mapping[str, float]) -> float:
    """eV/atom. A total energy is that of the composition as written, pymatgen's correction included."""
    atoms = sum(amounts.values())
    given = [name for name in (PER_ATOM, RELAXED) if _given(record.get(name))]
    if len(given) > 1:
        raise InputError(f"'{given[0]}' and '{given[1]}': keep one of them")
    per_atom = _number(record[given[0]], given[0]) if given else None
    if not _given(record.get(TOTAL)):
        if per_atom is None:
            raise InputError(f"no '{PER_ATOM}' (eV/atom) and no '{TOTAL}' (eV)")
        return per_atom
    count = next((_number(record[name], name) for name in COUNTS if _given(record.get(name))), atoms)
    if per_atom is None and abs(count - atoms) > 1e-6:
        raise InputError(
            f"is '{TOTAL}' that of the {atoms:g} atoms of the composition or of {count:g}? Give '{PER_ATOM}' instead"
        )
    if _given(record.get("energy_adjustments")) and "correction" not in record:
        raise InputError(f"'energy_adjustments' without their sum, 'correction': give '{PER_ATOM}' instead")
    total = _number(record[TOTAL], TOTAL) + _number(record.get("correction") or 0.0, "correction")
    if per_atom is not None and abs(total / count - per_atom) > AGREEMENT:
        raise InputError(
            f"'{TOTAL}' gives {total / count:.4f} eV/atom for {count:g} atoms, '{PER_ATOM}' says {per_atom:.4f}: "
            "give one of them"
        )
    return total / count if per_atom is None else per_atom


def _amounts(value: Any) -> dict[str, float]:
    from pymatgen.core import Composition

    if not isinstance(value, str | dict) or not value:
        raise InputError(f"composition {str(value)[:40]!r}: a formula, or a number for each element, is needed")
    text = value if isinstance(value, str) else json.dumps(value)[:60]
    try:
        if as_python_alone(text):
            raise ValueError
        found = Composition(value).element_composition
        amounts = {element.symbol: float(amount) for element, amount in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"composition '{text[:40]}' is no formula") from error
    if not amounts or set(amounts) - set(ATOMIC_NUMBERS):
        raise InputError(f"composition '{text[:40]}' is not one of elements")
    if not all(0 < amount < math.inf for amount in amounts.values()):
        raise InputError(f"composition '{text[:40]}': amounts must be above 0 and finite")
    return amounts


def _calculator(record: Mapping[str, Any]) -> str:
    parameters = record.get("parameters")
    inner = parameters.get("calculator") if isinstance(parameters, dict) else None
    return str(record.get("calculator") or inner or "")


def _functional(record: Mapping[str, Any]) -> str:
    """Of the calculation of a record's energy, "" where it is not known or corrected to be mixed with those of others.

    Corrections of that kind have the word in their name: ``MP2020 GGA/GGA+U mixing correction (Fe)``, ``MP
    GGA(+U)/R2SCAN mixing adjustment``. Older records have no more than a sum, which those with a Hubbard U owe to it.
    """
    parameters = record.get("parameters")
    inner = parameters.get("run_type") if isinstance(parameters, dict) else None
    name = str(record.get("run_type") or inner or "").strip().upper().replace("_U", "+U")
    name = {"PBE": "GGA", "PBE+U": "GGA+U"}.get(name, name)  # VASP's default of PBE potentials
    adjustments = record.get("energy_adjustments")
    if isinstance(adjustments, list) and adjustments:
        mixed = any("mixing" in str(item.get("name")).lower() for item in adjustments if isinstance(item, dict))
    else:
        mixed = name.endswith("+U") and bool(record.get("correction"))
    return "" if mixed else name


def _only(record: Collection[str], names: Sequence[str], what: str) -> str:
    """The one of the names that is there."""
    present = [name for name in names if name in record]
    if len(present) != 1:
        listed = " or ".join(f"'{name}'" for name in names)
        raise InputError(f"no {what}: {listed} is needed" if not present else f"{listed}: keep one of them")
    return present[0]


def _given(value: Any) -> bool:
    return value is not None and value != "" and value != []


def _number(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or as_python_alone(str(value)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} '{str(value)[:30]}' is not a finite number")
    return number


def _csv(source: Source) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Rows count from 1, the header aside. None for a CSV of crystals."""
    try:
        reader = csv.reader(io.StringIO(decode(source.load()), newline=""), strict=True)
        columns = [name.strip() for name in next(reader)]
        if "cif" in columns:
            return None
        if twice := next((name for name in columns if name and columns.count(name) > 1), None):
            raise InputError(f"two columns '{twice}': keep one")
        _only(columns, tuple({PRETTY} & set(columns)) or COMPOSITIONS, f"composition (columns: {listed(columns)})")
        if not {TOTAL, PER_ATOM, RELAXED} & set(columns):
            raise InputError(
                f"no column '{PER_ATOM}' (eV/atom) or '{TOTAL}' (eV, for the composition as written) "
                f"(columns: {listed(columns)})"
            )
        records: list[tuple[str, Mapping[str, Any]]] = []
        for number, cells in enumerate(reader, 1):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise InputError(f"row {number}: {len(cells)} cells, {len(columns)} columns")
            records.append((f"row {number}", {c: v.strip() for c, v in zip(columns, cells, strict=True)}))
        return records
    except csv.Error as error:
        raise InputError(f"not a CSV file ({error})") from error


def _json(source: Source) -> list[tuple[str, Mapping[str, Any]]] | None:
    """None for JSON of crystals."""
    try:
        document = json.loads(decode(source.load()))
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON, or cut off (line {error.lineno}: {error.msg})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("JSON nested too deeply, or with a number too long to be read") from None
    if _holds_crystals(document):
        return None
    calculator = document.get("calculator") if isinstance(document, dict) else None
    records: list[tuple[str, Mapping[str, Any]]] = []
    for place, record in _items(document):
        if not isinstance(record, dict):
            raise InputError(f"{place}: not a phase: an object with 'composition' and '{PER_ATOM}' is needed")
        if (kind := record.get("@class", ENTRIES[0])) not in ENTRIES:
            raise InputError(f"{place}: a {kind} cannot be read, only {', '.join(ENTRIES)}")
        records.append((place, {"calculator": calculator, **record} if calculator else record))
    return records


def _items(document: Any) -> Iterator[tuple[str, Any]]:
    """The records of a document, each with its place for messages."""
    if isinstance(document, dict) and document.get("@class") in DIAGRAMS:
        document = {**(document.get("computed_data") or {}), **document}.get("all_entries")
    elif isinstance(document, dict) and "@class" in document and document["@class"] not in ENTRIES:
        raise InputError(f"a {document['@class']} cannot be read, only {', '.join(DIAGRAMS + ENTRIES)}")
    elif isinstance(document, dict) and isinstance(document.get("phases"), list):
        document = document["phases"]
    if isinstance(document, list):
        yield from ((f"item {number}", record) for number, record in enumerate(document, 1))
    elif not isinstance(document, dict):
        raise InputError(f"JSON without phases: {FORMS}")
    elif any(name in document for name in (*COMPOSITIONS, PRETTY)):
        yield "item 1", document
    elif energies := [name for name in (TOTAL, PER_ATOM) if isinstance(document.get(name), dict)]:
        for name in energies:
            yield from ((f"'{formula}'", {"formula": formula, name: e}) for formula, e in document[name].items())
    elif any(isinstance(value, int | float) for value in document.values()):
        raise InputError(f'numbers without a unit: write {{"{PER_ATOM}": {{formula: eV/atom}}}} or {{"{TOTAL}": ...}}')
    else:
        for id, record in document.items():
            yield f"'{id}'", {"id": id, **record} if isinstance(record, dict) else record


def _holds_crystals(document: Any) -> bool:
    """Whether a JSON document is what :func:`dpcdvae.io.read` reads."""
    if isinstance(document, dict) and ("format" in document or "sites" in document):
        return True
    values = list(document.values()) if isinstance(document, dict) else document
    first = values[0] if isinstance(values, list) and values else None
    return isinstance(first, dict) and ("sites" in first or "atomic_numbers" in first)


def _crystals(path: Path) -> Iterator[tuple[str, Crystal]]:
    for crystal in read(path):
        yield f"crystal '{crystal.id}'", crystal


def _crystal_record(crystal: Crystal) -> dict[str, Any]:
    energies = {name: crystal.properties[name] for name in (TOTAL, PER_ATOM, RELAXED) if name in crystal.properties}
    return {"composition": crystal.composition, "id": crystal.id, **energies}
