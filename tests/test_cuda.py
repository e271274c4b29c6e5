"""What must be the same on a GPU. Needs CUDA and nothing of chemistry: torch, lightning and numpy are enough."""

from __future__ import annotations

import copy
import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcdvae.config import Config, load_config
from dpcdvae.errors import InputError
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.decoding import decode
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.graph import radius_graph
from dpcdvae.tensors.noise import CrystalRandom
from dpcdvae.training.sampler import EpochSampler
from dpcdvae.training.train import prepare, train

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
    here, there = (radius_graph(b.frac_coords, b.lattice, b.num_atoms, 7.0, 20) for b in (batch, batch.to("cuda")))
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


@pytest.fixture
def matmul_precision() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("matmul_precision")
@pytest.mark.parametrize(("precision", "close"), [("tf32", 5e-3), ("bf16", 0.03)])
def test_losses_and_gradients_of_low_precision_are_close(
    table: CrystalTable, model: CDVAE, precision: str, close: float
) -> None:
    single = copy.deepcopy(model).float().cuda()
    batch = CrystalBatch.from_table(table, dtype=torch.float32).to("cuda")
    results = []
    for low in (False, True):
        torch.set_float32_matmul_precision("high" if low and precision == "tf32" else "highest")
        with torch.autocast("cuda", torch.bfloat16, enabled=low and precision == "bf16"):
            single.zero_grad()
            noise = torch.Generator("cuda").manual_seed(0)
            losses = single.step_losses(batch, None, noise, 0)
            single.total(losses, 0).backward()
        gradient = torch.cat([p.grad.flatten() for p in single.parameters() if p.grad is not None])
        results.append(({k: float(v.detach()) for k, v in losses.items()}, gradient))
    assert results[1][0] == pytest.approx(results[0][0], rel=close, abs=close)
    assert float(torch.cosine_similarity(results[0][1], results[1][1], dim=0)) > 1 - close


def test_a_loss_that_is_not_finite_is_named_with_its_batch(table: CrystalTable, tmp_path: Path) -> None:
    """Losses are read a step later, and still reported for the right step; also for the last one."""
    for index in (5, 20):
        coords = table.frac_coords.copy()
        coords[int(table.num_atoms[:index].sum())] = np.nan
        broken = dataclasses.replace(table, frac_coords=coords)
        order = next(iter(EpochSampler(table.num_atoms, 24, seed=0))).indices
        batch = int(np.flatnonzero(order == index)[0]) // 8
        chosen = load_config("compact", ["train.max_epochs=1", "train.batch_size=8"])
        with pytest.raises(InputError, match=rf"of 'train' is not finite in epoch 0, batch {batch} "):
            train({"train": broken, "val": table}, {}, chosen, tmp_path / str(index), preset="compact")


@pytest.mark.usefixtures("matmul_precision")
@pytest.mark.parametrize("preset", ["compact", "compact/dp-cdvae-na-gine", "compact/cdvae", "energy-gine"])
def test_it_trains_alike_in_every_precision(table: CrystalTable, tmp_path: Path, preset: str) -> None:
    learnt = dataclasses.replace(table, properties={"x": np.arange(24.0)})
    last = {}
    for name, *options in (
        ("float32", "train.precision=32-true"),
        ("tf32", "train.precision=32-true", "train.matmul_precision=high"),
        ("bf16", "train.precision=bf16-mixed"),
        ("atoms", "train.precision=32-true", "train.batch_atoms=40"),
    ):
        chosen = load_config(preset, ["train.max_epochs=2", "train.batch_size=8", "model.property=x", *options])
        folder = train(
            {"train": learnt, "val": learnt}, {"name": "random", "sha256": "0"}, chosen, tmp_path / name, preset=preset
        )
        with (folder / "metrics.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 2
        last[name] = float(rows[-1]["val/loss"])
    assert last["tf32"] == pytest.approx(last["float32"], rel=0.02)
    assert last["bf16"] == pytest.approx(last["float32"], rel=0.05)
    assert np.isfinite(last["atoms"])
