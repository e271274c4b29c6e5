"""Validity: distances against independent neighbour lists, charges against SMACT itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator

from crystal_files import real_crystals
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import ATOMIC_NUMBERS
from dpcdvae.structures.neutrality import OXIDATION_TABLES, compositionally_valid
from dpcdvae.structures.validity import structurally_valid


def skewed(rng: Generator, scale: float) -> Crystal:
    """A random cell behind a random unimodular change of basis: few atoms, long thin vectors."""
    basis = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = rng.permutation(3)[:2]
        shear = np.eye(3, dtype=int)
        shear[i, j] = rng.integers(-3, 4)
        basis = shear @ basis
    n = int(rng.integers(1, 5))
    lattice = basis @ (rng.normal(size=(3, 3)) * scale)
    return Crystal(rng.integers(1, 90, n), rng.normal(scale=2.0, size=(n, 3)), lattice)


def test_structural_validity_is_the_published_definition(data_dir) -> None:
    """Step by step as in CDVAE: pymatgen's distance matrix without the diagonal, and the volume."""
    rng = np.random.default_rng(1)
    crystals = real_crystals(data_dir / "perov_5" / "test.csv.gz", 150)
    shaken = [
        Crystal(c.atomic_numbers, c.frac_coords + rng.normal(scale=0.15, size=c.frac_coords.shape), c.lattice * s)
        for c, s in zip(crystals, rng.choice([0.12, 0.4, 1.0], len(crystals)), strict=True)
    ]

    def valid(crystal: Crystal) -> bool:
        structure = crystal.to_pymatgen()
        distances = structure.distance_matrix + np.diag(np.full(len(structure), 10.5))
        return distances.min() >= 0.5 and structure.volume >= 0.1

    expected = np.array([valid(crystal) for crystal in shaken])
    # What the published script cannot see: an atom on its own image.
    own = np.array([crystal.lengths.min() <= 0.5 for crystal in shaken])
    np.testing.assert_array_equal(structurally_valid(shaken), expected & ~own)
    assert 0.2 < expected.mean() < 0.8


def test_what_is_no_crystal_is_not_valid() -> None:
    cell = np.eye(3) * 4.0
    one = np.zeros((1, 3))
    cases = {
        "fine": (Crystal([6], one, cell), True),
        "atom on atom": (Crystal([6, 6], np.zeros((2, 3)), cell), False),
        "atom on the image of another": (Crystal([6, 6], [[0, 0, 0], [0.999, 0, 0]], cell), False),
        "nan lattice": (Crystal([6], one, np.full((3, 3), np.nan)), False),
        "nan coordinate": (Crystal([6], [[np.nan, 0, 0]], cell), False),
        "infinite": (Crystal([6], [[np.inf, 0, 0]], cell), False),
        "no volume": (Crystal([6], one, np.zeros((3, 3))), False),
        "small volume": (Crystal([6], one, np.eye(3) * 0.46), False),
        "own image near": (Crystal([6], one, np.diag([0.4, 10.0, 10.0])), False),
        "own image near, skewed": (Crystal([6], one, [[0.4, 0, 0], [1e6, 10, 0], [-1e5, 1e6, 10]]), False),
        "left-handed": (Crystal([6], one, -cell), True),
        "flat beyond float64": (Crystal([6], one, [[1e4, 0, 0], [1e4, 1e-12, 0], [0, 0, 1e9]]), False),
        "huge": (Crystal([6], one, np.eye(3) * 1e4), True),
    }
    found = structurally_valid([crystal for crystal, _ in cases.values()])
    assert dict(zip(cases, found.tolist(), strict=True)) == {name: good for name, (_, good) in cases.items()}


def test_structural_validity_does_not_depend_on_the_company() -> None:
    rng = np.random.default_rng(2)
    crystals = [skewed(rng, scale) for scale in (0.5, 1.0, 3.0) for _ in range(30)]
    together = structurally_valid(crystals)
    alone = np.concatenate([structurally_valid([crystal]) for crystal in crystals])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("table", OXIDATION_TABLES)
def test_compositional_validity_is_smact(table: str) -> None:
    """On random compositions of one to four elements, noble gases and actinides among them."""
    from pymatgen.core import Composition
    from smact.screening import smact_validity

    rng = np.random.default_rng(4)
    crystals = []
    for _ in range(400):
        n = int(rng.integers(1, 5))
        numbers = np.repeat(rng.integers(1, 104, n), rng.integers(1, 5, n))
        crystals.append(Crystal(numbers, np.zeros((len(numbers), 3)), np.eye(3)))
    expected = [smact_validity(Composition(crystal.composition), oxidation_states_set=table) for crystal in crystals]
    np.testing.assert_array_equal(compositionally_valid(crystals, table), expected)
    assert 0.1 < np.mean(expected) < 0.9


def test_compositional_validity_of_many_elements_comes_to_an_end() -> None:
    """Twenty elements have 10^13 combinations of oxidation states; none balances with the cations below the anions."""
    numbers = np.repeat(np.arange(21, 41), np.arange(1, 21))
    numbers[:40] = 8
    crystal = Crystal(numbers, np.zeros((len(numbers), 3)), np.eye(3))
    assert compositionally_valid([crystal]).tolist() == [False]


def test_common_compounds_are_valid_and_impossible_ones_are_not() -> None:
    from ase.formula import Formula

    def crystal(formula: str) -> Crystal:
        numbers = [ATOMIC_NUMBERS[symbol] for symbol in Formula(formula)]
        return Crystal(numbers, np.zeros((len(numbers), 3)), np.eye(3))

    cases = {"NaCl": True, "SrTiO3": True, "C": True, "He": True, "CuZn": True, "NaO7": False, "HeO": False}
    found = compositionally_valid([crystal(formula) for formula in cases])
    assert dict(zip(cases, found.tolist(), strict=True)) == cases
