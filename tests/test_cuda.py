"""What must be the same on a GPU. Needs CUDA and nothing of chemistry: torch, lightning and numpy are enough."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcdvae.batch import CrystalBatch
from dpcdvae.config import Config, load_config
from dpcdvae.graph import radius_graph
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model.sampling import decode
from dpcdvae.random import CrystalRandom
from dpcdvae.table import CrystalTable
from dpcdvae.training.run import prepare, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def table() -> CrystalTable:
    """Random crystals whose every atom is bonded to its own images and to its neighbour in the list."""
    rng = np.random.default_rng(0)
    num_atoms = rng.integers(2, 9, 24)
    total = int(num_atoms.sum())
    local = np.concatenate([np.arange(n) for n in num_atoms])
    following = np.concatenate([np.roll(np.arange(n), -1) for n in num_atoms])
    return CrystalTable(
        ids=np.array([str(k) for k in range(24)]),
        num_atoms=num_atoms,
        atomic_numbers=rng.integers(1, 90, total),
        frac_coords=rng.random((total, 3)),
        lattices=4 * np.eye(3) + rng.normal(0, 0.3, (24, 3, 3)),
        num_bonds=2 * num_atoms,
        bonds=np.stack([np.repeat(local, 2), np.stack([local, following], 1).ravel()], 1),
        bond_images=np.tile([[1, 0, 0], [0, 0, 0]], (total, 1)),
    )


@pytest.fixture(scope="module", params=["dp-cdvae", "dp-cdvae-na-gine", "cdvae", "cdvae-fourier"])
def model(table: CrystalTable, request: pytest.FixtureRequest) -> CDVAE:
    torch.manual_seed(0)
    config = load_config(f"compact/{request.param}", ["diffusion.timesteps=10"])
    assert isinstance(config, Config)
    model = CDVAE(config)
    prepare(model, table)
    return model.double().eval()


def test_random_numbers_do_not_depend_on_the_device() -> None:
    numbers = torch.arange(50)
    here, there = CrystalRandom(3, numbers), CrystalRandom(3, numbers.cuda())
    assert torch.equal(here.uniform("a", 7), there.uniform("a", 7).cpu())
    torch.testing.assert_close(here.normal("a", 7), there.normal("a", 7).cpu(), rtol=1e-12, atol=1e-12)


def test_graphs_are_equal(table: CrystalTable) -> None:
    batch = CrystalBatch.from_table(table, dtype=torch.float64)
    here, there = (
        radius_graph(b.frac_coords, b.lattice, b.num_atoms, 7.0, 20) for b in (batch, batch.to("cuda"))
    )  # fmt: skip
    torch.testing.assert_close(here.distances, there.distances.cpu())
    assert torch.equal(here.mask, there.mask.cpu())


def test_losses_and_gradients_are_equal(table: CrystalTable, model: CDVAE) -> None:
    results = []
    for device in ("cpu", "cuda"):
        batch = CrystalBatch.from_table(table, dtype=torch.float64).to(device)
        moved = model.to(device)
        moved.zero_grad()
        losses = moved.losses(batch, moved.noise_like(batch, torch.Generator().manual_seed(0)), true_lattice=True)
        torch.stack(list(losses.values())).sum().backward()
        gradient = torch.cat([p.grad.flatten().cpu() for p in moved.parameters() if p.grad is not None])
        results.append(({k: float(v.detach()) for k, v in losses.items()}, gradient))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-9)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-6, atol=1e-9)


def test_one_reverse_step_is_equal(model: CDVAE) -> None:
    decoded = []
    for device in ("cpu", "cuda"):
        random = CrystalRandom(0, torch.arange(16, device=device))
        z = random.normal("latent", model.config.model.latent_dim)
        with torch.inference_mode():
            decoded.append(decode(model.to(device), z, random, steps=1)[0].to("cpu"))
    torch.testing.assert_close(decoded[0].frac_coords, decoded[1].frac_coords, rtol=1e-6, atol=1e-6)
    assert torch.equal(decoded[0].atomic_numbers, decoded[1].atomic_numbers)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("preset", ["compact", "compact/dp-cdvae-na-gine", "compact/cdvae", "energy-gine"])
def test_it_trains(table: CrystalTable, tmp_path: Path, preset: str, precision: str) -> None:
    learnt = dataclasses.replace(table, properties={"x": np.arange(24.0)})
    overrides = ["train.max_epochs=2", "train.batch_size=8", f"train.precision={precision}", "model.property=x"]
    folder = train(
        {"train": learnt, "val": learnt}, {"name": "random", "sha256": "0"}, load_config(preset, overrides),
        tmp_path / "run", preset=preset,
    )  # fmt: skip
    assert (folder / "metrics.csv").read_text().count("\n") == 3
