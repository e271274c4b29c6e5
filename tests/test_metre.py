"""METRe, cRMSE and novelty: the full double loop of pymatgen's matcher as the oracle, and laws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dpcdvae.crystal import Crystal
from dpcdvae.evaluation.candidates import candidates
from dpcdvae.evaluation.metre import corrected_rms, match_reference, match_training
from dpcdvae.evaluation.metric import METRICS
from dpcdvae.evaluation.metrics.novelty import novel, training_matches
from dpcdvae.evaluation.metrics.uniqueness import duplicate_of
from dpcdvae.evaluation.reference import Reference
from dpcdvae.evaluation.sample import Sample
from dpcdvae.io import read
from dpcdvae.parallel import HERE


def not_asked(chosen: Sequence[int]) -> np.ndarray:
    raise AssertionError("fingerprints were asked for where there are few candidates")


NOT_ASKED = (not_asked, not_asked)


@pytest.fixture(scope="module")
def carbon(data_dir: Path) -> list[Crystal]:
    return sorted(read(data_dir / "carbon_24" / "test.csv.gz", [])[:200], key=lambda c: c.num_atoms)[:60]


def test_with_few_candidates_it_is_the_full_double_loop(carbon: list[Crystal]) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    generated, reference = carbon[0:24:2], carbon[1:24:2]
    found = match_reference(generated, reference, NOT_ASKED, engine=HERE, time_limit=60)
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    distances = np.full((len(reference), len(generated)), np.inf)
    fits = np.zeros((len(generated), len(reference)), bool)
    for k, truth in enumerate(reference):
        for j, made in enumerate(generated):
            result = matcher.get_rms_dist(made.to_pymatgen(), truth.to_pymatgen())
            distances[k, j] = np.inf if result is None else result[0]
            fits[j, k] = matcher.fit(truth.to_pymatgen(), made.to_pymatgen())
    np.testing.assert_allclose(found.rms, distances.min(axis=1), rtol=1e-6, atol=1e-5)
    matched = np.isfinite(found.rms)
    assert 0 < matched.sum() < len(reference)
    assert [match is not None for match in found.match] == matched.tolist()
    assert all(distances[k, match] <= found.rms[k] + 1e-5 for k, match in enumerate(found.match) if match is not None)
    np.testing.assert_allclose(corrected_rms(found), np.minimum(distances.min(axis=1), 0.5), rtol=1e-6, atol=1e-5)
    known = match_training(generated, reference, NOT_ASKED, engine=HERE, time_limit=60)
    assert [match is not None for match in known.match] == fits.any(axis=1).tolist()
    assert all(fits[j, match] for j, match in enumerate(known.match) if match is not None)
    assert found.left_out == known.left_out == 0


def square_cell(side: float, id: str = "") -> Crystal:
    """One atom: every two of them match, as the matcher scales volumes."""
    return Crystal([6], [[0, 0, 0]], np.eye(3) * side, id)


def test_only_the_nearest_are_compared_where_there_are_many_and_it_is_told() -> None:
    crystals = [square_cell(3 + 0.1 * k) for k in range(10)]
    prints = np.arange(10.0)[:, None] ** [0, 1]
    prints[3] = np.nan

    def describe(chosen: Sequence[int]) -> np.ndarray:
        return prints[list(chosen)]

    near = candidates(crystals, crystals, (describe, describe), most=4)
    assert near[0] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 3]
    assert near[9][:3] == [9, 8, 7]
    earlier = candidates(crystals, crystals, (describe, describe), most=4, earlier=True)
    assert earlier[4] == [0, 1, 2, 3], "few enough to stay in order"
    assert earlier[6] == [5, 4, 2, 1, 0, 3]
    found = match_reference(crystals, crystals[:2], (describe, describe), engine=HERE, time_limit=60, most=4)
    assert found.left_out == 2
    everything = match_reference(crystals, crystals[:2], NOT_ASKED, engine=HERE, time_limit=60, most=10)
    assert everything.left_out == 0


def test_other_compositions_and_sizes_need_no_comparison() -> None:
    pair = Crystal([6, 6], [[0, 0, 0], [0.25, 0.25, 0.25]], [[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]])
    silicon = Crystal([14], [[0, 0, 0]], np.eye(3) * 3)
    assert candidates([pair, silicon, None], [square_cell(3), pair, None, silicon], NOT_ASKED) == [[1], [3], []]


def sample(crystals: Sequence[Crystal], training: Sequence[Crystal] | None, folder: Path) -> Sample:
    known = None if training is None else Reference("training", "", crystals=training)
    return Sample(crystals, [], Reference("r", "", crystals=[square_cell(3)]), False, HERE, 0, 60, training=known,
                  cache=folder)  # fmt: skip


def described_otherwise(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Supercell, rotation, translation and permutation at once."""
    from scipy.spatial.transform import Rotation

    basis = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1]]) @ np.diag([2, 1, 1])
    frac = np.concatenate([crystal.frac_coords, crystal.frac_coords + [1, 0, 0]]) + rng.random(3)
    order = rng.permutation(2 * crystal.num_atoms)
    lattice = basis @ crystal.lattice @ Rotation.random(rng=rng).as_matrix()
    numbers = np.tile(crystal.atomic_numbers, 2)
    return Crystal(numbers[order], (frac @ np.linalg.inv(basis))[order], lattice, crystal.id)


def test_a_training_set_given_back_is_not_novel_however_it_is_described(carbon: list[Crystal], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    training = carbon[:8]
    replay = [described_otherwise(crystal, rng) for crystal in training]
    judged = sample(replay, training, tmp_path)
    assert judged.once(novel) == [False] * len(training)
    (number,) = METRICS["novelty"].measure(judged)
    assert (number.value, number.n) == (0.0, len(training))


def test_novelty_looks_at_the_structures_of_the_training_set(tmp_path: Path) -> None:
    broken = Crystal([6], [[np.nan, 0, 0]], np.eye(3), "broken")
    silicon = Crystal([14], [[0, 0, 0]], np.eye(3) * 3, "silicon")
    long = Crystal([6], [[0, 0, 0]], np.diag([2.0, 3.0, 9.0]), "long")
    judged = sample([broken, square_cell(3, "a"), silicon, long, square_cell(4, "b")], [square_cell(5, "t")], tmp_path)
    assert judged.once(novel) == [False, True, True, False]
    assert judged.once(duplicate_of) == [None, None, None, 0]
    assert METRICS["novelty"].measure(judged)[0].value == 0.5
    assert METRICS["unique_and_novel"].measure(judged)[0].value == 0.5
    found = judged.once(training_matches)
    assert found is not None
    assert found.match == [0, None, None, 0]


def test_without_training_set_nothing_is_said_of_novelty(tmp_path: Path) -> None:
    judged = sample([square_cell(3)], None, tmp_path)
    assert judged.once(novel) is None
    assert METRICS["novelty"].measure(judged) == METRICS["unique_and_novel"].measure(judged) == []


def test_a_second_crystal_of_the_same_id_keeps_its_reason(tmp_path: Path) -> None:
    sliver = Crystal([6] * 2, np.array([[0, 0, 0], [0.1, 0.2, 0.5]]), np.diag([1.0, 1.0, 400.0]), "x")
    other = Crystal([6] * 2, np.array([[0, 0, 0], [0.1, 0.2, 0.4]]), np.diag([1.0, 1.0, 400.0]), "x")
    judged = sample([sliver, other], [sliver], tmp_path)
    assert judged.once(novel) == [True, True], "what cannot be compared counts as different"
    assert [given["id"] for given in judged.given_up] == ["x", "x"]
