"""The scaling of a property that a model learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpcdvae.errors import InputError


class TargetScaler(nn.Module):
    """A property in its unit <-> numbers of mean 0 and standard deviation 1 over the training set."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    @torch.no_grad()
    def fit(self, targets: Tensor, name: str) -> None:
        """Raises InputError where there is nothing to learn: a constant, or no two values."""
        known = targets[targets.isfinite()].double()
        if len(known) < 2 or float(known.std(correction=0)) <= 1e-12 * float(known.abs().max()):
            what = f"is {float(known[0]):g} for every crystal" if len(known) else "has no value"
            raise InputError(f"property '{name}' {what} of the training set: there is nothing to learn")
        self.mean.copy_(known.mean())
        self.std.copy_(known.std(correction=0))

    def forward(self, targets: Tensor) -> Tensor:
        return (targets - self.mean) / self.std

    def errors(self, predicted: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled predictions less scaled targets, 0 where a target is unknown; and how many are known, at least 1."""
        known = targets.isfinite()
        # Replaced before the subtraction: a NaN that is masked after it would still poison the gradient.
        wanted = torch.where(known, self(targets), predicted.detach())
        return predicted - wanted, known.sum().clamp(min=1)

    def inverse(self, scaled: Tensor) -> Tensor:
        return scaled * self.std + self.mean
