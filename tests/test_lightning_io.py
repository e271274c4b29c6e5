"""Lightning keeps, replaces and resumes from our checkpoint folders, and a resumed run is the run itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from dpcdvae import model_store
from dpcdvae.checkpoints.checkpoint import load_weights, read_checkpoint, write_checkpoint
from dpcdvae.checkpoints.lightning_io import SafetensorsIO, checkpoint_callbacks
from dpcdvae.errors import InputError

EPOCHS = 6

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
    pytest.mark.filterwarnings("ignore:Detected call of"),
]


class Points(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(3, generator=torch.Generator().manual_seed(index))
        return x, x.sum()[None].sin()


class ShuffledByEpoch(Sampler[int]):
    epoch = 0

    def __len__(self) -> int:
        return 24

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(24, generator=torch.Generator().manual_seed(self.epoch)).tolist())


class Module(pl.LightningModule):
    """Too high a learning rate, so that the plateau schedule has something to do in six epochs."""

    def __init__(self, average: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()} if average else None
        self.curve: list[tuple[int, float, dict[str, float]]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(self.global_step))
        loss = (self.model(x + 0.1 * noise) - y).square().mean()
        self.log("train/loss", loss, on_epoch=True, on_step=False, batch_size=len(x))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        x, y = batch
        self.log("val/loss", (self.model(x) - y).square().mean(), batch_size=len(x))

    def on_train_batch_end(self, *_: Any) -> None:
        for name, value in (self.average or {}).items():
            value.lerp_(self.model.state_dict()[name], 0.1)

    def on_train_epoch_end(self) -> None:
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.curve.append((self.current_epoch, self.trainer.optimizers[0].param_groups[0]["lr"], metrics))
        self.lr_schedulers().step(metrics["val/loss"])

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Done in on_train_epoch_end, before the checkpoint is written."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.8)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val/loss"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["dpcdvae_config"] = {"width": 8}
        checkpoint["dpcdvae_facts"] = {"criterion": float(self.trainer.callback_metrics["val/loss"])}
        if self.average is not None:
            checkpoint["dpcdvae_average"] = self.average

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            self.average = checkpoint["dpcdvae_average"]


def fit(run: Path, epochs: int, resume: bool = False, keep: int = 2, average: bool = False) -> Module:
    module = Module(average)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=checkpoint_callbacks(run / "checkpoints", keep=keep),
        plugins=[SafetensorsIO()],
        default_root_dir=run,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    train = DataLoader(Points(), batch_size=8, sampler=ShuffledByEpoch())
    path = str(model_store.last_checkpoint(run)) if resume else None
    trainer.fit(module, train, DataLoader(Points(), batch_size=8), ckpt_path=path)
    return module


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Module]:
    """Six epochs without a break."""
    run = tmp_path_factory.mktemp("whole")
    return run, fit(run, EPOCHS, average=True)


def test_the_schedule_has_something_to_do(whole: tuple[Path, Module]) -> None:
    assert len({lr for _, lr, _ in whole[1].curve}) > 1


@pytest.mark.parametrize("stop", range(1, EPOCHS))
def test_a_resumed_run_is_the_run_itself(stop: int, whole: tuple[Path, Module], tmp_path: Path) -> None:
    first = fit(tmp_path, stop, average=True)
    second = fit(tmp_path, EPOCHS, resume=True, average=True)
    run, module = whole
    assert first.curve + second.curve == module.curve
    assert equal(second.state_dict(), module.state_dict())
    assert equal(second.average or {}, module.average or {})
    assert names(tmp_path) == names(run)
    for name in names(run):
        ours, theirs = read_checkpoint(tmp_path / "checkpoints" / name), read_checkpoint(run / "checkpoints" / name)
        assert equal(ours.weights, theirs.weights)
        assert ours.facts == theirs.facts
    assert model_store.best_checkpoint(tmp_path).name == model_store.best_checkpoint(run).name


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_best_and_the_last_are_kept(keep: int, tmp_path: Path) -> None:
    module = fit(tmp_path, EPOCHS, keep=keep)
    losses = {epoch: metrics["val/loss"] for epoch, _, metrics in module.curve}
    best = sorted(losses, key=lambda epoch: losses[epoch])[:keep]
    assert names(tmp_path) == sorted([*(f"epoch={epoch:04d}" for epoch in best), "last"])
    assert model_store.best_checkpoint(tmp_path).name == f"epoch={best[0]:04d}"
    last = read_checkpoint(model_store.last_checkpoint(tmp_path))
    assert Path(last.source.place).name == "last"
    assert last.facts == {"epoch": EPOCHS - 1, "global_step": 3 * EPOCHS, "criterion": losses[EPOCHS - 1]}
    assert last.config == {"width": 8}
    assert equal(last.weights, dict(module.model.state_dict()))


def test_a_worse_epoch_becomes_the_last(tmp_path: Path, whole: tuple[Path, Module]) -> None:
    losses = [metrics["val/loss"] for _, _, metrics in whole[1].curve]
    worse = next(epoch for epoch in range(1, EPOCHS) if losses[epoch] > min(losses[:epoch]))
    fit(tmp_path, worse + 1, keep=1)
    assert f"epoch={worse:04d}" not in names(tmp_path)
    assert read_checkpoint(tmp_path / "checkpoints" / "last").facts["epoch"] == worse


def test_averaged_weights_are_the_ones_to_use_and_the_raw_ones_go_on(whole: tuple[Path, Module]) -> None:
    run, module = whole
    last = run / "checkpoints" / "last"
    assert module.average is not None
    assert not equal(module.average, dict(module.model.state_dict()))
    assert equal(read_checkpoint(last).weights, module.average)
    loaded = SafetensorsIO().load_checkpoint(last)
    assert equal(loaded["state_dict"], module.state_dict())
    assert equal(loaded["dpcdvae_average"], module.average)
    bare = Module().model
    load_weights(bare, read_checkpoint(last))
    assert equal(dict(bare.state_dict()), module.average)


def test_an_average_of_other_weights_is_a_bug(tmp_path: Path) -> None:
    checkpoint = {
        "state_dict": {"model.w": torch.ones(1)},
        "epoch": 0,
        "global_step": 1,
        "dpcdvae_config": {},
        "dpcdvae_facts": {},
        "dpcdvae_average": {"v": torch.ones(1)},
    }
    with pytest.raises(ValueError, match="v"):
        SafetensorsIO().save_checkpoint(checkpoint, tmp_path / "c")


def test_weights_outside_the_model_come_back_too(tmp_path: Path) -> None:
    state = {"model.w": torch.ones(2), "metric.sum": torch.zeros(1), "modelled": torch.ones(1)}
    checkpoint = {"state_dict": state, "epoch": 0, "global_step": 1, "dpcdvae_config": {}, "dpcdvae_facts": {}}
    SafetensorsIO().save_checkpoint(checkpoint, tmp_path / "c")
    assert list(read_checkpoint(tmp_path / "c").weights) == ["w"]
    loaded = SafetensorsIO().load_checkpoint(tmp_path / "c")
    assert equal(loaded.pop("state_dict"), state)
    assert loaded.pop("dpcdvae_facts") == {"epoch": 0, "global_step": 1}
    assert loaded == {"epoch": 0, "global_step": 1, "dpcdvae_config": {}}


def test_no_pickle_is_written_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle")

    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    fit(tmp_path, 1)
    fit(tmp_path, 2, resume=True)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"config.json", "model.safetensors", "training.json", "training.safetensors"}


@pytest.mark.parametrize("moment", ["the best written, the last not yet", "between the renames of the last"])
def test_a_run_killed_while_saving_goes_on_the_same(moment: str, whole: tuple[Path, Module], tmp_path: Path) -> None:
    """Killed at the end of epoch 3, one of the two best so far."""
    checkpoints = tmp_path / "checkpoints"
    fit(tmp_path, 3, average=True)
    shutil.copytree(checkpoints / "last", tmp_path / "earlier")
    fit(tmp_path, 4, resume=True, average=True)
    (checkpoints / "last").rename(tmp_path / "later")
    if moment.startswith("between"):
        (tmp_path / "earlier").rename(checkpoints / ".last.1234abcd.old")
        (tmp_path / "later").rename(checkpoints / ".last.5678abcd")
    else:
        (tmp_path / "earlier").rename(checkpoints / "last")
        (checkpoints / ".last.1234abcd").mkdir()  # not even half written
    (checkpoints / ".removed").mkdir()
    (checkpoints / ".removed" / "config.json").write_text("half a folder that was on its way out")

    module = fit(tmp_path, EPOCHS, resume=True, average=True)
    assert module.curve == whole[1].curve[4:]
    assert equal(module.state_dict(), whole[1].state_dict())
    assert set(names(whole[0])) <= set(names(tmp_path))
    assert not [name for name in names(tmp_path) if name[0] == "." or "-v" in name]
    assert model_store.best_checkpoint(tmp_path).name == model_store.best_checkpoint(whole[0]).name


def test_a_run_that_was_moved_goes_on_the_same(whole: tuple[Path, Module], tmp_path: Path) -> None:
    fit(tmp_path / "here", 3, average=True)
    (tmp_path / "here").rename(tmp_path / "there")
    module = fit(tmp_path / "there", EPOCHS, resume=True, average=True)
    assert module.curve == whole[1].curve[3:]
    assert not [name for name in names(tmp_path / "there") if "-v" in name]
    assert model_store.best_checkpoint(tmp_path / "there").name == model_store.best_checkpoint(whole[0]).name
    assert not (tmp_path / "here").exists()


def test_weights_alone_cannot_be_resumed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", Module().model.state_dict(), {}, {})
    with pytest.raises(InputError, match="weights only"):
        SafetensorsIO().load_checkpoint(tmp_path / "c")


def test_removing_twice_is_no_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_checkpoint(tmp_path / name, {}, {}, {})
    for name in ("a", "a", "b"):
        SafetensorsIO().remove_checkpoint(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
