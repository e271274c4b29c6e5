"""Score matching and annealed Langevin dynamics: closed forms, frequencies, and the walk that must find the crystal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcdvae.diffusion.atom_types import one_hot
from dpcdvae.diffusion.score_matching import ScoreMatching
from dpcdvae.errors import InputError
from dpcdvae.interfaces import ReverseRun
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.decoding import decode
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import cart_to_frac, frac_to_cart, wrap
from dpcdvae.tensors.noise import CrystalRandom
from tensors import (
    TRUTH,
    UNIMODULAR,
    KnownStatistics,
    awkward_crystals,
    batch_of,
    default_dtype,
    random_crystal,
    rebased,
    rotation,
    tiny_model,
)

NEAREST = torch.tensor(list(product(range(-3, 4), repeat=3))).double()


def process(timesteps: int = 50, dtype: torch.dtype = torch.float64, **options: object) -> ScoreMatching:
    with default_dtype(dtype):
        return ScoreMatching(timesteps, options)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at_level(level: int, crystals: int, timesteps: int = 50) -> Tensor:
    """The uniform numbers that choose a level."""
    return torch.full((crystals,), (level - 0.5) / timesteps, dtype=torch.float64)


def apart(a: Tensor, b: Tensor, batch: CrystalBatch) -> Tensor:
    """(N,) Å between fractional coordinates, over the nearest 343 images."""
    delta = (a - b).double()
    vectors = ((delta - delta.round())[:, None] + NEAREST) @ batch.per_atom(batch.lattice).double()
    return torch.linalg.vector_norm(vectors, dim=-1).amin(1)


# the noise levels


def test_published_levels_are_geometric_from_a_hundredth_to_ten_angstrom() -> None:
    diffusion = ScoreMatching(50, {})
    sigmas = torch.tensor(diffusion.sigmas[1:])
    assert len(sigmas) == 50
    assert [float(sigmas[0]), float(sigmas[-1])] == pytest.approx([0.01, 10])
    torch.testing.assert_close(sigmas[1:] / sigmas[:-1], torch.full((49,), 1000 ** (1 / 49)))
    assert diffusion.max_steps == 5000


def test_every_level_is_drawn_equally_often() -> None:
    batch = batch_of([random_crystal(0, 1)] * 700)
    grid = (torch.arange(700).double() + 0.5) / 700
    times = process(7).corrupt(batch, normal(700, 3), grid).time
    assert torch.bincount(times.long()).tolist() == [0] + [100] * 7
    ends = process(7).corrupt(
        batch_of([random_crystal(0, 1)] * 2), normal(2, 3), torch.tensor([0, 1 - 2**-53]).double()
    )
    assert ends.time.tolist() == [1, 7]


def test_training_and_sampling_give_the_denoiser_the_same_time() -> None:
    diffusion, batch = process(), batch_of([random_crystal(0, 2)])
    for level in (1, 17, 50):
        assert float(diffusion.corrupt(batch, normal(2, 3), at_level(level, 1)).time) == diffusion.time(level) == level


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_min": 10.0}, r"sigma_min = 10 .* below sigma_max = 10 \(Å\)"),
        ({"sigma_min": 0.5, "sigma_max": 0.1}, "sigma_min = 0.5 .* below sigma_max = 0.1"),
        ({"sigma_min": 0.0}, "sigma_min .* above 0"),
        ({"sigma_min": 0.007}, "step_size = 0.0001 .* below 2 sigma_min² = 9.8e-05"),
        ({"steps_per_level": 2.5}, "steps_per_level .* a whole number from 1 to 1000, not 2.5"),
        ({"sigma_mix": 0.1}, "did you mean 'sigma_min'"),
    ],
)
def test_options_that_make_no_walk_are_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ScoreMatching(50, options)
    assert "\n" not in str(caught.value)


# the forward process


@pytest.mark.parametrize("level", [1, 20, 35, 50])
def test_noise_is_cartesian_and_the_target_leads_back(level: int) -> None:
    diffusion, batch = process(), batch_of(awkward_crystals())
    noise, sigma = normal(len(batch.frac_coords), 3), process().sigmas[level]
    result = diffusion.corrupt(batch, noise, at_level(level, len(batch)))
    lattice = batch.per_atom(batch.lattice)
    moved = frac_to_cart(result.frac_coords - batch.frac_coords, lattice)
    torch.testing.assert_close(moved, sigma * noise, rtol=1e-9, atol=1e-9)
    back = result.frac_coords + cart_to_frac(sigma * result.target, lattice) - batch.frac_coords
    torch.testing.assert_close(back, back.round(), rtol=0, atol=1e-9)
    assert result.weight.eq(0.5).all()


@pytest.mark.parametrize("level", [1, 20, 35, 50])
def test_the_target_is_as_long_as_the_shortest_way_back(level: int) -> None:
    """Over 343 images, which hold it in these cells."""
    diffusion, batch = process(), batch_of([random_crystal(k) for k in range(20)])
    result = diffusion.corrupt(batch, normal(100, 3), at_level(level, 20))
    lengths = diffusion.sigmas[level] * torch.linalg.vector_norm(result.target, dim=-1)
    torch.testing.assert_close(lengths, apart(result.frac_coords, batch.frac_coords, batch))


def test_small_noise_is_the_target_itself() -> None:
    diffusion, batch = process(), batch_of(awkward_crystals())
    noise = normal(len(batch.frac_coords), 3)
    result = diffusion.corrupt(batch, noise, at_level(1, len(batch)))
    torch.testing.assert_close(result.target, -noise)


def test_noise_is_that_of_the_lattice_the_network_sees() -> None:
    """In another lattice: the same fractional coordinates, the same noise in Å."""
    diffusion, batch = process(), batch_of([random_crystal(1)])
    seen = batch.replace(lattice=2 * batch.lattice)
    noise, level = normal(5, 3), at_level(10, 1)
    one, two = diffusion.corrupt(batch, noise, level), diffusion.corrupt(seen, noise, level)
    torch.testing.assert_close(one.frac_coords - batch.frac_coords, 2 * (two.frac_coords - batch.frac_coords))
    torch.testing.assert_close(one.target, two.target)


@pytest.mark.parametrize("level", [1, 35, 50])
def test_targets_are_those_of_the_crystal_not_of_its_description(level: int) -> None:
    diffusion, batch = process(), batch_of(awkward_crystals())
    noise, chosen = normal(len(batch.frac_coords), 3), at_level(level, len(batch))
    target = diffusion.corrupt(batch, noise, chosen).target
    moved = batch.replace(frac_coords=batch.frac_coords + torch.tensor([0.3, -4.1, 7.0]).double())
    images = batch.replace(frac_coords=batch.frac_coords + normal(len(noise), 3).mul(3).round())
    for same in (moved, images, *(rebased(batch, basis) for basis in UNIMODULAR)):
        torch.testing.assert_close(diffusion.corrupt(same, noise, chosen).target, target, rtol=0, atol=1e-7)
    turn = torch.tensor(rotation(4, mirror=True))
    turned = diffusion.corrupt(batch.replace(lattice=batch.lattice @ turn), noise @ turn, chosen)
    torch.testing.assert_close(turned.target, target @ turn, rtol=0, atol=1e-7)


@pytest.mark.parametrize("level", [1, 50])
def test_single_precision_keeps_the_targets(level: int) -> None:
    crystals = [random_crystal(k) for k in range(20)]
    noise, chosen = normal(100, 3), at_level(level, 20)
    exact = process().corrupt(batch_of(crystals), noise, chosen)
    single = process(dtype=torch.float32).corrupt(batch_of(crystals, torch.float32), noise.float(), chosen.float())
    assert {t.dtype for t in (single.frac_coords, single.time, single.target, single.weight)} == {torch.float32}
    torch.testing.assert_close(single.target.double(), exact.target, rtol=0, atol=1e-4)


# the start


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_walk_starts_anywhere_in_the_cell(dtype: torch.dtype) -> None:
    from scipy.stats import chisquare, kstest

    batch = batch_of([random_crystal(0)])
    start = process(dtype=dtype).prior(batch, normal(27_000, 3).to(dtype))
    assert ((start >= 0) & (start < 1)).all()
    for axis in range(3):
        assert kstest(start[:, axis].double().numpy(), "uniform").pvalue > 1e-3
    boxes = (start * 3).long() @ torch.tensor([9, 3, 1])
    assert chisquare(torch.bincount(boxes, minlength=27).numpy()).pvalue > 1e-3
    far = process(dtype=dtype).prior(batch, torch.tensor([[-40.0, 0, 40.0]], dtype=dtype))
    assert far.tolist() == [[0, 0.5, 0]]


# the levels of the walk


@pytest.mark.parametrize(("timesteps", "per_level"), [(1, 1), (1, 7), (5, 1), (6, 4), (50, 3)])
def test_passes_are_spread_evenly_from_noise_to_data(timesteps: int, per_level: int) -> None:
    diffusion = process(timesteps, steps_per_level=per_level)
    for steps in range(1, diffusion.max_steps + 1):
        levels = diffusion.levels(steps)
        assert len(levels) == steps
        assert levels[0][0] == timesteps
        assert levels[-1][1] == 0
        assert all(after == level for (_, after), (level, _) in pairwise(levels))
        visited = [level for level, _ in levels]
        if steps >= timesteps:
            assert sorted(set(visited)) == list(range(1, timesteps + 1))
            counts = Counter(visited).values()
            assert max(counts) - min(counts) <= 1
        elif steps > 1:
            assert visited[-1] == 1
            strides = [before - after for before, after in pairwise(visited)]
            assert min(strides) >= 1
            assert max(strides) - min(strides) <= 1
        assert visited == sorted(visited, reverse=True)


def test_published_walk_makes_a_hundred_steps_at_every_level() -> None:
    levels = ScoreMatching(50, {}).levels(5000)
    assert [level for level, _ in levels] == [50 - k // 100 for k in range(5000)]


# one step


def step_of(
    diffusion: ScoreMatching, batch: CrystalBatch, prediction: Tensor, noise: Tensor
) -> Callable[[Tensor, int, int], Tensor]:
    """The step of the walk whose network says ``prediction``."""
    return diffusion.start(ReverseRun(batch, lambda coords, level: prediction, lambda: noise), "langevin").step


@pytest.mark.parametrize(("level", "next_level"), [(50, 50), (30, 29), (1, 0)])
def test_a_step_in_a_plain_loop(level: int, next_level: int) -> None:
    """x + α s + √(2α) ε', s = p/σ, α = ε (σ/σ_min)² (Song & Ermon 2019, Algorithm 1)."""
    diffusion, batch = process(step_size=3e-5, sigma_min=0.02), batch_of(awkward_crystals())
    coords, prediction, noise = (normal(len(batch.frac_coords), 3, seed=k) for k in range(3))
    result = step_of(diffusion, batch, prediction, noise)(coords, level, next_level)
    sigma = 0.02 * 500 ** ((level - 1) / 49)
    alpha = 3e-5 * (sigma / 0.02) ** 2
    atom = 0
    for cell, size in zip(batch.lattice.numpy(), batch.num_atoms.tolist(), strict=True):
        for _ in range(size):
            x = coords[atom].numpy() @ cell
            x = x + alpha * prediction[atom].numpy() / sigma + math.sqrt(2 * alpha) * noise[atom].numpy()
            difference = result[atom].numpy() - x @ np.linalg.inv(cell)
            assert np.abs(difference - difference.round()).max() < 1e-9
            atom += 1
    assert ((result >= 0) & (result < 1)).all()


