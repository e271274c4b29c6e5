"""Crystals in and out as the field has them: what goes in comes out, with ids and properties, in every guise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from pymatgen.core import Structure

import dpcdvae
from crystal_files import assert_same_crystal, message
from dpcdvae.datasets.preparation import bonded_table
from dpcdvae.io import CrystalList, as_crystals, read, write
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.structures.crystal import Crystal

SALT = Crystal(
    [17, 11], [[0.5, 0.5, 0.5], [0, 0, 0]], np.eye(3) * 2.82 + 0.1, "mp-22862", {"gap": 5.5, "steps": 3, "good": True}
)
COPPER = Crystal.from_ase(bulk("Cu"), "copper")
BOTH = [SALT, COPPER]
EMT_NAME = "ase.calculators.emt:EMT"


def guises(folder: Path) -> dict[str, Any]:
    return {
        "crystals": BOTH,
        "tuple": tuple(BOTH),
        "structures": [c.to_pymatgen() for c in BOTH],
        "atoms": [c.to_ase() for c in BOTH],
        "mixed": [SALT.to_ase(), COPPER.to_pymatgen()],
        "path": write(BOTH, folder / "a.extxyz"),
        "paths": [str(write([c], folder / f"{c.id}.cif")) for c in BOTH],
        "result": GenerationResult(BOTH, [], 0),
        "list": CrystalList(BOTH),
    }


def test_every_guise_gives_the_same_crystals_with_ids_and_properties(tmp_path: Path) -> None:
    for name, given in guises(tmp_path).items():
        found = as_crystals(given)
        assert isinstance(found, CrystalList), name
        for crystal, back in zip(BOTH, found, strict=True):
            assert_same_crystal(crystal, back, 1e-7)
            assert (back.id, dict(back.properties)) == (crystal.id, dict(crystal.properties)), name
            assert [type(v) for v in back.properties.values()] == [type(v) for v in crystal.properties.values()], name


def test_one_crystal_needs_no_list(tmp_path: Path) -> None:
    for one in (SALT, SALT.to_ase(), SALT.to_pymatgen(), write(SALT, tmp_path / "a.cif")):
        assert [crystal.id for crystal in as_crystals(one)] == ["mp-22862"]


def test_what_is_no_crystal_is_told_with_its_number() -> None:
    assert message(lambda: as_crystals([SALT, 3])).startswith("item 1: int is no crystal: a Crystal, a Structure")
    assert "dict is no crystal" in message(lambda: as_crystals({}))
    slab = bulk("Cu")
    slab.pbc = False
    assert "periodic boundaries" in message(lambda: as_crystals([slab]))
    assert "no such file" in message(lambda: as_crystals(["nowhere.cif"]))


def test_failures_stay_beside_the_crystals(tmp_path: Path) -> None:
    write(BOTH, tmp_path / "in")
    (tmp_path / "in" / "bad.cif").write_text("data_x\n")
    found = as_crystals(tmp_path / "in")
    assert (len(found), [failure.id for failure in found.failures]) == (2, ["bad"])
    assert [failure.id for failure in as_crystals([tmp_path / "in", SALT]).failures] == ["bad"]
    assert as_crystals(GenerationResult(BOTH, list(found.failures))).failures == found.failures


@pytest.mark.parametrize("kind", [CrystalList, lambda crystals: GenerationResult(crystals, [], 4)])
def test_results_are_sequences_that_convert_with_ids_and_properties(kind: Any) -> None:
    result = kind(BOTH)
    assert (len(result), result[0], result[-1], list(result)) == (2, SALT, COPPER, BOTH)
    assert isinstance(result[:1], CrystalList)
    assert "\n" not in repr(result)
    assert "2 crystals: NaCl, Cu" in repr(result)
    table = result.to_pandas()
    assert table["material_id"].tolist() == ["mp-22862", "copper"]
    assert table["formula"].tolist() == ["NaCl", "Cu"]
    assert table["gap"].tolist()[0] == 5.5
    assert "<table" in result._repr_html_()
    assert "NaCl" in result._repr_html_()
    for atoms, structure in zip(result.to_ase(), result.to_pymatgen(), strict=True):
        assert atoms.info == structure.properties
    assert result.to_ase()[0].info["material_id"] == "mp-22862"
    assert kind([]).to_pandas().empty
    assert repr(kind([])) == f"<{type(kind([])).__name__}: 0 crystals>"


def test_html_shows_ids_as_text() -> None:
    assert "<script>" not in CrystalList([SALT.with_id("<script>")])._repr_html_()


@pytest.mark.parametrize("key", ["material_id", "id"])
def test_either_key_of_an_id_is_read_everywhere(key: str, tmp_path: Path) -> None:
    atoms = bulk("Cu")
    atoms.info[key] = "mp-30"
    ase.io.write(tmp_path / "a.extxyz", atoms)
    structure = COPPER.with_id("").to_pymatgen()
    structure.properties[key] = "mp-30"
    (tmp_path / "a.json").write_text(json.dumps([structure.as_dict()]))
    write(COPPER, tmp_path / "b.csv")
    (tmp_path / "a.csv").write_text(
        (tmp_path / "b.csv").read_text().replace("material_id", key).replace("copper", "mp-30")
    )
    found = [read(tmp_path / f"a.{ending}")[0] for ending in ("extxyz", "json", "csv")]
    found += as_crystals([atoms, structure])
    assert [crystal.id for crystal in found] == ["mp-30"] * 5
    assert not any(found[k].properties for k in (0, 1, 3, 4))


def test_json_is_what_monty_loads_as_structures_to_the_last_bit(tmp_path: Path) -> None:
    from monty.serialization import loadfn

    path = write(BOTH, tmp_path / "a.json")
    for crystal, structure, back in zip(BOTH, loadfn(path), read(path), strict=True):
        assert isinstance(structure, Structure)
        assert structure.properties == {"material_id": crystal.id, **crystal.properties}
        assert np.array_equal(structure.lattice.matrix, crystal.lattice)
        assert np.array_equal(structure.frac_coords, crystal.frac_coords)
        assert np.array_equal(back.frac_coords, crystal.frac_coords)
        assert back.properties == crystal.properties


def test_json_of_earlier_versions_is_read(tmp_path: Path) -> None:
    entry = {"id": "a", "atomic_numbers": [29], "frac_coords": [[0, 0, 0]], "lattice": np.eye(3).tolist()}
    (tmp_path / "a.json").write_text(
        json.dumps({"format": "dpcdvae-crystals", "version": 1, "crystals": [{**entry, "properties": {"x": 1.5}}]})
    )
    assert [(c.id, c.properties) for c in read(tmp_path / "a.json")] == [("a", {"x": 1.5})]


@pytest.mark.parametrize("ending", ["extxyz", "csv", "json", "cif"])
def test_integers_and_booleans_come_back_as_such(ending: str, tmp_path: Path) -> None:
    (back,) = read(write(SALT, tmp_path / f"a.{ending}"))
    assert [(k, type(v), v) for k, v in sorted(back.properties.items())] == [
        ("gap", float, 5.5),
        ("good", bool, True),
        ("steps", int, 3),
    ]


def test_relaxed_crystals_carry_ases_energy_forces_and_stress(tmp_path: Path) -> None:
    start = bulk("Cu", "fcc", a=3.7, cubic=True)
    start.positions[0] += [0.05, 0, 0]
    relaxed = dpcdvae.relax(start, calculator=EMT_NAME, max_steps=5, workers=0)
    assert "1 crystal: Cu" in repr(relaxed)
    path = write(relaxed, tmp_path / "a.extxyz")
    text = path.read_text()
    assert " steps=5 " in text
    assert " converged=F " in text
    for atoms in (ase.io.read(path), relaxed.to_ase()[0]):
        again = atoms.copy()
        again.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-6)
        assert np.allclose(atoms.get_forces(), again.get_forces(), atol=1e-6)
        assert np.allclose(atoms.get_stress(), again.get_stress(), atol=1e-8)
    back = read(path)[0].properties
    assert (back["steps"], back["converged"]) == (5, False)
    assert back["energy"] == pytest.approx(4 * back["energy_eV_per_atom"])


def test_ground_states_of_crystals_are_those_of_their_relaxations(tmp_path: Path) -> None:
    relaxed = dpcdvae.relax([COPPER], calculator=EMT_NAME, workers=0)
    write(relaxed, tmp_path / "relaxed.extxyz")
    tables = [
        dpcdvae.ground_state(relaxed),
        dpcdvae.ground_state(COPPER.to_ase(), calculator=EMT_NAME),
        dpcdvae.ground_state([COPPER.to_pymatgen()], tmp_path / "relaxed.extxyz"),
    ]
    for table in tables:
        assert table["match_rate"].value == 1.0
        assert table["delta_energy_rms"].value == pytest.approx(tables[0]["delta_energy_rms"].value, abs=1e-5)
    assert "relaxed already" in message(lambda: dpcdvae.ground_state(relaxed, pressure=1.0))


def test_bonds_are_found_where_a_model_needs_them() -> None:
    table, failures = bonded_table([SALT.to_ase(), Crystal([29], [[0, 0, 0]], np.eye(3) * 50, "alone")])
    assert (table.ids.tolist(), [failure.id for failure in failures]) == (["mp-22862"], ["alone"])
    assert table.num_bonds.min() > 0
    assert bonded_table(table) == (table, [])
