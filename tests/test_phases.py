"""Reference phases: every form of file says the same, and what is unclear is refused in one line."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.errors import InputError
from dpcdvae.evaluation.phase_files import calculator_of, read_phases
from dpcdvae.evaluation.phases import Phase, Phases
from dpcdvae.files import write_manifest
from dpcdvae.io import write
from dpcdvae.structures.crystal import Crystal

ENERGIES = {"Sr": -1.5, "Ti": -7.75, "O2": -4.9, "SrO": -5.9, "TiO2": -8.8, "SrTiO3": -7.9}  # eV/atom
ATOMS = {"Sr": 1, "Ti": 1, "O2": 2, "SrO": 2, "TiO2": 3, "SrTiO3": 5}


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_json(path: Path, document: Any) -> Path:
    path.write_bytes(gzip.compress(json.dumps(document).encode())) if path.suffix == ".gz" else path.write_text(
        json.dumps(document)
    )
    return path


def entries(kind: str) -> list[Any]:
    """The phases as pymatgen's entries; the corrected energy is what counts."""
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core import Lattice, Structure
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry, ConstantEnergyAdjustment

    found: list[Any] = []
    for formula, energy in ENERGIES.items():
        total = energy * ATOMS[formula]
        if kind == "PDEntry":
            found.append(PDEntry(formula, total, attribute={"any": "thing"}))
        elif kind == "ComputedEntry":
            found.append(ComputedEntry(formula, total + 1, energy_adjustments=[ConstantEnergyAdjustment(-1)]))
        else:
            atoms = [s for s, n in PDEntry(formula, 0).composition.items() for _ in range(int(n))]
            structure = Structure(Lattice.cubic(5), atoms, np.linspace(0, 0.9, len(atoms))[:, None] * [1, 1, 1])
            found.append(ComputedStructureEntry(structure, total - 2, correction=2))
    return found


def dumped(path: Path, value: Any) -> Path:
    from monty.serialization import dumpfn

    dumpfn(value, path)
    return path


def diagram(kind: str) -> Any:
    from pymatgen.analysis import phase_diagram

    return getattr(phase_diagram, kind)(entries("ComputedEntry" if kind == "PhaseDiagram" else "PDEntry"))


def crystals(energy: str) -> list[Crystal]:
    """Two formula units in a cell: the total energy is that of the cell."""
    from pymatgen.core import Composition

    found = []
    for formula, value in ENERGIES.items():
        numbers = [element.Z for element, n in Composition(formula).items() for _ in range(2 * int(n))]
        coords = np.linspace(0, 0.9, len(numbers))[:, None] * [1, 1, 1]
        total = value * (len(numbers) if energy == "energy" else 1)
        found.append(Crystal(numbers, coords, np.eye(3) * 6, formula, {energy: total, "gap": 1.0}))
    return found


def rows(energy: str, composition: str = "composition") -> list[dict[str, Any]]:
    scale = ATOMS if energy == "energy" else dict.fromkeys(ATOMS, 1)
    return [{composition: f, energy: e * scale[f], "id": f"p-{f}", "note": "x"} for f, e in ENERGIES.items()]


TOTALS = {formula: energy * ATOMS[formula] for formula, energy in ENERGIES.items()}

