"""Decoding by agreement: of several decodes of a latent the nearest is kept, and no more are made than it takes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from disguises import DISGUISES
from dpcdvae.checkpoints.checkpoint import write_checkpoint
from dpcdvae.checkpoints.loading import load_model
from dpcdvae.cli import main
from dpcdvae.errors import InputError
from dpcdvae.files import work_folder
from dpcdvae.io import Failure, read
from dpcdvae.model.agreement_threshold import Agreement
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model_store import find_model
from dpcdvae.parallel.store import RECORDS, SETTINGS, scan
from dpcdvae.sampling import agreement
from dpcdvae.sampling.agreement import Decoded, decode_by_agreement, latent_distances
from dpcdvae.sampling.decoding import Request, decode
from dpcdvae.sampling.decoding_settings import Decoding, sampling_settings
from dpcdvae.sampling.encoding import encoded
from dpcdvae.sampling.finished_batches import Parts
from dpcdvae.sampling.generation import generate, reconstruct
from dpcdvae.sampling.interpolation import interpolate
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom
from dpcdvae.training.fit_prior_and_threshold import WANTED, calibrate, threshold_of
from tensors import KnownStatistics, batch_of, random_crystal, table_of, tiny_model

CRYSTALS = [random_crystal(k, n) for k, n in enumerate((5, 1, 3, 8, 4))]
STEPS = 3


@pytest.fixture
def model() -> CDVAE:
    return tiny_model(torch.float64)


def with_threshold(model: CDVAE, threshold: float) -> CDVAE:
    model.agreement = Agreement(threshold, 1, 1, 1, 1, STEPS)
    return model


def request_of(model: CDVAE, seed: int = 0, candidate: int = 0) -> Request:
    """The crystals of ``CRYSTALS`` from their own latents, with the noise of one of their candidates."""
    mu, _ = model.encode(batch_of(CRYSTALS, model.dtype, bonded=True))
    random = CrystalRandom(seed, torch.arange(len(CRYSTALS))).candidate(candidate)
    return Request(mu, random, [crystal.id for crystal in CRYSTALS])


def decoded(model: CDVAE, candidates: int, candidate: int = 0, seed: int = 0) -> Decoded:
    return decode_by_agreement(model, request_of(model, seed, candidate), Decoding(STEPS, "x0-jump", candidates))


def crystals_of(found: Decoded) -> list[Crystal]:
    assert not any(isinstance(result, Failure) for result in found.results)
    return [result for result in found.results if isinstance(result, Crystal)]


def distances_of(found: Decoded) -> list[float]:
    return [crystal.properties["latent_distance"] for crystal in crystals_of(found)]


def tries_of(found: Decoded) -> list[float]:
    return [crystal.properties["candidates"] for crystal in crystals_of(found)]


def assert_same(ours: Crystal, theirs: Crystal, tolerance: float = 0.0) -> None:
    """Up to whole cells; without a tolerance to the last digit."""
    assert ours.id == theirs.id
    assert ours.atomic_numbers.tolist() == theirs.atomic_numbers.tolist()
    np.testing.assert_allclose(ours.lattice, theirs.lattice, rtol=0, atol=tolerance)
    difference = ours.frac_coords - theirs.frac_coords
    np.testing.assert_allclose(difference - np.round(difference), 0, atol=tolerance)


# which one is kept


def test_a_single_candidate_is_the_plain_decode(model: CDVAE) -> None:
    request = request_of(model)
    batch, _ = decode(model, request.z, request.random, STEPS)
    for ours, theirs in zip(crystals_of(decoded(model, 1)), batch.to_crystals(request.ids), strict=True):
        assert_same(ours, theirs)
        assert ours.properties["candidates"] == 1


def test_the_nearest_of_all_decodes_is_kept(model: CDVAE) -> None:
    singles = [decoded(model, 1, candidate) for candidate in range(4)]
    distances = np.array([distances_of(single) for single in singles])
    assert len(np.unique(distances)) == distances.size, "every candidate has noise of its own"
    found = decoded(model, 4)
    assert distances_of(found) == distances.min(0).tolist()
    assert tries_of(found) == [4] * len(CRYSTALS)
    assert found.passes == 4 * STEPS * len(CRYSTALS)
    kept = distances.argmin(0)
    assert len(set(kept)) > 1
    for k, crystal in enumerate(crystals_of(found)):
        assert_same(crystal, crystals_of(singles[kept[k]])[k])


def test_a_crystal_is_done_with_its_first_decode_below_the_threshold(model: CDVAE) -> None:
    distances = np.array([distances_of(decoded(model, 1, candidate)) for candidate in range(4)])
    threshold = float(np.quantile(distances, 0.3))
    below = distances <= threshold
    expected = np.where(below.any(0), below.argmax(0), distances.argmin(0))
    tries = np.where(below.any(0), below.argmax(0) + 1, 4)
    assert len(set(tries)) > 1
    found = decoded(with_threshold(model, threshold), 4)
    assert tries_of(found) == tries.tolist()
    np.testing.assert_allclose(distances_of(found), distances[expected, range(len(CRYSTALS))], rtol=1e-6)
    assert found.passes == STEPS * tries.sum()
    assert decoded(with_threshold(model, 1e9), 4).passes == STEPS * len(CRYSTALS)


def test_another_seed_gives_other_candidates(model: CDVAE) -> None:
    ours, same, theirs = (decoded(model, 3, seed=seed) for seed in (1, 1, 2))
    assert distances_of(ours) == distances_of(same)
    assert not set(distances_of(ours)) & set(distances_of(theirs))


def test_candidates_have_streams_of_their_own() -> None:
    """None is that of another candidate, crystal or seed; and selection does not change them."""
    numbers = torch.arange(50)
    streams = torch.cat(
        [CrystalRandom(seed, numbers).candidate(j).normal("prior", 8) for seed in range(3) for j in range(6)]
    )
    assert len(streams.unique()) == streams.numel()
    alike = torch.corrcoef(streams.T) - torch.eye(8)
    assert alike.abs().max() < 0.15
    some = torch.tensor([3, 41, 7])
    one, other = (
        CrystalRandom(0, numbers).select(some).candidate(2),
        CrystalRandom(0, numbers).candidate(2).select(some),
    )
    assert torch.equal(one.uniform("step", 5, 9), other.uniform("step", 5, 9))
    assert torch.equal(one.uniform("step", 5, 9), CrystalRandom(0, numbers[some]).candidate(2).uniform("step", 5, 9))


def patch_decode(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int, list[Crystal]], list[Crystal]]) -> list[int]:
    """A reverse process that gives what ``answer`` says of (number of the call, true crystals); sizes of its calls."""
    calls: list[int] = []
    by_z: dict[tuple[float, ...], Crystal] = {}

    def fake(model: CDVAE, z: Tensor, *args: Any, **options: Any) -> tuple[CrystalBatch, Tensor]:
        if not by_z:
            by_z.update(zip(map(tuple, z.tolist()), CRYSTALS, strict=True))
        made = answer(len(calls), [by_z[tuple(row)] for row in z.tolist()])
        calls.append(len(z))
        for _ in range(STEPS):
            options["on_step"](1)
        return batch_of(made, model.dtype), torch.ones(len(z), dtype=torch.bool)

    monkeypatch.setattr(agreement, "decode", fake)
    return calls


@pytest.mark.parametrize("true_one", [0, 1, 2])
def test_of_wrong_and_right_decodes_the_right_one_is_kept(
    model: CDVAE, monkeypatch: pytest.MonkeyPatch, true_one: int
) -> None:
    def answer(number: int, truths: list[Crystal]) -> list[Crystal]:
        return truths if number == true_one else [random_crystal(100 * number + 7, c.num_atoms, 4.4) for c in truths]

    patch_decode(monkeypatch, answer)
    found = decoded(model, 3)
    np.testing.assert_allclose(distances_of(found), 0, atol=1e-9)
    for ours, truth in zip(crystals_of(found), CRYSTALS, strict=True):
        assert_same(ours, truth, 1e-12)
    calls = patch_decode(monkeypatch, answer)
    assert set(tries_of(decoded(with_threshold(model, 1e-6), 3))) == {true_one + 1}
    assert calls == [len(CRYSTALS)] * (true_one + 1)


def test_only_those_that_wait_are_decoded_again(model: CDVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more_each_time(number: int, truths: list[Crystal]) -> list[Crystal]:
        return [truths[0], *(random_crystal(50 + k, c.num_atoms, 4.4) for k, c in enumerate(truths[1:]))]

    calls = patch_decode(monkeypatch, one_more_each_time)
    found = decoded(with_threshold(model, 1e-6), 4)
    assert calls == [5, 4, 3, 2]
    assert tries_of(found) == [1, 2, 3, 4, 4]
    assert found.passes == STEPS * sum(calls)


# what cannot be encoded


LONE = Crystal(np.array([2]), np.zeros((1, 3)), 10 * np.eye(3), "lone")  # farther from its images than any bond


def test_without_a_crystal_or_bonds_the_distance_is_infinite(model: CDVAE) -> None:
    z = request_of(model).z[:3]
    far = latent_distances(model, [None, LONE, CRYSTALS[0]], z)
    assert far[:2] == [math.inf, math.inf]
    assert math.isfinite(far[2])
    assert latent_distances(model, [None], z[:1]) == [math.inf]
    assert latent_distances(model, [CRYSTALS[0]], torch.full_like(z[:1], torch.nan)) == [math.inf]


def test_a_crystal_that_cannot_be_encoded_is_still_better_than_none(
    model: CDVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(number: int, truths: list[Crystal]) -> list[Crystal]:
        return [dataclasses.replace(LONE, frac_coords=np.full((1, 3), np.nan)) if number == 0 else LONE for _ in truths]

    patch_decode(monkeypatch, answer)
    failures = decoded(model, 1).results
    assert {failure.reason for failure in failures if isinstance(failure, Failure)} == {"coordinates are not finite"}
    patch_decode(monkeypatch, answer)
    for crystal in crystals_of(decoded(model, 3)):
        assert crystal.properties == {"candidates": 3}


def test_a_lattice_that_is_no_cell_is_not_tried_again(model: CDVAE) -> None:
    truth = batch_of(CRYSTALS)
    flat = truth.lattice.clone()
    flat[1] = 1e-3 * torch.eye(3).double()

    class Cells(KnownStatistics):
        def forward(self, z: Tensor) -> Any:
            chosen = torch.cdist(z, everything.z).argmin(-1)  # the waiting ones of the batch
            parts = batch_of([CRYSTALS[k] for k in chosen.tolist()])
            self.batch = parts
            return super().forward(z)._replace(lattice=self.scaler(flat[chosen], parts.num_atoms))

    everything = request_of(model)
    model.stats = Cells(model, truth)
    found = decoded(model, 4)
    assert [k for k, result in enumerate(found.results) if isinstance(result, Failure)] == [1]
    assert found.results[1].reason == "the decoded lattice is no cell"  # type: ignore[union-attr]
    assert found.passes == STEPS * (1 + 4 * 4)


# the distance


@pytest.mark.parametrize("disguise", ["rotated", "permuted", "translated", "unwrapped", "wrapped", "sheared", "niggli"])
def test_the_distance_is_that_of_the_crystal(model: CDVAE, disguise: str) -> None:
    z = request_of(model).z + 0.5
    others = [DISGUISES[disguise](crystal, np.random.default_rng(k)) for k, crystal in enumerate(CRYSTALS)]
    distances = latent_distances(model, CRYSTALS, z)
    assert min(distances) > 0.1
    np.testing.assert_allclose(latent_distances(model, others, z), distances, rtol=1e-6)


def test_the_distance_is_0_at_the_mean_and_about_1_for_a_draw(model: CDVAE) -> None:
    mu, log_var = model.encode(batch_of(CRYSTALS, bonded=True))
    np.testing.assert_allclose(latent_distances(model, CRYSTALS, mu), 0, atol=1e-9)
    sigma = torch.exp(0.5 * log_var)
    np.testing.assert_allclose(latent_distances(model, CRYSTALS, mu - 3 * sigma), 3, rtol=1e-9)
    draws = [latent_distances(model, CRYSTALS, mu + sigma * torch.randn(mu.shape).double()) for _ in range(40)]
    assert float(np.mean(np.square(draws))) == pytest.approx(1, abs=0.2)


def test_many_crystals_are_encoded_in_parts(model: CDVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    z = request_of(model).z + 0.5
    mixed = [CRYSTALS[0], None, *CRYSTALS[2:]]
    expected = latent_distances(model, mixed, z)
    monkeypatch.setattr(agreement, "encoded", partial(encoded, batch_size=2))
    np.testing.assert_allclose(latent_distances(model, mixed, z), expected, rtol=1e-9)


# what is fixed stays fixed


def test_a_selection_keeps_what_belongs_to_each_crystal() -> None:
    num_atoms, types = torch.tensor([2, 1, 3]), torch.tensor([10, 11, 20, 30, 31, 32])
    request = Request(torch.eye(3), CrystalRandom(0, torch.arange(3)), ["a", "b", "c"], num_atoms, types)
    part = request.select([2, 0], 0)
    assert part.ids == ["c", "a"]
    assert part.z.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert part.num_atoms is not None
    assert part.types is not None
    assert (part.num_atoms.tolist(), part.types.tolist()) == ([3, 2], [30, 31, 32, 10, 11])
    free = dataclasses.replace(request, num_atoms=None, types=None).select([1], 3)
    assert (free.num_atoms, free.types) == (None, None)


def test_forced_atoms_survive_every_candidate(model: CDVAE) -> None:
    table = table_of(CRYSTALS, bonded=True)
    plain = reconstruct(model, table, steps=STEPS, candidates=1, force_types=True)
    some = float(np.median([crystal.properties["latent_distance"] for crystal in plain.crystals]))
    result = reconstruct(with_threshold(model, some), table, steps=STEPS, candidates=4, force_types=True)
    assert len({crystal.properties["candidates"] for crystal in result.crystals}) > 1
    for ours, truth in zip(result.crystals, CRYSTALS, strict=True):
        assert ours.atomic_numbers.tolist() == truth.atomic_numbers.tolist()
    sizes = reconstruct(model, table, steps=STEPS, candidates=3, force_num_atoms=True)
    assert [crystal.num_atoms for crystal in sizes.crystals] == [crystal.num_atoms for crystal in CRYSTALS]
    for crystal in generate(model, 4, steps=STEPS, candidates=3, formula="SrTiO3").crystals:
        assert crystal.composition == {"O": 3, "Ti": 1, "Sr": 1}


def test_the_reported_progress_adds_up_to_the_whole_work(model: CDVAE) -> None:
    distances = [c.properties["latent_distance"] for c in generate(model, 7, steps=STEPS).crystals]
    model = with_threshold(model, float(np.median(distances)))
    told: list[float] = []
    result = generate(model, 7, steps=STEPS, candidates=3, batch_size=4, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(7)
    assert result.passes == STEPS * sum(c.properties["candidates"] for c in result.crystals)


def test_interpolation_takes_candidates(model: CDVAE) -> None:
    result = interpolate(model, table_of(CRYSTALS[:2], bonded=True), 3, steps=STEPS, candidates=2)
    assert result.passes == 2 * STEPS * 3
    assert all(c.properties.keys() >= {"fraction", "candidates", "latent_distance"} for c in result.crystals)


# runs of many batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a threshold that some of its decodes are below, and one without."""
    folder = tmp_path_factory.mktemp("agreement")
    model = tiny_model(torch.float32)
    distances = [c.properties["latent_distance"] for c in generate(model, 10, seed=5, steps=STEPS).crystals]
    facts = {"agreement": Agreement(float(np.median(distances)), 10, 5, 5, 5, STEPS).to_facts()}
    for name, known in (("model", facts), ("without", {})):
        write_checkpoint(folder / name, model.state_dict(), model.config.model_dump(mode="json"), known)
    return folder


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(folder)
    return f"generate model -n 10 --batch-size 3 --seed 5 --steps {STEPS} --candidates 3".split()


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{out}.manifest.json").read_text())
    return found


