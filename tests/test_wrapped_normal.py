"""Diffusion on the torus: the score of the wrapped normal, what a network can learn of it, and the way back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcdvae.config import Config
from dpcdvae.diffusion.atom_types import one_hot
from dpcdvae.diffusion.wrapped_normal import WRAPPED_SOLVERS, WrappedNormal, scaled_score, score_size
from dpcdvae.errors import InputError
from dpcdvae.interfaces import ReverseRun
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.decoding import decode
from dpcdvae.sampling.generation import generate
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import frac_to_cart, wrap
from dpcdvae.tensors.noise import CrystalRandom
from tensors import TINY, TRUTH, KnownStatistics, awkward_crystals, batch_of, default_dtype, random_crystal, tiny_model

CELLS = torch.arange(-10, 11).double()
GRID = (torch.arange(1024).double() + 0.5) / 1024
SIGMAS = (0.005, 0.03, 0.1, 0.2, 0.35, 0.5, 1.0)


def process(timesteps: int = 200, **options: object) -> WrappedNormal:
    with default_dtype(torch.float64):
        return WrappedNormal(timesteps, options)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at_level(level: int, crystals: int, timesteps: int = 200) -> Tensor:
    """The uniform numbers that choose a level."""
    return torch.full((crystals,), (level - 0.5) / timesteps, dtype=torch.float64)


def apart(a: Tensor, b: Tensor) -> Tensor:
    """Distance of fractional coordinates on the circle."""
    return (a - b - (a - b).round()).abs()


def log_density(d: Tensor, sigma: float) -> Tensor:
    """Of the wrapped normal, as a plain sum over 21 images."""
    images = d[..., None] - d[..., None].round() + CELLS
    return (-images.square() / (2 * sigma**2)).logsumexp(-1) - math.log(sigma * math.sqrt(2 * math.pi))


# the score


@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_is_the_gradient_of_the_logarithm_of_the_density(sigma: float) -> None:
    d = (torch.arange(400).double() + 0.5) / 200 - 1
    step = 1e-4 * min(sigma, 0.1)
    expected = sigma * (log_density(d + step, sigma) - log_density(d - step, sigma)) / (2 * step)
    found = scaled_score(d, torch.tensor(sigma, dtype=torch.float64))
    # The density of small noise has a kink in the middle between two images, which finite steps round off.
    away = (apart(d, torch.zeros(1)) - 0.5).abs() > 0.01
    torch.testing.assert_close(found[away], expected[away], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.2, 0.35, 0.5, 1.0])
def test_score_as_a_fourier_series(sigma: float) -> None:
    """The density is 1 + 2 Σ_m q^(m²) cos(2πm d), q = exp(-2π² σ²). To as many digits where it is small."""
    d, m = torch.linspace(-1, 1, 101, dtype=torch.float64)[:, None], torch.arange(1, 9).double()
    weights = 2 * (-2 * math.pi**2 * sigma**2 * m.square()).exp()
    density = 1 + (weights * (2 * math.pi * m * d).cos()).sum(-1)
    slope = -(2 * math.pi * m * weights * (2 * math.pi * m * d).sin()).sum(-1)
    found = scaled_score(d[:, 0], torch.tensor(sigma, dtype=torch.float64))
    size = float(score_size(torch.tensor([sigma], dtype=torch.float64)))
    torch.testing.assert_close(found / size, sigma * slope / density / size, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_is_periodic_and_its_size_is_its_root_mean_square(sigma: float) -> None:
    spread = torch.tensor(sigma, dtype=torch.float64)
    score, density = scaled_score(GRID, spread), log_density(GRID, sigma).exp()
    torch.testing.assert_close(scaled_score(GRID - 7, spread), score, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(scaled_score(-GRID, spread), -score, rtol=1e-7, atol=1e-9)
    assert float(density.mean()) == pytest.approx(1)
    assert float(score_size(spread[None])) ** 2 == pytest.approx(float((density * score.square()).mean()), rel=1e-6)


def test_the_regression_of_the_target_is_the_score_up_to_translations() -> None:
    """Two atoms moved by r and 0, and both by any τ: the mean of (s(r + τ) - s(τ))/2 over what τ can be, given r.

    The distance of the two is a wrapped normal of √2 σ. For large noise the target is much larger than its mean.
    """
    for sigma in (0.05, 0.15, 0.3):
        spread, r = (
            torch.tensor(sigma, dtype=torch.float64),
            torch.linspace(-0.45, 0.45, 19, dtype=torch.float64)[:, None],
        )
        chance = (log_density(r + GRID, sigma) + log_density(GRID, sigma)).softmax(-1)
        target = (scaled_score(r + GRID, spread) - scaled_score(GRID, spread)) / 2
        expected = scaled_score(r[:, 0], math.sqrt(2) * spread) / math.sqrt(2)
        torch.testing.assert_close((chance * target).sum(-1), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("atoms", "sigma", "share"),
    [(5, 0.1, 1.0), (5, 0.2, 0.63), (5, 0.3, 0.13), (20, 0.2, 0.93), (20, 0.3, 0.39)],  # docs/sampling.md
)
def test_share_of_the_target_that_can_be_known_without_an_origin(atoms: int, sigma: float, share: float) -> None:
    spread, grid = torch.tensor(sigma, dtype=torch.float64), GRID[::16]
    moved = (sigma * normal(400, atoms))[..., None] - grid
    chance = log_density(moved, sigma).sum(1, keepdim=True).softmax(-1)
    known = (chance * scaled_score(moved, spread)).sum(-1).square().mean()
    everything = score_size(spread[None]).square() * (1 - 1 / atoms)
    assert float(known / everything) == pytest.approx(share, abs=0.05)


# the forward process


def test_levels_are_those_of_diffcsp() -> None:
    diffusion = process(1000)
    sigmas = torch.tensor(diffusion.sigmas, dtype=torch.float64)
    assert [float(sigmas[t]) for t in (0, 1, 1000)] == pytest.approx([0, 0.005, 0.5])
    torch.testing.assert_close(sigmas[2:] / sigmas[1:-1], torch.full((999,), 100 ** (1 / 999)).double())
    assert process(1).sigmas == pytest.approx([0, 0.5])
    assert (diffusion.max_steps, diffusion.solver) == (1000, "x0-jump")


@pytest.mark.parametrize("level", [1, 80, 150, 200])
@pytest.mark.parametrize("mean_free", [True, False])
def test_forward_process_is_wrapped_noise_and_its_target_the_score(level: int, mean_free: bool) -> None:
    """x_t = π(x_0 + σ ε); the target is the score of the displacement in units of its size."""
    diffusion, batch = process(mean_free=mean_free), batch_of(awkward_crystals())
    noise, sigma = normal(len(batch.frac_coords), 3), diffusion.sigmas[level]
    result = diffusion.corrupt(batch, noise, at_level(level, len(batch)))
    assert result.time.eq(diffusion.time(level)).all()
    assert result.frac_coords.equal(wrap(result.frac_coords))
    assert apart(result.frac_coords, batch.frac_coords + sigma * noise).max() < 1e-12
    score = scaled_score(result.frac_coords - batch.frac_coords, torch.tensor(sigma, dtype=torch.float64))
    expected = score / diffusion.sizes[level]
    if mean_free:
        expected = expected - batch.per_atom(batch.mean_over_atoms(expected))
    torch.testing.assert_close(result.target, expected, rtol=1e-6, atol=1e-7)
    assert result.weight.eq(1).all()


def test_little_noise_is_the_target_itself() -> None:
    batch = batch_of(awkward_crystals())
    noise = normal(len(batch.frac_coords), 3)
    for mean_free in (True, False):
        diffusion = process(mean_free=mean_free)
        target = diffusion.corrupt(batch, noise, at_level(20, len(batch))).target
        torch.testing.assert_close(
            target,
            -diffusion.start(ReverseRun(batch, no_network, lambda: noise), "x0-jump").run.noise(),
            rtol=0,
            atol=1e-9,
        )


@pytest.mark.parametrize("level", [1, 150, 200])
def test_the_target_depends_neither_on_image_nor_on_origin(level: int) -> None:
    diffusion, batch = process(), batch_of(awkward_crystals())
    noise, chosen = normal(len(batch.frac_coords), 3), at_level(level, len(batch))
    expected = diffusion.corrupt(batch, noise, chosen)
    images = batch.replace(frac_coords=batch.frac_coords + (5 * normal(len(batch.frac_coords), 3, seed=1)).round())
    found = diffusion.corrupt(images, noise, chosen)
    assert apart(found.frac_coords, expected.frac_coords).max() < 1e-12
    assert found.target.equal(expected.target)
    shift = batch.per_atom(normal(len(batch), 3, seed=2))
    found = diffusion.corrupt(batch.replace(frac_coords=batch.frac_coords + shift), noise, chosen)
    assert apart(found.frac_coords, expected.frac_coords + shift).max() < 1e-12
    assert found.target.equal(expected.target)


@pytest.mark.parametrize("level", [1, 100, 150, 180, 200])
def test_every_level_costs_alike_if_nothing_is_predicted(level: int) -> None:
    """3 per atom, and as DDPM's 3 (1 - 1/N_a) without the mean."""
    batch = batch_of([random_crystal(0, 4)] * 4000)
    noise = normal(16000, 3, seed=level)
    for mean_free, expected in ((True, 2.25), (False, 3.0)):
        result = process(mean_free=mean_free).corrupt(batch, noise, at_level(level, 4000))
        loss = (batch.mean_over_atoms(result.target.square().sum(-1)) * result.weight).mean()
        assert float(loss) == pytest.approx(expected, rel=0.03)


