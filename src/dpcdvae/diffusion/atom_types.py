"""Noise on the atom types, and types drawn from a composition (Eq. 9; CDVAE appendix B)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpcdvae.interfaces import NUM_ELEMENTS


def one_hot(atomic_numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """(N,) 1..100 -> (N, 100)."""
    return torch.nn.functional.one_hot(atomic_numbers - 1, NUM_ELEMENTS).to(dtype)


def type_sigmas(timesteps: int, smallest: float, largest: float) -> Tensor:
    """(T,) levels σ' of the type noise, geometric from small to large."""
    ends = math.log(smallest), math.log(largest)
    return torch.linspace(*ends, timesteps, dtype=torch.float64).exp()


def noisy_type_probabilities(types: Tensor, composition: Tensor, sigma: Tensor, form: str) -> Tensor:
    """(N, 100) probabilities of Z_t (Eq. 9).

    Args:
        types: (N, 100) one-hot A; composition: (N, 100) probabilities A_z; sigma: (N,) level σ'.
        form: "sum" is ∝ A + σ' A_z, as in the public code; "softmax" is softmax(A + σ' A_z), as printed.
    """
    mixed = types + sigma[:, None] * composition
    return mixed.softmax(-1) if form == "softmax" else mixed / mixed.sum(-1, keepdim=True)


def draw_types(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """One atomic number per row of (N, 100) by inversion; ``uniform`` (N,) in [0, 1)."""
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
