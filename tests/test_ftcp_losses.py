"""FTCP's losses and network: the published scales, by hand; what blocks mean; shapes and the numbers of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcdvae.config import FTCPConfig, load_config
from dpcdvae.errors import InputError
from dpcdvae.ftcp.losses import by_blocks, scaled_matrices
from dpcdvae.ftcp.model import FTCP
from dpcdvae.structures.crystal import Crystal
from tensors import batch_of, default_dtype, random_crystal
from test_ftcp_representation import PLUS

CRYSTALS = [random_crystal(seed, num_atoms=seed % 4 + 1, side=7) for seed in range(6)]
SMALL = {"latent_dim": 4, "channels": [3, 4, 5], "hidden": 8, "max_atoms": 6}
BLOCKS = {"terms": "blocks", "kl_scale": "nats", "kl": 0.01, "lattice": 3.0, "coordinates": 5.0}


def model(loss: dict[str, Any] | None = None, property: str = "", **options: Any) -> FTCP:
    torch.manual_seed(0)
    values = {
        "model": {**SMALL, "property": property},
        "representation": {"max_elements": 4, **options},
        "loss": loss or {},
    }
    with default_dtype(torch.float64):
        made = FTCP(FTCPConfig.from_dict(values))
    made.measure(batch_of(CRYSTALS), torch.arange(6.0).double() if property else None)
    return made


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def test_the_loss_is_the_published_sum_over_the_batch_for_each_of_its_crystals() -> None:
    """Σ over batch, rows and columns + 2 · (mean over the latent) + 10 · Σ over batch, with numpy from the outputs."""
    made = model(property="energy").eval()
    batch, targets = batch_of(CRYSTALS), torch.tensor([0.0, 1, 2, 3, 4, 5]).double()
    scaled = made.scaler(made.representation(batch))
    mu, log_var = made.encoder(scaled)
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    logits = made.decoder(mu + torch.exp(0.5 * log_var) * noise)
    x, out, m, v = (value.detach().numpy() for value in (scaled, logits, mu, log_var))
    hidden = np.maximum(m, 0)
    layers = [layer for layer in made.property_branch.layers if isinstance(layer, torch.nn.Linear)]  # type: ignore[union-attr]
    for k, layer in enumerate(layers):
        hidden = hidden @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        hidden = sigmoid(hidden) if k == len(layers) - 1 else np.maximum(hidden, 0)
    matrix = ((x - sigmoid(out)) ** 2).sum()
    kl = np.mean(-0.5 * np.mean(1 + v - m**2 - np.exp(v), axis=1))
    error = ((targets.numpy() / 5 - hidden[:, 0]) ** 2).sum()
    with torch.no_grad():
        losses = made.step_losses(batch, targets, torch.Generator().manual_seed(7), 0)
    assert float(made.total(losses, 0)) * len(CRYSTALS) == pytest.approx(matrix + 2 * kl + 10 * error)
    assert float(made.criterion(losses)) * len(CRYSTALS) == pytest.approx(matrix)


def perfect(made: FTCP, scaled: Tensor) -> Tensor:
    """Logits that stand for the true matrices as nearly as numbers can."""
    logits = torch.logit(scaled.clamp(1e-12, 1 - 1e-12))
    for block in ("elements", "occupancy"):
        rows = made.representation.rows[block]
        logits[:, rows, : made.representation.real] = 60 * scaled[:, rows, : made.representation.real] - 30
    return logits


@pytest.mark.parametrize("options", [{}, PLUS])
def test_perfect_logits_have_no_loss_and_stand_for_the_crystals(options: dict[str, Any]) -> None:
    made = model(BLOCKS, **options)
    scaled = made.scaler(made.representation(batch_of(CRYSTALS)))
    logits = perfect(made, scaled)
    losses = by_blocks(made.representation, logits, scaled)
    assert set(losses) == {"elements", "occupancy", "lattice", "coordinates", "distances", "properties", "fourier"}
    assert all(float(value) == pytest.approx(0, abs=1e-8) for value in losses.values())
    made.decoder = torch.nn.Module()
    made.decoder.forward = lambda z: logits  # type: ignore[method-assign]
    found = made.crystals(torch.zeros(6, 4), ["x"] * 6)
    for crystal, other in zip(found, CRYSTALS, strict=True):
        assert isinstance(crystal, Crystal)
        assert crystal.composition == other.composition
        np.testing.assert_allclose(np.sort(crystal.lengths), np.sort(other.lengths), rtol=1e-6)


def test_cross_entropies_are_those_of_elements_in_use_and_of_sites() -> None:
    """With logits of 0: ln 103 for each element, ln(columns + 1) for each site, of which one class is "empty"."""
    made = model(BLOCKS)
    scaled = made.scaler(made.representation(batch_of(CRYSTALS)))
    losses = by_blocks(made.representation, torch.zeros_like(scaled), scaled)
    assert float(losses["elements"]) == pytest.approx(np.log(103))
    assert float(losses["occupancy"]) == pytest.approx(np.log(5))
    shares = scaled_matrices(made.representation, torch.zeros_like(scaled), blocks=True)
    occupancy = shares[:, made.representation.rows["occupancy"], :4]
    torch.testing.assert_close(occupancy, torch.full_like(occupancy, 0.2))


def test_padding_and_unused_columns_do_not_count_in_blocks() -> None:
    """Whatever the output is where a crystal has no atom or no element."""
    made = model(BLOCKS)
    scaled = made.scaler(made.representation(batch_of(CRYSTALS[:1])))  # one atom
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(scaled.shape, generator=generator, dtype=torch.float64)
    other, rows = logits.clone(), made.representation.rows
    other[:, rows["coordinates"].start + 1 : rows["coordinates"].stop] += 1
    other[:, rows["elements"], 1:4] -= 2
    other[:, rows["properties"], 1:4] -= 2
    other[:, rows["lengths"], 3:] += 5
    before, after = (by_blocks(made.representation, one, scaled) for one in (logits, other))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, msg=name)


def test_blocks_have_their_weights_and_the_divergence_is_that_of_normal_distributions() -> None:
    made = model(BLOCKS)
    losses = made.step_losses(batch_of(CRYSTALS), None, torch.Generator().manual_seed(0), 0)
    mu, log_var = made.encode(batch_of(CRYSTALS))
    posterior = torch.distributions.Normal(mu, torch.exp(0.5 * log_var))
    standard = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    expected = torch.distributions.kl_divergence(posterior, standard).sum(1).mean()
    torch.testing.assert_close(losses["kl"], expected)
    blocks = sum(value for name, value in losses.items() if name != "kl")
    weighted = blocks + 2 * losses["lattice"] + 4 * losses["coordinates"]
    torch.testing.assert_close(made.criterion(losses), weighted)
    torch.testing.assert_close(made.total(losses, 0), weighted + 0.01 * losses["kl"])


@pytest.mark.parametrize(("atoms", "elements", "millions"), [(5, 5, 9.1), (24, 1, 10.8), (20, 7, 10.4)])
def test_the_published_network_has_about_ten_million_parameters(atoms: int, elements: int, millions: float) -> None:
    """Mostly in the dense layers beside the flattened rows."""
    values = {"model": {"max_atoms": atoms}, "representation": {"max_elements": elements}}
    with torch.device("meta"):
        made = FTCP(FTCPConfig.from_dict(values))
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    z = torch.zeros(2, 256, device="meta")
    assert made.decoder(z).shape == (2, made.representation.height, made.representation.width)


def test_the_presets_are_the_published_procedure_and_ours() -> None:
    """Perov-5 has 5 sites and 5 elements, Carbon-24 one element, MP-20 seven."""
    for data, atoms, elements in (("perov_5", 5, 5), ("carbon_24", 24, 1), ("mp_20", 20, 7)):
        for preset in ("paper/ftcp", "compact/ftcp-plus"):
            chosen = load_config(f"{preset}-{data}")
            assert isinstance(chosen, FTCPConfig)
            assert (chosen.model.max_atoms, chosen.representation.max_elements) == (atoms, elements)
    config = load_config("paper/ftcp-perov_5")
    assert isinstance(config, FTCPConfig)
    train, loss = config.train, config.loss
    assert (train.optimizer, train.lr, train.batch_size, train.max_epochs) == ("rmsprop", 5e-4, 256, 200)
    assert dict(zip(train.lr_set_epochs, train.lr_set, strict=True)) == {50: 1e-4, 100: 5e-5}
    assert (train.lr_factor, train.min_lr, train.lr_plateau_of) == (0.3, 1e-6, "train/loss")
    assert (loss.terms, loss.kl, loss.kl_scale, loss.property) == ("published", 2, "published", 10)
    assert (config.model.latent_dim, config.model.channels, config.model.hidden) == (256, [32, 64, 128], 1024)


@pytest.mark.parametrize("channels", [[], [32, 64], [32, 0, 64], [32, 64, 10_000]])
def test_three_convolutions_are_what_there_is(channels: list[int]) -> None:
    with pytest.raises(InputError, match=r"model.channels must be three widths from 1 to 4096") as error:
        FTCPConfig.from_dict({"model": {"channels": channels}})
    assert "\n" not in str(error.value)
