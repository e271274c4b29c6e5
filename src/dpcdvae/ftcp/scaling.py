"""Scaling of a matrix, row by row, to numbers from 0 to 1."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class RowScaler(nn.Module):
    """Each row by its least and largest number over the training set and all its columns; a constant row is shifted."""

    low: Tensor
    span: Tensor

    def __init__(self, height: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(height))
        self.register_buffer("span", torch.ones(height))

    @torch.no_grad()
    def fit(self, matrices: Iterable[Tensor]) -> None:
        """From matrices (n, height, width), some crystals at a time."""
        low, high = torch.full_like(self.low, torch.inf), torch.full_like(self.low, -torch.inf)
        for some in matrices:
            low, high = torch.minimum(low, some.amin((0, 2))), torch.maximum(high, some.amax((0, 2)))
        self.low.copy_(low)
        self.span.copy_(torch.where(high > low, high - low, 1.0))

    def forward(self, matrices: Tensor) -> Tensor:
        return (matrices - self.low[:, None]) / self.span[:, None]

    def inverse(self, scaled: Tensor) -> Tensor:
        return scaled * self.span[:, None] + self.low[:, None]
