"""What a structure in JSON says twice must agree; what is free, such as labels, is noted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from crystal_files import message
from dpcdvae.errors import InputError
from dpcdvae.io import read

CELL = Lattice.from_parameters(3, 4, 5, 80, 95, 110)
STRUCTURE = Structure(CELL, ["Na+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.52]], labels=["Na1", "Cl1"]).as_dict()
DOCUMENT = {"material_id": "mp-1", "nsites": 2, "formula_pretty": "NaCl", "structure": STRUCTURE}

Change = Callable[[dict[str, Any]], Any]


def written(entry: dict[str, Any], change: Change, folder: Path) -> Path:
    changed = copy.deepcopy(entry)
    change(changed)
    (folder / "a.json").write_text(json.dumps(changed))
    return folder / "a.json"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s["lattice"].update(a=3.1), "the lattice says a = 3.1, but its matrix gives 3"),
        (lambda s: s["lattice"].update(gamma=90), "gamma = 90, but its matrix gives 110"),
        (lambda s: s["lattice"].update(volume=1.0), "volume = 1, but"),
        (lambda s: s["lattice"].update(b=float("nan")), "b = nan"),
        (lambda s: s["lattice"].update(c="5"), "c of the lattice: numbers are needed, not '5'"),
        (lambda s: s["lattice"].update(matrix=[[1, 2], [3, 4]]), "shape (2, 2)"),
        (lambda s: s["sites"][1].update(abc=[0.5, 0.5, 0.6]), "site 2: xyz lies 0.4 Å from where abc says"),
        (lambda s: s["sites"][1].update(abc=["0.5", 0.5, 0.52]), "site 2, abc: numbers are needed"),
        (lambda s: s["sites"][1].update(xyz=[1, 2]), "three finite numbers"),
    ],
)
def test_contradictions_are_refused(change: Change, reason: str, tmp_path: Path) -> None:
    assert reason in message(lambda: read(written(STRUCTURE, change, tmp_path)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(nsites=3), "nsites is 3, but the structure has 2 atoms"),
        (lambda d: d.update(formula_pretty="KCl"), "the formula says KCl, but the structure is NaCl"),
    ],
)
def test_documents_that_their_structure_contradicts(change: Change, reason: str, tmp_path: Path) -> None:
    assert reason in message(lambda: read(written(DOCUMENT, change, tmp_path)))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda s: None, ""),
        (lambda s: s["sites"][1].update(abc=[0.5, -1.5, 0.52]), ""),  # an image
        (lambda s: s["lattice"].update(a=3.0001, gamma=110.01), ""),  # rounded
        (lambda s: s["sites"][0].update(label="apical"), ""),
        (lambda s: s["sites"][0].update(label="K1"), "'K1' is Na"),
        (lambda s: s.update(charge=3), "the charge is 3, but the oxidation states add up to 0"),
    ],
)
def test_what_may_differ_is_read_and_noted(
    change: Change, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(written(STRUCTURE, change, tmp_path))[0].formula == "NaCl"
    said = capsys.readouterr().err
    assert note in said
    assert bool(note) == bool(said)


def test_extended_xyz_that_contradicts_itself(tmp_path: Path) -> None:
    path, lattice = tmp_path / "a.extxyz", 'Lattice="4 0 0 0 4 0 0 0 4"'
    path.write_text(f"1\n{lattice} Properties=species:S:1:Z:I:1:pos:R:3\nNa 12 0 0 0\n")
    assert "species and Z" in message(lambda: read(path))
    path.write_text(f"1\n{lattice} gap=1 gap=2\nNa 0 0 0\n")
    assert "'gap' stands twice" in message(lambda: read(path))
    path.write_text(f"1\n{lattice} gap=1 gap=1 Properties=species:S:1:Z:I:1:pos:R:3\nNa 11 0 0 0\n")
    assert read(path)[0].properties == {"gap": 1}


def test_a_dictionary_in_a_cell_that_is_nested_too_deeply(tmp_path: Path) -> None:
    for quote, depth in (('"', 100_000), ("'", 100), ("'", 10_000)):
        text = f"{{{quote}lattice{quote}: " + "[" * depth + "]" * depth + "}"
        (tmp_path / "a.csv").write_text('id,structure\n1,"' + text.replace('"', '""') + '"\n')
        said = message(lambda: read(tmp_path / "a.csv"))
        assert depth < 1000 or "nested" in said
        assert len(said) < 300


CIF = """data_a
_cell_length_a {a}
_cell_length_b 4.00
_cell_length_c 5.00
_cell_angle_alpha 80.0
_cell_angle_beta 95.0
_cell_angle_gamma {gamma}
{volume}
loop_
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na 0 0 0
"""


@pytest.mark.parametrize(
    ("volume", "agrees"),
    [
        ("_cell_volume 55.50", True),
        ("_cell_volume 55.5(4)", True),
        ("_cell_volume '55.50'", True),
        ("_cell_volume 55", True),
        ("_cell_volume ?", True),
        ("_cell_volume unknown", True),
        ("", True),
        ("_cell_volume 5.5e1", True),
        ("_cell_volume 57.2", False),
        ("_cell_volume 54.0(9)", False),
        ("_cell_volume 165.8", False),
        ("_cell_volume 0", False),
        ("_cell_volume -55.50", False),
    ],
)
def test_the_volume_of_a_cif_is_that_of_its_cell_within_their_digits(volume: str, agrees: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    path.write_text(CIF.format(a="3.00", gamma="110.0", volume=volume))
    assert read_fails(path) == ("" if agrees else "_cell_volume")


def test_fewer_digits_of_a_cell_allow_more_volumes(tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    for a, gamma, agrees in (("3.00", "110.0", False), ("3.0", "110.0", True), ("3.00", "110", True)):
        path.write_text(CIF.format(a=a, gamma=gamma, volume="_cell_volume 56.0"))
        assert read_fails(path) == ("" if agrees else "_cell_volume"), (a, gamma)


def read_fails(path: Path) -> str:
    """What the message of an error names; "" where the file can be read."""
    try:
        return "" if len(read(path)) == 1 else "nothing"
    except InputError as error:
        return "_cell_volume" if "says _cell_volume" in str(error) else str(error)