def test_the_prior_is_where_the_forward_process_ends() -> None:
    """Uniform, and the density of σ = 0.5 is so to 2 exp(-2π² σ²) = 1.4 %."""
    unevenness = float((log_density(GRID, 0.5).exp() - 1).abs().max())
    assert unevenness == pytest.approx(2 * math.exp(-(math.pi**2) / 2), rel=1e-3)
    assert 0.014 < unevenness < 0.015
    batch = batch_of([random_crystal(0, 5000)])
    start = process().prior(batch, normal(5000, 3))
    assert start.equal(wrap(start))
    counts = torch.histc(start, 10, 0, 1)
    assert float((counts - 1500).abs().max()) < 5 * math.sqrt(1500)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_min": 0.5}, "sigma_min = 0.5 must be below sigma_max = 0.5"),
        ({"sigma_max": 0.001}, "sigma_min = 0.005 must be below sigma_max = 0.001"),
        ({"sigma_max": 10.0}, "sigma_max .* above 0 and up to 1, not 10"),
        ({"sigma_min": 0.0}, "sigma_min .* above 0"),
        ({"sigma_max": math.nan}, "sigma_max .* above 0"),
        ({"reverse_rule": "jmp"}, "did you mean 'x0-jump'"),
        ({"mean_free": 1}, "mean_free .* must be true or false, not 1"),
        ({"recentre": True}, "recentre"),
    ],
)
def test_options_that_make_no_process_are_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        WrappedNormal(50, options)
    assert "\n" not in str(caught.value)