def test_shards_processes_and_a_stop_change_no_digit(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.extxyz"
    assert main([*command, "--workers", "0", "--out", str(whole)]) == 0
    tries = [crystal.properties["candidates"] for crystal in read(whole)]
    assert len(set(tries)) > 1
    passes = manifest(whole)["passes"]
    assert passes == STEPS * sum(tries)
    assert manifest(whole)["arguments"]["candidates"] == 3
    plain = generate(load_model("model", "cpu"), 10, seed=5, steps=STEPS, candidates=3, batch_size=3)
    assert (plain.passes, len(plain.crystals)) == (passes, len(tries))

    shards = [tmp_path / f"{k}.extxyz" for k in (1, 2)]
    for k, out in enumerate(shards, 1):
        assert main([*command, "--workers", "0", "--shard", f"{k}/2", "--out", str(out)]) == 0
    assert b"".join(out.read_bytes() for out in shards) == whole.read_bytes()
    assert sum(manifest(out)["passes"] for out in shards) == passes

    two = tmp_path / "two.extxyz"
    assert main([*command, "--workers", "2", "--out", str(two)]) == 0
    assert two.read_bytes() == whole.read_bytes()

    stopped = tmp_path / "stopped.extxyz"
    add = Parts.add

    def stop_at_the_third(self: Parts, number: int, part: Any) -> None:
        if number == 6:
            raise KeyboardInterrupt
        add(self, number, part)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", stop_at_the_third)
        assert main([*command, "--workers", "0", "--out", str(stopped)]) == 130
    assert [record.key for record in scan(work_folder(stopped) / RECORDS) if record.key != SETTINGS] == ["0", "3"]
    assert main([*command[:-1], "2", "--workers", "0", "--out", str(stopped)]) == 2  # another number of candidates
    assert main([*command, "--workers", "0", "--out", str(stopped)]) == 0
    assert stopped.read_bytes() == whole.read_bytes()
    assert manifest(stopped)["passes"] == passes


@pytest.mark.parametrize("candidates", ["0", "-1", "1001"])
def test_a_number_of_candidates_that_is_none(
    command: list[str], candidates: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command[:-1], candidates, "--out", str(tmp_path / "x.json")]) == 2
    error = capsys.readouterr().err
    assert f"--candidates must lie in 1..1000, not {candidates}" in error
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_model_without_a_threshold_takes_all_candidates_with_a_note(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without, with_one = find_model(folder / "without"), find_model(folder / "model")
    assert sampling_settings(without, 2, None, 4) == {"steps": 2, "solver": "x0-jump", "candidates": 4}
    error = capsys.readouterr().err
    assert "no agreement threshold" in error
    assert "all 4 candidates" in error
    assert error.count("\n") == 1
    sampling_settings(without)
    sampling_settings(with_one, candidates=4)
    assert capsys.readouterr().err == ""
    result = generate(load_model(without, "cpu"), 5, seed=5, steps=STEPS, candidates=4)
    assert {crystal.properties["candidates"] for crystal in result.crystals} == {4}


# what a checkpoint says of it

FACTS = Agreement(0.5, 100, 80, 60, 59, 50).to_facts()


def test_the_facts_come_back() -> None:
    assert Agreement.of_checkpoint({"agreement": json.loads(json.dumps(FACTS))}, "m") == Agreement(**FACTS)
    assert Agreement.of_checkpoint({"agreement": None}, "m") is Agreement.of_checkpoint({}, "m") is None
    assert Agreement.of_checkpoint({"agreement": {**FACTS, "threshold": 0}}, "m") is not None


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, "0.5", None, True, [0.5], {}], ids=repr)
@pytest.mark.parametrize("name", ["threshold", "accepted"])
def test_facts_that_are_damaged_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"here: {name} of its agreement is .* copy the checkpoint again") as error:
        Agreement.of_checkpoint({"agreement": {**FACTS, name: value}}, "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stored", [{}, [], "0.5", 0.5, *({k: FACTS[k] for k in FACTS if k != one} for one in FACTS)])
