"""Property-guided search and interpolation: downhill for a fact, the same noise, the ends of a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcdvae.config import Config
from dpcdvae.errors import InputError
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.generation import generate, reconstruct
from dpcdvae.sampling.interpolation import interpolate, latents_between
from dpcdvae.sampling.search import (
    descend,
    encoded_start,
    optimize,
    predict_from_latents,
    random_start,
    saved_steps,
)
from dpcdvae.structures.crystal import Crystal
from tensors import TINY, default_dtype, random_crystal, shake, table_of

DIFFUSIONS: dict[str, dict[str, Any]] = {
    "ddpm": {"timesteps": 20, "options": {"beta_end": 0.2}},
    "score-matching": {"name": "score-matching", "timesteps": 6, "options": {"steps_per_level": 2}},
    "wrapped-normal": {"name": "wrapped-normal", "timesteps": 20},
}
CRYSTALS = [random_crystal(k, 3 + k % 3) for k in range(5)]


def model_with_head(diffusion: str = "ddpm", property: str = "energy") -> CDVAE:
    """Untrained, in float64, cells of some 4 Å; the property has mean -2 and spread 3."""
    torch.manual_seed(0)
    values = {**TINY, "model": {**TINY["model"], "property": property}, "diffusion": DIFFUSIONS[diffusion]}
    with default_dtype(torch.float64):
        model = CDVAE(Config.from_dict(values))
    shake(model)
    model.stats.scaler.shift.copy_(torch.tensor([2.5, 2.5, 2.5, 90, 90, 90]))
    model.stats.scaler.scale.copy_(torch.tensor([0.3, 0.3, 0.3, 5, 5, 5]))
    if model.property_head is not None:
        model.property_head.scaler.mean.fill_(-2.0)
        model.property_head.scaler.std.fill_(3.0)
    return model


@pytest.fixture(params=DIFFUSIONS)
def model(request: pytest.FixtureRequest) -> CDVAE:
    return model_with_head(request.param)


class Bowl(nn.Module):
    """Lowest, -5 after scaling, at z = 1, 2, ..., with a weight so that there is something to leave alone."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.arange(1, latent_dim + 1, dtype=torch.float64) / latent_dim)

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.centre).square().sum(-1) - 1


def with_bowl(model: CDVAE) -> CDVAE:
    assert model.property_head is not None
    model.property_head.layers = nn.Sequential(Bowl(6), nn.Unflatten(0, (-1, 1)))
    return model