# the way back


def prediction_of(diffusion: WrappedNormal, level: int, score: Tensor) -> Tensor:
    """What a network says whose score (per cell) is ``score``."""
    return score * diffusion.sigmas[level] / diffusion.sizes[level]


def no_network(frac_coords: Tensor, level: int) -> Tensor:
    raise AssertionError("nothing is predicted here")


def step_of(
    diffusion: WrappedNormal, solver: str, batch: CrystalBatch, prediction: Tensor, noise: Tensor
) -> Callable[[Tensor, int, int], Tensor]:
    """The step of a solver whose network says ``prediction``."""
    return diffusion.start(ReverseRun(batch, lambda coords, level: prediction, lambda: noise), solver).step


@pytest.mark.parametrize("rule", sorted(WRAPPED_SOLVERS))
def test_the_exact_score_of_little_noise_recovers_the_crystal_in_one_step(rule: str) -> None:
    diffusion, batch = process(mean_free=False), batch_of(awkward_crystals())
    noise = normal(2, len(batch.frac_coords), 3)
    for level in (1, 50, 100):
        result = diffusion.corrupt(batch, noise[0], at_level(level, len(batch)))
        coords = step_of(diffusion, rule, batch, result.target, noise[1])(result.frac_coords, level, 0)
        assert coords.equal(wrap(coords))
        assert apart(coords, batch.frac_coords).max() < 1e-9


