"""Priors of the latent: what each draws, how it is fitted when a run ends, and that nothing else touches it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcdvae.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from dpcdvae.checkpoints.loading import build_model, load_model
from dpcdvae.cli import main
from dpcdvae.config import Config, load_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.interfaces import LatentPosterior, LatentPrior
from dpcdvae.io import read
from dpcdvae.model.agreement_threshold import Agreement
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model_store import best_checkpoint, read_card
from dpcdvae.nn.whitening import Whitening
from dpcdvae.priors import PRIORS
from dpcdvae.priors.components import choose
from dpcdvae.sampling.atom_conditions import AtomConditions
from dpcdvae.sampling.conditional_latents import ConditionalLatents
from dpcdvae.sampling.encoding import encoded
from dpcdvae.sampling.generation import generate
from dpcdvae.sampling.search import random_start
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.noise import CrystalRandom
from dpcdvae.training import fit_prior_and_threshold as finishing
from dpcdvae.training.train import AFTER_TRAINING, train
from tensors import TINY, batch_of, default_dtype, random_crystal, shake

SMALL: dict[str, dict[str, Any]] = {
    "normal": {},
    "gaussian": {},
    "flow": {"width": 64, "layers": 2, "steps": 500, "batch": 256, "lr": 3e-3, "passes": 16},
    "mixture": {"components": 4, "steps": 20},
    "local": {"points": 50, "spread": 0.3},
}
FITTED = ["gaussian", "flow", "mixture", "local"]


def posterior(n: int = 300, dim: int = 3, seed: int = 0) -> LatentPosterior:
    """Means with a mean and a covariance of their own, and variances that differ."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[2.0, 0, 0], [1.5, 0.5, 0], [-1, 0.2, 0.1]])[:dim, :dim]
    mu = torch.randn(n, dim, generator=rng) @ mixing.T + torch.tensor([5.0, -1, 0])[:dim]
    return LatentPosterior(mu, torch.rand(n, dim, generator=rng) - 2)


def make(name: str, dim: int = 3, **options: Any) -> LatentPrior:
    torch.manual_seed(0)
    return PRIORS[name](dim, {**SMALL[name], **options}).requires_grad_(False)


