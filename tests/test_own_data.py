"""Own data: a folder with ``id_prop.csv``, a database of ASE, documents of the Materials Project; one crystal shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.db import connect

from crystal_files import message
from dpcdvae.cli import main
from dpcdvae.datasets import load_dataset
from dpcdvae.datasets.description import crystal_lines, place_of
from dpcdvae.io import read, write
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal

CRYSTALS = [
    Crystal(c.atomic_numbers, c.frac_coords, c.lattice, f"mp-{k}") for k, c in enumerate(build_prototypes()[:8])
]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))


def folder_of(path: Path) -> Path:
    path.mkdir()
    for crystal in CRYSTALS:
        write(crystal, path / f"{crystal.id}.cif")
    return path


def added(source: Path, *more: str) -> dict[str, dict[str, float]]:
    """Properties by id of what ``data add`` makes of a source."""
    assert main(["data", "add", str(source), "--name", "own", "--workers", "0", "--overwrite", *more]) == 0
    return {crystal.id: dict(crystal.properties) for table in load_dataset("own").tables.values() for crystal in table}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("ending", ["", ".cif"])
def test_id_prop_in_a_folder_or_beside_it_gives_properties(inside: bool, ending: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "cifs")
    rows = [f"{crystal.id}{ending},{k / 2}\n" for k, crystal in enumerate(CRYSTALS)]
    ((folder if inside else tmp_path) / "id_prop.csv").write_text("".join(rows))
    (folder / "atom_init.json").write_text('{"1": [0, 1]}')
    assert added(folder) == {crystal.id: {"target": k / 2} for k, crystal in enumerate(CRYSTALS)}
    assert load_dataset("own").metadata["failures"] == []


def test_columns_of_id_prop_have_their_names_and_what_has_no_partner_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "cifs")
    (folder / "id_prop.csv").write_text("id,gap,stable\nmp-0,1.5,True\nmp-1,unknown,False\nmp-99,2,True\n")
    properties = {crystal.id: crystal.properties for crystal in read(folder)}
    assert properties["mp-0"] == {"gap": 1.5, "stable": True}
    assert properties["mp-1"] == {"stable": False}
    assert properties["mp-2"] == {}
    said = capsys.readouterr().err
    assert "6 of 8 crystals have no row, 1 rows no crystal" in said
    assert "cells that are no numbers" in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mp-0,1\nmp-0,2\n", "row 2: 'mp-0' stands in a row before"),
        ("mp-0,1\nmp-1\n", "row 2 has 1 cells, 2 are needed"),
        ("mp-0\n", "a name and at least one value"),
        (",,\n", "a name and at least one value"),
        ("", "the file is empty"),
    ],
)
def test_a_bad_id_prop_is_named_with_its_row(text: str, reason: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "cifs")
    (folder / "id_prop.csv").write_text(text)
    assert reason in message(lambda: read(folder))


def test_databases_of_ase_become_data_sets_with_ids_and_properties(tmp_path: Path) -> None:
    with connect(tmp_path / "a.db") as database:
        for k, crystal in enumerate(CRYSTALS):
            atoms = crystal.to_ase()
            atoms.info.clear()
            database.write(atoms, key_value_pairs={"material_id": crystal.id, "gap": k / 2})
    assert added(tmp_path / "a.db") == {crystal.id: {"gap": k / 2} for k, crystal in enumerate(CRYSTALS)}


def test_documents_of_the_materials_project_become_data_sets(tmp_path: Path) -> None:
    documents = [
        {
            "material_id": crystal.id,
            "formula_pretty": crystal.formula,
            "band_gap": k / 2,
            "is_stable": True,
            "structure": crystal.with_id("").to_pymatgen().as_dict(),
        }
        for k, crystal in enumerate(CRYSTALS)
    ]
    (tmp_path / "docs.json").write_text(json.dumps({"data": documents}))
    assert added(tmp_path / "docs.json") == {crystal.id: {"band_gap": k / 2} for k, crystal in enumerate(CRYSTALS)}


def test_one_crystal_of_a_data_set_is_shown_by_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load_dataset("prototypes")["test"]
    capsys.readouterr()
    for id in (str(table.ids[3]), "#3"):
        assert main(["data", "show", "prototypes:test", id]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert shown == crystal_lines(table, 3)
        assert shown[0] == f"{table.ids[3]}: {table[3].formula}, {table[3].num_atoms} atoms"
        bonds = sum(int(line.split()[-1]) for line in shown[-table[3].num_atoms :])
        assert bonds == 2 * table.num_bonds[3]
    said = message(lambda: place_of(table, f"{table.ids[3]}x", "prototypes:test"))
    assert said.endswith(f"of prototypes:test: did you mean '{table.ids[3]}'?")
    assert "did you mean" in message(lambda: place_of(table, "#100000", "prototypes:test"))