@pytest.mark.parametrize("step_size", [1e-4, 3e-5])
def test_the_last_step_without_noise_goes_where_the_score_points(step_size: float) -> None:
    diffusion, batch = process(last_noise=False, step_size=step_size), batch_of(awkward_crystals())
    coords, noise = normal(len(batch.frac_coords), 3), normal(len(batch.frac_coords), 3, seed=1)
    for level in (1, 20):
        sigma = diffusion.sigmas[level]
        prediction = frac_to_cart(batch.frac_coords - coords, batch.per_atom(batch.lattice)) / sigma
        last = step_of(diffusion, batch, prediction, noise)(coords, level, 0)
        assert apart(last, batch.frac_coords, batch).max() < 1e-9
        published = process(step_size=step_size)  # all other steps are its own
        for after in (level, max(level - 1, 1)):
            walked = step_of(diffusion, batch, prediction, noise)(coords, level, after)
            assert walked.equal(step_of(published, batch, prediction, noise)(coords, level, after))


@pytest.mark.parametrize("step_size", [1.9e-4, 1e-4, 1e-5])
@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_walk_at_one_level_ends_in_the_distribution_of_its_score(step_size: float, spread: float) -> None:
    """Atoms at N(0, s²), noise σ: the score is -x/v, v = s² + σ², and x' = (1 - α/v) x + √(2α) ε'.

    Its variance is v / (1 - α/(2v)): v but for the length of the steps. A point (s = 0) at the published step
    is left at 2σ² rather than σ².
    """
    diffusion = process(step_size=step_size)
    level, atoms = 12, 6000
    sigma = diffusion.sigmas[level]
    alpha, variance = step_size * (sigma / 0.01) ** 2, spread**2 + sigma**2
    batch = batch_of([Crystal(np.full(atoms, 6), np.zeros((atoms, 3)), 10 * np.eye(3))])
    coords = torch.full((atoms, 3), 0.5).double()
    factor = 1 - alpha / variance
    for number in range(math.ceil(math.log(1e-2) / math.log(abs(factor))) if abs(factor) > 1e-3 else 3):
        x = 10 * (coords - 0.5)
        step = step_of(diffusion, batch, -sigma * x / variance, normal(atoms, 3, seed=number))
        coords = step(coords, level, level)
    found = float((10 * (coords - 0.5)).square().mean())
    assert found / (variance / (1 - alpha / (2 * variance))) == pytest.approx(1, abs=0.04)


