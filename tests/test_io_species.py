"""One element, one answer: how a file writes it and which format the file has make no difference."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpcdvae.io import Failure, read
from dpcdvae.structures.elements import ATOMIC_NUMBERS, SYMBOLS

CELL = "".join(f"_cell_length_{x} 4\n" for x in "abc") + "".join(
    f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma")
)
COLUMNS = "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"


def cif(species: str) -> str:
    atoms = f"A1 {species} 0 0 0\nB1 Cl 0.5 0.5 0.5\n"
    return f"data_x\n{CELL}loop_\n_atom_site_label\n_atom_site_type_symbol\n{COLUMNS}{atoms}"


def structure(species: str) -> str:
    sites = [{"species": [{"element": s, "occu": 1}], "abc": [x, x, x]} for s, x in ((species, 0.0), ("Cl", 0.5))]
    return json.dumps({"lattice": {"matrix": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]}, "sites": sites})


def table(cell: str) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows([["cif"], [cell]])
    return stream.getvalue()


def answers(species: str, folder: Path) -> dict[str, int | str]:
    """What each format makes of a crystal of this species and Cl: the atomic number, or why there is none."""
    texts = {
        "a.cif": cif(species),
        "a.vasp": f"x\n1.0\n4 0 0\n0 4 0\n0 0 4\n{species} Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n",
        "a.extxyz": f'2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\n{species} 0 0 0\nCl 2 2 2\n',
        "a.json": structure(species),
        "cif.csv": table(cif(species)),
        "structure.csv": table(structure(species)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    pq.write_table(pa.table({"cif": [cif(species)]}), folder / "a.parquet")
    found: dict[str, int | str] = {}
    for name in (*texts, "a.parquet"):
        failures: list[Failure] = []
        crystals = read(folder / name, failures)
        assert len(crystals) + len(failures) == 1
        found[name] = int(crystals[0].atomic_numbers[0]) if crystals else failures[0].reason
    return found


@pytest.mark.parametrize("symbol", ["Fe", "O", "Na", "Cf", "H", "Og"])
def test_case_and_charge_do_not_change_the_element(symbol: str, tmp_path: Path) -> None:
    for case in (symbol, symbol.upper(), symbol.lower()):
        for charge in ("", "+", "-", "3+", "+3", "2-", "-2", "2.5+", "0+", "1"):
            found = answers(case + charge, tmp_path)
            assert set(found.values()) == {ATOMIC_NUMBERS[symbol]}, (case + charge, found)


@pytest.mark.parametrize("species", ["D", "T", "d", "D+", "T1+"])
def test_isotopes_of_hydrogen_are_refused_with_what_to_do(species: str, tmp_path: Path) -> None:
    assert set(answers(species, tmp_path).values()) == {f"isotope '{species}': write it as H"}


@pytest.mark.parametrize(
    "species", ["X", "Vac", "VAC", "Va", "X0+", "Q", "Du", "M", "Uuo", "Wat", "OH", "Fe(III)", "?"]
)
def test_what_is_no_element_is_no_atom(species: str, tmp_path: Path) -> None:
    assert set(answers(species, tmp_path).values()) == {f"'{species}' is not an element"}


def labelled(label: str, formula: str, path: Path) -> int | str:
    said = f"_chemical_formula_sum '{formula}'\n" if formula else ""
    path.write_text(f"data_x\n{said}{CELL}loop_\n_atom_site_label\n{COLUMNS}{label} 0 0 0\nCl1 0.5 0.5 0.5\n")
    failures: list[Failure] = []
    crystals = read(path, failures)
    return int(crystals[0].atomic_numbers[0]) if crystals else failures[0].reason


@pytest.mark.parametrize(
    ("label", "reason"),
    [(x, "a vacancy") for x in ("Vac", "Vac1", "VAC2", "va1", "Vc")]
    + [(x, "water") for x in ("Wat1", "WAT", "Water2")]
    + [(x, "systematic name") for x in ("Uuo1", "UUE")],
)
def test_a_label_of_no_element_is_not_read_as_the_one_it_begins_with(label: str, reason: str, tmp_path: Path) -> None:
    for formula in ("", "Na1 Cl1"):
        assert reason in str(labelled(label, formula, tmp_path / "a.cif"))
    element = label[0].upper()
    assert labelled(label, f"{element}1 Cl1", tmp_path / "a.cif") == ATOMIC_NUMBERS[element]


def test_every_symbol_is_the_label_of_its_element(tmp_path: Path) -> None:
    for number, symbol in enumerate(SYMBOLS[1:], 1):
        assert labelled(f"{symbol}1", f"{symbol}1 Cl1" if symbol != "Cl" else "Cl2", tmp_path / "a.cif") == number
