"""CIFs with their space group: the same crystal, exactly symmetric, in a setting that other programs agree on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spglib

from crystal_files import message
from dpcdvae.io import read, write
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.symmetrised import symmetrised

PROTOTYPES = {
    kind: next(c for c in build_prototypes() if c.id.startswith(kind))
    for kind in sorted({crystal.id.split("-")[0] for crystal in build_prototypes()})
}
TOLERANCE = 0.1


def number_of(crystal: Crystal, tolerance: float) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cell = (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers)
        return spglib.get_symmetry_dataset(cell, symprec=tolerance).number


def shaken(crystal: Crystal) -> Crystal:
    """Atoms 0.01 Å from their places in a cell that is nearly what it should be, turned anyhow."""
    rng = np.random.default_rng(7)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    off = rng.normal(size=(crystal.num_atoms, 3)) * 0.01 / np.sqrt(3)
    coords = crystal.frac_coords + off @ np.linalg.inv(crystal.lattice) + rng.random(3)
    strain = np.eye(3) + 0.003 * rng.normal(size=(3, 3))
    return replace(crystal, frac_coords=coords, lattice=crystal.lattice @ turn @ strain)


@pytest.mark.parametrize("kind", PROTOTYPES)
@pytest.mark.filterwarnings("ignore")
def test_a_shaken_crystal_becomes_exactly_symmetric_and_stays_itself(kind: str, tmp_path: Path) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    ideal, crystal = PROTOTYPES[kind], shaken(PROTOTYPES[kind])
    path = write(crystal, tmp_path / "a.cif", symmetrise=TOLERANCE)
    (back,) = read(path)
    assert number_of(crystal, 1e-3) <= 2
    assert number_of(back, 1e-3) == number_of(ideal, 1e-3)
    assert f"_symmetry_Int_Tables_number {number_of(ideal, 1e-3)}\n" in path.read_text()
    assert back.formula == crystal.formula
    assert back.density == pytest.approx(crystal.density, rel=0.02)
    assert StructureMatcher(scale=False, stol=0.1).fit(back.to_pymatgen(), crystal.to_pymatgen())
    theirs = Structure.from_file(path)  # reads the operations by itself
    assert len(theirs) in (back.num_atoms, crystal.num_atoms)
    assert StructureMatcher(scale=False, stol=0.1).fit(back.to_pymatgen(), theirs)


def test_atoms_written_are_the_fewest_whose_images_are_all(tmp_path: Path) -> None:
    found = symmetrised(PROTOTYPES["rock_salt"], TOLERANCE)
    assert found is not None
    assert (found.number, len(found.operations), found.multiplicities) == (225, 192, (4, 4))
    assert found.operations[0] == "x, y, z"
    assert found.crystal.num_atoms == sum(found.multiplicities) == 8


def test_energies_of_a_cell_are_those_of_the_new_cell() -> None:
    crystal = replace(PROTOTYPES["rock_salt"], properties={"energy": -5.0, "gap": 2.0})
    found = symmetrised(crystal, TOLERANCE)
    assert found is not None
    assert found.crystal.properties == {"energy": -5.0 * 8 / crystal.num_atoms, "gap": 2.0}


def test_crystals_without_symmetry_stay_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    random = Crystal([8, 22, 38], rng.random((3, 3)), np.diag([4.0, 5.0, 6.0]) + rng.random((3, 3)), "random")
    merged = Crystal([6, 6], [[0, 0, 0], [0, 0, 0.01]], np.eye(3) * 3, "merged")
    back = read(write([random, merged], tmp_path / "out", symmetrise=TOLERANCE))
    assert sorted((c.id, c.num_atoms) for c in back) == [("merged", 2), ("random", 3)]
    assert "note: 1 of 2 crystals stay in P1: no symmetry at 0.1 Å" in capsys.readouterr().err


@pytest.mark.parametrize("tolerance", [0.0, -1.0, 2.0, float("nan")])
def test_tolerances_that_are_none(tolerance: float, tmp_path: Path) -> None:
    salt = PROTOTYPES["rock_salt"]
    said = message(lambda: write(salt, tmp_path / "a.cif", symmetrise=tolerance))
    assert "above 0 and at most 1 Å" in said or said == "symmetrise: a number is needed, not nan"
    assert list(tmp_path.iterdir()) == []


def test_only_cifs_have_a_space_group(tmp_path: Path) -> None:
    said = message(lambda: write(PROTOTYPES["rock_salt"], tmp_path / "a.json", symmetrise=0.1))
    assert "--symmetrise is for CIFs, and" in said


def test_files_of_a_folder_say_the_formula(tmp_path: Path) -> None:
    salt = replace(PROTOTYPES["rock_salt"], id="0-17")
    named = replace(salt, id=f"rock_salt-{salt.formula}")
    group = Crystal([20, 8, 8, 1, 1], np.arange(15).reshape(5, 3) / 15, np.eye(3) * 5, "x")
    write([salt, named, group, salt], tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    formula = salt.formula
    assert names == {f"0-17_{formula}.cif", f"rock_salt-{formula}.cif", "x_Ca-HO-2.cif", f"0-17-2_{formula}.cif"}
    assert {c.id for c in read(tmp_path / "out")} == {"0-17", named.id, "x", "0-17-2"}
