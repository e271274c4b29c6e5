"""Training: the same curve after a kill, divergence named, order of batches, the overfitting of one batch."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dpcdvae.checkpoints.checkpoint import read_checkpoint
from dpcdvae.checkpoints.loading import build_model, load_model
from dpcdvae.cli import main
from dpcdvae.config import Config, load_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.evaluation.reference import resolve_reference
from dpcdvae.locks import lock
from dpcdvae.model.cdvae import weighted_sum
from dpcdvae.model_store import last_checkpoint, read_card
from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.elements import ATOMIC_NUMBERS
from dpcdvae.structures.table import CrystalTable, save_tables
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training import train as training
from dpcdvae.training.card import export, half_weights
from dpcdvae.training.choose_precision import multiplies_bfloat16, resolve_precision
from dpcdvae.training.epoch_log import EpochLog
from dpcdvae.training.lightning_module import TrainingModule, noise_generator
from dpcdvae.training.loader import make_loader
from dpcdvae.training.loss_means import LossMeter
from dpcdvae.training.sampler import EpochSampler
from dpcdvae.training.train import check_data, make_trainer, prepare, resumed_config, train
from tensors import random_crystal

DPCDVAE = [sys.executable, "-m", "dpcdvae"]
TINY = [
    "model.latent_dim=16",
    "model.stats_hidden_dim=16",
    "encoder.options.dimenet++={hidden=16, blocks=1, int_emb=8, out_emb=16, output_layers=1}",
    "denoiser.options={hidden=16, atom_width=16, blocks=1, num_radial=8, emb_trip=8, emb_cbf=4, bil_trip=8,"
    " layers_atom=1, time_embedding=16, fourier=[]}",
    "train.batch_size=16",
]


@pytest.fixture(scope="module")
def tables() -> dict[str, CrystalTable]:
    tables = load_dataset("prototypes").tables
    return {"train": tables["train"].select(range(64)), "val": tables["val"].select(range(16))}


def config(*overrides: str) -> Config:
    return load_config("compact", [*TINY, *overrides])


def run(tables: dict[str, CrystalTable], folder: Path, *overrides: str) -> Path:
    return train(tables, {"name": "some", "sha256": "0"}, config(*overrides), folder, preset="compact")


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def data(tables: dict[str, CrystalTable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same few crystals as a data set for the command line."""
    path = tmp_path_factory.mktemp("data") / "few.npz"
    save_tables(path, tables, {"name": "few"})
    return path


def command(data: Path, out: Path, *settings: str) -> list[str]:
    """Arguments of ``dpcdvae`` for a tiny run."""
    return [
        "train",
        str(data),
        "--preset",
        "compact",
        "--out",
        str(out),
        *(part for v in (*TINY, *settings) for part in ("--set", v)),
    ]


