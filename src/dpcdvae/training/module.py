"""The Lightning module: one step, the weighted loss, averaged weights, optimiser and schedule."""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from dpcdvae.errors import InputError
from dpcdvae.model.trainable import Trainable
from dpcdvae.table import CrystalTable
from dpcdvae.training.loader import Indices, Loader, TrainingBatch, make_loader

VALIDATION_EPOCH = 2**31  # the same noise every time, no training epoch's; and late, so that nothing is given away


class TrainingDivergedError(InputError):
    """The loss is not finite. Says where, on which crystals, and what to try."""


class TrainingModule(pl.LightningModule):
    """Trains ``model`` on ``train``, validates on ``val``.

    All randomness is a function of (seed, epoch, batch, rank), so a run that resumes from the end of an
    epoch goes on exactly as it would have.
    """

    def __init__(self, model: Trainable, train: CrystalTable, val: CrystalTable, facts: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.tables = {"train": train, "val": val}
        self.facts = facts
        self.average: Trainable | None = None
        if self.config.train.weight_ema:
            # Kept out of the module's own parameters: the optimiser and the strategies must not see it.
            object.__setattr__(self, "average", copy.deepcopy(model).requires_grad_(False))

    # data

    def train_dataloader(self) -> Loader:
        trainer = self.trainer
        seed = self.config.train.seed
        return self._loader("train", seed, trainer.global_rank, trainer.world_size)

    def val_dataloader(self) -> Loader:
        return self._loader("val", None, self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, split: str, seed: int | None, rank: int, world_size: int) -> Loader:
        size = self.config.train.batch_size
        return make_loader(
            self.tables[split], size, target=self.model.target, seed=seed, rank=rank, world_size=world_size
        )

    def transfer_batch_to_device(self, batch: TrainingBatch, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device, self.model.dtype)

    # one step

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        losses = self._losses(self.model, batch, self.current_epoch, batch_idx)
        total = self.model.total(losses, self.current_epoch)
        self._check_finite("train", total, losses, batch.indices, batch_idx)
        self._log("train", total, losses, self.model.count(batch.crystals, batch.targets))
        return total

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        losses = self._losses(self.average or self.model, batch, VALIDATION_EPOCH, batch_idx)
        total = self.model.total(losses, self.current_epoch)
        self._check_finite("val", total, losses, batch.indices, batch_idx)
        self._log("val", total, losses, self.model.count(batch.crystals, batch.targets))

    def _losses(self, model: Trainable, batch: TrainingBatch, epoch: int, batch_idx: int) -> dict[str, Tensor]:
        seed = torch.tensor([self.config.train.seed, epoch, batch_idx, self.global_rank])
        generator = torch.Generator().manual_seed(_combine(seed))
        return model.step_losses(batch.crystals, batch.targets, generator, epoch)

    def _log(self, split: str, total: Tensor, losses: dict[str, Tensor], size: int) -> None:
        values = {"loss": total, "criterion": self.model.criterion(losses), **losses}
        self.log_dict(
            {f"{split}/{name}": value.detach() for name, value in values.items()},
            on_step=False, on_epoch=True, batch_size=size, sync_dist=True,
        )  # fmt: skip

    def _check_finite(
        self, split: str, total: Tensor, losses: dict[str, Tensor], indices: Indices, batch_idx: int
    ) -> None:
        if bool(total.isfinite()):
            return
        bad = [name for name, value in losses.items() if not bool(value.isfinite())]
        ids = ", ".join(self.tables[split].ids[indices[:5]])
        raise TrainingDivergedError(
            f"the loss ({', '.join(bad)}) of '{split}' is not finite in epoch {self.current_epoch}, batch {batch_idx} "
            f"(crystals {ids}, ...): resume from the last checkpoint with a lower train.lr or another train.seed"
        )

    # weights

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self._update_average(self.average)

    @torch.no_grad()
    def _update_average(self, average: Trainable) -> None:
        """Exponential moving average, faster in the first steps, when there is little to average."""
        step = self.global_step
        decay = min(self.config.train.weight_ema, (1 + step) / (10 + step))
        for old, new in zip(average.parameters(), self.model.parameters(), strict=True):
            old.lerp_(new, 1 - decay)
        for old_buffer, new_buffer in zip(average.buffers(), self.model.buffers(), strict=True):
            old_buffer.copy_(new_buffer)

    def on_fit_start(self) -> None:
        if self.average is not None:
            self.average.to(self.device, self.model.dtype)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["dpcdvae_config"] = self.config.to_dict()
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        epochs = self.current_epoch + 1  # behind this checkpoint, as it is written at the end of one
        checkpoint["dpcdvae_facts"] = {
            **self.facts, "epoch": epochs, "metrics": metrics, "val_loss": metrics.get("val/criterion")
        }  # fmt: skip
        if self.average is not None:
            checkpoint["dpcdvae_average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            self.average.load_state_dict(checkpoint.get("dpcdvae_average") or {
                name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()
            })  # fmt: skip

    # optimiser

    def configure_optimizers(self) -> Any:
        train = self.config.train
        optimizer = torch.optim.Adam(self.model.parameters(), lr=train.lr)
        if train.lr_schedule == "cosine":
            total = max(1, int(self.trainer.estimated_stepping_batches))
            floor = train.min_lr / train.lr

            def factor(step: int) -> float:
                return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))

            cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=train.lr_factor, patience=train.lr_patience, min_lr=train.min_lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val/criterion"}}

    def on_train_epoch_end(self) -> None:
        # Lightning steps it after the epoch's checkpoints are written, so a resumed run would miss one step.
        for schedule in self.trainer.lr_scheduler_configs:
            if isinstance(schedule.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                schedule.scheduler.step(float(self.trainer.callback_metrics["val/criterion"]))

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if metric is None:  # the plateau's has been stepped in on_train_epoch_end
            scheduler.step()


def _combine(values: Tensor) -> int:
    """One seed from several numbers."""
    seed = 0
    for value in values.tolist():
        seed = (seed * 1_000_003 + value + 1) % (2**63 - 1)
    return seed
