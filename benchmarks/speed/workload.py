"""What is timed: a network with random weights and a batch of crystals in its denoiser, its losses, its sampler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpcdvae.config import Config, load_config, override_config
from dpcdvae.errors import InputError
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.generation import generate, reconstruct
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.lightning_module import TrainingModule
from dpcdvae.training.train import prepare
from speed.counting import Counts, count
from speed.timing import use_precision

ONE_STEP = 100.0  # the noise level of the timed pass


class Workload:
    """Every crystal of ``table`` in one batch. Coordinates are random, as most passes of a sampler see them."""

    def __init__(self, preset: str, table: CrystalTable, device: torch.device, precision: str = "float32") -> None:
        config = load_config(preset)
        if not isinstance(config, Config):
            raise InputError(f"{preset} is no generative model")
        # Every crystal is denoised, whatever the preset says, so that steps compare with those kept before it said it.
        fixed = ["train.lr_schedule=plateau", "loss.denoised_share=1", f"train.batch_size={len(table)}"]
        config = override_config(config, fixed)
        self.table, self.device = table, device
        self.autocast = use_precision(precision, device)
        torch.manual_seed(0)
        self.model = CDVAE(config)
        prepare(self.model, table)
        self.model.to(device)
        self.optimizer = TrainingModule(self.model, table, table, {}).configure_optimizers()["optimizer"]
        self.batch = CrystalBatch.from_table(table).to(device)
        self.noisy = self.batch.replace(frac_coords=torch.rand(self.batch.frac_coords.shape).to(device))
        self.z = torch.randn(len(table), config.model.latent_dim).to(device)
        self.time = torch.full((len(table),), ONE_STEP, device=device)

    def sampling_pass(self) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return self._denoise()

    def _denoise(self) -> tuple[Tensor, Tensor]:
        with self.autocast:
            return self.model.denoise(self.noisy, self.z, self.time)

    def training_step(self) -> Tensor:
        """One step of the optimiser on this batch, with the same noise every time; returns the loss."""
        train = self.model.config.train
        with self.autocast:
            losses = self.model.step_losses(self.batch, None, torch.Generator().manual_seed(0), 0)
            total = self.model.total(losses, 0)
        self.optimizer.zero_grad()
        total.backward()
        if train.grad_clip_value:
            torch.nn.utils.clip_grad_value_(self.model.parameters(), train.grad_clip_value)
        self.optimizer.step()
        return total.detach()

    def count_pass(self) -> Counts:
        with torch.no_grad():
            return count(self._denoise)

    def count_step(self) -> Counts:
        return count(self.training_step)

    def reconstruction(self, steps: int) -> None:
        """The whole of sampling (encoder, statistics, ``steps`` of the reverse process, crystals) for this batch."""
        with self.autocast:
            reconstruct(self.model, self.table, steps=steps, force_num_atoms=True, batch_size=len(self.table))

    def check(self) -> list[float]:
        """Numbers that two versions of the same network have in common: vectors, logits, loss."""
        vectors, logits = self.sampling_pass()
        with torch.no_grad(), self.autocast:
            losses = self.model.step_losses(self.batch, None, torch.Generator().manual_seed(0), 0)
            loss = self.model.total(losses, 0)
        return [float(vectors.double().norm()), float(logits.double().norm()), float(loss)]


def passes(model: CDVAE, steps: int | None = None) -> int:
    """How often the denoiser is asked in a reverse process of ``steps``, or of the model's own default."""
    calls = 0

    def silent(noisy: CrystalBatch, *_: Any) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        return torch.zeros_like(noisy.frac_coords), noisy.frac_coords.new_zeros(len(noisy.frac_coords), NUM_ELEMENTS)

    denoiser = model.denoiser
    denoiser.forward = silent  # type: ignore[method-assign, assignment]
    try:
        generate(model, 1, steps=steps)
    finally:
        del denoiser.forward
    return calls
