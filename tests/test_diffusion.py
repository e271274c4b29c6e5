"""Noise forwards and backwards: closed forms, limits, frequencies, and the oracle that must bring crystals back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcdvae.diffusion import COORDINATE_DIFFUSIONS
from dpcdvae.diffusion.atom_types import (
    one_hot,
)
from dpcdvae.diffusion.ddpm import DDPM, recentre
from dpcdvae.diffusion.ddpm_solvers import DDPM_SOLVERS, nearest_image, posterior_sigma
from dpcdvae.diffusion.schedules import SCHEDULES
from dpcdvae.errors import InputError
from dpcdvae.interfaces import ReverseRun
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.decoding import decode
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import frac_to_cart, lattice_from_parameters, wrap
from dpcdvae.tensors.noise import CrystalRandom
from tensors import KnownStatistics, batch_of, ddpm_step, default_dtype, random_crystal, tiny_model

ENDS = 1e-10, 0.01  # the paper's
SEED = 2024


def diffusion(timesteps: int = 200, **options: object) -> DDPM:
    with default_dtype(torch.float64):
        return DDPM(timesteps, options)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)


def apart(a: Tensor, b: Tensor) -> Tensor:
    """Distance of fractional coordinates on the circle."""
    return (a - b - (a - b).round()).abs()


# schedules


@pytest.mark.parametrize("timesteps", [1, 2, 20, 1000])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_lose_signal_steadily(name: str, timesteps: int) -> None:
    betas = SCHEDULES[name](timesteps, *ENDS)
    assert betas.shape == (timesteps,)
    assert betas.dtype == torch.float64
    assert ((betas > 0) & (betas < 1)).all()
    bars = (1 - betas).cumprod(0)
    assert (bars.diff() < 0).all()
    assert float(bars[0]) < 1
    assert (betas.diff() >= 0).all()


def test_published_schedule_ends_at_a_signal_of_two_percent() -> None:
    """So √ᾱ_T ≈ 0.15: the end of the forward process is not quite N(0, I)."""
    bars = DDPM(1000, {}).alphas_cumprod
    assert len(bars) == 1001
    assert bars[0] == 1
    assert bars[-1] == pytest.approx(0.023, abs=0.0005)
    betas = SCHEDULES["sigmoid"](1000, *ENDS)
    assert float(betas[0]) == pytest.approx(0.01 / (1 + math.exp(10)) + 1e-10, rel=1e-6)
    assert float(betas[-1]) == pytest.approx(0.01 / (1 + math.exp(-6)), rel=1e-6)


def test_schedules_in_closed_form() -> None:
    t = torch.arange(1, 101, dtype=torch.float64)
    grid = (t - 1) / 99
    torch.testing.assert_close(SCHEDULES["linear"](100, 0.001, 0.1), 0.001 + grid * 0.099)
    torch.testing.assert_close(SCHEDULES["quadratic"](100, 0.01, 0.25).sqrt(), 0.1 + grid * 0.4)

    def curve(x: Tensor) -> Tensor:
        return torch.cos((x / 100 + 0.008) / 1.008 * math.pi / 2) ** 2

    bars = (1 - SCHEDULES["cosine"](100, *ENDS)).cumprod(0)
    torch.testing.assert_close(bars[:-1], (curve(t) / curve(0 * t))[:-1])  # the last β is cut at 0.999


def test_unknown_schedule_offers_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'sigmoid'"):
        DDPM(1000, {"schedule": "sigmoidal"})


@pytest.mark.parametrize(
    "options",
    [
        {"beta_end": 2.0},
        {"beta_end": 1.0},
        {"beta_start": 1e-20, "schedule": "linear"},
        {"beta_end": 0.99, "schedule": "linear"},  # nothing is left of the signal, not even in float64
    ],
)
def test_schedules_that_are_none_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"beta_start = .* and beta_end = "):
        DDPM(1000, {"schedule": "quadratic", **options})


# the forward process


@pytest.mark.parametrize("timesteps", [1, 7, 20, 1000])
@pytest.mark.parametrize("name", sorted(COORDINATE_DIFFUSIONS))
def test_levels_lead_from_noise_to_data(name: str, timesteps: int) -> None:
    process = COORDINATE_DIFFUSIONS[name](timesteps, {})
    most = process.max_steps
    for steps in {1, 2, 3, timesteps // 2, timesteps - 1, timesteps, most // 2, most} & set(range(1, most + 1)):
        levels = process.levels(steps)
        assert len(levels) == steps
        assert levels[0][0] == timesteps
        assert levels[-1][1] == 0
        assert [after for _, after in levels[:-1]] == [level for level, _ in levels[1:]]
        strides = [level - after for level, after in levels]
        assert min(strides) >= (1 if steps <= timesteps else 0)
    visits = Counter(level for level, _ in process.levels(most))
    assert visits == dict.fromkeys(range(1, timesteps + 1), most // timesteps)


def test_strides_of_processes_without_a_walk_are_even() -> None:
    for timesteps in (1, 7, 20, 1000):
        for steps in {1, 2, 3, timesteps // 2, timesteps - 1, timesteps} & set(range(1, timesteps + 1)):
            for name in ("ddpm", "wrapped-normal"):
                levels = COORDINATE_DIFFUSIONS[name](timesteps, {}).levels(steps)
                strides = [level - after for level, after in levels]
                assert max(strides) - min(strides) <= 1
    assert DDPM(20, {}).levels(20) == [(t, t - 1) for t in range(20, 0, -1)]


def test_forward_process_is_equation_2() -> None:
    process = diffusion(recentre=False)
    batch = batch_of([random_crystal(k) for k in range(6)])
    noise, chosen = normal(len(batch.frac_coords), 3), torch.tensor([0, 0.1, 0.5, 0.77, 0.999, 1 - 2**-53])
    result = process.corrupt(batch, noise, chosen)
    assert result.time.tolist() == [1, 21, 101, 155, 200, 200]
    bars = torch.tensor(process.alphas_cumprod, dtype=torch.float64)[result.time.long()]
    expected = (
        batch.per_atom(bars.sqrt())[:, None] * batch.frac_coords
        + batch.per_atom((1 - bars).sqrt())[:, None] * result.target
    )
    torch.testing.assert_close(result.frac_coords, expected)
    torch.testing.assert_close(result.target, noise - batch.per_atom(batch.mean_over_atoms(noise)))
    assert result.weight.eq(1).all()


@pytest.mark.parametrize("mean_free", [False, True])
def test_forward_process_has_its_moments(mean_free: bool) -> None:
    process = diffusion(mean_free=mean_free, recentre=False)
    crystal = random_crystal(1, 4)
    copies = batch_of([crystal] * 4000)
    result = process.corrupt(copies, normal(len(copies.frac_coords), 3), torch.full((4000,), 0.7).double())
    bar = process.alphas_cumprod[141]
    coords = result.frac_coords.unflatten(0, (4000, 4))
    assert (coords.mean(0) - math.sqrt(bar) * torch.tensor(crystal.frac_coords)).abs().max() < 0.05
    # Four atoms without their mean keep three quarters of the variance.
    wanted = (1 - bar) * (0.75 if mean_free else 1)
    assert float((coords.var(0) / wanted - 1).abs().max()) < 0.1


def test_every_level_is_drawn_equally_often() -> None:
    process = diffusion(timesteps=7)
    batch = batch_of([random_crystal(0, 1)] * 700)
    grid = (torch.arange(700).double() + 0.5) / 700
    times = process.corrupt(batch, normal(700, 3), grid).time
    assert torch.bincount(times.long()).tolist() == [0] + [100] * 7


def test_training_and_sampling_give_the_denoiser_the_same_time() -> None:
    batch = batch_of([random_crystal(0, 2)])
    for kind, expected in (("step", 101.0), ("fraction", 0.505)):
        process = diffusion(time_input=kind)
        assert float(process.corrupt(batch, normal(2, 3), torch.tensor([0.5])).time) == pytest.approx(expected)
        assert process.time(101) == pytest.approx(expected)


def test_target_and_prior_are_free_of_each_crystals_mean_if_asked() -> None:
    batch = batch_of([random_crystal(0), random_crystal(1, 1), random_crystal(2, 3)])
    vectors = normal(9, 3) + 5
    plain, free = (diffusion(mean_free=mean_free).to_target(batch, vectors) for mean_free in (False, True))
    torch.testing.assert_close(frac_to_cart(plain, batch.per_atom(batch.lattice)), vectors)
    assert batch.mean_over_atoms(free).abs().max() < 1e-12
    torch.testing.assert_close(plain - free, batch.per_atom(batch.mean_over_atoms(plain)))
    start = diffusion().prior(batch, vectors)
    torch.testing.assert_close(start, vectors - batch.per_atom(batch.mean_over_atoms(vectors)))
    run = diffusion().start(ReverseRun(batch, lambda coords, level: coords, lambda: vectors), "x0-jump").run
    torch.testing.assert_close(run.noise(), start)


# the frame of the clean coordinates


def test_recentred_does_not_depend_on_the_origin() -> None:
    batch = batch_of([random_crystal(k) for k in range(5)])
    moved = batch.replace(frac_coords=wrap(batch.frac_coords + torch.tensor([0.37, 0.91, -4.2])))
    assert apart(recentre(moved), recentre(batch)).max() < 1e-12
    assert ((recentre(batch) >= -0.5) & (recentre(batch) < 0.5)).all()
    moves = (batch.frac_coords - recentre(batch)).unflatten(0, (5, 5))  # of five crystals' five atoms
    assert apart(moves, moves[:, :1]).max() < 1e-12
    again = batch.replace(frac_coords=recentre(batch))
    assert apart(recentre(again), recentre(batch)).max() < 1e-12


def test_recentred_is_continuous_across_a_face() -> None:
    """Mean of wrapped coordinates: jumps by 1/N_a when an atom crosses. Mean on the circle: does not."""
    others = np.array([[0.1, 0.1, 0.1], [0.8, 0.9, 0.0]])
    path = []
    for x in np.linspace(0.9, 1.1, 41):
        atom = np.array([[x % 1.0, 0.0, 0.0]])
        path.append(recentre(batch_of([Crystal(np.full(3, 6), np.concatenate([atom, others]), 4 * np.eye(3))])))
    assert torch.stack(path).diff(dim=0).abs().max() < 0.006


def test_a_lone_atom_is_its_own_centre() -> None:
    assert recentre(batch_of([random_crystal(5, 1)])).abs().max() < 1e-12


def test_training_sees_recentred_coordinates_if_asked() -> None:
    batch = batch_of([random_crystal(k) for k in range(3)])
    noise, level = normal(15, 3), torch.zeros(3).double()
    for wanted, clean in ((True, recentre(batch)), (False, batch.frac_coords)):
        process = diffusion(recentre=wanted)
        bar = process.alphas_cumprod[1]
        result = process.corrupt(batch, noise, level)
        expected = math.sqrt(bar) * clean + math.sqrt(1 - bar) * result.target
        torch.testing.assert_close(result.frac_coords, expected)


# the solvers


@pytest.mark.parametrize("t", [1, 2, 57, 200])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_ancestral_is_the_textbook_posterior(name: str, t: int) -> None:
    """Ho et al. 2020, Eqs. 6-7: q(r_{t-1} | r_t, r_0)."""
    bars = diffusion(schedule=name).alphas_cumprod
    bar, before = bars[t], bars[t - 1]
    alpha, beta = bar / before, 1 - bar / before
    r_t, noise_pred, noise = normal(3, 5, 3)
    r_0 = (r_t - math.sqrt(1 - bar) * noise_pred) / math.sqrt(bar)
    mean = (math.sqrt(before) * beta * r_0 + math.sqrt(alpha) * (1 - before) * r_t) / (1 - bar)
    variance = (1 - before) / (1 - bar) * beta
    torch.testing.assert_close(
        ddpm_step("ancestral", r_t, noise_pred, noise, bar, before),
        mean + math.sqrt(variance) * noise,
        rtol=1e-7,
        atol=1e-7,
    )


@pytest.mark.parametrize(("t", "s"), [(200, 199), (200, 20), (57, 3), (5, 0)])
def test_ancestral_leaves_the_right_noise_at_any_stride(t: int, s: int) -> None:
    """r_t = √ᾱ_t r_0 + √(1-ᾱ_t) ε, with the true ε, becomes r_s = √ᾱ_s r_0 + √(1-ᾱ_s) ε'."""
    bars = diffusion(beta_end=0.05).alphas_cumprod
    zero, one = torch.zeros(1, 3).double(), torch.ones(1, 3).double()

    def step(r_0: Tensor, epsilon: Tensor, noise: Tensor) -> float:
        r_t = math.sqrt(bars[t]) * r_0 + math.sqrt(1 - bars[t]) * epsilon
        return float(ddpm_step("ancestral", r_t, epsilon, noise, bars[t], bars[s])[0, 0])

    assert step(one, zero, zero) == pytest.approx(math.sqrt(bars[s]))
    spread = step(zero, one, zero), step(zero, zero, one)
    assert spread[0] ** 2 + spread[1] ** 2 == pytest.approx(1 - bars[s], abs=1e-12)


