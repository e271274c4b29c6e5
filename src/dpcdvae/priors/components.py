"""Choosing one of several distributions by a number that also goes on to be noise."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(noise: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """A component for each vector of standard normal noise, and standard normal noise that does not depend on it.

    The first number x of a vector gives u = Φ(x), uniform from 0 to 1. The component is the one whose part of this
    interval holds u; where u lies within that part is uniform again, so it becomes the new first number.

    Args:
        noise: (n, dim); weights: (K,) probabilities of the components.

    Returns:
        (n,) components; (n, dim).
    """
    u = torch.special.ndtr(noise[:, 0].double())
    ends = weights.double().cumsum(0)
    ends = ends / ends[-1]
    component = torch.searchsorted(ends, u, right=True).clamp(max=len(ends) - 1)
    begins = torch.cat([ends.new_zeros(1), ends])[component]
    within = ((u - begins) / (ends[component] - begins)).clamp(1e-12, 1 - 1e-12)
    fresh = noise.clone()
    fresh[:, 0] = torch.special.ndtri(within).to(noise.dtype)
    return component, fresh