def assert_same_crystals(ours: list[Crystal], theirs: list[Crystal]) -> None:
    """Up to rounding, which the early steps amplify; ids aside."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.atomic_numbers.tolist() == b.atomic_numbers.tolist()
        np.testing.assert_allclose(a.lattice, b.lattice, atol=1e-8)
        difference = a.frac_coords - b.frac_coords
        np.testing.assert_allclose(difference - np.round(difference), 0, atol=1e-6)


# descent


def test_descent_reaches_the_known_minimum_and_never_climbs() -> None:
    model = with_bowl(model_with_head())
    z = random_start(model, 4, seed=1).z
    descent = descend(model, z, gradient_steps=1000, lr=1e-2, saved=6)
    assert descent.steps == (0, 200, 400, 600, 800, 1000)
    assert (np.diff(descent.predicted, axis=0) <= 1e-9).all()
    np.testing.assert_allclose(descent.predicted[-1], -5, atol=1e-3)
    torch.testing.assert_close(descent.z[-1], torch.arange(1, 7).double().div(6).expand(4, 6), atol=1e-2, rtol=0)
    torch.testing.assert_close(descent.z[0], z)


def test_uphill_is_downhill_of_the_opposite() -> None:
    model = model_with_head()
    start = random_start(model, 3)
    up = descend(model, start.z, gradient_steps=50, lr=1e-2, saved=2, maximize=True)
    down = descend(model, start.z, gradient_steps=50, lr=1e-2, saved=2)
    assert (up.predicted[1] > up.predicted[0]).all()
    assert (down.predicted[1] < down.predicted[0]).all()
    assert model.property_head is not None
    with torch.no_grad():
        for layer in (model.property_head.layers[-1],):
            layer.weight.neg_()
            layer.bias.neg_()
    turned = descend(model, start.z, gradient_steps=50, lr=1e-2, saved=2)
    torch.testing.assert_close(turned.z, up.z)


def test_first_step_of_adam_is_the_learning_rate_against_the_sign_of_the_gradient() -> None:
    model = with_bowl(model_with_head())
    z = random_start(model, 4).z
    moved = descend(model, z, gradient_steps=2, lr=1e-3, saved=2).z[1] - z
    centre = torch.arange(1, 7).double() / 6
    torch.testing.assert_close(moved, -2e-3 * (z - centre).sign(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_descent_leaves_the_model_alone(training: bool, trainable: bool) -> None:
    model = model_with_head().train(training).requires_grad_(trainable)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = random_start(model, 3)
    optimize(model, start, gradient_steps=5, lr=0.1, saved=3, steps=2)
    assert model.training is training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, weight in model.named_parameters():
        assert weight.requires_grad is trainable, name
        assert weight.grad is None, name
    assert not start.z.requires_grad


@pytest.mark.parametrize("gradient_steps", [5, 9, 100, 5000])
@pytest.mark.parametrize("saved", [2, 3, 5])
def test_saved_steps_begin_with_the_start_and_end_with_the_last(gradient_steps: int, saved: int) -> None:
    points = saved_steps(gradient_steps, saved)
    assert len(points) == saved
    assert points[0] == 0
    assert points[-1] == gradient_steps
    assert max(np.diff(points)) - min(np.diff(points)) <= 1


def test_what_cannot_be_searched(model: CDVAE) -> None:
    start = random_start(model, 2)
    with pytest.raises(InputError, match=r"--saved must lie between 2 .* the 5 gradient steps, not 6"):
        optimize(model, start, gradient_steps=5, saved=6)
    with pytest.raises(InputError, match="not 1"):
        optimize(model, start, gradient_steps=5, saved=1)
    with pytest.raises(InputError, match="--lr must be above 0"):
        optimize(model, start, gradient_steps=5, saved=2, lr=0.0)
    with pytest.raises(InputError, match="at most 1, not 1e"):
        optimize(model, start, gradient_steps=5, saved=2, lr=1e30)
    with pytest.raises(InputError, match="--steps must lie in"):
        optimize(model, start, gradient_steps=10**9, saved=2, steps=1000)  # said before the descent
    with pytest.raises(InputError, match="carry no bonds"):
        encoded_start(model, table_of(CRYSTALS))
    with pytest.raises(InputError, match="nothing to start from"):
        encoded_start(model, table_of([]))
    with pytest.raises(InputError, match="no property head: train one with dpcdvae train --property"):
        descend(model_with_head(property=""), start.z)


# decoding


def test_step_0_is_what_generate_makes(model: CDVAE) -> None:
    result = optimize(model, random_start(model, 4, seed=3), gradient_steps=4, saved=2, steps=3, seed=3)
    theirs = generate(model, 4, seed=3, steps=3)
    ours = [c for c, (point, _) in zip(result.crystals, result.places, strict=True) if point == 0]
    assert [c.id for c in ours] == [f"{c.id}@0" for c in theirs.crystals]
    assert_same_crystals(ours, theirs.crystals)


def test_step_0_is_what_reconstruct_makes(model: CDVAE) -> None:
    table = table_of(CRYSTALS, bonded=True)
    result = optimize(model, encoded_start(model, table, batch_size=2), gradient_steps=4, saved=2, steps=3)
    theirs = reconstruct(model, table, steps=3)
    ours = [c for c, (point, _) in zip(result.crystals, result.places, strict=True) if point == 0]
    assert [c.id for c in ours] == [f"{c.id}@0" for c in theirs.crystals]
    assert_same_crystals(ours, theirs.crystals)


def test_a_point_that_does_not_move_gives_the_same_crystal_at_every_step(model: CDVAE) -> None:
    """The noise of a starting point does not depend on the saved point; batches do not matter either."""
    result = optimize(model, random_start(model, 3), gradient_steps=6, lr=1e-300, saved=4, steps=4, batch_size=2)
    assert [(p, k) for p, k in result.places] == [(p, k) for p in range(4) for k in range(3)]
    assert [c.id for c in result.crystals] == [f"0-{k}@{step}" for step in (0, 2, 4, 6) for k in range(3)]
    for point in range(1, 4):
        assert_same_crystals(result.crystals[3 * point : 3 * point + 3], result.crystals[:3])
    lattices = [crystal.lattice.round(6).tobytes() for crystal in result.crystals[:3]]
    assert len(set(lattices)) == 3


def test_crystals_carry_the_prediction_in_the_unit_of_the_column(model: CDVAE) -> None:
    start = random_start(model, 3)
    result = optimize(model, start, gradient_steps=4, saved=3, steps=2)
    assert model.property_head is not None
    with torch.no_grad():
        scaled = model.property_head.layers(start.z)[:, 0]
    np.testing.assert_allclose(result.predicted[0], 3 * scaled.numpy() - 2)
    for crystal, (point, k) in zip(result.crystals, result.places, strict=True):
        assert crystal.properties["predicted_energy"] == result.predicted[point, k]
        assert set(crystal.properties) <= {"predicted_energy", "candidates", "latent_distance"}


def test_what_cannot_be_built_leaves_a_hole(model: CDVAE) -> None:
    def no_cell_for_the_second(z: Tensor) -> Any:
        found = statistics(z)
        lattice = found.lattice.clone()
        lattice[1] = torch.nan
        return found._replace(lattice=lattice)

    statistics = model.stats.forward
    model.stats.forward = no_cell_for_the_second  # type: ignore[method-assign]
    result = optimize(model, random_start(model, 3), gradient_steps=4, saved=2, steps=2)
    assert [failure.id for failure in result.failures] == ["0-1@0", "0-1@4"]
    spread = result.spread(np.ones(len(result.crystals)), np.nan)
    np.testing.assert_array_equal(spread, [[1, np.nan, 1], [1, np.nan, 1]])


# interpolation


def test_the_line_has_both_ends_and_reads_backwards() -> None:
    first, last = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for n in (2, 3, 8, 11):
        line = latents_between(first, last, n)
        assert torch.equal(line[0], first)
        assert torch.equal(line[-1], last)
        torch.testing.assert_close(latents_between(last, first, n), line.flip(0), rtol=0, atol=1e-14)
        torch.testing.assert_close(line.diff(dim=0), ((last - first) / (n - 1)).expand(n - 1, 6))
        assert torch.equal(latents_between(first, first, n), first.expand(n, 6))
    with pytest.raises(InputError, match="-n must be at least 2"):
        latents_between(first, last, 1)


def test_interpolation_backwards_is_the_same_line(model: CDVAE) -> None:
    table = table_of(CRYSTALS[:2], bonded=True)
    forth, back = (interpolate(model, table.select(order), 5, steps=3).crystals for order in ([0, 1], [1, 0]))
    assert_same_crystals(forth, back[::-1])
    assert [c.id for c in forth] == [f"random-0-random-1@{k}" for k in range(5)]
    assert [c.properties["fraction"] for c in forth] == [0, 0.25, 0.5, 0.75, 1]
    predicted = [[c.properties["predicted_energy"] for c in line] for line in (forth, back[::-1])]
    np.testing.assert_allclose(*predicted)
    assert len(set(predicted[0])) == 5


def test_the_ends_are_the_crystals_reconstructed(model: CDVAE) -> None:
    table = table_of(CRYSTALS, bonded=True).select([2, 4])
    line = interpolate(model, table, 4, steps=5, seed=7, batch_size=3).crystals
    for end, k in ((line[0], 0), (line[-1], 1)):
        alone = reconstruct(model, table.select([k]), steps=5, seed=7).crystals
        assert_same_crystals([end], alone)
    start = encoded_start(model, table)
    ends = predict_from_latents(model, start.z)
    np.testing.assert_allclose([line[k].properties["predicted_energy"] for k in (0, -1)], ends)


def test_from_a_crystal_to_itself_nothing_changes(model: CDVAE) -> None:
    table = table_of(CRYSTALS[:1], bonded=True).select([0, 0])
    line = interpolate(model, table, 4, steps=4).crystals
    for crystal in line[1:]:
        assert_same_crystals([crystal], line[:1])


def test_interpolation_without_a_head_predicts_nothing() -> None:
    table = table_of(CRYSTALS[:2], bonded=True)
    line = interpolate(model_with_head(property=""), table, 2, steps=2).crystals
    assert all({"fraction"} <= set(c.properties) <= {"fraction", "candidates", "latent_distance"} for c in line)


def test_what_cannot_be_interpolated(model: CDVAE) -> None:
    with pytest.raises(InputError, match="between two crystals, not 5"):
        interpolate(model, table_of(CRYSTALS, bonded=True), 4)
    with pytest.raises(InputError, match="carry no bonds"):
        interpolate(model, table_of(CRYSTALS[:2]), 4)
    with pytest.raises(InputError, match="--steps must lie in"):
        interpolate(model, table_of(CRYSTALS[:2], bonded=True), 4, steps=10**6)
    large = table_of([CRYSTALS[0], random_crystal(9, 9, 5.0)], bonded=True)  # it holds 8
    assert len(interpolate(model, large, 3, steps=2).crystals) == 3
