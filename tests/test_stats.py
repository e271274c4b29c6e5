"""Decoded statistics: the lattice's scaler comes back, constants do no harm, losses are what they are called."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcdvae.config import LossConfig, ModelConfig, override_config
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model.stats import LatticeScaler, Statistics, StatisticsDecoder
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import lattice_from_parameters, parameters_from_lattice
from tensors import batch_of, default_dtype, random_crystal, table_of, tiny_model

KINDS = pytest.mark.parametrize("kind", ["standard", "minmax"])


def parameters(count: int = 40) -> tuple[Tensor, Tensor]:
    """(count, 6) lengths and angles, (count,) numbers of atoms."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(2, 12, (count, 3)), rng.uniform(75, 105, (count, 3))], 1)
    return torch.tensor(values), torch.tensor(rng.integers(1, 21, count))


def fitted(kind: str, values: Tensor, num_atoms: Tensor, *, per_atom: bool = True) -> LatticeScaler:
    with default_dtype(torch.float64):
        scaler = LatticeScaler(ModelConfig(lattice_scaler=kind, lattice_per_atom=per_atom))
    scaler.fit(lattice_from_parameters(values), num_atoms)
    return scaler


@KINDS
@pytest.mark.parametrize("per_atom", [True, False])
def test_lattice_comes_back(kind: str, per_atom: bool) -> None:
    values, num_atoms = parameters()
    lattice = lattice_from_parameters(values)
    scaler = fitted(kind, values, num_atoms, per_atom=per_atom)
    torch.testing.assert_close(scaler.inverse(scaler(lattice, num_atoms), num_atoms), lattice)
    # of crystals outside the training set, too
    other = lattice_from_parameters(values.flip(0) + 3)
    torch.testing.assert_close(scaler.inverse(scaler(other, num_atoms), num_atoms), other)