def test_a_killed_run_continues_the_same_curve(data: Path, tmp_path: Path) -> None:
    settings = "train.max_epochs=12", "train.batch_size=64"
    assert main(command(data, tmp_path / "whole", *settings)) == 0

    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [*DPCDVAE, *command(data, killed, *settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    wait_until(lambda: (killed / "checkpoints" / "last").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(metrics(killed)) < 12, "it was over before it could be killed"
    assert main(["train", str(data), "--resume", "--out", str(killed)]) == 0

    assert metrics(killed) == metrics(tmp_path / "whole")
    ours, theirs = (read_checkpoint(last_checkpoint(folder)).weights for folder in (killed, tmp_path / "whole"))
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_two_processes_take_the_steps_of_one(data: Path, tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    """Weights and losses are those of one process with the crystals (and the noise) of both in a batch."""
    settings = (
        "train.max_epochs=2",
        "train.precision=64-true",
        "train.batch_atoms=100",
        "train.lr_schedule=plateau",
        "train.weight_ema=0.0",
        "train.accelerator=cpu",
    )
    started = command(data, tmp_path / "run", *settings, "train.devices=2", "train.strategy=ddp")
    done = subprocess.run([*DPCDVAE, *started], check=True, capture_output=True, text=True, timeout=1800)
    assert done.stdout.split() == [str(tmp_path / "run")]
    assert read_card(tmp_path / "run")["epochs"] in (1, 2)

    chosen, table = config(*settings), tables["train"]
    torch.manual_seed(chosen.train.seed)
    model = build_model(chosen)
    prepare(model, table)
    model.double()
    optimizer = torch.optim.Adam(model.parameters(), chosen.train.lr)
    loaders = [make_loader(table, 16, batch_atoms=100, target="", seed=0, rank=r, world_size=2) for r in range(2)]
    means = []
    for epoch in range(2):
        losses = []
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        for number, step in enumerate(zip(*loaders, strict=True)):
            totals = []
            for rank, batch in enumerate(step):
                noise = noise_generator(chosen.train.seed, epoch, number, rank, "cpu")
                crystals = batch.to(torch.device("cpu"), torch.float64).crystals
                totals.append(model.total(model.step_losses(crystals, None, noise, epoch), epoch) * len(crystals))
            losses.append(float(sum(totals).detach()))
            optimizer.zero_grad()
            (sum(totals) * len(loaders[0]) / len(table)).backward()  # each crystal weighs the same in every step
            torch.nn.utils.clip_grad_value_(model.parameters(), chosen.train.grad_clip_value)
            optimizer.step()
        means.append(sum(losses) / len(table))

    assert [float(row["train/loss"]) for row in metrics(tmp_path / "run")] == pytest.approx(means, rel=1e-6)
    trained = read_checkpoint(last_checkpoint(tmp_path / "run")).weights
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_what_a_run_started_from_stays_on_its_card(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    first = run(tables, tmp_path / "first", "train.max_epochs=1")
    facts = {"name": "some", "sha256": "0"}
    second = tmp_path / "second"
    train(tables, facts, config("train.max_epochs=1"), second, preset="compact", init=first)
    train(tables, facts, config("train.max_epochs=2"), second, preset="compact", resume=True)
    assert read_checkpoint(last_checkpoint(second)).facts["init"]["preset"] == "compact"
    scaler = load_model(first).stats.scaler.shift
    assert torch.equal(load_model(second).stats.scaler.shift, scaler)


def test_a_run_killed_in_its_first_epoch_begins_again_with_its_start(
    tables: dict[str, CrystalTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tables, tmp_path / "first", "train.max_epochs=1", "train.finish=false")
    facts = {"name": "some", "sha256": "0"}
    settings = config("train.max_epochs=1", "train.finish=false")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_run", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tables, facts, settings, tmp_path / "killed", preset="compact", init=first)
    (tmp_path / "killed" / "checkpoints" / ".epoch=0000.1234").mkdir(parents=True)  # a checkpoint half written
    resumed, preset, _ = resumed_config(tmp_path / "killed")
    train(tables, facts, resumed, tmp_path / "killed", preset=preset, resume=True)
    train(tables, facts, settings, tmp_path / "whole", preset="compact", init=first)
    ours, theirs = (read_checkpoint(last_checkpoint(tmp_path / name)).weights for name in ("killed", "whole"))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_logger_has_the_losses_of_every_epoch_after_a_resumption(
    tables: dict[str, CrystalTable], tmp_path: Path
) -> None:
    folder = run(tables, tmp_path / "run", "train.max_epochs=1", "train.logger=csv", "train.finish=false")
    longer, preset, facts = resumed_config(folder, ["train.max_epochs=2"])
    train(tables, facts, longer, folder, preset=preset, resume=True)
    logged = [row for path in sorted((folder / "csv").glob("*/metrics.csv")) for row in csv.DictReader(path.open())]
    losses = {int(row["epoch"]): float(row["val/loss"]) for row in logged if row.get("val/loss")}
    assert losses == pytest.approx({epoch: float(row["val/loss"]) for epoch, row in enumerate(metrics(folder))})


def test_options_of_a_resumed_run_hold_for_the_next_one(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    folder = run(tables, tmp_path / "run", "train.max_epochs=1", "train.finish=false")
    longer, preset, facts = resumed_config(folder, ["train.max_epochs=2"])
    train(tables, facts, longer, folder, preset=preset, resume=True)
    assert resumed_config(folder)[0].train.max_epochs == 2


def wait_until(condition: Callable[[], bool], seconds: float = 1800) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_folder_is_trained_in_by_one_run_at_a_time(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    folder = run(tables, tmp_path / "run", "train.max_epochs=1", "train.finish=false")
    facts = {"name": "some", "sha256": "0"}
    longer = config("train.max_epochs=2", "train.finish=false")
    with lock(folder, "wait"), pytest.raises(InputError, match=rf"{folder} is in use by process {os.getpid()}"):
        train(tables, facts, longer, folder, preset="compact", resume=True)
    assert len(metrics(folder)) == 1
    train(tables, facts, longer, folder, preset="compact", resume=True)
    assert len(metrics(folder)) == 2
    new = tmp_path / "new"
    new.mkdir()
    with lock(new, "wait"), pytest.raises(InputError, match=r"in use by process|exists"):
        run(tables, new, "train.max_epochs=1")


def test_resuming_takes_the_preset_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", "--preset", "compact", "--out", str(tmp_path)]) == 2
    assert "leave out --preset" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_named_with_its_batch(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    coords = tables["train"].frac_coords.copy()
    coords[int(tables["train"].num_atoms[:5].sum())] = np.nan
    broken = {**tables, "train": dataclasses.replace(tables["train"], frac_coords=coords)}
    order = next(iter(EpochSampler(np.ones(64), 64, seed=0))).indices
    batch = int(np.flatnonzero(order == 5)[0]) // 16
    with pytest.raises(InputError, match=rf"of 'train' is not finite in epoch 0, batch {batch} \(crystals .*resume"):
        run(broken, tmp_path / "run", "train.max_epochs=1")


def test_a_run_is_a_model_with_a_card_and_can_be_exported(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    few, note = tmp_path / "few.npz", "64 rows, 80.0 % of the published 80"
    save_tables(few, tables, {"name": "few", "notes": {"train": note}})
    folder = tmp_path / "run"
    assert main(command(few, folder, "train.max_epochs=2")) == 0
    card = read_card(folder)
    assert card["summary"].startswith(f"compact on {few} (train: {note}), ")
    assert resolve_reference(str(folder)).source == f"{folder} (statistics of {few}:train ({note}))"
    assert card["epochs"] in (1, 2)
    assert card["dataset"]["crystals"] == {"train": 64, "val": 16}
    assert card["training_statistics"]["count"] == 64
    curve = card["curve"]
    assert curve["epoch"] == [1, 2]
    assert min(curve["criterion"]) == pytest.approx(card["losses"]["val/criterion"], rel=1e-4)
    assert 0 <= curve["cpu_minutes"][0] <= curve["cpu_minutes"][1]
    assert [ATOMIC_NUMBERS[symbol] for symbol in card["elements"]] == sorted({*tables["train"].atomic_numbers.tolist()})
    exported = export(folder, tmp_path / "model")
    assert not list(exported.glob("training*"))
    ours, theirs = load_model(exported).state_dict(), load_model(folder).state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    with pytest.raises(InputError, match="exists"):
        export(folder, tmp_path / "model")


def test_a_half_model_loads_in_full_precision_and_does_the_same(
    tables: dict[str, CrystalTable], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tables, tmp_path / "run", "train.max_epochs=2")
    assert main(["export", str(folder), "--half", "--out", str(tmp_path / "half")]) == 0
    assert main(["export", str(folder), "--out", str(tmp_path / "full")]) == 0
    full, half = load_model(tmp_path / "full", "cpu"), load_model(tmp_path / "half", "cpu")
    assert "weights" not in read_card(tmp_path / "full")
    assert read_card(tmp_path / "half") == {**read_card(tmp_path / "full"), "weights": "float16"}

    stored = read_checkpoint(tmp_path / "half").weights
    assert {stored[name].dtype for name, _ in half.named_parameters()} == {torch.float16}
    assert {value.dtype for _, value in half.named_parameters()} == {torch.float32}
    for name, value in half.named_buffers():
        torch.testing.assert_close(value, full.get_buffer(name), rtol=0, atol=0, equal_nan=True)

    batch = CrystalBatch.from_table(tables["val"])
    with torch.no_grad():
        for ours, theirs in zip(half.encode(batch), full.encode(batch), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
        losses = [model.step_losses(batch, None, noise_generator(0, 0, 0, 0, "cpu"), 0) for model in (half, full)]
    for name, value in losses[1].items():
        torch.testing.assert_close(losses[0][name], value, rtol=1e-2, atol=1e-3, msg=name)


def test_what_half_precision_cannot_hold_is_refused(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    folder = export(run(tables, tmp_path / "run", "train.max_epochs=1"), tmp_path / "full")
    checkpoint = read_checkpoint(folder)
    name, _ = next(load_model(folder).named_parameters())
    checkpoint.weights[name].view(-1)[0] = 1e5
    with pytest.raises(InputError, match=rf"{name} has values beyond half precision"):
        half_weights(checkpoint)


def test_the_scaler_travels_with_the_weights(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    model = load_model(run(tables, tmp_path / "run", "train.max_epochs=1"))
    lengths = np.linalg.norm(tables["train"].lattices, axis=-1) / np.cbrt(tables["train"].num_atoms)[:, None]
    np.testing.assert_allclose(model.stats.scaler.shift[:3], lengths.mean(0), rtol=1e-5)


@pytest.mark.parametrize(("crystals", "world_size"), [(64, 1), (65, 1), (64, 3), (66, 3), (83, 4), (9, 4), (5, 4)])
@pytest.mark.parametrize("batch_atoms", [0, 40, 100])
def test_every_crystal_is_seen_once_an_epoch_in_an_order_of_its_own(
    crystals: int, world_size: int, batch_atoms: int
) -> None:
    sizes = np.random.default_rng(0).integers(1, 25, crystals)
    samplers = [
        EpochSampler(sizes, 4, batch_atoms=batch_atoms, seed=1, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    orders = []
    for epoch in (0, 1, 0):
        shares = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            shares.append(list(sampler))
            assert len(shares[-1]) == len(sampler) == len(samplers[0])
        orders.append([share.indices.tolist() for part in shares for share in part])
        assert all(orders[-1])
        assert sorted(chain(*orders[-1])) == list(range(crystals))
        for step in zip(*shares, strict=True):
            joint = sum(len(share.indices) for share in step)
            if not batch_atoms:  # the mean over the processes is that over the crystals of the step
                assert all(share.weight == pytest.approx(len(share.indices) * world_size / joint) for share in step)
        if batch_atoms:  # every crystal counts alike in the sum over the epoch
            assert len({round(share.weight / len(share.indices), 9) for part in shares for share in part}) == 1
            assert np.mean([share.weight for part in shares for share in part]) == pytest.approx(1)
    assert orders[0] != orders[1] or len(samplers[0]) == 1
    assert orders[0] == orders[2]


def test_batches_by_atoms_are_as_large_as_one_another_and_of_like_crystals() -> None:
    sizes = np.random.default_rng(0).choice([6, 8, 10, 16, 24], 2000, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    batches = [share.indices for share in EpochSampler(sizes, 1, batch_atoms=400, seed=3)]
    atoms = np.array([sizes[batch].sum() for batch in batches])
    assert len(batches) == -(-sizes.sum() // 400)
    assert np.abs(atoms - atoms.mean()).max() <= 24
    padded = sum(len(batch) * sizes[batch].max() for batch in batches)
    assert padded < 1.05 * sizes.sum() < 0.6 * len(sizes) * 24


@pytest.mark.parametrize("batch_atoms", [0, 300])
def test_processes_have_as_much_work_as_one_another(batch_atoms: int) -> None:
    sizes = np.random.default_rng(0).choice([6, 8, 10, 16, 24], 1000)
    samplers = [EpochSampler(sizes, 24, batch_atoms=batch_atoms, seed=3, rank=rank, world_size=4) for rank in range(4)]
    atoms = np.array([[sizes[share.indices].sum() for share in sampler] for sampler in samplers])
    whole = atoms[:, :-1]
    assert (whole.max(0) - whole.mean(0)).max() <= 24  # one crystal


def test_one_process_takes_its_batches_from_one_permutation() -> None:
    sampler = EpochSampler(np.arange(1, 32), 4, seed=5)
    sampler.set_epoch(2)
    expected = np.random.default_rng([5, 2]).permutation(31)
    np.testing.assert_array_equal(np.concatenate([share.indices for share in sampler]), expected)
    assert [len(share.indices) for share in sampler] == [4] * 7 + [3]


def test_the_coordinate_weight_changes_at_its_epoch() -> None:
    loss = config("loss.coords=1.0", "loss.coords_late=10.0", "loss.coords_late_epoch=5").loss
    losses = {"coords": torch.tensor(2.0), "kl": torch.tensor(3.0)}
    assert float(weighted_sum(losses, loss, 4)) == pytest.approx(2 + 0.03)
    assert float(weighted_sum(losses, loss, 5)) == pytest.approx(20 + 0.03)


def test_data_that_do_not_fit_are_refused(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"max_atoms = 2: raise it with --set model.max_atoms=\d+"):
        check_data(tables, config("model.max_atoms=2"))
    with pytest.raises(InputError, match="'val' split"):
        check_data({"train": tables["train"]}, config())
    unbonded = CrystalTable.from_crystals(list(tables["val"]))
    with pytest.raises(InputError, match="no bonds"):
        check_data({**tables, "val": unbonded}, config())
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="exists"):
        run(tables, tmp_path / "run")
    with pytest.raises(InputError, match="no run that could be resumed"):
        resumed_config(tmp_path / "run")


@pytest.mark.parametrize("option", ["accelerator=tpuu", "strategy=foo", "precision=17-mixed"])
def test_what_lightning_cannot_use_is_refused_before_anything_is_written(
    option: str, tables: dict[str, CrystalTable], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=option.partition("=")[2]):
        train(tables, {}, load_config("compact", [f"train.{option}"]), tmp_path / "run", preset="compact")
    assert not (tmp_path / "run").exists()


def test_a_time_limit_ends_the_run_after_an_epoch(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    folder = run(tables, tmp_path / "run", "train.max_epochs=1000", "train.max_minutes=0.02")
    assert 1 <= len(metrics(folder)) < 1000
    assert last_checkpoint(folder).is_dir()


def test_early_stopping_stops(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    settings = ("train.max_epochs=50", "train.early_stopping_patience=1", "train.lr=1e-12", "train.min_lr=0.0")
    assert len(metrics(run(tables, tmp_path / "run", *settings, "train.weight_ema=0.0"))) < 50


@pytest.mark.parametrize("preset", ["compact", "compact/cdvae"])
def test_other_precisions_train_alike(tables: dict[str, CrystalTable], tmp_path: Path, preset: str) -> None:
    """bfloat16 keeps three digits; its noise is that of float32. Float64 draws other noise, so its loss only is one."""
    losses = {}
    for precision in ("32-true", "bf16-mixed", "64-true"):
        chosen = load_config(preset, [*TINY, "train.max_epochs=2", f"train.precision={precision}"])
        folder = train(tables, {"name": "some", "sha256": "0"}, chosen, tmp_path / precision, preset=preset)
        losses[precision] = {name: float(value) for name, value in metrics(folder)[-1].items() if "/" in name}
    assert losses["bf16-mixed"] != losses["32-true"]
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.02, abs=2e-3)
    assert np.isfinite(losses["64-true"]["val/loss"])


@pytest.mark.parametrize(
    ("capabilities", "accelerator", "expected"),
    [
        ({"amx_bf16": True}, "cpu", "bf16-mixed"),
        ({"amx_bf16": False, "avx512_bf16": True}, "cpu", "32-true"),
        ({}, "cpu", "32-true"),
        ({"amx_bf16": True}, "gpu", "32-true"),
    ],
)
def test_auto_precision_asks_the_processor(
    capabilities: dict[str, bool], accelerator: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    auto = config("train.precision=auto", f"train.accelerator={accelerator}").train
    assert resolve_precision(auto) == expected
    for named in ("32-true", "64-true", "16-mixed"):
        assert resolve_precision(config(f"train.precision={named}").train) == named


def test_auto_precision_follows_the_device_and_old_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = config("train.precision=auto").train
    monkeypatch.setattr("dpcdvae.training.choose_precision.multiplies_bfloat16", lambda: True)
    monkeypatch.setattr("dpcdvae.training.choose_precision.CUDAAccelerator.is_available", lambda: True)
    assert resolve_precision(auto) == "32-true"
    monkeypatch.undo()
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert multiplies_bfloat16()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_auto_precision_is_printed_and_recorded(
    bfloat16: bool,
    tables: dict[str, CrystalTable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dpcdvae.training.choose_precision.multiplies_bfloat16", lambda: bfloat16)
    folder = run(tables, tmp_path / "run", "train.max_epochs=1", "train.precision=auto", "train.accelerator=cpu")
    expected = "bf16-mixed" if bfloat16 else "32-true"
    assert capsys.readouterr().err.count(f"train.precision auto: {expected} here") == 1
    assert read_card(folder)["precision"] == expected
    assert read_checkpoint(last_checkpoint(folder)).facts["precision"] == expected


def test_under_autocast_statistics_decoded_from_z_stay_exact() -> None:
    """Statistics (the lattice among them), latents and outputs keep the precision of the weights."""
    torch.manual_seed(0)
    model = build_model(config("model.property=mean_radius"))
    crystals = CrystalBatch.from_table(load_dataset("prototypes").tables["train"].select(range(8)))
    z, time = torch.randn(8, 16), torch.full((8,), 100.0)
    assert model.property_head is not None
    exact = model.stats(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.stats(z), exact, strict=True))
        found = [*model.encode(crystals), *model.denoise(crystals, z, time), model.property_head(z)]
    assert {tensor.dtype for tensor in found} == {torch.float32}


def test_losses_of_the_compact_preset_agree_in_bfloat16() -> None:
    """On carbon like that of Carbon-24: 6 to 24 atoms, with random weights and the same noise."""
    crystals = [
        random_crystal(seed, atoms, (6.5 * atoms) ** (1 / 3), [6])
        for seed, atoms in enumerate((6, 8, 8, 10, 12, 16, 20, 24))
    ]
    table = CrystalTable.from_crystals(crystals, [crystal_nn_bonds(crystal) for crystal in crystals])
    torch.manual_seed(0)
    model = build_model(load_config("compact/dp-cdvae-carbon_24"))
    prepare(model, table)
    losses = {}
    for bfloat16 in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            found = model.step_losses(CrystalBatch.from_table(table), None, torch.Generator().manual_seed(0), 0)
        losses[bfloat16] = {name: float(value) for name, value in found.items()}
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.02, abs=2e-3)


def test_batches_are_as_the_table_has_them_wherever_they_go(tables: dict[str, CrystalTable]) -> None:
    """A batch by way of the loader and ``to`` is that of the table; integers stay integers."""
    table = tables["train"]
    for batch in make_loader(table, 16, target="mean_radius", seed=1):
        moved = batch.to(torch.device("cpu"), torch.float64)
        expected = CrystalBatch.from_table(table, batch.share.indices).to(dtype=torch.float64)
        for item in dataclasses.fields(CrystalBatch):
            assert torch.equal(getattr(moved.crystals, item.name), getattr(expected, item.name)), item.name
        assert moved.targets is not None
        np.testing.assert_array_equal(moved.targets, table.properties["mean_radius"][batch.share.indices])


def test_the_meter_averages_over_crystals_and_begins_anew() -> None:
    meter = LossMeter()
    for value, count in ((1.0, 3), (5.0, 1)):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(2 * value)}, torch.tensor(count), ValueError)
    assert meter.finish(lambda sums: 2 * sums) == {"a": 2.0, "b": 4.0}  # two processes with the same
    meter.add({"a": torch.tensor(7.0), "b": torch.tensor(0.0)}, 2, ValueError)
    assert meter.finish(lambda sums: sums) == {"a": 7.0, "b": 0.0}


def test_the_meter_names_what_is_not_finite() -> None:
    meter = LossMeter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(1.0)}, 2, ValueError)
    with pytest.raises(ValueError, match=r"\['b'\]"):
        meter.add({"a": torch.tensor(1.0), "b": torch.tensor(torch.inf)}, 2, ValueError)


def test_averaged_weights_follow_their_rule(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    """average <- d average + (1 - d) weights after each step, d = min(decay, (1 + step) / (10 + step))."""
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    class Watched(TrainingModule):
        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            super().optimizer_step(*args, **kwargs)
            assert self.average is not None
            flat = [torch.nn.utils.parameters_to_vector(m.parameters()).clone() for m in (self.average, self.model)]
            seen.append((self.global_step, *flat))

    chosen = config("train.max_epochs=2", "train.weight_ema=0.2")
    model = build_model(chosen)
    prepare(model, tables["train"])
    expected = torch.nn.utils.parameters_to_vector(model.parameters()).clone()
    make_trainer(chosen, tmp_path).fit(Watched(model, tables["train"], tables["val"], {}))
    assert len(seen) == 8
    for step, average, weights in seen:
        decay = min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
        torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("text", ["", "lr\n1\n", "epoch,lr\nx,1\n", "epoch,lr\n1\n", "epoch,lr\n1,2\n", "\xff"])
def test_a_log_that_is_none_of_a_run_is_one_line_when_it_is_resumed(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text, encoding="latin-1")
    log, trainer = EpochLog(tmp_path), SimpleNamespace(current_epoch=5)
    if not text:
        log.on_train_start(trainer, None)  # type: ignore[arg-type]
        assert log.rows == []
        return
    with pytest.raises(InputError, match=r"metrics\.csv: not the epochs of this run: move it away"):
        log.on_train_start(trainer, None)  # type: ignore[arg-type]


def test_a_log_with_the_mark_of_a_spreadsheet_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,val/criterion\n1,3\n2,2\n7,1\n", encoding="utf-8-sig")
    log = EpochLog(tmp_path)
    log.on_train_start(SimpleNamespace(current_epoch=5), None)  # type: ignore[arg-type]
    assert [row["epoch"] for row in log.rows] == ["1", "2"]
    assert log.best == 2
