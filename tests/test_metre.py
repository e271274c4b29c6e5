"""METRe, cRMSE and novelty: the full double loop of pymatgen's matcher as the oracle, and laws."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystal_files import real_crystals
from dpcdvae.evaluation.crystal_columns import COLUMNS
from dpcdvae.evaluation.crystal_rows import crystal_table
from dpcdvae.evaluation.metre import corrected_rms, match_reference
from dpcdvae.evaluation.metric import METRICS
from dpcdvae.evaluation.metrics.novelty import novel, training_matches
from dpcdvae.evaluation.metrics.uniqueness import same_structures
from dpcdvae.evaluation.reference import Reference
from dpcdvae.evaluation.sample import Sample
from dpcdvae.parallel import HERE, LocalEngine, Lost
from dpcdvae.parallel.results import Results
from dpcdvae.structures import match_candidates, match_sets
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.match_candidates import Among, candidates
from dpcdvae.structures.match_sets import match_training


def not_asked(*_: object) -> np.ndarray:
    raise AssertionError("fingerprints were asked for where there are few candidates")


NOT_ASKED = (not_asked, not_asked)


def described_by_length(crystals: Sequence[Crystal], _: Results) -> tuple[np.ndarray, dict[int, str]]:
    """In place of the fingerprints: the last lattice vector's length, so that it is known who is nearest."""
    return np.array([[crystal.lengths[2]] for crystal in crystals]), {}


@pytest.fixture(scope="module")
def carbon(data_dir: Path) -> list[Crystal]:
    return sorted(real_crystals(data_dir / "carbon_24" / "test.csv.gz", 200), key=lambda c: c.num_atoms)[:60]


def test_with_few_candidates_it_is_the_full_double_loop(carbon: list[Crystal]) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    generated, reference = carbon[0:24:2], carbon[1:24:2]
    found = match_reference(generated, reference, Results(HERE, 60))
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
    known = match_training(generated, reference, Results(HERE, 60))
    assert [match is not None for match in known.match] == fits.any(axis=1).tolist()
    assert all(fits[j, match] for j, match in enumerate(known.match) if match is not None)
    assert found.left_out == known.left_out == 0


def square_cell(side: float, id: str = "") -> Crystal:
    """One atom: every two of them match, as the matcher scales volumes."""
    return Crystal([6], [[0, 0, 0]], np.eye(3) * side, id)


def test_only_the_nearest_are_compared_where_there_are_many_and_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = [square_cell(3 + 0.1 * k) for k in range(10)]
    prints = np.arange(10.0)[:, None] ** [0, 1]
    prints[3] = np.nan

    def describe(chosen: Sequence[int]) -> np.ndarray:
        return prints[list(chosen)]

    monkeypatch.setattr(match_candidates, "NEAREST", 4)
    near = candidates(crystals, crystals, (describe, describe))
    assert near.places[0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 3]
    assert near.places[9][:3].tolist() == [9, 8, 7]
    earlier = candidates(crystals, crystals, (describe, describe), Among.EARLIER)
    assert earlier.places[4].tolist() == [0, 1, 2, 3], "few enough to stay in order"
    assert earlier.places[6].tolist() == [5, 4, 2, 1, 0, 3]
    assert not near.farther.any()
    monkeypatch.setattr(match_sets, "structure_fingerprints", described_by_length)
    assert match_reference(crystals, crystals[:2], Results(HERE, 60)).left_out == 2
    monkeypatch.setattr(match_candidates, "NEAREST", 10)
    monkeypatch.setattr(match_sets, "structure_fingerprints", not_asked)
    assert match_reference(crystals, crystals[:2], Results(HERE, 60)).left_out == 0


def test_other_compositions_and_sizes_need_no_comparison() -> None:
    pair = Crystal([6, 6], [[0, 0, 0], [0.25, 0.25, 0.25]], [[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]])
    silicon = Crystal([14], [[0, 0, 0]], np.eye(3) * 3)
    near = candidates([pair, silicon, None], [square_cell(3), pair, None, silicon], NOT_ASKED)
    assert [places.tolist() for places in near.places] == [[1], [3], []]