def test_facts_that_are_missing_are_refused(stored: object) -> None:
    with pytest.raises(InputError, match=r"agreement is .*copy the checkpoint again"):
        Agreement.of_checkpoint({"agreement": stored}, "here")


def test_a_damaged_threshold_is_refused_where_it_is_used(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "model", "cpu")
    config = model.config.model_dump(mode="json")
    write_checkpoint(tmp_path / "m", model.state_dict(), config, {"agreement": {**FACTS, "threshold": "low"}})
    damaged = find_model(tmp_path / "m")
    for use in (lambda: load_model(damaged, "cpu"), lambda: sampling_settings(damaged, candidates=2)):
        with pytest.raises(InputError, match=r"config.json: threshold of its agreement is 'low'"):
            use()


# how the threshold is found


@pytest.mark.parametrize(
    ("distances", "matched", "expected"),
    [
        ([], [], 0.0),
        ([0.5], [True], 0.5),
        ([0.5], [False], 0.0),
        ([3.0, 1.0, 2.0], [True, True, True], 3.0),
        ([3.0, 1.0, 2.0], [False, True, True], 2.0),
        ([3.0, 1.0, 2.0], [True, False, True], 0.0),  # the nearest is wrong: two of three are not enough
        ([1.0, 1.0], [True, False], 0.0),  # equally far: both are accepted or none
        ([1.0, 2.0, 2.0], [True, True, False], 1.0),
        ([*np.arange(1.0, 101.0)], [k != 49 for k in range(100)], 100.0),  # one of a hundred may be wrong
        ([*np.arange(1.0, 41.0)], [k != 20 for k in range(40)], 20.0),
    ],
)
def test_the_threshold_of_known_decodes(distances: list[float], matched: list[bool], expected: float) -> None:
    assert threshold_of(np.array(distances), np.array(matched, bool), least=1) == expected