@pytest.mark.parametrize(("t", "s"), [(90, 89), (90, 40), (40, 1)])
@pytest.mark.parametrize("rule", sorted(WRAPPED_SOLVERS))
def test_exact_predictions_lead_to_the_noise_of_the_next_level(rule: str, t: int, s: int) -> None:
    """x_0 + σ_t ε becomes x_0 + σ_s ε', from how the step scales ε and its own noise; a flow has none."""
    diffusion, batch = process(mean_free=False), batch_of([random_crystal(0, 1)])
    clean, nothing, epsilon = batch.frac_coords, torch.zeros(1, 3).double(), torch.ones(1, 3).double()

    def step(past: Tensor, noise: Tensor) -> float:
        result = diffusion.corrupt(batch, past, at_level(t, 1))
        coords = step_of(diffusion, rule, batch, result.target, noise)(result.frac_coords, t, s)
        return float(apart(coords, clean).max())

    kept, added = step(epsilon, nothing), step(nothing, epsilon)
    assert math.hypot(kept, added) == pytest.approx(diffusion.sigmas[s], rel=1e-9)
    assert (added == pytest.approx(0, abs=1e-12)) == (rule == "ddim")
    assert (kept == pytest.approx(0, abs=1e-12)) == (rule == "x0-jump")


MEAN, SPREAD, ATOMS = 0.4, 0.02, 20000


def spread_after(rule: str, steps: int) -> float:
    """Of data N(m, s²), narrow in the cell, made from x_T by the exact score -(x - m)/(s² + σ²)."""
    diffusion = process(400, sigma_min=0.001, sigma_max=0.06, mean_free=False)
    batch = batch_of([Crystal(np.full(ATOMS, 6), np.zeros((ATOMS, 3)), 10 * np.eye(3))])
    coords = MEAN + math.hypot(SPREAD, 0.06) * normal(ATOMS, 3)
    for number, (level, after) in enumerate(diffusion.levels(steps)):
        score = (MEAN - coords) / (SPREAD**2 + diffusion.sigmas[level] ** 2)
        prediction, noise = prediction_of(diffusion, level, score), normal(ATOMS, 3, seed=number + 1)
        coords = step_of(diffusion, rule, batch, prediction, noise)(coords, level, after)
        assert coords.equal(wrap(coords))
    assert float(coords.mean()) == pytest.approx(MEAN, abs=1e-3)
    return float(coords.std())


@pytest.mark.parametrize("rule", ["ancestral", "ddim"])
def test_small_steps_end_in_the_distribution_of_the_data(rule: str) -> None:
    few, many = (abs(spread_after(rule, steps) / SPREAD - 1) for steps in (10, 400))
    assert many < 0.02 < few


def test_jumps_end_between_the_data_and_their_mean() -> None:
    """v_s = (s²/(s² + σ_t²))² v_t + σ_s²: of a spread the jump to the mean keeps less than there was."""
    sigmas = process(400, sigma_min=0.001, sigma_max=0.06).sigmas
    variance = SPREAD**2 + 0.06**2
    for t, s in itertools.pairwise(range(400, -1, -1)):
        variance = (SPREAD**2 / (SPREAD**2 + sigmas[t] ** 2)) ** 2 * variance + sigmas[s] ** 2
    assert spread_after("x0-jump", 400) == pytest.approx(math.sqrt(variance), rel=0.02)
    assert 0.5 < math.sqrt(variance) / SPREAD < 0.8


FIRST = torch.tensor([0, 5, 6, 8])  # the first atom of each


