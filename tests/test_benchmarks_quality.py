"""The scripts about quality, with an untrained model and four crystals: what is chosen, why one is missed, going on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import candidates as candidates_script  # noqa: E402
import refit_prior  # noqa: E402
import studies  # noqa: E402
from dpcdvae.checkpoints.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from dpcdvae.checkpoints.loading import load_crystal_vae  # noqa: E402
from dpcdvae.datasets import load_split  # noqa: E402
from dpcdvae.errors import InputError  # noqa: E402
from dpcdvae.interfaces import LatentPosterior  # noqa: E402
from dpcdvae.model.agreement_threshold import Agreement  # noqa: E402
from dpcdvae.model.cdvae import CDVAE  # noqa: E402
from dpcdvae.model_store import find_model  # noqa: E402
from dpcdvae.parallel import LocalEngine  # noqa: E402
from dpcdvae.sampling.agreement import decode_by_agreement, latent_distances  # noqa: E402
from dpcdvae.sampling.decoding import Request, evaluating  # noqa: E402
from dpcdvae.sampling.decoding_settings import Decoding  # noqa: E402
from dpcdvae.sampling.encoding import encoded  # noqa: E402
from dpcdvae.structures.crystal import (  # noqa: E402
    CANDIDATES,
    LATENT_DISTANCE,
    Crystal,
)
from dpcdvae.structures.table import save_tables  # noqa: E402
from dpcdvae.tensors.noise import CrystalRandom  # noqa: E402
from dpcdvae.training.fit_prior_and_threshold import fit_prior  # noqa: E402
from quality.batches import begun, from_json  # noqa: E402
from quality.choosing import AGREEING, Candidates, adaptive, chosen, summary  # noqa: E402
from quality.criteria import CRITERIA, Task, decode_once  # noqa: E402
from quality.latents import nearest, posterior_source  # noqa: E402
from quality.misses import cause  # noqa: E402
from tensors import random_crystal, table_of, tiny_model  # noqa: E402

N, MOST = 4, 3
HOW = Decoding(3, "x0-jump", 1)


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    return [random_crystal(seed, num_atoms=4) for seed in range(N)]


@pytest.fixture(scope="module")
def model(crystals: list[Crystal]) -> CDVAE:
    torch.manual_seed(0)
    made = tiny_model(torch.float32)
    table = table_of(crystals, bonded=True)
    made.stats.scaler.fit(torch.from_numpy(table.lattices), torch.from_numpy(table.num_atoms))
    return made


@pytest.fixture(scope="module")
def task(model: CDVAE, crystals: list[Crystal]) -> Task:
    mu, log_var = encoded(model, table_of(crystals, bonded=True))
    request = Request(mu, CrystalRandom(0, torch.arange(N)), [crystal.id for crystal in crystals])
    return Task(request, crystals, log_var)


@pytest.fixture(scope="module")
def passes(model: CDVAE, task: Task) -> list[dict]:
    with evaluating(model), LocalEngine(0) as engine:
        return [json.loads(json.dumps(decode_once(model, task, k, HOW, engine))) for k in range(MOST)]


def test_the_criterion_of_the_package_is_the_first(model: CDVAE, task: Task, passes: list[dict]) -> None:
    for one in passes:
        assert set(one["criteria"]) == set(CRITERIA)
        crystals = [None if values is None else from_json(values) for values in one["crystals"]]
        with evaluating(model):
            there = latent_distances(model, crystals, task.request.z)
        here = [np.inf if value is None else value for value in one["criteria"]["latent"]]
        np.testing.assert_allclose(here, there, rtol=1e-4)


def test_noise_of_the_denoising_loss_does_not_depend_on_the_candidate(
    model: CDVAE, task: Task, passes: list[dict]
) -> None:
    from quality.criteria import denoising_losses

    truths, random, z = task.truths, task.request.random, task.request.z
    with evaluating(model), torch.inference_mode():
        together = denoising_losses(model, truths, z, random)
        alone = denoising_losses(model, [None, truths[1], None, None], z, random)
    assert alone[0] is None
    assert alone[1] == pytest.approx(together[1], rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_adaptive_choice_is_that_of_decode_by_agreement(
    model: CDVAE, task: Task, passes: list[dict], share: float
) -> None:
    known = Candidates.of([passes])
    finite = np.sort(known.criteria["latent"][np.isfinite(known.criteria["latent"])])
    assert len(finite)
    # Between two distances, so that rounding does not decide.
    place = int(share * (len(finite) - 1))
    threshold = finite[place] * 1.001 if share else 0.0
    model.agreement = Agreement(threshold, 0, 0, 0, 0, HOW.steps)
    try:
        with evaluating(model), torch.inference_mode():
            there = decode_by_agreement(model, task.request, Decoding(HOW.steps, HOW.solver, MOST))
    finally:
        model.agreement = None
    kept, tried = adaptive(known, threshold, MOST)
    assert there.passes == HOW.steps * tried.sum()
    for k, result in enumerate(there.results):
        if isinstance(result, Crystal):
            assert result.properties[CANDIDATES] == tried[k]
            assert result.properties.get(LATENT_DISTANCE, np.inf) == pytest.approx(
                known.criteria["latent"][k, kept[k]], rel=1e-3
            )


def test_no_choice_beats_the_best_of_all_and_one_candidate_leaves_none() -> None:
    rng = np.random.default_rng(0)
    shape = (50, 4)
    rms = np.where(rng.random(shape) < 0.4, rng.random(shape), np.inf)
    noisy = np.where(np.isfinite(rms), rms, 2.0) + 0.5 * rng.random(shape)
    known = Candidates(rms, {"latent": noisy, "perfect": rms}, rng.random(shape) < 0.5, np.ones(shape, bool))
    found = summary(known, 0.4, 10)["best_of"]
    for k in found:
        rates = {name: value["match_rate"]["value"] for name, value in found[k].items()}
        assert max(rates.values()) == rates["any"] == rates["perfect"]
        assert k != "1" or len(set(rates.values())) == 1
    assert set(found["4"]) == {"latent", "latent" + AGREEING, "perfect", "perfect" + AGREEING, "any"}


def test_choice_prefers_those_that_agree_and_the_first_of_equals() -> None:
    values = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 0.5], [np.inf] * 3])
    agree = np.array([[False, True, True], [False] * 3, [False, False, True]])
    assert chosen(values, agree).tolist() == [1, 2, 2]
    assert chosen(values, np.ones_like(agree)).tolist() == [0, 2, 0]


def test_a_miss_has_the_first_cause_that_holds() -> None:
    truth = Crystal(np.array([6, 6, 8]), np.random.default_rng(0).random((3, 3)), np.diag([3.0, 4.0, 5.0]))

    def changed(numbers: list[int], lattice: np.ndarray) -> Crystal:
        return Crystal(np.array(numbers), np.random.default_rng(1).random((len(numbers), 3)), lattice)

    assert cause(changed([6, 6], np.eye(3) * 9), truth) == "number of atoms"
    assert cause(changed([6, 8, 8], np.eye(3) * 9), truth) == "composition"
    assert cause(changed([6, 6, 8], np.diag([2.0, 5.0, 20.0])), truth) == "cell"
    assert cause(changed([6, 6, 8], 2 * truth.lattice[[2, 0, 1]]), truth) == "arrangement"


def test_posterior_source_draws_each_from_some_crystal(model: CDVAE) -> None:
    means = 100 * torch.arange(3.0)[:, None].expand(3, 5)
    tight = LatentPosterior(means, torch.full((3, 5), -20.0))
    z: Tensor = posterior_source(tight)(CrystalRandom(0, torch.arange(60)))
    assert float(nearest(z, means).max()) < 1e-2
    assert set((z.mean(1) / 100).round().int().tolist()) == {0, 1, 2}


@pytest.fixture
def workplace(model: CDVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a data set "four", and a run folder."""
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    tables = {
        split: table_of([random_crystal(10 * k + seed, num_atoms=4) for seed in range(N)], bonded=True)
        for k, split in enumerate(("train", "val", "test"))
    }
    (tmp_path / "home" / "datasets").mkdir(parents=True)
    save_tables(tmp_path / "home" / "datasets" / "four.npz", tables, {"name": "four"})
    facts = {"epoch": 2, "criterion": 1.0, "metrics": {"val/coords": 0.5}}
    write_checkpoint(tmp_path / "a-run" / "checkpoints" / "last", model.state_dict(), model.config.to_dict(), facts)
    (tmp_path / "a-run" / "metrics.csv").write_text("epoch,cpu_seconds\n1,60.0\n2,90.0\n")
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, main: object, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
    main()  # type: ignore[operator]