def test_scaled_numbers_are_of_order_one() -> None:
    values, num_atoms = parameters()
    lattice = lattice_from_parameters(values)
    scaled = fitted("standard", values, num_atoms)(lattice, num_atoms)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(6).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(6).double())
    scaled = fitted("minmax", values, num_atoms)(lattice, num_atoms)
    torch.testing.assert_close(scaled.amin(0), torch.zeros(6).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(scaled.amax(0), torch.ones(6).double())


@KINDS
def test_constant_components_do_not_blow_up(kind: str) -> None:
    """Perov-5: all angles 90 degrees, but for the last digits."""
    values, num_atoms = parameters()
    values[:, 3:] = 90 + 1e-6 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    scaler = fitted(kind, values, num_atoms)
    scaled = scaler(lattice_from_parameters(values), num_atoms)
    assert scaled[:, 3:].abs().max() < 1e-4
    # An error of 0.1 in the decoded number is a tenth of a degree.
    angles = parameters_from_lattice(scaler.inverse(scaled + 0.1, num_atoms))[:, 3:]
    torch.testing.assert_close(angles, torch.full_like(angles, float(angles.mean())), rtol=0, atol=1e-4)
    assert float(angles.mean()) == pytest.approx(90, abs=0.2)


@KINDS
def test_one_crystal_can_be_fitted(kind: str) -> None:
    values, num_atoms = parameters(1)
    lattice = lattice_from_parameters(values)
    scaler = fitted(kind, values, num_atoms)
    torch.testing.assert_close(scaler(lattice, num_atoms), torch.zeros(1, 6).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(scaler.inverse(torch.zeros(1, 6).double(), num_atoms), lattice)


def test_lengths_are_per_cube_root_of_the_atoms() -> None:
    """A supercell of n^3 cells has n times the lengths and n^3 times the atoms: the same numbers."""
    values, num_atoms = parameters()
    larger = values * torch.tensor([3.0, 3, 3, 1, 1, 1])
    for per_atom in (True, False):
        scaler = fitted("standard", values, num_atoms, per_atom=per_atom)
        small = scaler(lattice_from_parameters(values), num_atoms)
        large = scaler(lattice_from_parameters(larger), 27 * num_atoms)
        assert torch.allclose(small, large) == per_atom


def test_numbers_that_make_no_cell_give_nan() -> None:
    values, num_atoms = parameters(3)
    scaler = fitted("standard", *parameters())
    scaled = scaler(lattice_from_parameters(values), num_atoms)
    scaled[0, 1] = -1e3  # a negative length
    scaled[1, 3:] = torch.tensor([-8.0, -8.0, 8.0]).double()  # angles that do not close
    lattice = scaler.inverse(scaled, num_atoms)
    assert lattice.isnan().flatten(1).any(1).tolist() == [True, True, False]


def test_scaler_travels_with_the_weights() -> None:
    values, num_atoms = parameters()
    scaler = fitted("minmax", values, num_atoms)
    with default_dtype(torch.float64):
        other = LatticeScaler(ModelConfig(lattice_scaler="minmax"))
    other.load_state_dict(scaler.state_dict())
    lattice = lattice_from_parameters(values)
    assert other(lattice, num_atoms).equal(scaler(lattice, num_atoms))


# losses


def batch() -> CrystalBatch:
    crystals = [random_crystal(1, 2, elements=[6, 8]), random_crystal(2, 5, elements=[22])]
    return batch_of(crystals, bonded=True)


def test_losses_of_the_statistics_by_hand() -> None:
    with default_dtype(torch.float64):
        decoder = StatisticsDecoder(ModelConfig(latent_dim=4, max_atoms=7))
    crystals = batch()
    generator = torch.Generator().manual_seed(0)
    stats = Statistics(*(torch.randn(2, n, generator=generator, dtype=torch.float64) for n in (8, 6, 100)))
    losses = decoder.losses(stats, crystals)

    def cross_entropy(logits: Tensor, target: int) -> float:
        values = logits.tolist()
        return math.log(sum(math.exp(v) for v in values)) - values[target]

    sizes = [cross_entropy(stats.num_atoms[k], n) for k, n in enumerate((2, 5))]
    assert float(losses["num_atoms"]) == pytest.approx(sum(sizes) / 2)
    scaled = decoder.scaler(crystals.lattice, crystals.num_atoms)
    assert float(losses["lattice"]) == pytest.approx(float(((stats.lattice - scaled) ** 2).sum()) / 12)
    # over the atoms of a crystal first, then over crystals
    by_atom = [
        cross_entropy(stats.composition[k], number - 1)
        for k, number in zip((0, 0, 1, 1, 1, 1, 1), crystals.atomic_numbers.tolist(), strict=True)
    ]
    expected = (sum(by_atom[:2]) / 2 + sum(by_atom[2:]) / 5) / 2
    assert float(losses["composition"]) == pytest.approx(expected)


def test_perfect_statistics_cost_nothing() -> None:
    from tensors import KnownStatistics

    crystals = batch_of([random_crystal(1, 3, elements=[6]), random_crystal(2, 5, elements=[22])])
    decoder = KnownStatistics(tiny_model(), crystals)
    losses = decoder.losses(decoder(torch.zeros(2, 6)), crystals)
    assert max(float(loss) for loss in losses.values()) < 1e-9


def test_losses_carry_the_names_of_their_weights() -> None:
    model, crystals = tiny_model(), batch()
    losses = model.losses(crystals, model.noise_like(crystals), true_lattice=True)
    assert set(losses) <= set(LossConfig.model_fields)
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())


def test_kl_and_denoising_losses_by_hand() -> None:
    model, crystals = tiny_model(mean_free=False), batch()
    noise = model.noise_like(crystals, torch.Generator().manual_seed(1))
    losses = model.losses(crystals, noise, true_lattice=True)

    mu, log_var = model.encode(crystals)
    variance = log_var.exp()
    kl = 0.5 * (mu**2 + variance - 1 - log_var).sum(1)  # KL(N(mu, var) || N(0, 1))
    assert float(losses["kl"]) == pytest.approx(float(kl.mean()))
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, variance.sqrt()), torch.distributions.Normal(0.0, 1.0)
    )
    assert float(losses["kl"]) == pytest.approx(float(exact.sum(1).mean()))

    z = mu + variance.sqrt() * noise.latent
    corrupted = model.diffusion.corrupt(crystals, noise.coords, noise.level)
    seen = []
    denoise = model.denoise

    def recorded(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((noisy, z, time, *denoise(noisy, z, time)))
        return seen[-1][3:]

    model.denoise = recorded  # type: ignore[method-assign]
    model.losses(crystals, noise, true_lattice=True)
    ((noisy, latent, time, prediction, logits),) = seen
    torch.testing.assert_close(latent, z)
    assert noisy.lattice.equal(crystals.lattice)
    torch.testing.assert_close(noisy.frac_coords, corrupted.frac_coords)
    assert time.equal(corrupted.time)

    squared = ((prediction - noise.coords) ** 2).sum(1)
    assert float(losses["coords"]) == pytest.approx(float((squared[:2].mean() + squared[2:].mean()) / 2))
    level = (noise.type_level * 20).long()
    sigma = model.types.sigmas[level].tolist()
    entropy = -logits.log_softmax(1)[torch.arange(7), crystals.atomic_numbers - 1]
    expected = (float(entropy[:2].mean()) / sigma[0] + float(entropy[2:].mean()) / sigma[1]) / 2
    assert float(losses["types"]) == pytest.approx(expected)


def test_levels_of_types_and_coordinates_are_drawn_apart() -> None:
    model, crystals = tiny_model(), batch_of([random_crystal(k) for k in range(200)])
    noise = model.noise_like(crystals, torch.Generator().manual_seed(0))
    correlation = torch.corrcoef(torch.stack([noise.level, noise.type_level]))[0, 1]
    assert abs(float(correlation)) < 0.25
    assert not noise.level.equal(noise.type_level)


def test_a_loss_of_two_batches_is_the_mean_of_theirs() -> None:
    """Averaged over crystals, so that the size of a batch does not change what is minimised."""
    model = tiny_model(recentre=False)
    crystals = [random_crystal(1, 2), random_crystal(2, 5)]
    both = batch_of(crystals, bonded=True)
    noise = model.noise_like(both, torch.Generator().manual_seed(0))
    together = model.losses(both, noise, true_lattice=True)
    parts = []
    for k, atoms in ((0, slice(0, 2)), (1, slice(2, 7))):
        single = type(noise)(
            noise.latent[k : k + 1],
            noise.coords[atoms],
            noise.level[k : k + 1],
            noise.type_level[k : k + 1],
            noise.types[atoms],
        )
        parts.append(model.losses(batch_of([crystals[k]], bonded=True), single, true_lattice=True))
    for name, loss in together.items():
        assert float(loss) == pytest.approx((float(parts[0][name]) + float(parts[1][name])) / 2, rel=1e-6), name


def denoising(share: float) -> CDVAE:
    model = tiny_model()
    model.config = override_config(model.config, [f"loss.denoised_share={share}"])
    return model


def test_the_denoiser_sees_its_share_of_the_crystals_and_the_latent_all() -> None:
    crystals = [random_crystal(k, 2 + k % 3) for k in range(8)]
    whole, all_of_it = batch_of(crystals, bonded=True), tiny_model()
    model = denoising(0.4)
    noise = model.noise_like(whole, torch.Generator().manual_seed(0))
    assert noise.denoised is not None
    seen = noise.denoised.nonzero().flatten().tolist()
    assert len(seen) == 3
    atoms = whole.per_atom(noise.denoised)
    part = batch_of([crystals[k] for k in seen], bonded=True)
    of_part = all_of_it.losses(part, noise.of_denoised(atoms), true_lattice=False)
    of_all = all_of_it.losses(whole, noise._replace(denoised=None), true_lattice=False)
    found = model.losses(whole, noise, true_lattice=False)
    assert list(found) == list(of_all)
    for name, loss in found.items():
        torch.testing.assert_close(loss, (of_part if name in ("coords", "types") else of_all)[name])


def test_every_crystal_is_denoised_as_often() -> None:
    model, whole = denoising(0.25), batch_of([random_crystal(k) for k in range(8)])
    generator = torch.Generator().manual_seed(0)
    times = torch.stack([model._denoised(len(whole), generator) for _ in range(2000)]).float().sum(0)  # type: ignore[misc]
    assert (times - 500).abs().max() < 4.5 * (2000 * 0.25 * 0.75) ** 0.5
    assert tiny_model().noise_like(whole).denoised is None


def test_a_new_decoder_gives_the_frequencies_of_the_training_set() -> None:
    crystals = batch_of([random_crystal(k, n) for k, n in enumerate((2, 2, 2, 4))])
    decoder = StatisticsDecoder(ModelConfig(max_atoms=5, lattice_scaler="minmax"))
    decoder.scaler.fit(crystals.lattice, crystals.num_atoms)
    decoder.start_at_frequencies(crystals)
    for head in (decoder.num_atoms, decoder.lattice, decoder.composition):
        torch.nn.init.zeros_(head[-1].weight)
    stats = decoder(torch.randn(1, decoder.num_atoms[0].in_features))
    sizes = stats.num_atoms.softmax(-1)[0]
    torch.testing.assert_close(sizes[[0, 2, 4]], torch.tensor([1 / 6, 3 + 1 / 6, 1 + 1 / 6]) / 5)
    shares = crystals.element_fractions(torch.float32).mean(0)
    torch.testing.assert_close(stats.composition.softmax(-1)[0], (4 * shares + 0.01) / 5)
    scaled = decoder.scaler(crystals.lattice, crystals.num_atoms)
    torch.testing.assert_close(stats.lattice[0], scaled.mean(0).float())


def test_without_teacher_forcing_the_decoded_cell_is_used() -> None:
    model, crystals = tiny_model(), batch()
    cells = []
    denoise = model.denoise

    def recorded(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        cells.append(noisy.lattice)
        return denoise(noisy, z, time)

    model.denoise = recorded  # type: ignore[method-assign]
    noise = model.noise_like(crystals, torch.Generator().manual_seed(0))
    model.losses(crystals, noise, true_lattice=False)
    model.stats.scaler.scale.fill_(1e9)  # no decoded cell is one: the true one takes its place
    model.losses(crystals, noise, true_lattice=False)
    mu, log_var = model.encode(crystals)
    model = tiny_model()
    decoded = model.stats.scaler.inverse(
        model.stats(mu + torch.exp(0.5 * log_var) * noise.latent).lattice, crystals.num_atoms
    )
    usable = model.usable_lattice(decoded, crystals.num_atoms)
    assert usable.any()
    torch.testing.assert_close(cells[0], decoded.where(usable[:, None, None], crystals.lattice))
    assert cells[1].equal(crystals.lattice)


def test_unusable_cells_are_found() -> None:
    model = tiny_model()
    cells = {
        "cube": (4 * np.eye(3), True),
        "left-handed": (np.diag([4.0, 4, -4]), True),
        "nan": (np.full((3, 3), np.nan), False),
        "infinite": (np.diag([4.0, 4, np.inf]), False),
        "empty": (np.zeros((3, 3)), False),
        "flat": (np.array([[4.0, 0, 0], [0, 4, 0], [4, 4, 0.3]]), False),
        "collinear": (np.array([[4.0, 0, 0], [8, 0, 0], [0, 0, 4]]), False),
        "gigantic": (np.diag([4.0, 4, 500]), False),
        "too dense": (0.9 * np.eye(3), False),
    }
    lattice = torch.tensor(np.stack([cell for cell, _ in cells.values()]))
    usable = model.usable_lattice(lattice, torch.ones(len(cells)))
    assert dict(zip(cells, usable.tolist(), strict=True)) == {name: fine for name, (_, fine) in cells.items()}


def test_encoder_starts_at_a_harmless_variance() -> None:
    """An untrained encoder says log variance of order one, whatever the crystal: it is exponentiated."""
    model = CDVAE(tiny_model().config)
    dense = Crystal(np.array([6, 8]), np.array([[0.0] * 3, [0.5] * 3]), 1.2 * np.eye(3))
    _, log_var = model.encode(batch_of([dense, random_crystal(1)], torch.float32, bonded=True))
    assert log_var.abs().max() < 2
    assert len(table_of([dense], bonded=True).bonds) > 0