FORMS: dict[str, Callable[[Path], Path]] = {
    "csv per atom": lambda d: as_csv(d / "p.csv", rows("energy_per_atom")),
    "csv total": lambda d: as_csv(d / "p.csv", rows("energy", "formula")),
    "csv of crystals": lambda d: write(crystals("energy"), d / "p.csv"),
    "json records": lambda d: as_json(d / "p.json", rows("energy", "formula")),
    "json records, gz": lambda d: as_json(d / "p.json.gz", rows("energy_per_atom")),
    "json with a head": lambda d: as_json(d / "p.json", {"calculator": "", "phases": rows("energy")}),
    "json by id": lambda d: as_json(d / "p.json", {str(k): r for k, r in enumerate(rows("energy"))}),
    "json by formula": lambda d: as_json(d / "p.json", {"energy_per_atom": ENERGIES}),
    "json by formula, total": lambda d: as_json(d / "p.json", {"energy": TOTALS}),
    "json of crystals": lambda d: write(crystals("energy"), d / "p.json"),
    "extxyz": lambda d: write(crystals("energy"), d / "p.extxyz"),
    "extxyz per atom": lambda d: write(crystals("energy_per_atom"), d / "p.extxyz"),
    "relaxed crystals": lambda d: write(crystals("energy_eV_per_atom"), d / "p.extxyz"),
    "PDEntry": lambda d: dumped(d / "p.json", entries("PDEntry")),
    "ComputedEntry": lambda d: dumped(d / "p.json", entries("ComputedEntry")),
    "ComputedStructureEntry": lambda d: dumped(d / "p.json.gz", entries("ComputedStructureEntry")),
    "PhaseDiagram": lambda d: dumped(d / "p.json.gz", diagram("PhaseDiagram")),
    "PatchedPhaseDiagram": lambda d: dumped(d / "p.json", diagram("PatchedPhaseDiagram")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_phases(form: str, tmp_path: Path) -> None:
    from pymatgen.core import Composition

    phases = read_phases(FORMS[form](tmp_path))
    found = {Composition(phase.amounts).reduced_formula: phase.energy for phase in phases.phases}
    assert found == pytest.approx(ENERGIES, abs=1e-9)
    assert len(phases.phases) == len(ENERGIES)
    assert len(phases.sha256) == 64


def test_ase_writes_what_is_read(tmp_path: Path) -> None:
    """ASE's ``energy`` in extxyz is that of the cell."""
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.io import write as ase_write

    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy() / 4
    ase_write(tmp_path / "copper.extxyz", atoms)
    (phase,) = read_phases(tmp_path / "copper.extxyz").phases
    assert phase.energy == pytest.approx(energy, abs=1e-6)
    assert dict(phase.amounts) == {"Cu": 4}


def test_the_calculator_is_known_if_the_file_names_it(tmp_path: Path) -> None:
    told = [{**row, "calculator": "chgnet"} for row in rows("energy_per_atom")]
    assert read_phases(as_csv(tmp_path / "a.csv", told)).calculator == "chgnet"
    assert (
        read_phases(as_json(tmp_path / "b.json", {"calculator": "emt", "phases": rows("energy")})).calculator == "emt"
    )
    parameters = [{**row, "parameters": {"calculator": "vasp"}} for row in rows("energy_per_atom")]
    assert read_phases(as_json(tmp_path / "c.json", parameters)).calculator == "vasp"
    assert read_phases(as_json(tmp_path / "d.json", told[:-1] + rows("energy_per_atom")[-1:])).calculator == ""
    relaxed = write(crystals("energy"), tmp_path / "e.extxyz")
    assert calculator_of(relaxed) == ""
    write_manifest(relaxed, "relax", {"calculator": "sevennet"})
    assert read_phases(relaxed).calculator == "sevennet"
    write_manifest(relaxed, "relax", {"calculator": "chgnet,gpaw"})
    assert calculator_of(relaxed) == "gpaw"


def test_phases_within_a_system() -> None:
    """Of each composition the lowest, whatever its multiple; only what is made of the elements asked for."""
    titania = [Phase({"Ti": 1, "O": 2}, -8.8, "rutile"), Phase({"Ti": 4, "O": 8}, -8.9, "anatase")]
    oxides = [Phase({"Sr": 1, "O": 1}, -5.9), Phase({"Ti": 2, "O": 3}, -8.7)]
    phases = Phases("here", [*titania, Phase({"O": 2}, -4.9), Phase({"Ti": 1}, -7.75), *oxides])
    assert sorted(phase.energy for phase in phases.within(["O", "Ti"])) == [-8.9, -8.7, -7.75, -4.9]
    many = ["O", "Ti", "Na", "K", "Rb", "Cs", "Fr"]  # more subsets than the phases have sets of elements
    assert sorted(phase.energy for phase in phases.within(many)) == [-8.9, -8.7, -7.75, -4.9]
    assert phases.within(["Na"]) == []
    assert phases.missing(["Ti", "Sr", "Cs", "O"]) == ["Cs", "Sr"]


def record(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in ({"composition": "SrO", "energy_per_atom": -5.9} | changes).items() if v is not None}


BAD_RECORDS: dict[str, tuple[dict[str, Any], str]] = {
    "no composition": (record(composition=None), "no composition"),
    "two compositions": (record(formula="SrO"), "keep one"),
    "no formula": (record(composition="nacl!"), "is no formula"),
    "digits of another script": (record(composition="TiO\u0662"), "is no formula"),
    "digits apart": (record(composition="TiO1_2"), "is no formula"),
    "dummy": (record(composition="XO"), "not one of elements"),
    "nothing of it": (record(composition="Na0"), "not one of elements"),
    "endless amount": (record(composition="Si1e400"), "finite"),
    "number as composition": (record(composition=12), "a formula"),
    "amounts of text": (record(composition={"Sr": "many"}), "is no formula"),
    "no energy": (record(energy_per_atom=None), "no 'energy_per_atom'"),
    "empty energy": (record(energy_per_atom=""), "no 'energy_per_atom'"),
    "word": (record(energy_per_atom="low"), "not a finite number"),
    "bool": (record(energy_per_atom=True), "not a finite number"),
    "NaN": (record(energy_per_atom=float("nan")), "not a finite number"),
    "two energies": (record(energy=-5.9), "give one of them"),
    "two energies per atom": (record(energy_eV_per_atom=-5.9), "keep one of them"),
    "energy of what": (record(energy=-23.6, energy_per_atom=None, nsites=4), "that of the 2 atoms"),
    "corrections without a sum": (
        record(energy=-11.8, energy_per_atom=None, energy_adjustments=[{"value": 1}]),
        "correction",
    ),
    "free energies": (record(**{"@class": "GibbsComputedStructureEntry"}), "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_bad_record_is_named_with_its_place(case: str, tmp_path: Path) -> None:
    bad, message = BAD_RECORDS[case]
    path = as_json(tmp_path / "p.json", [record(), bad])
    with pytest.raises(InputError, match=message) as error:
        read_phases(path)
    assert str(error.value).startswith(f"{path}: item 2: ")
    assert "\n" not in str(error.value)


def test_two_energies_that_agree_are_one(tmp_path: Path) -> None:
    """As databases list them: the energy of the cell, its number of sites, and the energy per atom."""
    path = as_json(tmp_path / "p.json", [record(energy=-23.6, nsites=4), record(energy=-11.8)])
    assert [phase.energy for phase in read_phases(path).phases] == [-5.9, -5.9]


BAD_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("p.csv", "", "empty"),
    "header only": ("p.csv", "composition,energy_per_atom\n", "no phases"),
    "no composition column": ("p.csv", "name,energy\nNaCl,-1\n", "no composition .columns: name, energy"),
    "no energy column": ("p.csv", "formula,formation_energy_per_atom\nNaCl,-1\n", "no column 'energy_per_atom'"),
    "a column twice": ("p.csv", "formula,energy,energy\nNaCl,-1,-1\n", "two columns 'energy'"),
    "both composition columns": ("p.csv", "formula,composition,energy\nNaCl,NaCl,-1\n", "keep one"),
    "short row": ("p.csv", "formula,energy\nNaCl,-1\nKCl\n", "row 2: 1 cells, 2 columns"),
    "bad row": ("p.csv", "formula,energy\nNaCl,-1\nKCl,low\n", "row 2: energy 'low'"),
    "open quote": ("p.csv", 'formula,energy\n"NaCl,-1\n', "not a CSV"),
    "not text": ("p.csv", b"formula,energy\n\xff\xfe\n", "row 1: 1 cells, 2 columns"),
    "cut JSON": ("p.json", '[{"composition": "NaCl"', "not JSON, or cut off"),
    "deep JSON": ("p.json", "[" * 100_000, "nested too deeply"),
    "JSON of a number": ("p.json", "12", "JSON without phases"),
    "JSON of nothing": ("p.json", "[]", "no phases"),
    "JSON of names": ("p.json", '["NaCl"]', "item 1: not a phase"),
    "numbers without a unit": ("p.json", '{"NaCl": -3.4, "Na": -1.3}', "numbers without a unit"),
    "another class": ("p.json", '{"@module": "os", "@class": "GrandPotentialPhaseDiagram"}', "only PhaseDiagram"),
    "diagram without entries": ("p.json", '{"@class": "PhaseDiagram", "elements": []}', "JSON without phases"),
    "not gzip": ("p.json.gz", "[]", "not a gzip"),
    "unknown ending": ("p.pickle", "x", "unknown ending"),
    "several calculators": (
        "p.csv",
        "formula,energy,calculator\nNa,-1,a\nCl,-1,b\n",
        "several calculators .a, b.",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    name, content, message = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read_phases(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_there_and_crystals_without_energy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_phases(tmp_path / "none.csv")
    path = write(crystals("gap"), tmp_path / "p.extxyz")
    with pytest.raises(InputError, match=r"crystal 'Sr': no 'energy_per_atom' \(eV/atom\) and no 'energy' \(eV\)"):
        read_phases(path)


def test_no_class_of_a_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A serialised object names the module to import; here it is data."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text("raise AssertionError('imported')\n")
    trap = {"@module": "trap", "@class": "Trap"}
    path = as_json(tmp_path / "p.json", [record(data=trap, parameters=trap, **{"@class": "ComputedEntry"})])
    assert len(read_phases(path).phases) == 1


def computed(formula: str, energy: float, run_type: str, *names: str, correction: float = 0.0) -> dict[str, Any]:
    """A ComputedEntry as pymatgen writes it, with energy adjustments of these names."""
    adjustments = [{"@class": "ConstantEnergyAdjustment", "name": name, "value": correction} for name in names]
    return {
        "@class": "ComputedEntry",
        "composition": {formula: 1},
        "energy": energy,
        "correction": correction,
        "energy_adjustments": adjustments,
        "parameters": {"run_type": run_type},
    }


def plain(formula: str, energy: float, **more: str) -> dict[str, Any]:
    return {"formula": formula, "energy_per_atom": energy, **more}


CADMIUM = computed("Cd", -0.9, "GGA")
OXIDE = "MP2020 anion correction (oxide)"
U, R2 = "MP2020 GGA/GGA+U mixing correction (Fe)", "MP GGA(+U)/R2SCAN mixing adjustment"


@pytest.mark.parametrize(
    ("items", "other"),
    [
        ([CADMIUM, computed("Pt", -51.4, "R2SCAN")], "R2SCAN"),
        ([CADMIUM, computed("Fe", -8.0, "GGA+U")], "GGA+U"),
        ([computed("Cd", -0.9, "GGA", OXIDE), computed("Fe", -8.0, "GGA_U")], "GGA+U"),
        ([plain("Cd", -0.9, run_type="PBE"), plain("Pt", -6.0, run_type="PBEsol")], "PBESOL"),
        ([CADMIUM, computed("Fe", -8.0, "GGA+U", U, correction=-2.0)], ""),
        ([CADMIUM, {**computed("Fe", -8.0, "GGA+U", correction=-2.0)}], ""),
        ([computed("Cd", -0.9, "GGA", R2, correction=-3.0), computed("Pt", -51.4, "r2SCAN")], ""),
        ([CADMIUM, computed("Pt", -6.0, "PBE"), plain("Fe", -8.0)], ""),
    ],
)
def test_functionals_are_mixed_only_where_corrections_say_they_may(
    items: list[dict[str, Any]], other: str, tmp_path: Path
) -> None:
    path = as_json(tmp_path / "p.json", items)
    if other:
        with pytest.raises(InputError, match="energies of several functionals") as caught:
            read_phases(path)
        assert f"GGA (item 1) and {other} (item 2)" in str(caught.value)
    else:
        assert len(read_phases(path).phases) == len(items)


def test_summary_documents_of_the_materials_project_are_read(tmp_path: Path) -> None:
    document = {
        "material_id": "mp-1",
        "formula_pretty": "CdPt",
        "energy_per_atom": -3.8,
        "nsites": 4,
        "composition": {"Cd": 2, "Pt": 2},
    }
    (phase,) = read_phases(as_json(tmp_path / "p.json", [document])).phases
    assert (phase.id, phase.energy, phase.fractions) == ("mp-1", -3.8, {"Cd": 0.5, "Pt": 0.5})
