"""The Lightning module: one step, the weighted loss, averaged weights, optimiser and schedule."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from dpcdvae.errors import InputError
from dpcdvae.interfaces import Trainable
from dpcdvae.nn.averaging import update_average
from dpcdvae.structures.table import CrystalTable
from dpcdvae.training.loader import Loader, TrainingBatch, make_loader
from dpcdvae.training.loss_means import LossMeter
from dpcdvae.training.sampler import Indices

# The epoch that validation is computed as. It seeds the noise, which so is the same every time and that of no training
# epoch; and it lies after all epochs of teacher forcing, so that validation never sees the true lattice.
VALIDATION_EPOCH = 2**31


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
        self.meters = {"train": LossMeter(), "val": LossMeter()}
        self.average: Trainable | None = None
        if self.config.train.weight_ema:
            # Kept out of the module's own parameters: the optimiser and the strategies must not see it.
            # It is only ever evaluated, and Lightning, which does not see it, would not say so to it.
            object.__setattr__(self, "average", copy.deepcopy(model).requires_grad_(False).eval())

    # data

    def train_dataloader(self) -> Loader:
        return self._loader("train", self.config.train.seed)

    def val_dataloader(self) -> Loader:
        return self._loader("val", None)

    def _loader(self, split: str, seed: int | None) -> Loader:
        train, trainer = self.config.train, self.trainer
        pin_memory = trainer.strategy.root_device.type == "cuda"
        return make_loader(
            self.tables[split],
            train.batch_size,
            batch_atoms=train.batch_atoms,
            target=self.model.target,
            seed=seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            pin_memory=pin_memory,
        )

    def transfer_batch_to_device(self, batch: TrainingBatch, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device, self.model.dtype)

    # one step

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        total = self._step("train", self.model, batch, batch_idx, self.current_epoch)
        if self.trainer.is_last_batch:
            self._log("train")
        return total * batch.share.weight

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        self._step("val", self.average or self.model, batch, batch_idx, VALIDATION_EPOCH)

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def _step(self, split: str, model: Trainable, batch: TrainingBatch, batch_idx: int, noise_epoch: int) -> Tensor:
        """The loss to minimise; all of them go to the meter."""
        generator = noise_generator(self.config.train.seed, noise_epoch, batch_idx, self.global_rank, self.device)
        losses = model.step_losses(batch.crystals, batch.targets, generator, noise_epoch)
        total = self.model.total(losses, self.current_epoch)
        measured = {"loss": total, "criterion": self.model.criterion(losses), **losses}
        complaint = partial(self._diverged, split, batch_idx, batch.share.indices[:5])
        self.meters[split].add(measured, self.model.count(batch.crystals, batch.targets), complaint)
        return total

    def _log(self, split: str) -> None:
        """The epoch's means, the same in every process."""

        def add_up(values: Tensor) -> Tensor:
            if self.trainer.world_size == 1:
                return values
            return self.trainer.strategy.reduce(values.to(self.device), reduce_op="sum")

        means = self.meters[split].finish(add_up)
        values = {f"{split}/{name}": value for name, value in means.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    def _diverged(self, split: str, batch_idx: int, indices: Indices, names: list[str]) -> TrainingDivergedError:
        bad = [name for name in names if name not in ("loss", "criterion")] or names
        ids = ", ".join(self.tables[split].ids[indices])
        return TrainingDivergedError(
            f"the loss ({', '.join(bad)}) of '{split}' is not finite in epoch {self.current_epoch}, batch {batch_idx} "
            f"(crystals {ids}, ...): resume from the last checkpoint with a lower train.lr or another train.seed"
        )

    # weights

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self._update_average()

    def _update_average(self) -> None:
        update_average(*self._averaged, self.config.train.weight_ema, self.global_step)

    def on_fit_start(self) -> None:
        if self.average is not None:
            self.average.to(self.device, self.model.dtype)
            self._averaged = list(self.average.parameters()), list(self.model.parameters())

    def on_validation_start(self) -> None:
        if self.average is not None:
            for old, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
                old.copy_(new)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["dpcdvae_config"] = self.config.to_dict()
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        epochs = self.current_epoch + 1  # behind this checkpoint, as it is written at the end of one
        checkpoint["dpcdvae_facts"] = {
            **self.facts,
            "epoch": epochs,
            "metrics": metrics,
            "criterion": metrics.get("val/criterion"),
        }
        if self.average is not None:
            checkpoint["dpcdvae_average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            self.average.load_state_dict(
                checkpoint.get("dpcdvae_average")
                or {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
            )

    # optimiser

    def configure_optimizers(self) -> Any:
        train = self.config.train
        optimizer = self._optimizer()
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
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": train.lr_plateau_of}}

    def _optimizer(self) -> torch.optim.Optimizer:
        train, parameters = self.config.train, self.model.parameters()
        if train.optimizer == "rmsprop":
            return torch.optim.RMSprop(parameters, lr=train.lr, alpha=0.9, eps=1e-7)
        # The fused one unscales gradients of half precision itself, and so after they have been clipped.
        return torch.optim.Adam(parameters, lr=train.lr, fused=not train.precision.startswith("16"))

    def on_train_epoch_start(self) -> None:
        train = self.config.train
        for epoch, lr in zip(train.lr_set_epochs, train.lr_set, strict=True):
            if epoch == self.current_epoch:
                for optimizer in self.trainer.optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = lr

    def on_train_epoch_end(self) -> None:
        # Lightning steps it after the epoch's checkpoints are written, so a resumed run would miss one step.
        for schedule in self.trainer.lr_scheduler_configs:
            if isinstance(schedule.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                schedule.scheduler.step(float(self.trainer.callback_metrics[self.config.train.lr_plateau_of]))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.current_epoch < self.config.train.freeze_encoder_epochs:
            # Adam leaves what has no gradient as it is. Parameters that need none would stop several processes, which
            # wait for the gradients of all.
            for parameter in self.model.encoder_parameters():
                parameter.grad = None

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        # Lightning's own refuses a fused optimiser in every mixed precision.
        if limit := self.config.train.grad_clip_value:
            torch.nn.utils.clip_grad_value_(optimizer.param_groups[0]["params"], limit)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if metric is None:  # the plateau's has been stepped in on_train_epoch_end
            scheduler.step()


def noise_generator(seed: int, epoch: int, batch: int, rank: int, device: torch.device | str) -> torch.Generator:
    """Of the noise of one batch; on the device that needs it, so that nothing random is copied there."""
    combined = 0
    for value in (seed, epoch, batch, rank):
        combined = (combined * 1_000_003 + value + 1) % (2**63 - 1)
    return torch.Generator(device).manual_seed(combined)
