"""Duplicates: a plain loop as the oracle, descriptions that make no difference."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.reference import as_reference
from dpcdvae.evaluation.sample import Sample
from dpcdvae.io import read
from dpcdvae.parallel import HERE, LocalEngine, Lost
from dpcdvae.parallel.results import Results
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.duplicates import find_duplicates, find_same


@pytest.fixture(scope="module")
def carbon(data_dir: Path) -> list[Crystal]:
    return sorted(read(data_dir / "carbon_24" / "test.csv.gz", []), key=lambda c: c.num_atoms)[:30]


def test_duplicates_are_those_of_a_plain_loop(carbon: list[Crystal]) -> None:
    """Carbon: one composition, many cells, some of them the same structure."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    crystals = carbon[:30]
    found = find_duplicates(crystals, Results(HERE, 60))
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    structures = [crystal.to_pymatgen() for crystal in crystals]
    expected = [any(matcher.fit(earlier, s) for earlier in structures[:k]) for k, s in enumerate(structures)]
    np.testing.assert_array_equal([earlier is not None for earlier in found.duplicate_of], expected)
    assert 0 < sum(expected) < len(crystals) - 1
    assert not found.reasons


def diamond(scale: float = 1.0) -> Crystal:
    lattice = np.array([[0, 1.78, 1.78], [1.78, 0, 1.78], [1.78, 1.78, 0]]) * scale
    return Crystal([6, 6], [[0, 0, 0], [0.25, 0.25, 0.25]], lattice)


def test_other_cells_of_a_structure_are_duplicates_and_other_structures_are_not() -> None:
    cell = diamond()
    double = Crystal(
        [6] * 4,
        np.concatenate([cell.frac_coords, cell.frac_coords + [1, 0, 0]]) / [2, 1, 1],
        np.diag([2, 1, 1]) @ cell.lattice,
    )
    moved = Crystal([6, 6], cell.frac_coords + 0.3, [[1, 1, 0], [0, 1, 0], [0, 0, 1]] @ cell.lattice)
    moved = Crystal([6, 6], moved.frac_coords @ np.linalg.inv([[1, 1, 0], [0, 1, 0], [0, 0, 1]]), moved.lattice)
    graphene = Crystal(
        [6, 6], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]], [[2.46, 0, 0], [-1.23, 2.1304, 0], [0, 0, 10]]
    )
    silicon = Crystal([14, 14], cell.frac_coords, cell.lattice * 1.5)
    crystals = [cell, graphene, silicon, double, moved, diamond(1.3), graphene]
    found = find_duplicates(crystals, Results(HERE, 60))
    np.testing.assert_array_equal(
        [earlier is not None for earlier in found.duplicate_of], [False, False, False, True, True, True, True]
    )
    assert found.duplicate_of == [None, None, None, 0, 0, 0, 1]


def test_all_matches_are_those_of_a_double_loop_in_any_order(carbon: list[Crystal]) -> None:
    """Carbon, where matching is not transitive. The weights are a mean over orders of the set."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    crystals = carbon[:24]
    found = find_same(crystals, Results(HERE, 60))
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    structures = [crystal.to_pymatgen() for crystal in crystals]
    fit = np.array([[matcher.fit(other, one) for other in structures] for one in structures])
    assert found.others == [[j for j in np.flatnonzero(row).tolist() if j != k] for k, row in enumerate(fit)]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(crystals))
    again = find_same([crystals[k] for k in order], Results(HERE, 60))
    np.testing.assert_array_equal(again.weights, found.weights[order])
    first = [
        np.mean([not fit[k, orders[:n]].any() for n, k in enumerate(orders)])
        for orders in (rng.permutation(len(crystals)) for _ in range(3000))
    ]
    assert found.weights.mean() == pytest.approx(np.mean(first), abs=0.01)


def test_weights_count_different_structures() -> None:
    silicon = Crystal([14, 14], diamond().frac_coords, diamond().lattice * 1.5)
    found = find_same([diamond(), silicon, diamond(1.1), diamond(1.2)], Results(HERE, 60))
    assert found.weights.sum() == pytest.approx(2)
    assert found.others == [[2, 3], [], [0, 3], [0, 2]]


def test_uniqueness_is_of_all_crystals_whatever_their_order() -> None:
    """More than a thousand, half of them one structure, at the end of the file or at its beginning."""
    pairs = list(itertools.combinations(range(3, 40), 2))[:600]
    many = [Crystal([a, b], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 3.5) for a, b in pairs]
    crystals = [*many, *[many[0]] * 600]
    for some in (crystals, crystals[::-1]):
        sample = Sample(some, [], as_reference(many[:1]), False, Results(HERE, 60), 0)
        (number,) = METRICS["uniqueness"].measure(sample)
        assert (number.value, number.n) == (pytest.approx(600 / 1200, abs=0.02), 1200)


def test_crystals_that_are_none_are_no_duplicates() -> None:
    broken = Crystal([6], [[np.nan, 0, 0]], np.eye(3))
    found = find_duplicates([broken, broken, diamond(), diamond()], Results(HERE, 60))
    np.testing.assert_array_equal([earlier is not None for earlier in found.duplicate_of], [False, False, False, True])


def test_what_is_undecided_is_no_duplicate_and_is_reported() -> None:
    """The last primitive cell and then the second comparison get lost, as when a worker hangs."""
    losses = iter([4, 1])

    class Losing(LocalEngine):
        def stream(self, function: Callable[..., Any], items: Sequence[Any], **_: Any) -> Generator[tuple[int, Any]]:
            lost = next(losses)
            for k, item in enumerate(items):
                yield k, Lost("too long") if k == lost else function(item)

    found = find_duplicates([diamond(1 + k / 100) for k in range(5)], Results(Losing(0), 60))
    np.testing.assert_array_equal(
        [earlier is not None for earlier in found.duplicate_of], [False, True, False, True, False]
    )
    assert found.reasons == {4: "too long", 2: "too long"}