def noise(n: int, dim: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


# what each draws


def test_normal_is_the_noise_itself() -> None:
    prior = make("normal")
    assert prior.fitted
    prior.fit(posterior(), posterior(seed=1), 0)
    assert torch.equal(prior(noise(5)), noise(5))
    assert not prior.state_dict()


def test_gaussian_has_the_mean_and_covariance_of_the_latents() -> None:
    """Of z ~ N(μ, σ²): the covariance of the means, and the mean of the variances."""
    prior, train = make("gaussian"), posterior()
    prior.fit(train, posterior(seed=1), 0)
    z = prior(noise(100_000))
    covariance = torch.cov(train.mu.T, correction=0) + train.log_var.exp().mean(0).diag()
    torch.testing.assert_close(z.mean(0), train.mu.mean(0), rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(z.T), covariance, rtol=0.03, atol=0.03)


def test_the_signal_of_a_direction_is_the_share_of_its_variance_between_crystals() -> None:
    """One direction without noise, one of as much noise as signal, one of noise alone."""
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn(4000, 3, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 0.5, 0.0])
    log_var = torch.tensor([1e-12, 0.25, 1.0], dtype=torch.float64).log().expand(4000, 3)
    with default_dtype(torch.float64):
        whitening = Whitening(3)
    whitening.fit(mu, log_var)
    signal = whitening.signal[whitening.basis.abs().argmax(1)]  # in the order of the axes
    torch.testing.assert_close(signal, torch.tensor([1.0, 0.5**0.5, 0.0]).double(), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(("n", "dim"), [(300, 3), (300, 1), (2, 3), (1, 3)])
def test_whitening_goes_there_and_back(n: int, dim: int) -> None:
    """Also with fewer crystals than dimensions."""
    with default_dtype(torch.float64):
        whitening = Whitening(dim)
    train = LatentPosterior(*(value.double() for value in posterior(n, dim)))
    assert not whitening.fitted
    whitening.fit(*train)
    assert whitening.fitted
    z = 3 * noise(4 * 7, dim).double().reshape(4, 7, dim)
    torch.testing.assert_close(whitening.colour(whitening.whiten(z)), z)
    torch.testing.assert_close(whitening.whiten(whitening.colour(z)), z)
    # μ ± √n_dim σ e_d over all crystals and directions has just the covariance of the mixture
    spread = (dim**0.5) * torch.exp(0.5 * train.log_var)[:, None] * torch.eye(dim).double()
    points = torch.cat([train.mu[:, None] + spread, train.mu[:, None] - spread]).reshape(-1, dim)
    white = whitening.whiten(points)
    torch.testing.assert_close(white.mean(0), torch.zeros(dim).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.cov(white.T, correction=0).reshape(dim, dim), torch.eye(dim).double())


CENTRES = torch.tensor([[3.0, 3.0, 0.0], [-3.0, 0.0, 1.0]])


def two_clusters(n: int, seed: int) -> LatentPosterior:
    rng = torch.Generator().manual_seed(seed)
    mu = CENTRES[torch.randint(2, (n,), generator=rng)] + 0.3 * torch.randn(n, 3, generator=rng)
    return LatentPosterior(mu, torch.full_like(mu, 2 * np.log(0.1)))


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|: 0 for one distribution, above for two."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def test_flow_finds_what_one_normal_distribution_cannot() -> None:
    """Two clusters: nearly every draw lies in one of them, each gets its share."""
    train, val, truth = (two_clusters(n, seed) for n, seed in ((1000, 0), (300, 1), (1000, 2)))
    draws = {}
    for name in FITTED:
        prior = make(name)
        prior.fit(train, val, 0)
        draws[name] = prior(noise(1000))
    away = {name: energy_distance(z, truth.mu) for name, z in draws.items()}
    assert float((torch.cdist(draws["gaussian"], CENTRES).amin(1) < 1.2).float().mean()) < 0.5
    for name in ("flow", "mixture", "local"):
        assert away[name] < 0.3 * away["gaussian"]
        distances = torch.cdist(draws[name], CENTRES)
        assert float((distances.amin(1) < 1.2).float().mean()) > 0.9
        assert float((distances.argmin(1) == 0).float().mean()) == pytest.approx(0.5, abs=0.1)


def test_a_mixture_of_one_has_the_mean_and_covariance_of_the_latents() -> None:
    """Expectation-maximisation of z ~ N(μ, σ²): the covariance of the means, and the mean of the variances."""
    prior, train = make("mixture", components=1), posterior()
    prior.fit(train, posterior(seed=1), 0)
    covariance = torch.cov(train.mu.T, correction=0) + train.log_var.exp().mean(0).diag()
    factor = prior.factors[0]  # type: ignore[index]
    torch.testing.assert_close(prior.means[0], train.mu.mean(0))  # type: ignore[index]
    torch.testing.assert_close(factor @ factor.T, covariance, rtol=1e-3, atol=1e-3)


def test_choosing_a_component_leaves_standard_normal_noise_that_does_not_know_it() -> None:
    weights = torch.tensor([0.2, 0.0, 0.5, 0.3])
    component, fresh = choose(noise(40_000), weights)
    shares = torch.bincount(component, minlength=4) / len(component)
    torch.testing.assert_close(shares, weights, rtol=0, atol=0.01)
    for k in (0, 2, 3):
        mine = fresh[component == k].double()
        torch.testing.assert_close(torch.cov(mine.T), torch.eye(3).double(), rtol=0, atol=0.05)
        torch.testing.assert_close(mine.mean(0), torch.zeros(3).double(), rtol=0, atol=0.05)
        assert float(mine[:, 0].abs().gt(2).double().mean()) == pytest.approx(0.0455, abs=0.01)


def test_local_draws_lie_around_training_latents_as_far_as_the_spread() -> None:
    """Also where there are fewer than it could keep."""
    train = two_clusters(20, 0)
    prior = make("local", spread=0.01)
    prior.fit(train, train, 0)
    away = torch.cdist(prior(noise(500)), train.mu).amin(1)
    assert float(away.max()) < 0.06
    assert float(away.square().mean().sqrt()) == pytest.approx(0.01 * 3**0.5, rel=0.1)


FEW: dict[str, Any] = {"steps": 30, "batch": 64}


def test_a_fit_depends_on_the_latents_and_the_seed_alone() -> None:
    """Not on what the prior was before, nor on numbers drawn elsewhere, which it leaves alone."""

    def fitted(prior: LatentPrior, seed: int = 0) -> Tensor:
        prior.fit(posterior(), posterior(seed=1), seed)
        return prior(noise(5))

    prior = make("flow", **FEW)
    first = fitted(prior)
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    again = fitted(prior)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    other = PRIORS["flow"](3, {**SMALL["flow"], **FEW})
    assert torch.equal(fitted(other.requires_grad_(False)), first)
    assert not torch.equal(fitted(prior, seed=1), first)


@pytest.mark.parametrize("name", PRIORS)
def test_each_draw_is_a_function_of_its_own_noise(name: str) -> None:
    prior = make(name, **(FEW if name == "flow" else {}))
    prior.fit(posterior(), posterior(seed=1), 0)
    z = prior(noise(12))
    assert z.shape == (12, 3)
    assert len(z.unique(dim=0)) == 12
    for part in (slice(0, 1), slice(3, 8)):
        torch.testing.assert_close(prior(noise(12)[part]), z[part], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prior(noise(12).reshape(3, 4, 3)), z.reshape(3, 4, 3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FITTED)
def test_only_a_fit_makes_it_fitted_and_nothing_is_trainable_after_it(name: str) -> None:
    prior = make(name, **(FEW if name == "flow" else {}))
    assert not prior.fitted
    with torch.no_grad():  # as a run's end may have it
        prior.fit(posterior(), posterior(seed=1), 0)
    assert prior.fitted
    assert not any(weight.requires_grad for weight in prior.parameters())
    assert all(value.isfinite().all() for value in prior.state_dict().values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flow", {"widht": 8}, "did you mean 'width'"),
        ("flow", {"steps": "many"}, "steps of flow must"),
        ("normal", {"width": 8}, "unknown option of normal 'width'"),
        ("gaussian", {"width": 8}, "unknown option of gaussian 'width'"),
        ("flwo", {}, "unknown prior 'flwo': did you mean 'flow'"),
    ],
)
def test_what_is_no_prior(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        CDVAE(Config.from_dict({**TINY, "prior": {"name": name, "options": options}}))
    assert "\n" not in str(error.value)


# in the model


def model_with(name: str, *, fit: bool = True) -> CDVAE:
    torch.manual_seed(0)
    options = {**SMALL[name], **(FEW if name == "flow" else {})}
    model = CDVAE(Config.from_dict({**TINY, "prior": {"name": name, "options": options}}))
    for part in (model.encoder, model.mu, model.stats, model.denoiser):
        shake(part)
    model.stats.scaler.shift.copy_(torch.tensor([2.5, 2.5, 2.5, 90, 90, 90]))
    model.stats.scaler.scale.copy_(torch.tensor([0.3, 0.3, 0.3, 5, 5, 5]))
    if fit:
        mu = 0.1 * noise(100, 6) + torch.tensor([2.0, -1, 1, 0, 3, -2])
        model.prior.fit(
            LatentPosterior(mu, torch.full_like(mu, -6.0)), LatentPosterior(mu, torch.full_like(mu, -6.0)), 0
        )
    return model


def latents_of(model: CDVAE, n: int = 4, **options: Any) -> Tensor:
    """The z that the denoiser is shown."""
    shown: list[Tensor] = []
    denoise = model.denoise

    def keep(noisy: Any, z: Tensor, time: Tensor) -> Any:
        shown.append(z)
        return denoise(noisy, z, time)

    model.denoise = keep  # type: ignore[method-assign]
    try:
        generate(model, n, steps=1, **options)
    finally:
        del model.denoise
    return torch.cat(shown)


@pytest.mark.parametrize("name", PRIORS)
def test_generation_draws_from_the_models_prior_unless_asked(name: str) -> None:
    model = model_with(name)
    plain = CrystalRandom(3, torch.arange(4)).normal("latent", 6).float()
    torch.testing.assert_close(latents_of(model, seed=3), model.prior(plain))
    assert torch.equal(latents_of(model, seed=3), latents_of(model, seed=3, prior=name))
    assert torch.equal(latents_of(model, seed=3, prior="normal"), plain)
    torch.testing.assert_close(latents_of(model, seed=3, batch_size=3), model.prior(plain), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FITTED)
def test_a_prior_that_is_not_fitted_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_with(name, fit=False)
    for call in (model.latent_prior, lambda: generate(model, 1), lambda: random_start(model, 1)):
        with pytest.raises(InputError, match=f"the prior '{name}' of this checkpoint is not fitted"):
            call()
    write_checkpoint(tmp_path / "m", model.state_dict(), model.config.to_dict(), {})
    command = f"generate {tmp_path}/m -n 2 --steps 1 --workers 0 --out {tmp_path}/x.json".split()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "--prior normal" in error
    assert error.count("\n") == 1
    assert main([*command, "--prior", "normal"]) == 0
    assert len(read(tmp_path / "x.json")) == 2


def test_a_prior_that_the_model_does_not_have_is_refused() -> None:
    model = model_with("gaussian")
    with pytest.raises(InputError, match=r"--prior of this model 'flow'.*gaussian, normal"):
        model.latent_prior("flow")
    with pytest.raises(InputError, match=r"'norma': did you mean 'normal'"):
        generate(model, 1, prior="norma")


@pytest.mark.parametrize("name", FITTED)
def test_the_prior_is_part_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    model = model_with(name)
    write_checkpoint(tmp_path / "m", model.state_dict(), model.config.to_dict(), {})
    loaded = load_model(tmp_path / "m", "cpu")
    assert loaded.prior.fitted
    assert torch.equal(latents_of(loaded), latents_of(model))


@pytest.mark.parametrize("name", PRIORS)
def test_training_steps_do_not_see_the_prior(name: str) -> None:
    model = model_with(name, fit=False)
    batch = batch_of([random_crystal(k) for k in range(4)], torch.float32, bonded=True)
    before = {key: value.clone() for key, value in model.prior.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    model.total(model.step_losses(batch, None, torch.Generator().manual_seed(0), 0), 0).backward()
    optimizer.step()
    assert all(weight.grad is None and not weight.requires_grad for weight in model.prior.parameters())
    for key, value in model.prior.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", FITTED)
def test_conditions_choose_among_draws_of_the_prior(name: str) -> None:
    """Candidates come from where the prior draws, and the wish is kept."""
    model = model_with(name)
    everywhere = model.prior(noise(2000, 6))
    low, high = everywhere.amin(0) - 0.5, everywhere.amax(0) + 0.5
    for condition in (
        ConditionalLatents(AtomConditions.of({"num_atoms": 3}, 8)),
        ConditionalLatents(AtomConditions.of({"formula": "SrTiO3"}, 8)),
    ):
        fixed = condition.of_batch(range(20), model.device)
        z = condition.latents(model.stats, CrystalRandom(0, torch.arange(20)), model.latent_prior(), 6, fixed)
        assert len(z.unique(dim=0)) == 20
        assert ((z > low) & (z < high)).all()
    for crystal in generate(model, 4, steps=2, formula="SrTiO3").crystals:
        assert crystal.composition == {"O": 3, "Ti": 1, "Sr": 1}
    assert {crystal.num_atoms for crystal in generate(model, 4, steps=2, num_atoms=3).crystals} == {3}


@pytest.mark.parametrize("name", PRIORS)
def test_a_search_starts_from_the_latents_of_generation(name: str) -> None:
    model = model_with(name)
    start = random_start(model, 4, seed=3)
    assert torch.equal(start.z, latents_of(model, seed=3))
    assert list(start.ids) == [f"3-{k}" for k in range(4)]


# at the end of a run

SETTINGS = [
    "model.latent_dim=8",
    "model.stats_hidden_dim=16",
    "train.batch_size=16",
    "train.max_epochs=2",
    "encoder.options.dimenet++={hidden=8, blocks=1, int_emb=4, basis_emb=4, out_emb=8, output_layers=1}",
    "encoder.options.lattice={hidden=8}",
    "denoiser.options={hidden=8, atom_width=12, blocks=1, num_radial=8, emb_trip=4, emb_rbf=4, emb_cbf=4,"
    " bil_trip=4, layers_atom=1, time_embedding=8, fourier=[]}",
    "prior.name=flow",
    "prior.options={width=16, layers=1, steps=20, batch=32, passes=4}",
]


@pytest.fixture(scope="module")
def tables() -> dict[str, CrystalTable]:
    tables = load_dataset("prototypes").tables
    return {"train": tables["train"].select(range(32)), "val": tables["val"].select(range(12))}


def config(*overrides: str) -> Config:
    chosen = load_config("compact/dp-cdvae-cell", [*SETTINGS, *overrides])
    assert isinstance(chosen, Config)
    return chosen


def run(tables: dict[str, CrystalTable], folder: Path, *overrides: str, **options: Any) -> Path:
    return train(tables, {"name": "some", "sha256": "0"}, config(*overrides), folder, preset="cell", **options)


@pytest.fixture(scope="module")
def whole(tables: dict[str, CrystalTable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finishing, "FEWEST", 10)
        return run(tables, tmp_path_factory.mktemp("run") / "whole")


def assert_same_checkpoint(ours: Path, theirs: Path) -> None:
    one, other = read_checkpoint(ours), read_checkpoint(theirs)
    assert one.facts == other.facts
    assert one.weights.keys() == other.weights.keys()
    for name, value in other.weights.items():
        assert value.dtype == one.weights[name].dtype
        assert torch.equal(one.weights[name], value), name


def test_a_run_ends_with_a_fitted_prior_and_a_threshold(whole: Path, tables: dict[str, CrystalTable]) -> None:
    best = best_checkpoint(whole)
    model, facts = load_model(whole, "cpu"), read_checkpoint(best).facts
    assert model.prior.fitted
    found = Agreement.of_checkpoint(facts, "here")
    assert found == model.agreement
    assert found is not None
    assert (found.crystals, found.steps) == (12, 50)
    assert found.threshold == 0 or found.accepted_matched >= finishing.WANTED * found.accepted > 0
    assert read_card(whole)["epochs"] == facts["epoch"]
    # fitted to what the encoder makes of the training set
    mu = encoded(model, tables["train"]).mu
    torch.testing.assert_close(model.prior.whitening.mean, mu.mean(0))  # type: ignore[union-attr]
    assert len(generate(model, 3, steps=2).crystals) > 0


def test_training_left_the_prior_as_it_was_built(whole: Path) -> None:
    """In the training state, which a run that is resumed goes on from, it is not fitted."""
    chosen = config()
    torch.manual_seed(chosen.train.seed)
    built = build_model(chosen).state_dict()
    weights = read_checkpoint(whole / "checkpoints" / "last").weights
    for name, value in built.items():
        if name.startswith("prior."):
            assert torch.equal(weights[name], value), name


def test_finishing_again_changes_nothing(
    whole: Path, tables: dict[str, CrystalTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "FEWEST", 10)
    shutil.copytree(whole, tmp_path / "again")
    finishing.fit_prior_and_threshold(tmp_path / "again", tables)
    assert_same_checkpoint(best_checkpoint(tmp_path / "again"), best_checkpoint(whole))


def test_finishing_touches_the_prior_alone(
    whole: Path, tables: dict[str, CrystalTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights stay bit by bit, in double precision too; few validation crystals give no threshold."""
    monkeypatch.setattr(finishing, "FEWEST", 13)
    checkpoint = read_checkpoint(best_checkpoint(whole))
    weights = {
        name: value.double() + 1e-12 if value.is_floating_point() and not name.startswith("prior.") else value
        for name, value in checkpoint.weights.items()
    }
    folder = tmp_path / "run" / "checkpoints" / "one"
    write_checkpoint(folder, weights, checkpoint.config, checkpoint.facts, {"state": torch.arange(3)})
    finishing.fit_prior_and_threshold(tmp_path / "run", tables)
    after = read_checkpoint(folder)
    for name, value in weights.items():
        if not name.startswith("prior."):
            assert torch.equal(after.weights[name], value), name
    assert after.facts == {name: value for name, value in checkpoint.facts.items() if name != "agreement"}
    assert (folder / "training.json").is_file()


def test_killed_between_training_and_the_end(
    whole: Path, tables: dict[str, CrystalTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finishing, "FEWEST", 10)
    for name in ("fit_prior_and_threshold", "write_card"):  # before the end of a run begins, and before its last act
        folder = tmp_path / name
        with monkeypatch.context() as patch:
            if name == "write_card":
                patch.setattr("dpcdvae.training.train.write_card", stop)
            else:
                patch.setitem(AFTER_TRAINING, "generative", stop)
            with pytest.raises(KeyboardInterrupt):
                run(tables, folder)
        assert load_model(folder, "cpu").prior.fitted is (name == "write_card")
        run(tables, folder, resume=True)
        assert_same_checkpoint(best_checkpoint(folder), best_checkpoint(whole))
        stopped, undisturbed = read_card(folder), read_card(whole)
        for card in (stopped, undisturbed):
            del card["curve"]["cpu_minutes"]
        assert stopped == undisturbed


def test_a_run_that_starts_from_weights_fits_a_prior_of_its_own(
    whole: Path, tables: dict[str, CrystalTable], tmp_path: Path
) -> None:
    """Also where the other model had another kind; until its end it has none."""
    run(tables, tmp_path / "gaussian", "prior.name=gaussian", "prior.options={}", "train.max_epochs=1", init=whole)
    model = load_model(tmp_path / "gaussian", "cpu")
    assert model.prior.fitted
    run(tables, tmp_path / "flow", "train.max_epochs=1", init=tmp_path / "gaussian")
    assert load_model(tmp_path / "flow", "cpu").prior.fitted
    assert not load_model(tmp_path / "flow" / "checkpoints" / "last", "cpu").prior.fitted


def test_a_config_names_its_prior_and_candidates() -> None:
    chosen = config("diffusion.sampling_candidates=3")
    assert (chosen.prior.name, chosen.diffusion.sampling_candidates) == ("flow", 3)
    assert build_model(chosen).prior.options.width == 16  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"diffusion.sampling_candidates"):
        config("diffusion.sampling_candidates=0")


@pytest.mark.parametrize("kept", [-1, 51, 10**12])
def test_a_local_prior_that_claims_more_points_than_it_has_is_no_trained_one(kept: int) -> None:
    prior = make("local")
    assert prior.problem() is None
    prior.get_buffer("kept").fill_(kept)
    assert prior.problem() == f"prior.kept is {kept}, of 50 points"