def test_studies_measures_a_run_goes_on_and_makes_a_table(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    what = f"evaluate {workplace}/a-run --data four -n {N} --steps 2 --candidates 1 2 --calibration {N}"
    where = f"--out {workplace}/out --work {workplace}/work"
    words = f"{what} --priors normal gaussian posterior {where}".split()
    call(monkeypatch, studies.main, *words)
    file = workplace / "out" / "a-run.json"
    first = json.loads(file.read_text())
    assert first["training"]["cpu_minutes"] == 2.5
    assert first["training"]["epochs"] == 2
    for found in first["reconstruction"].values():
        assert found["match_rate"]["value"] + sum(found["misses"].values()) == pytest.approx(1)
    assert set(first["generation"]) == {"normal", "gaussian", "posterior"}
    for found in first["generation"].values():
        assert {"coverage_recall", "structural_validity", "novelty"} <= set(found)

    # Killed in the middle: what is lost is made again, from the crystals that were kept, to the same numbers.
    cut = {**first, "reconstruction": {"1": first["reconstruction"]["1"]}, "generation": {}}
    file.write_text(json.dumps(cut))
    monkeypatch.setattr("dpcdvae.sampling.generation.reconstruct", None)
    monkeypatch.setattr("dpcdvae.sampling.generation.decode_all", None)
    call(monkeypatch, studies.main, *words)
    assert json.loads(file.read_text()) == first

    capsys.readouterr()
    call(monkeypatch, studies.main, "table", workplace / "out" / "*.json")
    printed = capsys.readouterr().out
    assert "| a-run | posterior |" in printed
    assert "match K=2" in printed
    with pytest.raises(InputError, match="another seed"):
        call(monkeypatch, studies.main, *words, "--seed", 1)
    with pytest.raises(InputError, match="no such files"):
        call(monkeypatch, studies.main, "table", workplace / "nothing*")
    with pytest.raises(InputError, match="--priors"):
        call(monkeypatch, studies.main, "evaluate", workplace / "a-run", "--priors", "flaw")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"name": "a", "n": 4, "training": {}, "reconstruction": {"x": 1}}'])
