"""Solvers at any stride: closed forms, orders of convergence, images; how solver and steps are chosen."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcdvae.cli import main
from dpcdvae.cli.options import Decoding as DecodingOptions
from dpcdvae.config import Config, config_from_dict
from dpcdvae.config.options import DIFFUSION_OPTIONS, SOLVER_ALIASES, DDPMOptions
from dpcdvae.diffusion import COORDINATE_DIFFUSIONS
from dpcdvae.diffusion.ddpm import DDPM
from dpcdvae.diffusion.ddpm_solvers import (
    DDPM_SOLVERS,
    half_log_snr,
    nearest_image,
    posterior_sigma,
    predicted_clean,
)
from dpcdvae.diffusion.schedules import SCHEDULES
from dpcdvae.diffusion.score_matching import ScoreMatching
from dpcdvae.errors import InputError
from dpcdvae.interfaces import ReverseRun
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model_store import find_model
from dpcdvae.sampling.decoding_settings import Decoding, sampling_settings
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.sampling.generation import generate, reconstruct
from dpcdvae.sampling.interpolation import interpolate
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import wrap
from tensors import batch_of, ddpm_step, default_dtype, random_crystal, table_of, tiny_model

BUNDLED = "perov-5-compact"


def normal(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# the solvers


def alpha_bar_at(half_log_snr: float) -> float:
    return 1 / (1 + math.exp(-2 * half_log_snr))


class Gaussian:
    """Data N(m, s²), narrow in the cell: the exact network and the exact flow are known.

    r_t ~ N(√ᾱ m, v), v = ᾱ s² + 1 - ᾱ; E[ε | r_t] = √(1-ᾱ) (r_t - √ᾱ m)/v, and the probability flow keeps
    (r_t - √ᾱ m)/√v (Song et al. 2021, Appendix D).
    """

    mean, spread = 0.07, 0.1

    def variance(self, alpha_bar: float) -> float:
        return alpha_bar * self.spread**2 + 1 - alpha_bar

    def noise(self, r_t: Tensor, alpha_bar: float) -> Tensor:
        return (1 - alpha_bar) ** 0.5 * (r_t - alpha_bar**0.5 * self.mean) / self.variance(alpha_bar)

    def flow(self, r_t: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
        scale = (self.variance(alpha_bar_s) / self.variance(alpha_bar_t)) ** 0.5
        return alpha_bar_s**0.5 * self.mean + scale * (r_t - alpha_bar_t**0.5 * self.mean)


def error_of(rule: str, steps: int) -> float:
    """Of the solver in ``steps`` steps, even in λ, at the end of the flow."""
    toy, r = Gaussian(), torch.tensor([-0.4, -0.1, 0.3, 0.45], dtype=torch.float64)
    bars = [1.0, *(alpha_bar_at(float(x)) for x in np.linspace(4, -0.5, steps + 1))]
    expected = toy.flow(r, bars[-1], bars[1])
    solver = DDPM_SOLVERS[rule](run_of(lambda coords, level: toy.noise(coords, bars[level])), bars)
    for level in range(steps + 1, 1, -1):
        r = solver.step(r, level, level - 1)
        assert r.abs().max() < 0.5
    return float((r - expected).abs().max())


def run_of(predict: Callable[[Tensor, int], Tensor]) -> ReverseRun:
    def no_noise() -> Tensor:
        raise AssertionError("a solver without noise draws none")

    return ReverseRun(batch_of([random_crystal(0)]), predict, no_noise)


def second_step(
    rule: str, before: tuple[Tensor, Tensor, float], now: tuple[Tensor, Tensor, float], bar_s: float, noise: Tensor
) -> Tensor:
    """The step to ᾱ_s of a solver that has made one before; ``before`` and ``now`` are (r, ε_θ, ᾱ)."""
    bars = [1.0, now[2], before[2]] if bar_s == 1 else [1.0, bar_s, now[2], before[2]]
    top = len(bars) - 1
    predictions = {top: before[1], top - 1: now[1], top - 2: now[1]}
    run = ReverseRun(batch_of([random_crystal(0)]), lambda coords, level: predictions[level], lambda: noise)
    solver = DDPM_SOLVERS[rule](run, bars)
    solver.step(before[0], top, top - 1)
    return solver.step(now[0], top - 1, top - 2)


@pytest.mark.parametrize(("rule", "order"), [("ddim", 1), ("dpm++2m", 2), ("heun", 2)])
def test_solvers_converge_to_the_probability_flow_with_their_order(rule: str, order: int) -> None:
    errors = [error_of(rule, steps) for steps in (40, 80, 160)]
    assert errors[-1] < 1e-3
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


def test_the_second_order_is_more_accurate_at_few_steps() -> None:
    assert error_of("dpm++2m", 20) < error_of("ddim", 100)
    assert error_of("heun", 20) < error_of("ddim", 100)


@pytest.mark.parametrize(("t", "s"), [(200, 199), (200, 20), (57, 3), (5, 0)])
def test_ancestral_is_ddim_with_all_its_noise(t: int, s: int) -> None:
    """Song, Meng & Ermon 2021, Eq. 12 with η = 1, for the image that the solver goes on with."""
    bars = DDPM(200, {"beta_end": 0.05}).alphas_cumprod
    r_t, noise_pred, noise = 2 * normal(3, 6, 3)
    sigma = posterior_sigma(bars[t], bars[s])
    r_0 = predicted_clean(r_t, noise_pred, bars[t])
    direction = math.sqrt(max(1 - bars[s] - sigma**2, 0))
    expected = math.sqrt(bars[s]) * r_0 + direction * noise_pred + sigma * noise
    torch.testing.assert_close(
        ddpm_step("ancestral", r_t, noise_pred, noise, bars[t], bars[s]), expected, rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("t", [2, 3, 90, 200])
def test_a_stride_of_one_is_the_printed_step(t: int) -> None:
    """Eqs. 5-7 from β alone."""
    process = DDPM(200, {"beta_end": 0.05})
    betas = SCHEDULES["sigmoid"](200, 1e-10, 0.05).tolist()
    bar = math.prod(1 - beta for beta in betas[:t])
    beta, before = betas[t - 1], bar / (1 - betas[t - 1])
    sigma = math.sqrt((1 - before) / (1 - bar) * beta)
    r_t, noise_pred, noise = normal(3, 6, 3)
    shown = process.levels(200)[200 - t]
    assert shown == (t, t - 1)
    arguments = r_t, noise_pred, noise, *(process.alphas_cumprod[level] for level in shown)
    printed = (r_t - beta / math.sqrt(1 - bar) * noise_pred) / math.sqrt(1 - beta) + sigma * noise
    torch.testing.assert_close(ddpm_step("ancestral", *arguments), printed, rtol=1e-6, atol=1e-6)
    jump = (wrap(r_t) - math.sqrt(1 - bar) * noise_pred) / math.sqrt(bar) + sigma * noise
    torch.testing.assert_close(ddpm_step("x0-jump", *arguments), jump, rtol=1e-6, atol=1e-6)


def test_multistep_as_lu_writes_it() -> None:
    """x_s = σ_s/σ_t x_t - α_s (e^-h - 1) D, D = (1 + 1/2r) x_0 - 1/2r x_0 of the pass before, r = h_u/h."""
    r_u, r_t = 0.1 * normal(2, 6, 3)
    noise_u, noise_t = 0.2 * normal(2, 6, 3, seed=6)
    u, t, s = (alpha_bar_at(x) for x in (0.3, 0.9, 1.3))
    h, ratio = 0.4, 0.6 / 0.4
    clean_u, clean_t = predicted_clean(r_u, noise_u, u), predicted_clean(r_t, noise_t, t)
    extrapolated = (1 + 1 / (2 * ratio)) * clean_t - 1 / (2 * ratio) * clean_u
    expected = math.sqrt((1 - s) / (1 - t)) * r_t - math.sqrt(s) * math.expm1(-h) * extrapolated
    found = second_step("dpm++2m", (r_u, noise_u, u), (r_t, noise_t, t), s, r_t)
    assert (clean_t - clean_u).abs().max() < 0.5
    torch.testing.assert_close(found, expected)
    assert half_log_snr(t) == pytest.approx(0.9)


def test_multistep_begins_and_ends_as_ddim() -> None:
    r_u, r_t, noise_u, noise_t = normal(4, 6, 3)
    before, now = (r_u, noise_u, 0.2), (r_t, noise_t, 0.6)
    first, single = (ddpm_step(rule, r_t, noise_t, r_t, 0.6, 0.8) for rule in ("dpm++2m", "ddim"))
    torch.testing.assert_close(first, single)
    last = second_step("dpm++2m", before, now, 1.0, r_t)
    torch.testing.assert_close(last, ddpm_step("ddim", r_t, noise_t, r_t, 0.6, 1.0))
    assert (second_step("dpm++2m", before, now, 0.8, r_t) - single).abs().max() > 0.01


def test_heun_as_lu_writes_it() -> None:
    """DPM-Solver++(2S), r = 1: x_s = σ_s/σ_t x_t - α_s (e^-h - 1) (x_0(t) + x_0(s))/2, and a last step of DDIM."""
    t, s = alpha_bar_at(0.5), alpha_bar_at(1.1)
    bars, r_t, network = [1.0, s, t], 0.1 * normal(6, 3), lambda r, level: 0.1 * torch.sin(3 * r + level)
    clean = predicted_clean(r_t, network(r_t, 2), t)
    one = math.sqrt((1 - s) / (1 - t)) * r_t - math.sqrt(s) * math.expm1(-0.6) * clean
    ahead = predicted_clean(one, network(one, 1), s)
    expected = math.sqrt((1 - s) / (1 - t)) * r_t - math.sqrt(s) * math.expm1(-0.6) * (clean + ahead) / 2
    solver = DDPM_SOLVERS["heun"](run_of(network), bars)
    r_s = solver.step(r_t, 2, 1)
    torch.testing.assert_close(r_s, expected)
    torch.testing.assert_close(solver.step(r_s, 1, 0), predicted_clean(r_s, network(r_s, 1), s))


@pytest.mark.parametrize("rule", sorted({*DDPM_SOLVERS} - {"ancestral"}))
def test_a_step_does_not_depend_on_the_image(rule: str) -> None:
    """Coordinates moved by whole cells, each atom by its own, those of the pass before by others."""
    r_u, r_t, noise_u, noise_t, noise = normal(5, 6, 3)
    near, far = (20 * normal(2, 6, 3, seed=6)).round()
    expected = second_step(rule, (r_u, noise_u, 0.3), (r_t, noise_t, 0.6), 0.8, noise)
    moved = second_step(rule, (r_u + far, noise_u, 0.3), (r_t + near, noise_t, 0.6), 0.8, noise)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-9)


def test_ancestral_goes_on_with_its_image() -> None:
    r_t, noise_pred, noise = normal(3, 6, 3)
    moved, stayed = (ddpm_step("ancestral", r, noise_pred, noise, 0.6, 0.8) for r in (r_t + 2, r_t))
    torch.testing.assert_close(moved - stayed, torch.full_like(r_t, 2 / math.sqrt(0.6 / 0.8)))


def test_predictions_are_compared_across_the_face() -> None:
    """From 0.49 to -0.49 is a step of 0.02: the extrapolated crystal lies beyond, not back across the cell."""
    u, t, s = (alpha_bar_at(x) for x in (5.0, 6.0, 7.0))
    r_u, r_t = (torch.tensor([[x * math.sqrt(bar)]], dtype=torch.float64) for x, bar in ((0.49, u), (-0.49, t)))
    zero = torch.zeros_like(r_t)
    found = second_step("dpm++2m", (r_u, zero, u), (r_t, zero, t), s, zero)
    assert float(ddpm_step("ddim", r_t, zero, zero, t, s)) == pytest.approx(-0.49, abs=1e-3)
    assert float(found) == pytest.approx(-0.49 + 0.01 * (1 - math.exp(-1)), abs=1e-3)
    assert nearest_image(torch.tensor([0.5, -0.5, 1.2])).tolist() == pytest.approx([-0.5, -0.5, 0.2])


# how they are chosen


def quick_model(**options: Any) -> CDVAE:
    """With a plain function in the network's place."""
    model = tiny_model(timesteps=6, **options)

    def answer(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.nn.functional.one_hot(noisy.atomic_numbers - 1, NUM_ELEMENTS)
        return 0.3 * torch.sin(2 * torch.pi * noisy.frac_coords + time[:1]), logits

    model.denoise = answer  # type: ignore[method-assign]
    return model


@pytest.fixture
def model() -> CDVAE:
    return quick_model()


def configured(model: CDVAE, **diffusion: Any) -> Config:
    values = model.config.to_dict()
    config = config_from_dict({**values, "diffusion": {**values["diffusion"], **diffusion}})
    assert isinstance(config, Config)
    return config


def levels_of(model: CDVAE, monkeypatch: pytest.MonkeyPatch, **how: Any) -> list[int]:
    """The level of each pass of the network for one crystal."""
    seen: list[int] = []
    time = model.diffusion.time

    def spy(level: int) -> float:
        seen.append(level)
        return time(level)

    with monkeypatch.context() as patch:
        patch.setattr(model.diffusion, "time", spy)
        passes = generate(model, 1, **how).passes
    assert passes == len(seen)
    return seen


def test_passes_are_counted_for_each_solver(model: CDVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each step; two of Heun's rule, but for its last step."""
    for solver in {*DDPM_SOLVERS} - {"heun"}:
        assert levels_of(model, monkeypatch, steps=3, solver=solver) == [6, 4, 2]
    assert levels_of(model, monkeypatch, steps=3, solver="heun") == [6, 4, 4, 2, 2]


def test_the_models_own_number_of_steps(model: CDVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """All without one, as in a configuration that was written before there was the option; --steps goes before it."""
    values = model.config.to_dict()
    del values["diffusion"]["sampling_steps"]
    assert config_from_dict(values) == model.config
    assert len(levels_of(model, monkeypatch)) == 6
    for own, expected in ((2, 2), (1000, 6)):
        model.config = configured(model, sampling_steps=own)
        assert len(levels_of(model, monkeypatch)) == expected
        assert len(levels_of(model, monkeypatch, steps=3)) == 3


def coords_of(result: GenerationResult) -> np.ndarray:
    return np.concatenate([crystal.frac_coords for crystal in result.crystals])


@pytest.mark.parametrize("rule", sorted(DDPM_SOLVERS))
def test_the_configured_rule_is_the_default_solver(rule: str) -> None:
    own, other = (quick_model(**options) for options in ({"reverse_rule": rule}, {}))
    assert own.diffusion.solver == rule
    expected = coords_of(generate(own, 1, steps=3, num_atoms=4))
    assert np.array_equal(coords_of(generate(other, 1, steps=3, num_atoms=4, solver=rule)), expected)
    if rule != other.diffusion.solver:
        assert not np.array_equal(coords_of(generate(other, 1, steps=3, num_atoms=4)), expected)


@pytest.mark.parametrize(("alias", "name"), SOLVER_ALIASES.items())
def test_aliases_are_taken_for_the_names(alias: str, name: str) -> None:
    """On the command line, in configurations of older checkpoints, and never in what is written."""
    assert Decoding.of(quick_model().config, 2, alias).solver == name
    options = DDPMOptions.model_validate({"reverse_rule": alias})
    assert options.reverse_rule == name
    values = {"diffusion": {"name": "wrapped-normal", "options": {"reverse_rule": "pf-ode"}}}
    config = config_from_dict(values)
    assert config.components()["diffusion.options"].model_dump()["reverse_rule"] == "ddim"


def test_every_call_takes_a_solver(model: CDVAE) -> None:
    table = table_of([random_crystal(k) for k in range(2)], bonded=True)
    for call in (
        lambda solver: generate(model, 2, steps=2, solver=solver),
        lambda solver: reconstruct(model, table, steps=2, solver=solver),
        lambda solver: interpolate(model, table, 2, steps=2, solver=solver),
    ):
        assert not np.array_equal(coords_of(call("ddim")), coords_of(call("x0-jump")))
        with pytest.raises(
            InputError, match=r"'dim': did you mean 'ddim'\? choose from ancestral, ddim, dpm\+\+2m, heun, x0-jump$"
        ):
            call("dim")


def test_score_matching_has_the_walk_alone() -> None:
    with default_dtype(torch.float64):
        process = ScoreMatching(20, {})
    assert [*process.solvers] == [process.solver] == ["langevin"]


def test_the_command_line_names_every_solver_and_records_the_one_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help names every rule, the manifest records the one used, an unknown name is refused at once."""
    named = {name: set(build(20, {}).solvers) for name, build in COORDINATE_DIFFUSIONS.items()}
    assert named == {name: set(options.solvers) for name, options in DIFFUSION_OPTIONS.items()}
    option: Any = DecodingOptions.__dataclass_fields__["solver"].default
    assert all(rule in option.help for name in ("ddpm", "wrapped-normal") for rule in named[name])
    line = ["generate", BUNDLED, "-n", "1", "--workers", "0", "--out", str(tmp_path / "x.extxyz")]
    assert main([*line, "--steps", "2", "--solver", "dpm++2"]) == 2
    assert "did you mean 'dpm++2m'? choose from ancestral, ddim, dpm++2m, heun, x0-jump\n" in capsys.readouterr().err
    assert main([*line, "--steps", "2", "--solver", "dpm++2m"]) == 0
    arguments = json.loads((tmp_path / "x.extxyz.manifest.json").read_text())["arguments"]
    assert (arguments["steps"], arguments["solver"]) == (2, "dpm++2m")
    assert sampling_settings(find_model(BUNDLED), 3, None) == {"steps": 3, "solver": "x0-jump", "candidates": 1}
    as_documented = {"steps": 20, "solver": "ddim", "candidates": 1}  # docs/sampling.md
    assert sampling_settings(find_model(BUNDLED), None, "ddim") == as_documented
