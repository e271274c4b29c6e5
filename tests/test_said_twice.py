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
