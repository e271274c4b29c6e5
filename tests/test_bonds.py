"""CrystalNN bonds: the same as pymatgen's, and the laws of a bond graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from crystal_files import real_crystals
from dpcdvae.errors import InputError
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.standardise import standardise


def bond_set(crystal: Crystal) -> set[tuple[int, ...]]:
    bonds, images = crystal_nn_bonds(crystal)
    edges = np.concatenate([bonds, images], axis=1).tolist()
    assert len({tuple(e) for e in edges}) == len(edges), "a bond is listed twice"
    return {tuple(e) for e in edges}


def pymatgen_bond_set(crystal: Crystal) -> set[tuple[int, ...]]:
    """The call of CDVAE's preprocessing."""
    from pymatgen.analysis.graphs import StructureGraph
    from pymatgen.analysis.local_env import CrystalNN

    strategy = CrystalNN(distance_cutoffs=None, x_diff_weight=-1, porous_adjustment=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = StructureGraph.from_local_env_strategy(crystal.to_pymatgen(), strategy).graph
    return {(i, j, *map(int, image)) for i, j, image in graph.edges(data="to_jimage")}


def some(data_dir: Path, name: str, count: int) -> list[Crystal]:
    """Crystals spread evenly over a real file."""
    return [standardise(crystal) for crystal in real_crystals(data_dir / name, count, spread=True)]


SETS = {"perov_5/test.csv.gz": 40, "carbon_24/test.csv.gz": 20, "mp_20/test.csv.gz": 30}


@pytest.mark.parametrize("name", SETS)
def test_real_crystals_agree_with_pymatgen(data_dir: Path, name: str) -> None:
    different = [c.id for c in some(data_dir, name, SETS[name]) if bond_set(c) != pymatgen_bond_set(c)]
    assert different == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_many_real_crystals_agree_with_pymatgen(data_dir: Path, name: str) -> None:
    different = [c.id for c in some(data_dir, name, 150) if bond_set(c) != pymatgen_bond_set(c)]
    assert different == []


def test_every_structure_type_agrees_with_pymatgen() -> None:
    """Symmetric crystals are the hard ones: corners where many faces meet, faces of no area."""
    one_of_each = {c.id.partition("-")[0]: c for c in build_prototypes()}
    assert len(one_of_each) > 30
    different = [c.id for c in one_of_each.values() if bond_set(standardise(c)) != pymatgen_bond_set(standardise(c))]
    assert different == []


def test_random_crystals_agree_with_pymatgen() -> None:
    rng = np.random.default_rng(3)
    for k in range(20):
        n = int(rng.integers(1, 9))
        matrix = np.eye(3) + 0.4 * rng.normal(size=(3, 3))
        matrix *= (n * 10 ** rng.uniform(0, 2) / abs(np.linalg.det(matrix))) ** (1 / 3)  # 1 to 100 Å^3 an atom
        crystal = Crystal(rng.integers(1, 90, n), rng.normal(size=(n, 3)), matrix, f"random {k}")
        assert bond_set(crystal) == pymatgen_bond_set(crystal), crystal.id


def simple_cubic(length: float) -> Crystal:
    return Crystal(np.array([84]), np.zeros((1, 3)), length * np.eye(3), "sparse")


def test_sparse_lattice_has_six_neighbours() -> None:
    assert bond_set(simple_cubic(6.9)) == {(0, 0, 0, 0, 1), (0, 0, 0, 1, 0), (0, 0, 1, 0, 0)}


def test_an_isolated_atom_is_named() -> None:
    with pytest.raises(InputError, match="crystal 'sparse': atom 1 is isolated: nobody within 7 Å"):
        crystal_nn_bonds(simple_cubic(7.1))


@pytest.mark.parametrize("height", [12.0, 30.0])
def test_a_sheet_in_vacuum_agrees_with_pymatgen(height: float) -> None:
    """Where the cell of an atom is open to what lies within the first search."""
    lattice = np.array([[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, height]])
    sheet = Crystal(np.array([6, 6]), np.array([[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]), lattice, "sheet")
    assert bond_set(sheet) == pymatgen_bond_set(sheet)
    assert len(bond_set(sheet)) == 3


def geometry(crystal: Crystal) -> list[tuple[int, int, float]]:
    """Kinds of the ends and length of each bond: what no choice of cell or order changes."""
    bonds, images = crystal_nn_bonds(crystal)
    ends = crystal.frac_coords[bonds[:, 1]] + images - crystal.frac_coords[bonds[:, 0]]
    lengths = np.linalg.norm(ends @ crystal.lattice, axis=1)
    kinds = np.sort(crystal.atomic_numbers[bonds], axis=1)
    return sorted((int(a), int(b), round(float(d), 6)) for (a, b), d in zip(kinds, lengths, strict=True))


@pytest.fixture
def low_symmetry() -> Crystal:
    rng = np.random.default_rng(5)
    matrix = 5.0 * np.eye(3) + 0.5 * rng.normal(size=(3, 3))
    return Crystal(np.array([8, 8, 14, 22, 38, 6]), rng.random((6, 3)), matrix, "low symmetry")


def test_bonds_do_not_depend_on_how_the_crystal_is_written(low_symmetry: Crystal) -> None:
    rng = np.random.default_rng(6)
    expected = geometry(low_symmetry)
    numbers, coords, matrix = low_symmetry.atomic_numbers, low_symmetry.frac_coords, low_symmetry.lattice
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(6)
    skew = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]])
    assert geometry(Crystal(numbers, coords, matrix @ rotation)) == expected
    assert geometry(Crystal(numbers, coords + rng.normal(size=3), matrix)) == expected
    assert geometry(Crystal(numbers, coords + rng.integers(-3, 4, (6, 3)), matrix)) == expected
    assert geometry(Crystal(numbers[order], coords[order], matrix)) == expected
    assert geometry(Crystal(numbers, coords @ np.linalg.inv(skew), skew @ matrix)) == expected


