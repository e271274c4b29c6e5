"""Names of properties: kept by every format, and free of what formats, tables and packages have a meaning for."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monty.serialization import loadfn

from crystal_files import message
from dpcdvae.io import as_crystals, read, write
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import outside_name, own_name

TAKEN = "id ID material_id Material_ID name cif formula Formula lattice Lattice pbc Properties species pos positions"
TAKEN += " numbers symbols occupancy forces stress virial dipole"
FREE = "energy volume density num_atoms charge Z spacegroup task_id band_gap"
ODD = ["", "@module", "@class", "property_id", "property_", "property_property_id", "property_x", "Unnamed: 0"]
ODD += ["__index_level_0__", "=1+1", "'=1", "a b", "é", "x=y", 'q"t', "a,b", "a'b", "#x", "_x", "data_", "loop_", "T"]
NAMES = [*TAKEN.split(), *FREE.split(), *ODD]
CRYSTAL = Crystal(
    [38, 22], [[0, 0, 0], [0.5, 0.5, 0.5]], 4 * np.eye(3), "me", {name: k + 0.5 for k, name in enumerate(NAMES)}
)


@pytest.mark.parametrize("name", ["a.cif", "a.extxyz", "a.csv", "a.csv.gz", "a.json", "a.npz", "a.zip", "folder"])
def test_every_format_keeps_every_name(name: str, tmp_path: Path) -> None:
    back = read(write([CRYSTAL], tmp_path / name))[0]
    assert (back.id, dict(back.properties)) == ("me", dict(CRYSTAL.properties))


def test_objects_of_other_packages_keep_every_name(tmp_path: Path) -> None:
    for back in (Crystal.from_ase(CRYSTAL.to_ase()), Crystal.from_pymatgen(CRYSTAL.to_pymatgen())):
        assert (back.id, dict(back.properties)) == ("me", dict(CRYSTAL.properties))
    frame = ase.io.read(write(CRYSTAL, tmp_path / "a.extxyz"))
    assert dict(as_crystals(frame)[0].properties) == dict(CRYSTAL.properties)  # ASE takes energy to be a result
    (structure,) = loadfn(write(CRYSTAL, tmp_path / "a.json"))
    assert dict(as_crystals(structure)[0].properties) == dict(CRYSTAL.properties)


def test_a_table_has_each_column_once_and_its_own_are_the_crystals() -> None:
    table = as_crystals(CRYSTAL).to_pandas()
    assert len(set(table.columns)) == len(table.columns)
    row = table.iloc[0]
    assert (row["material_id"], row["formula"], row["num_atoms"], row["volume"]) == ("me", "SrTi", 2, CRYSTAL.volume)
    for name in ("id", "formula", "volume", "density", "num_atoms"):
        assert row[f"property_{name}"] == CRYSTAL.properties[name]


@given(st.text(max_size=20))
def test_names_outside_are_undone(name: str) -> None:
    outside = outside_name(name)
    assert outside.isprintable()
    if outside == outside_name(outside.removeprefix("property_")):
        assert own_name(outside) == outside.removeprefix("property_")
    if name == " ".join(name.split()) and name.isprintable():
        assert own_name(outside) == name


def test_names_that_printing_makes_equal_are_refused(tmp_path: Path) -> None:
    twice = Crystal([38], [[0, 0, 0]], 4 * np.eye(3), "a", {"x y": 1.0, "x\ny": 2.0})
    assert "two properties are called 'x y'" in message(lambda: write(twice, tmp_path / "a.csv"))


@pytest.mark.parametrize("key", ["material_id", "Material_ID", "ID", "Id"])
def test_the_key_of_the_id_in_any_case(key: str, tmp_path: Path) -> None:
    cif = write(Crystal([38], [[0, 0, 0]], 4 * np.eye(3)), tmp_path / "a.cif").read_text().split("\n", 2)[2]
    (tmp_path / "a.csv").write_text(f'{key},cif\nmine,"data_x\n{cif}"\n')
    (tmp_path / "a.extxyz").write_text(f'1\nLattice="4 0 0 0 4 0 0 0 4" {key}=mine\nSr 0 0 0\n')
    sites = [{"species": [{"element": "Sr", "occu": 1}], "abc": [0, 0, 0]}]
    structure = {"lattice": {"matrix": (4 * np.eye(3)).tolist()}, "sites": sites}
    (tmp_path / "a.json").write_text(json.dumps([{key: "mine", "structure": structure}]))
    for name in ("a.csv", "a.extxyz", "a.json"):
        (crystal,) = read(tmp_path / name)
        assert (crystal.id, dict(crystal.properties)) == ("mine", {}), name


@pytest.mark.parametrize("number", ["1_0", "١", "0x10", "1e5_0", "１"])
def test_numbers_that_only_python_takes_for_such(number: str, tmp_path: Path) -> None:
    good = '1\nLattice="4 0 0 0 4 0 0 0 4"{}\nSr 0 0 {}\n'
    path = tmp_path / "a.extxyz"
    path.write_text(good.format("", number), encoding="utf-8")
    assert f"the coordinate '{number}' is not a number" in message(lambda: read(path))
    path.write_text(good.format(f" gap={number}", "0"), encoding="utf-8")
    assert dict(read(path)[0].properties) == {}
    poscar = tmp_path / "POSCAR"
    poscar.write_text(f"x\n1.0\n4 0 0\n0 4 0\n0 0 4\nSr\n1\nDirect\n0 0 {number}\n", encoding="utf-8")
    assert "is not a number" in message(lambda: read(poscar))