def test_a_threshold_rests_on_twenty_decodes_or_more() -> None:
    """One match that happens to be the nearest says nothing of the next."""
    assert threshold_of(np.arange(1.0, 20.0), np.ones(19, bool)) == 0
    assert threshold_of(np.arange(1.0, 21.0), np.ones(20, bool)) == 20


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_the_largest_with_its_share_of_matches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.gamma(2.0, 1.0, 150).round(1 + seed % 2)  # some lie equally far
    matched = rng.random(150) > 0.02 * distances**3
    threshold = threshold_of(distances, matched, least=1)

    def share(limit: float) -> float:
        return float(matched[distances <= limit].mean())

    assert threshold == 0 or share(threshold) >= WANTED
    assert all(share(limit) < WANTED for limit in distances if limit > threshold)


def test_calibration_of_an_untrained_model_accepts_what_it_may() -> None:
    model = tiny_model(torch.float32)
    found = calibrate(model, table_of(CRYSTALS, bonded=True))
    assert (found.crystals, found.steps) == (len(CRYSTALS), 20)
    assert found.threshold == 0 or found.accepted_matched >= WANTED * found.accepted > 0
    assert found.accepted_matched <= min(found.matched, found.accepted)
    assert Agreement.of_checkpoint({"agreement": found.to_facts()}, "m") == found


def test_calibration_of_a_perfect_model_accepts_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decodes are the crystals themselves, all but one, which is farthest."""
    model = tiny_model(torch.float64)

    def answer(number: int, truths: list[Crystal]) -> list[Crystal]:
        return [random_crystal(99, 8, 4.4) if c is CRYSTALS[3] else c for c in truths]

    chosen = np.random.default_rng(0).permutation(len(CRYSTALS))
    mu, _ = model.encode(batch_of([CRYSTALS[k] for k in chosen], bonded=True))
    by_z = dict(zip(map(tuple, mu.tolist()), [CRYSTALS[k] for k in chosen], strict=True))

    def fake(model: CDVAE, z: Tensor, *args: Any, **options: Any) -> tuple[CrystalBatch, Tensor]:
        return batch_of(answer(0, [by_z[tuple(row)] for row in z.tolist()])), torch.ones(len(z), dtype=torch.bool)

    monkeypatch.setattr(agreement, "decode", fake)
    found = calibrate(model, table_of(CRYSTALS, bonded=True))
    assert (found.matched, found.accepted, found.accepted_matched) == (4, 4, 4)
    assert 0 <= found.threshold < 1e-6
