"""Latents drawn from the prior, given conditions on the atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcdvae.interfaces import LatentPrior
from dpcdvae.model.stats import StatisticsDecoder
from dpcdvae.sampling.atom_conditions import AtomConditions
from dpcdvae.sampling.constraints import DecodingConstraints
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.noise import CrystalRandom

DRAWS = 128  # latents drawn for one that fits the condition


@dataclass(frozen=True)
class ConditionalLatents:
    """Draws latents that go with conditions. Crystal number k takes the formula number k, counted around."""

    conditions: AtomConditions

    @property
    def constraints(self) -> DecodingConstraints:
        """What decoding may choose where no formula fixes it."""
        return DecodingConstraints.of(self.conditions)

    def of_batch(self, numbers: Sequence[int], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Numbers of atoms (C,) and types (N,) of crystals by their numbers; None what is not fixed."""
        formulas = self.conditions.formulas
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
        if self.conditions == AtomConditions(neutral=self.conditions.neutral):
            z: Tensor = prior(random.normal("latent", latent_dim).to(weight))
            return z
        with torch.no_grad():
            noise = random.normal("latent", latent_dim * DRAWS).to(weight)
            draws: Tensor = prior(noise.unflatten(1, (DRAWS, -1)))
            decoded = stats(draws)
            num_atoms, types = fixed
            if num_atoms is None or types is None:
                log_weight = self.constraints.log_likelihood(decoded)
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