@pytest.mark.parametrize("among", Among)
@pytest.mark.parametrize("held", [1, 10**6])
def test_of_too_many_the_nearest_are_looked_at(among: Among, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a whole stable sort, whatever the ties, and as many as that for each however many there are."""
    monkeypatch.setattr(match_candidates, "NEAREST", 4)
    monkeypatch.setattr(match_candidates, "LOOKED_AT", 5)
    monkeypatch.setattr(match_candidates, "_HELD", held)
    rng = np.random.default_rng(0)
    crystals = [square_cell(3)] * 60
    prints = rng.integers(0, 3, (60, 2)).astype(float)
    prints[::17] = np.nan

    def describe(chosen: Sequence[int]) -> np.ndarray:
        return prints[list(chosen)]

    found = candidates(crystals, crystals, (describe, describe), among)
    for k in range(60):
        possible = np.arange(k if among is Among.EARLIER else 60)
        possible = possible[possible != k] if among is Among.OTHERS else possible
        distances = np.nan_to_num(np.linalg.norm(prints[possible] - prints[k], axis=1), nan=np.inf)
        order = possible if len(possible) <= 4 else possible[np.argsort(distances, kind="stable")[:20]]
        assert found.places[k].tolist() == order.tolist()
        assert found.farther[k] == (len(possible) > 20)


def test_what_is_too_far_to_be_looked_at_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match_candidates, "LOOKED_AT", 1)
    monkeypatch.setattr(match_candidates, "NEAREST", 2)
    monkeypatch.setattr(match_sets, "structure_fingerprints", described_by_length)
    sides = np.linspace(1, 4, 9)
    crystals = [Crystal([6], [[0, 0, 0]], np.diag([1.0, 1.0, side])) for side in sides]
    matches = match_reference(crystals, crystals[:3], Results(HERE, 60))
    assert (matches.match, matches.left_out) == ([0, 1, 2], 3)
    other = [Crystal([6], [[0, 0, 0]], np.diag([1.0, 1.0, 20.0]))]
    with_match = match_training(crystals[:1], crystals, Results(HERE, 60))
    without = match_training(other, crystals, Results(HERE, 60))
    assert (with_match.match, with_match.left_out) == ([0], 0), "one that fits is enough"
    assert (without.match, without.left_out) == ([None], 1)


def sample(crystals: Sequence[Crystal], training: Sequence[Crystal] | None, folder: Path) -> Sample:
    known = None if training is None else Reference("training", "", crystals=training)
    results = Results(HERE, 60, folder)
    return Sample(crystals, [], Reference("r", "", crystals=[square_cell(3)]), False, results, 0, training=known)


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
    assert judged.once(same_structures).others == [[3], [], [], [0]]
    assert METRICS["novelty"].measure(judged)[0].value == 0.5
    assert METRICS["unique_and_novel"].measure(judged)[0].value == 0.5
    found = judged.once(training_matches)
    assert found is not None
    assert found.match == [0, None, None, 0]


def test_without_a_training_set_there_is_no_novelty(tmp_path: Path) -> None:
    judged = sample([square_cell(3)], None, tmp_path)
    assert judged.once(novel) is None
    assert METRICS["novelty"].measure(judged) == METRICS["unique_and_novel"].measure(judged) == []


def test_a_second_crystal_of_the_same_id_keeps_its_reason(tmp_path: Path) -> None:
    sliver = Crystal([6] * 2, np.array([[0, 0, 0], [0.1, 0.2, 0.5]]), np.diag([1.0, 1.0, 400.0]), "x")
    other = Crystal([6] * 2, np.array([[0, 0, 0], [0.1, 0.2, 0.4]]), np.diag([1.0, 1.0, 400.0]), "x")
    judged = sample([sliver, other], [sliver], tmp_path)
    assert judged.once(novel) == [None, None]
    assert [given["id"] for given in judged.given_up] == ["x", "x"]


def test_what_is_undecided_is_reported_and_counts_as_a_failure(tmp_path: Path) -> None:
    """Of three slivers and a cube no two slivers can be compared."""
    slivers = [
        Crystal([6] * 2, np.array([[0, 0, 0], [0.1, 0.2, 0.1 * k]]), np.diag([1.0, 1.0, 400.0]), f"s{k}")
        for k in range(3, 6)
    ]
    judged = sample([*slivers, square_cell(3, "cube")], [slivers[0], square_cell(2)], tmp_path)
    assert judged.once(same_structures).weights.tolist() == [0, 0, 0, 1]
    assert judged.once(novel) == [None, None, None, False]
    rates = {name: METRICS[name].measure(judged)[0] for name in ("uniqueness", "novelty", "unique_and_novel")}
    assert {name: (rate.value, rate.n) for name, rate in rates.items()} == {
        "uniqueness": (0.25, 4),
        "novelty": (0.0, 4),
        "unique_and_novel": (0.0, 4),
    }
    assert {rate.undecided for rate in rates.values()} == {3}
    assert COLUMNS["same_structure"].measure(judged) == [None, None, None, 1]
    assert COLUMNS["novel"].measure(judged) == [None, None, None, False]


def test_what_is_undecided_in_the_other_set_is_reported(tmp_path: Path) -> None:
    """The primitive cell of the last crystal of the training set, as when a worker hangs."""

    class Losing(LocalEngine):
        def stream(self, function: Callable[..., Any], items: Sequence[Any], **_: Any) -> Generator[tuple[int, Any]]:
            for k, item in enumerate(items):
                yield k, Lost("too long") if getattr(item, "id", "") == "lost" else function(item)

    training = [square_cell(3, "t"), Crystal([6], [[0, 0, 0]], np.diag([2.0, 3.0, 9.0]), "lost")]
    judged = sample([square_cell(4, "a")], training, tmp_path)
    judged.results = Results(Losing(0), 60)
    (novelty,) = METRICS["novelty"].measure(judged)
    assert "1 of its crystals could not be compared" in novelty.note
    assert [given for given in judged.given_up if given["id"] == "lost"] == [
        {"what": "novelty, crystals of the training set", "id": "lost", "reason": "too long"}
    ]
    assert crystal_table(judged)["given_up"] == [None]
    found = match_reference(training, judged.crystals, Results(Losing(0), 60))
    assert (found.match, found.other_reasons, found.reasons) == ([0], {1: "too long"}, {})