class Oracle(nn.Module):
    """In the denoiser's place: the exact score, in Å, and the true types.

    With ``mean_free`` it is the score among crystals that are the same but for a translation τ: the mean over τ.
    """

    def __init__(self, diffusion: WrappedNormal, truth: CrystalBatch) -> None:
        super().__init__()
        self.diffusion, self.truth = diffusion, truth
        self.types = one_hot(truth.atomic_numbers, truth.lattice.dtype)

    def forward(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        level = int(time[0])
        sigma = torch.tensor(self.diffusion.sigmas[level], dtype=torch.float64)
        displacement = noisy.frac_coords - self.truth.frac_coords
        if self.diffusion.options.mean_free:
            score = torch.cat([self._over_translations(d, sigma) for d in displacement.split(noisy.num_atoms.tolist())])
        else:
            score = scaled_score(displacement, sigma)
        return frac_to_cart(score / self.diffusion.sizes[level], noisy.per_atom(noisy.lattice)), self.types

    @staticmethod
    def _over_translations(displacement: Tensor, sigma: Tensor) -> Tensor:
        moved = displacement[..., None] - GRID
        chance = log_density(moved, float(sigma)).sum(0, keepdim=True).softmax(-1)
        return (chance * scaled_score(moved, sigma)).sum(-1)


def decode_with_oracle(steps: int, solver: str, **options: object) -> tuple[CrystalBatch, CrystalBatch]:
    model, truth = tiny_model(), batch_of(TRUTH)
    model.diffusion = diffusion = process(100, **options)
    model.stats, model.denoiser = KnownStatistics(model, truth), Oracle(diffusion, truth)
    random = CrystalRandom(0, torch.arange(len(TRUTH)))
    result, usable = decode(model, torch.zeros(len(TRUTH), 6).double(), random, steps, solver=solver)
    assert usable.all()
    assert result.frac_coords.equal(wrap(result.frac_coords))
    return result, truth


@pytest.mark.parametrize("steps", [100, 50, 10, 5])
@pytest.mark.parametrize("rule", sorted(WRAPPED_SOLVERS))
def test_the_exact_score_brings_the_crystals_back(rule: str, steps: int) -> None:
    """The last pass begins where no image but the nearest counts."""
    result, truth = decode_with_oracle(steps, rule, mean_free=False)
    assert result.atomic_numbers.equal(truth.atomic_numbers)
    torch.testing.assert_close(result.lattice, truth.lattice)
    assert apart(result.frac_coords, truth.frac_coords).max() < 1e-6


@pytest.mark.parametrize("steps", [30, 10])
@pytest.mark.parametrize("rule", sorted(WRAPPED_SOLVERS))
def test_the_exact_score_brings_the_crystals_back_up_to_a_translation(rule: str, steps: int) -> None:
    result, truth = decode_with_oracle(steps, rule)
    moved, wanted = (x - truth.per_atom(x[FIRST]) for x in (result.frac_coords, truth.frac_coords))
    assert apart(moved, wanted).max() < 1e-6


@pytest.mark.parametrize("rule", sorted(WRAPPED_SOLVERS))
def test_one_step_from_uniform_noise_does_not_depend_on_the_image(rule: str) -> None:
    """The denoised mean there is the mean of all images, which lies where the atom is: no rule finds home at once."""
    result, truth = decode_with_oracle(1, rule, mean_free=False)
    assert apart(result.frac_coords, truth.frac_coords).max() > 0.1


# with the network


def test_the_configured_rule_is_the_default_solver() -> None:
    def coords(rule: str, solver: str | None = None) -> np.ndarray:
        model = tiny_model()
        model.diffusion = process(20, reverse_rule=rule)
        model.config.diffusion.options["reverse_rule"] = rule
        made = generate(model, 1, steps=3, num_atoms=4, solver=solver).crystals
        return np.concatenate([crystal.frac_coords for crystal in made])

    assert np.array_equal(coords("ancestral"), coords("x0-jump", "ancestral"))
    assert not np.array_equal(coords("ancestral"), coords("x0-jump"))


def test_training_lowers_the_loss() -> None:
    """Of one crystal, over the same noise at all levels before and after."""
    torch.manual_seed(0)
    widths = {**TINY["denoiser"]["options"], "hidden": 32, "atom_width": 32, "emb_trip": 8, "bil_trip": 8}
    diffusion = {"name": "wrapped-normal", "timesteps": 20, "options": {"sigma_max": 0.2}}
    values = {**TINY, "denoiser": {"options": widths}, "diffusion": diffusion}
    model = CDVAE(Config.from_dict(values))
    batch = batch_of([random_crystal(1, 4)] * 32, torch.float32, bonded=True)
    model.stats.scaler.fit(batch.lattice, batch.num_atoms)
    generator = torch.Generator().manual_seed(0)
    held_out = model.noise_like(batch, generator)
    optimizer = torch.optim.Adam(model.denoiser.parameters(), 5e-3)

    def loss() -> float:
        with torch.no_grad():
            return float(model.losses(batch, held_out, true_lattice=True)["coords"])

    before = loss()
    for _ in range(150):
        optimizer.zero_grad()
        losses = model.losses(batch, model.noise_like(batch, generator), true_lattice=True)
        (losses["coords"] + 0.1 * losses["types"]).backward()
        optimizer.step()
    assert loss() < 0.85 * min(before, 2.25)