def test_x0_jumps_to_the_predicted_crystal() -> None:
    bars = diffusion().alphas_cumprod
    r_t, noise_pred, noise = normal(3, 5, 3)
    r_0 = (wrap(r_t) - math.sqrt(1 - bars[90]) * noise_pred) / math.sqrt(bars[90])
    sigma = math.sqrt((1 - bars[89]) / (1 - bars[90]) * (1 - bars[90] / bars[89]))
    torch.testing.assert_close(ddpm_step("x0-jump", r_t, noise_pred, noise, bars[90], bars[89]), r_0 + sigma * noise)
    torch.testing.assert_close(
        ddpm_step("x0-jump", r_t + 3, noise_pred, noise, bars[90], bars[89]), r_0 + sigma * noise
    )


def test_the_last_step_adds_no_noise() -> None:
    bars = diffusion().alphas_cumprod
    assert posterior_sigma(bars[1], bars[0]) == 0
    assert posterior_sigma(bars[30], bars[0]) == 0
    assert all(posterior_sigma(bars[t], bars[t - 1]) > 0 for t in range(2, 201))


# the oracle: exact noise in, crystals back


TRUTH = [
    Crystal.from_parameters(
        np.array(numbers), np.random.default_rng(k).random((len(numbers), 3)), lengths, angles, str(k)
    )
    for k, (numbers, lengths, angles) in enumerate(
        [
            ([38, 22, 8, 8, 8], [3.9, 3.9, 3.9], [90, 90, 90]),
            ([6], [2.5, 2.6, 2.7], [60, 61, 62]),
            ([11, 17], [4.0, 5.0, 6.0], [80, 100, 110]),
        ]
    )
]