def test_supercell_has_the_same_bonds_again(low_symmetry: Crystal) -> None:
    numbers, coords, matrix = low_symmetry.atomic_numbers, low_symmetry.frac_coords, low_symmetry.lattice
    doubled = Crystal(
        np.tile(numbers, 2),
        np.concatenate([coords, coords + [1, 0, 0]]) / [2, 1, 1],
        matrix * [[2], [1], [1]],
    )
    assert geometry(doubled) == sorted(2 * geometry(low_symmetry))


def test_an_atom_on_top_of_another_is_named() -> None:
    crystal = Crystal(
        np.array([11, 17, 17]), np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.505, 0.5, 1.5]]), 4 * np.eye(3), "x"
    )
    with pytest.raises(InputError, match=r"crystal 'x': atoms 2 and 3 are 0\.020 Å apart"):
        crystal_nn_bonds(crystal)


def test_a_cell_shorter_than_any_bond_is_refused() -> None:
    crystal = Crystal(np.array([6]), np.zeros((1, 3)), np.diag([0.05, 3, 3]), "thin")
    with pytest.raises(InputError, match=r"atoms 1 and 1 are 0\.050 Å apart"):
        crystal_nn_bonds(crystal)


def test_a_cell_skewed_beyond_reason_is_refused_at_once() -> None:
    skewed = np.array([[1.0, 0, 0], [1000, 1, 0], [0, 2e4, 50]])
    with pytest.raises(InputError, match="too flat or too skewed"):
        crystal_nn_bonds(Crystal(np.array([6]), np.zeros((1, 3)), skewed, "skewed"))


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="lattice is not finite"):
        crystal_nn_bonds(Crystal(np.array([6]), np.zeros((1, 3)), np.full((3, 3), np.nan), "nan"))
