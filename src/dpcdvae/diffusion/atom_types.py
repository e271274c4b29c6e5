"""Noise that mixes atom types with the composition, and types drawn from a composition (Eq. 9; CDVAE appendix B)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpcdvae.interfaces import NoisyTypes, TypeDiffusion
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom


class MixedWithComposition(TypeDiffusion):
    """Types drawn from A + σ' A_z: the true type A mixed with the composition A_z, σ' geometric in T levels.

    The reverse process starts with the atoms of the composition, in random order. After each step, an atom has the type
    that the denoiser finds likeliest.
    """

    sigmas: Tensor

    def __init__(self, timesteps: int, sigma_min: float, sigma_max: float, form: str) -> None:
        """``form``: as :func:`noisy_type_probabilities` takes it."""
        super().__init__()
        self.form = form
        sigmas = type_sigmas(timesteps, sigma_min, sigma_max)
        self.register_buffer("sigmas", sigmas.to(torch.get_default_dtype()), persistent=False)

    def corrupt(self, batch: CrystalBatch, composition: Tensor, level: Tensor, uniform: Tensor) -> NoisyTypes:
        """The scale of the loss is σ', as in CDVAE."""
        sigma = self.sigmas[(level * len(self.sigmas)).long().clamp(max=len(self.sigmas) - 1)]
        types = one_hot(batch.atomic_numbers, composition.dtype)
        probabilities = noisy_type_probabilities(types, batch.per_atom(composition), batch.per_atom(sigma), self.form)
        return NoisyTypes(draw_types(probabilities, uniform), sigma)

    def prior(self, composition: Tensor, num_atoms: Tensor, random: CrystalRandom) -> Tensor:
        slots = int(num_atoms.max())
        draws = random.uniform("composition", 2 * slots), random.uniform("shuffle", 2 * slots)
        types = types_of_composition(composition, num_atoms, *draws)[:, :slots]
        return types[torch.arange(slots, device=types.device) < num_atoms[:, None]]

    def update(self, logits: Tensor) -> Tensor:
        return logits.argmax(-1) + 1


def one_hot(atomic_numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """One-hot vectors (N, 100) of atomic numbers (N,) from 1 to 100."""
    return torch.nn.functional.one_hot(atomic_numbers - 1, NUM_ELEMENTS).to(dtype)


def type_sigmas(timesteps: int, smallest: float, largest: float) -> Tensor:
    """Levels σ' (T,) of the type noise, geometric from small to large."""
    ends = math.log(smallest), math.log(largest)
    return torch.linspace(*ends, timesteps, dtype=torch.float64).exp()


def noisy_type_probabilities(types: Tensor, composition: Tensor, sigma: Tensor, form: str) -> Tensor:
    """Probabilities (N, 100) of the noisy types (Eq. 9).

    Args:
        types: (N, 100) one-hot A; composition: (N, 100) probabilities A_z; sigma: (N,) level σ'.
        form: "sum" is ∝ A + σ' A_z, as in the public code; "softmax" is softmax(A + σ' A_z), as printed.
    """
    mixed = types + sigma[:, None] * composition
    return mixed.softmax(-1) if form == "softmax" else mixed / mixed.sum(-1, keepdim=True)


def draw_types(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """One atomic number for each row of probabilities (N, 100), by inversion; ``uniform`` (N,) in [0, 1)."""
    cumulative = probabilities.cumsum(-1)
    # In the wider of both types: a number just below 1 must not become 1, past every type.
    threshold = uniform[:, None] * cumulative[:, -1:]
    return (cumulative <= threshold).sum(-1).clamp(max=NUM_ELEMENTS - 1) + 1


def types_of_composition(composition: Tensor, num_atoms: Tensor, uniform: Tensor, order: Tensor) -> Tensor:
    """Types of whole crystals: N_a p rounded per element, the rest drawn from what rounding left, shuffled.

    Args:
        composition: (C, 100) probabilities; num_atoms: (C,).
        uniform, order: (C, M) in [0, 1), M at least 2 * num_atoms: the draws, and the keys to shuffle by.

    Returns:
        (C, M) atomic numbers, of which the first num_atoms of a row are meant.
    """
    counts = (composition * num_atoms[:, None]).round()
    position = torch.arange(uniform.shape[1], device=composition.device, dtype=composition.dtype)
    given = counts.cumsum(-1)
    types = (given[:, None, :] <= position[:, None]).sum(-1)  # (C, M); NUM_ELEMENTS past the rounded atoms

    left = (composition - counts / num_atoms[:, None]).clamp(min=0)
    left = torch.where(left.sum(-1, keepdim=True) > 0, left, composition)
    cumulative = left.cumsum(-1)
    drawn = (cumulative[:, None, :] <= (uniform * cumulative[:, -1:])[..., None]).sum(-1).clamp(max=NUM_ELEMENTS - 1)
    total = given[:, -1:]
    types = torch.where(position < total, types, drawn) + 1

    # Only the rounded atoms and what fills up to num_atoms take part in the shuffle.
    takes_part = position < torch.maximum(total, num_atoms[:, None].to(total.dtype))
    shuffled = order.masked_fill(~takes_part, 2.0).argsort(-1)
    return types.gather(1, shuffled)