# which image of r_t a rule works on
IMAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "ancestral": lambda r: r,
    "x0-jump": wrap,
    "ddim": nearest_image,
    "dpm++2m": nearest_image,
    "heun": nearest_image,
}


def exact_noise(model: CDVAE, truth: CrystalBatch, noisy: CrystalBatch, time: Tensor) -> Tensor:
    """ε = (r_t - √ᾱ_t r_0)/√(1-ᾱ_t), for the image of r_t that the reverse rule works on."""
    process = model.diffusion
    assert isinstance(process, DDPM)
    t = time * (process.timesteps if process.options.time_input == "fraction" else 1)
    bar = truth.per_atom(torch.tensor(process.alphas_cumprod, dtype=torch.float64)[t.round().long()])[:, None]
    return (IMAGE[process.solver](noisy.frac_coords) - bar.sqrt() * truth.frac_coords) / (1 - bar).sqrt()


class Oracle(nn.Module):
    """In the denoiser's place: Cartesian vectors and the true types."""

    def __init__(self, model: CDVAE, truth: CrystalBatch) -> None:
        super().__init__()
        self.answer: Callable[[CrystalBatch, Tensor], Tensor] = lambda noisy, time: frac_to_cart(
            exact_noise(model, truth, noisy, time), noisy.per_atom(noisy.lattice)
        )
        self.types = one_hot(truth.atomic_numbers, truth.lattice.dtype)

    def forward(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return self.answer(noisy, time), self.types


def decode_with_oracle(steps: int, **options: object) -> tuple[CrystalBatch, CrystalBatch]:
    model, truth = tiny_model(**options), batch_of(TRUTH)
    model.stats = KnownStatistics(model, truth)
    model.denoiser = Oracle(model, truth)
    random = CrystalRandom(0, torch.arange(len(TRUTH)))
    result, usable = decode(model, torch.zeros(len(TRUTH), 6).double(), random, steps)
    assert usable.all()
    return result, truth


@pytest.mark.parametrize("steps", [200, 50, 10, 3, 1])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("rule", sorted(DDPM_SOLVERS))
def test_oracle_brings_the_crystals_back(rule: str, schedule: str, steps: int) -> None:
    result, truth = decode_with_oracle(
        steps, timesteps=200, beta_end=0.05, beta_start=1e-6, reverse_rule=rule, schedule=schedule, mean_free=False
    )
    assert result.atomic_numbers.equal(truth.atomic_numbers)
    assert result.num_atoms.equal(truth.num_atoms)
    torch.testing.assert_close(result.lattice, truth.lattice)
    assert apart(result.frac_coords, truth.frac_coords).max() < 1e-9


@pytest.mark.parametrize("steps", [1000, 50, 3, 1])
@pytest.mark.parametrize("rule", sorted(DDPM_SOLVERS))
def test_oracle_brings_the_crystals_back_under_the_published_schedule(rule: str, steps: int) -> None:
    """T = 1000, noise without its mean: back up to the origin, which such noise does not know."""
    result, truth = decode_with_oracle(steps, timesteps=1000, beta_end=0.01, reverse_rule=rule)
    assert result.atomic_numbers.equal(truth.atomic_numbers)
    origin = torch.tensor([0, 5, 6])[truth.crystal_index]  # the first atom of each crystal
    moved = result.frac_coords - result.frac_coords[origin]
    assert apart(moved, truth.frac_coords - truth.frac_coords[origin]).max() < 1e-9


@pytest.mark.parametrize("rule", sorted(DDPM_SOLVERS))
def test_oracle_works_with_time_as_a_fraction(rule: str) -> None:
    result, truth = decode_with_oracle(20, time_input="fraction", reverse_rule=rule, mean_free=False)
    assert apart(result.frac_coords, truth.frac_coords).max() < 1e-9


def test_a_wrong_oracle_does_not_bring_them_back() -> None:
    """Cartesian vectors taken for fractional ones, the public code's first trap, lead elsewhere."""
    result, truth = decode_with_oracle(20, turn_frame=False, mean_free=False)
    assert apart(result.frac_coords, truth.frac_coords).max() > 0.01


def test_the_model_gives_predictions_in_the_space_of_the_target() -> None:
    batch = batch_of([*TRUTH, random_crystal(3)])
    vectors, time = normal(len(batch.frac_coords), 3), torch.ones(len(batch)).double()

    class Constant(nn.Module):
        def forward(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
            return vectors, torch.zeros(len(vectors), 100)

    def denoised(**options: object) -> Tensor:
        model = tiny_model(**options)
        model.denoiser = Constant()
        return model.denoise(batch, time[:, None], time)[0]

    assert denoised(turn_frame=False, mean_free=False).equal(vectors)
    turned = denoised(mean_free=False)
    torch.testing.assert_close(frac_to_cart(turned, batch.per_atom(batch.lattice)), vectors)
    torch.testing.assert_close(denoised(), turned - batch.per_atom(batch.mean_over_atoms(turned)))


def test_truth_is_in_standard_orientation() -> None:
    """The decoder gives cells in this orientation, so the oracle's comparison of lattices is fair."""
    for crystal in TRUTH:
        parameters = torch.tensor(np.concatenate([crystal.lengths, crystal.angles]))
        torch.testing.assert_close(lattice_from_parameters(parameters), torch.tensor(crystal.lattice))