# the oracle: with the exact score, the walk finds the crystal


class Oracle(nn.Module):
    """In the denoiser's place: σ times the score, and the true types.

    ``exact`` is the score of the noisy crystal, Σ_k w_k d_k / σ² over the images k, w_k ∝ exp(-d_k²/(2σ²)); without
    it, that of the nearest image alone, which is what a target is.
    """

    def __init__(self, diffusion: ScoreMatching, truth: CrystalBatch, *, exact: bool = False) -> None:
        super().__init__()
        self.sigmas, self.truth, self.exact = diffusion.sigmas, truth, exact
        self.types = one_hot(truth.atomic_numbers, truth.lattice.dtype)

    def forward(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.sigmas[int(time[0])]
        delta = self.truth.frac_coords - noisy.frac_coords
        images = (delta - delta.round())[:, None] + NEAREST.to(delta)
        ways = images @ noisy.per_atom(noisy.lattice)
        squared = ways.square().sum(-1)
        if self.exact:
            weights = (-squared / (2 * sigma**2)).softmax(1)
            return (weights[..., None] * ways).sum(1) / sigma, self.types
        return ways[torch.arange(len(ways)), squared.argmin(1)] / sigma, self.types


def model_with_oracle(truth: CrystalBatch, timesteps: int, *, exact: bool = False, **options: object) -> CDVAE:
    dtype = truth.lattice.dtype
    model = tiny_model(dtype)
    model.diffusion = diffusion = process(timesteps, dtype, **options)
    model.stats = KnownStatistics(model, truth)
    model.denoiser = Oracle(diffusion, truth, exact=exact)
    return model


def walk(model: CDVAE, crystals: int, steps: int) -> CrystalBatch:
    result, usable = decode(
        model, torch.zeros(crystals, 6).to(model.dtype), CrystalRandom(0, torch.arange(crystals)), steps
    )
    assert usable.all()
    return result


@pytest.mark.parametrize("steps", [200, 90, 20, 7])
def test_the_walk_finds_the_crystals(steps: int) -> None:
    """All of it, or few passes: the last level alone decides how well, √2 σ_min."""
    truth = batch_of(TRUTH)
    result = walk(model_with_oracle(truth, 20, steps_per_level=10), len(TRUTH), steps)
    assert result.atomic_numbers.equal(truth.atomic_numbers)
    assert result.num_atoms.equal(truth.num_atoms)
    torch.testing.assert_close(result.lattice, truth.lattice)
    distances = apart(result.frac_coords, truth.frac_coords, truth)
    assert distances.max() < 4 * math.sqrt(2) * 0.01
    assert distances.mean() > 0.01  # and no better than its last noise


@pytest.mark.parametrize("steps", [200, 20, 7, 1])
def test_the_walk_finds_the_crystals_exactly_if_the_last_step_adds_no_noise(steps: int) -> None:
    truth = batch_of(TRUTH)
    result = walk(model_with_oracle(truth, 20, steps_per_level=10, last_noise=False), len(TRUTH), steps)
    assert apart(result.frac_coords, truth.frac_coords, truth).max() < 1e-9


def test_the_published_walk_keeps_its_digits_in_single_precision() -> None:
    """5000 steps that begin with strides of 14 Å."""
    truth = batch_of(TRUTH[:1], torch.float32)
    result = walk(model_with_oracle(truth, 50, last_noise=False), 1, 5000)
    assert apart(result.frac_coords, truth.frac_coords, truth).max() < 2e-6


def test_spread_around_the_crystal_is_that_of_the_last_level() -> None:
    """√2 σ_min along each axis at the published step, over many walks."""
    truth = batch_of([random_crystal(3, 5)] * 200)
    distances = apart(
        walk(model_with_oracle(truth, 10, steps_per_level=3), 200, 30).frac_coords, truth.frac_coords, truth
    )
    assert float((distances.square().mean() / 3).sqrt()) == pytest.approx(math.sqrt(2) * 0.01, rel=0.05)


@pytest.mark.parametrize("step_size", [1e-4, 3e-5])
def test_the_exact_score_of_the_noisy_crystal_recovers_the_crystal_too(step_size: float) -> None:
    """It vanishes where noise has made the cell uniform; homes are found below that."""
    truth = batch_of([random_crystal(k, 3) for k in range(4)])
    options = {"sigma_max": 2.0, "steps_per_level": 20, "step_size": step_size, "last_noise": False}
    result = walk(model_with_oracle(truth, 15, exact=True, **options), 4, 300)
    assert apart(result.frac_coords, truth.frac_coords, truth).max() < 1e-9


def test_a_wrong_score_does_not_find_the_crystals() -> None:
    """Cartesian vectors taken for fractional ones, or a score of other levels, miss what the right one hits exactly."""
    truth = batch_of(TRUTH)
    for mistake in ("frame", "levels"):
        model = model_with_oracle(truth, 20, steps_per_level=10, last_noise=False)
        assert isinstance(model.denoiser, Oracle)
        if mistake == "frame":
            to_frac = lambda batch, vectors: cart_to_frac(vectors, batch.per_atom(batch.lattice))  # noqa: E731
            model.diffusion.to_target = to_frac  # type: ignore[method-assign]
        else:
            model.denoiser.sigmas = [2 * sigma for sigma in model.denoiser.sigmas]
        assert apart(walk(model, len(TRUTH), 200).frac_coords, truth.frac_coords, truth).max() > 1e-3


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_a_crystal_that_runs_away_ends_alone(value: float) -> None:
    """Its neighbours in the batch come out as if it were not there, and the walk ends."""
    truth = batch_of(TRUTH)
    astray = torch.tensor([8, 9, 10])  # the last crystal's atoms

    class Runaway(Oracle):
        def forward(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
            vectors, types = super().forward(noisy, z, time)
            return vectors.index_fill(0, astray, value) if time[0] == 15 else vectors, types

    healthy, sick = (model_with_oracle(truth, 20, steps_per_level=5) for _ in range(2))
    assert isinstance(sick.diffusion, ScoreMatching)
    sick.denoiser = Runaway(sick.diffusion, truth)
    expected, result = (walk(model, len(TRUTH), 100).frac_coords for model in (healthy, sick))
    torch.testing.assert_close(result[:8], expected[:8])
    lost = result[8:].isnan().all()
    assert lost if not math.isfinite(value) else lost or result[8:].isfinite().all()


def test_the_loss_is_half_the_squared_error_of_the_score_in_units_of_sigma() -> None:
    """½ σ² |d/σ² - p/σ|², from the corrupted batch alone, as a plain loop."""
    diffusion, batch = process(), batch_of([random_crystal(k) for k in range(3)])
    result = diffusion.corrupt(batch, normal(15, 3), torch.tensor([0.1, 0.5, 0.99]).double())
    prediction = normal(15, 3, seed=5)
    terms = (prediction - result.target).square().sum(-1) * batch.per_atom(result.weight)
    for atom, crystal in enumerate(batch.crystal_index.tolist()):
        sigma = diffusion.sigmas[int(result.time[crystal])]
        d = sigma * result.target[atom]
        wanted = 0.5 * sigma**2 * float((d / sigma**2 - prediction[atom] / sigma).square().sum())
        assert float(terms[atom]) == pytest.approx(wanted)


def test_coordinates_stay_wrapped_through_the_walk() -> None:
    truth = batch_of(TRUTH)
    coords = walk(model_with_oracle(truth, 4, steps_per_level=2), len(TRUTH), 8).frac_coords
    assert coords.equal(wrap(coords))
