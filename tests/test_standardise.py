"""Niggli reduction and standard orientation: another cell, the same crystal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crystal_files import real_crystals
from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal, lattice_from_parameters
from dpcdvae.structures.standardise import calculation_cell, standardise, wrap


@pytest.fixture
def crystal() -> Crystal:
    rng = np.random.default_rng(0)
    matrix = 5 * np.eye(3) + rng.normal(size=(3, 3))
    return Crystal(np.array([8, 8, 22, 38]), rng.random((4, 3)), matrix, "x", {"energy": -1.5})


def is_niggli(crystal: Crystal) -> bool:
    """The main conditions of Int. Tables A, 9.2.2: the shortest vectors, ordered; all angles acute or none.

    pymatgen takes angles within one degree for equal, so a right angle may lie on either side.
    """
    g = crystal.lattice @ crystal.lattice.T
    a, b, c = np.diag(g)
    tolerance = 1e-3 * c
    ordered = a <= b + tolerance and b <= c + tolerance
    short = 2 * abs(g[1, 2]) <= b + tolerance and 2 * max(abs(g[0, 2]), abs(g[0, 1])) <= a + tolerance
    return bool(ordered and short and ((crystal.angles < 91).all() or (crystal.angles > 89).all()))


def test_another_cell_of_the_same_crystal(crystal: Crystal) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    skew = np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 1]])
    skewed = Crystal(crystal.atomic_numbers, crystal.frac_coords @ np.linalg.inv(skew), skew @ crystal.lattice, "x")
    reduced = standardise(skewed)
    assert is_niggli(reduced)
    assert not is_niggli(skewed)
    assert reduced.num_atoms == 4
    assert reduced.volume == pytest.approx(crystal.volume)
    matcher = StructureMatcher(primitive_cell=False, ltol=1e-3, stol=1e-3, angle_tol=0.1)
    rms, _ = matcher.get_rms_dist(crystal.to_pymatgen(), reduced.to_pymatgen())
    assert rms < 1e-6


def test_standard_orientation_wrapped_and_named(crystal: Crystal) -> None:
    reduced = standardise(crystal)
    np.testing.assert_allclose(reduced.lattice, lattice_from_parameters(reduced.lengths, reduced.angles), atol=1e-12)
    assert reduced.lattice[2, 0] == reduced.lattice[2, 1] == reduced.lattice[0, 1] == 0
    assert ((reduced.frac_coords >= 0) & (reduced.frac_coords < 1)).all()
    assert (reduced.id, reduced.properties) == ("x", {"energy": -1.5})


def test_standardising_again_changes_nothing(crystal: Crystal) -> None:
    once = standardise(crystal)
    twice = standardise(once)
    np.testing.assert_allclose(twice.lattice, once.lattice, atol=1e-9)
    assert np.abs((twice.frac_coords - once.frac_coords + 0.5) % 1 - 0.5).max() < 1e-9


def signed_volume_of_atoms(crystal: Crystal) -> float:
    """Changes sign in the mirror image: triple product of the minimum-image vectors between the atoms."""
    difference = crystal.frac_coords[1:] - crystal.frac_coords[0]
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    vectors = (difference + shifts) @ crystal.lattice
    nearest = np.take_along_axis(vectors, np.linalg.norm(vectors, axis=-1).argmin(0)[None, :, None], axis=0)[0]
    return float(np.linalg.det(nearest))


def test_a_left_handed_cell_does_not_become_the_mirror_image(crystal: Crystal) -> None:
    left = Crystal(crystal.atomic_numbers, crystal.frac_coords[:, [1, 0, 2]], crystal.lattice[[1, 0, 2]], "left")
    assert np.linalg.det(left.lattice) * np.linalg.det(crystal.lattice) < 0
    for given in (left, crystal):
        assert signed_volume_of_atoms(standardise(given)) == pytest.approx(signed_volume_of_atoms(crystal))


CHIRAL = (76, 78, 91, 92, 95, 96, 144, 145, 151, 152, 153, 154, 169, 170, 171, 172, 178, 179, 180, 181, 212, 213)
"""The groups that come in pairs of mirror images, each with a number of its own."""


def chiral_crystal(group: int, shear: np.ndarray, id: str = "") -> Crystal:
    """Atoms at a general place of the group, in a left-handed cell that ``shear`` (integers) makes a skewed one."""
    from pymatgen.core import Lattice, Structure

    lattice = Lattice.tetragonal(5, 6) if group < 100 else Lattice.hexagonal(5, 6) if group < 200 else Lattice.cubic(7)
    atoms = [[0.11, 0.23, 0.37], [0.42, 0.05, 0.71]]
    structure = Structure.from_spacegroup(group, lattice, ["Si", "O"], atoms)
    change = shear @ np.eye(3)[[1, 0, 2]]
    coords = structure.frac_coords @ np.linalg.inv(change)
    return Crystal(np.array(structure.atomic_numbers), coords, change @ structure.lattice.matrix, id)


def group_of(crystal: Crystal) -> int:
    import spglib

    data = spglib.get_symmetry_dataset((crystal.lattice, crystal.frac_coords, crystal.atomic_numbers), symprec=1e-3)
    assert data is not None
    return int(data.number)


@pytest.mark.parametrize("group", CHIRAL)
@pytest.mark.parametrize("shear", [np.eye(3), np.array([[1.0, 4, 0], [0, 1, -5], [0, 0, 1]])], ids=["cell", "skewed"])
def test_calculations_get_right_handed_cells_and_no_mirror_image(group: int, shear: np.ndarray) -> None:
    given = chiral_crystal(group, shear)
    assert np.linalg.det(given.lattice) < 0
    cell = calculation_cell(given)
    assert np.linalg.det(cell.lattice) == pytest.approx(given.volume)
    assert cell.lengths.max() < 10
    assert (cell.atomic_numbers == given.atomic_numbers).all()
    shifts = (cell.cart_coords - given.cart_coords) @ np.linalg.inv(given.lattice)
    assert np.abs(shifts - np.round(shifts)).max() < 1e-9
    assert group_of(cell) == group


def test_a_cell_that_suits_calculations_is_left_alone(crystal: Crystal) -> None:
    once = calculation_cell(crystal)
    assert calculation_cell(once) is once
    hexagonal = replace(crystal, lattice=lattice_from_parameters(np.array([3.0, 3, 9]), np.array([90.0, 90, 120])))
    assert calculation_cell(hexagonal) is hexagonal


@pytest.mark.parametrize("shift", [0.02, 0.1, 0.2])
def test_a_distortion_is_not_averaged_away(shift: float) -> None:
    """A chain of dimers keeps both atoms; what differs by rounding alone repeats."""
    chain = Crystal(np.array([6, 6]), np.array([[0, 0, 0], [0, 0, 0.5 + shift / 6]]), np.diag([4.0, 4, 6]))
    assert standardise(chain, primitive=True).num_atoms == 2
    rounded = replace(chain, frac_coords=np.array([[0, 0, 0], [0, 0, 0.5005]]))
    assert standardise(rounded, primitive=True).num_atoms == 1


def test_primitive_cell_of_rock_salt() -> None:
    coords = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    rock_salt = Crystal(np.repeat([11, 17], 4), np.concatenate([coords, coords + 0.5]), 5.64 * np.eye(3))
    assert standardise(rock_salt).num_atoms == 8
    primitive = standardise(rock_salt, primitive=True)
    assert primitive.num_atoms == 2
    assert primitive.volume == pytest.approx(rock_salt.volume / 4)


@pytest.mark.parametrize("name", ["perov_5/val.csv.gz", "carbon_24/val.csv.gz", "mp_20/val.csv.gz"])
def test_real_crystals_become_niggli_reduced(data_dir: Path, name: str) -> None:
    for crystal in real_crystals(data_dir / name, 50, spread=True):
        reduced = standardise(crystal)
        assert is_niggli(reduced), crystal.id
        assert reduced.num_atoms == crystal.num_atoms
        assert reduced.volume == pytest.approx(crystal.volume, rel=1e-6)
        assert sorted(reduced.atomic_numbers) == sorted(crystal.atomic_numbers)
        again = standardise(reduced)  # vectors of nearly one length may change places
        np.testing.assert_allclose(np.sort(again.lengths), np.sort(reduced.lengths), rtol=1e-4)


def test_wrapping_never_gives_one() -> None:
    wrapped = wrap(np.array([-1e-17, -0.25, 1.0, 2.75, 0.0, np.nextafter(1, 0)]))
    assert ((wrapped >= 0) & (wrapped < 1)).all()
    np.testing.assert_allclose(wrapped, [0, 0.75, 0, 0.75, 0, 1])


@pytest.mark.parametrize("lattice", [np.full((3, 3), np.nan), np.zeros((3, 3)), [[1, 0, 0], [2, 0, 0], [0, 0, 1]]])
def test_what_is_no_cell_is_refused(lattice: list[list[float]]) -> None:
    with pytest.raises(InputError, match="crystal 'bad'"):
        standardise(Crystal(np.array([6]), np.zeros((1, 3)), np.asarray(lattice, float), "bad"))
