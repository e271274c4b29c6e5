"""Conditions that act in decoding: latents that fit them, and what decoding may choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcdvae.interfaces import NUM_ELEMENTS, LatentPrior
from dpcdvae.model.stats import StatisticsDecoder
from dpcdvae.sampling.allowed import Allowed
from dpcdvae.sampling.wanted import Wanted
from dpcdvae.tensors.noise import CrystalRandom

DRAWS = 128  # latents drawn for one that fits the condition


@dataclass(frozen=True)
class Condition:
    """What is wanted of crystals, as decoding keeps it. Crystal number k takes the formula number k, counted around."""

    wanted: Wanted

    @property
    def allowed(self) -> Allowed:
        """What decoding may choose where no formula fixes it."""
        return Allowed.of(self.wanted)

    def of_batch(self, numbers: Sequence[int], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Numbers of atoms (C,) and types (N,) of crystals by their numbers; None what is not fixed."""
        formulas = self.wanted.formulas
        if not formulas:
            return None, None
        cells = [formulas[k % len(formulas)] for k in numbers]
        num_atoms = torch.tensor([len(cell) for cell in cells], device=device)
        return num_atoms, torch.tensor([z for cell in cells for z in cell], device=device)

    def latents(
        self,
        stats: StatisticsDecoder,
        random: CrystalRandom,
        prior: LatentPrior,
        latent_dim: int,
        fixed: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> Tensor:
        """(C, latent_dim) from the prior, given the condition.

        Importance resampling: of ``DRAWS`` draws per crystal, one is taken with probability in
        proportion to what the decoder gives the wanted number of atoms and composition.

        Args:
            fixed: what :meth:`of_batch` gives for these crystals.
        """
        weight = stats.scaler.shift
        if self.wanted == Wanted(neutral=self.wanted.neutral):
            z: Tensor = prior(random.normal("latent", latent_dim).to(weight))
            return z
        with torch.no_grad():
            noise = random.normal("latent", latent_dim * DRAWS).to(weight)
            draws: Tensor = prior(noise.unflatten(1, (DRAWS, -1)))
            decoded = stats(draws)
            num_atoms, types = fixed
            if num_atoms is None or types is None:
                log_weight = self.allowed.log_likelihood(decoded)
            else:
                counts = torch.zeros(len(num_atoms), NUM_ELEMENTS).to(weight)
                crystal = torch.arange(len(num_atoms), device=types.device).repeat_interleave(num_atoms)
                counts.index_put_((crystal, types - 1), torch.ones(len(types)).to(weight), accumulate=True)
                sizes = decoded.num_atoms.log_softmax(-1)
                log_weight = sizes.gather(-1, num_atoms[:, None, None].expand(-1, DRAWS, 1)).squeeze(-1)
                log_weight = log_weight + (decoded.composition.log_softmax(-1) @ counts[:, :, None]).squeeze(-1)
            gumbel = -torch.log(-torch.log(random.uniform("choice", DRAWS))).to(weight)
            chosen = (log_weight + gumbel).argmax(-1)
            return draws[torch.arange(len(chosen), device=chosen.device), chosen]
