"""The matcher on arrays against pymatgen's: lattices, distances, answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crystal_files import real_crystals
from dpcdvae.parallel import HERE
from dpcdvae.parallel.results import Results
from dpcdvae.structures import lattice_mapping
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.lattice_mapping import lattice_mappings
from dpcdvae.structures.primitive_cells import primitive_cells
from dpcdvae.structures.reduction import lll_reduced
from dpcdvae.structures.structure_matcher import compare
from dpcdvae.structures.tolerances import Tolerances

TOLERANCES = [Tolerances(), Tolerances(ltol=0.2, stol=0.3, angle_tol=5.0)]


@pytest.fixture(scope="module")
def cells(data_dir: Path) -> list[Crystal]:
    """Primitive cells of carbon, the small ones first."""
    crystals = sorted(real_crystals(data_dir / "carbon_24" / "test.csv.gz", 150), key=lambda c: c.num_atoms)
    found = primitive_cells([*crystals[:16], *crystals[60:72], *crystals[140:146]], Results(HERE, 60)).cells
    return [cell for cell in found if cell is not None]


def rattled(cell: Crystal, rng: np.random.Generator) -> Crystal:
    lattice = cell.lattice @ (np.eye(3) + rng.normal(scale=0.05, size=(3, 3)))
    return Crystal(cell.atomic_numbers, cell.frac_coords + rng.normal(scale=0.03, size=(cell.num_atoms, 3)), lattice)


@pytest.mark.parametrize("tolerances", TOLERANCES, ids=["protocol", "default"])
def test_distances_are_those_of_pymatgen(cells: list[Crystal], tolerances: Tolerances) -> None:
    """Both the least rms displacement and whether the two fit."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(tolerances.ltol, tolerances.stol, tolerances.angle_tol, primitive_cell=False)
    rng = np.random.default_rng(0)
    matched = compared = 0
    for k, second in enumerate(cells):
        firsts = [rattled(second, rng), *(cells[j] for j in rng.permutation(len(cells))[:3])]
        for first, found in zip(firsts, compare(firsts, second, tolerances), strict=True):
            pair = matcher._preprocess(first.to_pymatgen(), second.to_pymatgen(), skip_structure_reduction=True)[:2]
            expected = matcher._match(*pair, 1, use_rms=True)
            assert found.rms == pytest.approx(np.inf if expected is None else expected[0], rel=1e-6, abs=1e-5), k
            fits = matcher.fit(first.to_pymatgen(), second.to_pymatgen(), skip_structure_reduction=True)
            assert np.isfinite(found.largest) == fits, k
            matched += np.isfinite(found.rms)
            compared += 1
    assert 20 < matched < compared - 20


def test_mappings_are_those_of_pymatgen(cells: list[Crystal]) -> None:
    from pymatgen.core import Lattice

    tolerances = Tolerances()
    rng = np.random.default_rng(1)
    some = 0
    for _ in range(40):
        first, second = (cells[k] for k in rng.choice(16, 2))
        if first.num_atoms != second.num_atoms:
            continue
        target = second.lattice * (first.volume / second.volume) ** (1 / 3)
        found = {matrix.tobytes() for matrix in lattice_mappings(first, second, tolerances)}
        mappings = Lattice(first.lattice).find_all_mappings(Lattice(target), tolerances.ltol, tolerances.angle_tol)
        expected = {whole.astype(np.int64).tobytes() for _, _, whole in mappings if abs(np.linalg.det(whole)) < 1.5}
        assert found == expected
        some += len(found)
    assert some > 20


def test_mappings_are_the_same_however_few_are_held_at_a_time(
    cells: list[Crystal], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(first, second) for first in cells[:16] for second in cells[:16:5]]
    whole = [lattice_mappings(first, second, Tolerances()) for first, second in pairs]
    monkeypatch.setattr(lattice_mapping, "_HELD", 7)
    for (first, second), expected in zip(pairs, whole, strict=True):
        np.testing.assert_array_equal(lattice_mappings(first, second, Tolerances()), expected)
    assert sum(len(matrices) for matrices in whole) > 50


def test_reduced_bases_are_those_of_pymatgen() -> None:
    from pymatgen.core import Lattice

    rng = np.random.default_rng(2)
    lattices = np.concatenate([rng.normal(size=(60, 3, 3)), np.eye(3) + rng.normal(scale=0.1, size=(20, 3, 3))])
    lattices[:20, 2] *= 30
    basis, whole = lll_reduced(lattices)
    np.testing.assert_allclose(whole @ lattices, basis, atol=1e-9)
    for lattice, reduced in zip(lattices, basis, strict=True):
        np.testing.assert_allclose(reduced, Lattice(lattice).lll_matrix, atol=1e-9)


def test_many_at_a_time_and_one_by_one_are_the_same(cells: list[Crystal]) -> None:
    for second in cells[::9]:
        together = compare(cells, second, Tolerances())
        alone = [compare([first], second, Tolerances())[0] for first in cells]
        for one, other in zip(together, alone, strict=True):
            assert (one.rms, one.largest) == pytest.approx((other.rms, other.largest), rel=1e-9, abs=1e-12)


def test_a_cell_too_flat_is_refused_at_once() -> None:
    sliver = Crystal([6] * 2, np.array([[0, 0, 0], [0.1, 0.2, 0.5]]), np.diag([1.0, 1.0, 400.0]))
    with pytest.raises(ValueError, match="too flat"):
        compare([sliver], sliver, Tolerances())