def test_a_damaged_file_of_a_study_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json is damaged") as info:
        call(monkeypatch, studies.main, "table", tmp_path / "*.json")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("script", [studies, candidates_script, refit_prior])
def test_a_wrong_command_line_gets_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as info:
        call(monkeypatch, script.main, "--nothing")
    said = capsys.readouterr().err
    assert (info.value.code, said.count("\n"), said[:7]) == (2, 1, "error: ")


def test_candidates_takes_up_what_is_there(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = workplace / "out" / "candidates.json"
    what = f"--model {workplace}/a-run --data four -n {N} --steps 2 --calibration {N}"
    words = f"{what} --out {out} --work {workplace}/work".split()
    call(monkeypatch, candidates_script.main, *words, "--most", 2)
    assert set(json.loads(out.read_text())["results"][0]["best_of"]) == {"1", "2"}
    files = sorted((workplace / "work").rglob("four-test-*.json"))
    before = [file.stat().st_mtime_ns for file in files]
    call(monkeypatch, candidates_script.main, *words, "--most", 3)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert [result["most"] for result in json.loads(out.read_text())["results"]] == [2, 3]
    assert out.with_name(f"candidates-four-test-{N}.png").is_file()
    assert "mean passes" in capsys.readouterr().out
    with pytest.raises(InputError, match="has 4 crystals"):
        call(monkeypatch, candidates_script.main, *words, "-n", N + 1)


def test_a_prior_is_fitted_again_and_nothing_else_changes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = workplace / "a-run" / "checkpoints" / "last", workplace / "new"
    card = {"summary": "four crystals", "dataset": {"name": "four", "crystals": {"train": N}}}
    (old / "card.json").write_text(json.dumps(card | {"scores": []}))
    words = [old, "--out", new, "--set"]
    call(monkeypatch, refit_prior.main, *words, 'prior.name="gaussian"')
    before, after = read_checkpoint(old), read_checkpoint(new)
    assert after.config == {**before.config, "prior": {**before.config["prior"], "name": "gaussian"}}
    kept = {name for name in before.weights if not name.startswith("prior.")}
    assert kept == {name for name in after.weights if not name.startswith("prior.")}
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in kept)
    train, val = (encoded(load_crystal_vae(find_model(old), "cpu"), load_split(f"four:{s}")) for s in ("train", "val"))
    alone = fit_prior("gaussian", {}, train, val, 0).state_dict()
    assert alone.keys() == {name[len("prior.") :] for name in after.weights if name.startswith("prior.")}
    assert all(torch.equal(after.weights[f"prior.{name}"], value) for name, value in alone.items())
    counted = sum(value.numel() for value in alone.values())
    told = after.source.card()
    assert told["prior_refitted"].pop("cpu_minutes") >= 0
    assert told == {**card, "prior_parameters": counted, "prior_refitted": {"set": ['prior.name="gaussian"']}}
    with pytest.raises(InputError, match="exists"):
        call(monkeypatch, refit_prior.main, *words, 'prior.name="gaussian"')
    with pytest.raises(InputError, match="only options of the prior"):
        call(monkeypatch, refit_prior.main, old, "--out", workplace / "x", "--set", "loss.kl=1")
    (old / "card.json").write_text(json.dumps({"dataset": {"name": "four", "crystals": {"train": N + 1}}}))
    with pytest.raises(InputError, match=r"4 crystals to train here, and .* trained on 5"):
        call(monkeypatch, refit_prior.main, old, "--out", workplace / "x")
    with pytest.raises(InputError, match="of the kind 'regressor', which has no prior"):
        call(monkeypatch, refit_prior.main, "perov-5-energy", "--out", workplace / "x")


def test_results_of_an_older_version_are_refused_and_stay(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    for damaged in ({"n": 3}, {"n": 3, "results": {}}, {"n": 4, "results": []}):
        file.write_text(json.dumps(damaged))
        with pytest.raises(InputError, match="give another --out"):
            begun(file, {"n": 3}, {"results": []})
        assert json.loads(file.read_text()) == damaged
    file.write_text(json.dumps({"n": 3, "results": [1]}))
    assert begun(file, {"n": 3}, {"results": []}) == {"n": 3, "results": [1]}
