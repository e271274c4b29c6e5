"""What a placement model predicts of the next atom: its type, or stop, and its distances to all that is in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpcdvae.config.placement import PlacementModelConfig
from dpcdvae.nn.layers import ExactLinear
from dpcdvae.placement.schnet import ShiftedSoftplus
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.lattice import full_precision

STOP = 0  # the class that gives up the focus; class z > 0 is the element of atomic number z


class TypeHead(nn.Module):
    """Log-probabilities of the next type: those of all nodes in place are added up and normalised (G-SchNet)."""

    def __init__(self, config: PlacementModelConfig) -> None:
        super().__init__()
        self.layers = _layers(config, NUM_ELEMENTS + 1)

    def forward(self, features: Tensor, step: Tensor, steps: int, known: Tensor) -> Tensor:
        """(steps, 101) from the features (R, F) of nodes in place; ``step`` (R,) says which step each belongs to.

        ``known`` (101,) are the classes that there are; the others get the probability zero.
        """
        votes = torch.log_softmax(self.layers(features).masked_fill(~known, -torch.inf), -1)
        total = votes.new_zeros((steps, votes.shape[-1])).index_add(0, step, votes)
        return torch.log_softmax(total, -1)


class DistanceHead(nn.Module):
    """Log-probabilities of the distances from each node in place, and its nearest images, to the next atom."""

    def __init__(self, config: PlacementModelConfig) -> None:
        super().__init__()
        self.images, self.bins = config.images, round(config.max_distance / config.bin_width)
        self.width, self.smearing = config.bin_width, config.smearing
        self.next_type = nn.Embedding(NUM_ELEMENTS + 1, config.features)
        self.layers = _layers(config, self.images * self.bins)

    def forward(self, features: Tensor, next_type: Tensor) -> Tensor:
        """(R, images, bins) from the features (R, F) of nodes and the type (R,) of the atom that is placed next."""
        logits = self.layers(features * self.next_type(next_type))
        return torch.log_softmax(logits.unflatten(-1, (self.images, self.bins)), -1)

    @full_precision
    def labels(self, distances: Tensor) -> Tensor:
        """Probabilities (..., bins): distances (...) in Å smeared by a Gaussian; longer ones as the last bin.

        As published, where exp(-(d - c)²/(0.1 w)) of bins of w = 0.05 Å has the standard deviation 0.05 Å.
        """
        centres = (torch.arange(self.bins, device=distances.device, dtype=distances.dtype) + 0.5) * self.width
        within = distances.clamp(max=float(centres[-1]))
        return torch.softmax(-0.5 * ((within[..., None] - centres) / self.smearing).square(), -1)


def _layers(config: PlacementModelConfig, out_features: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = config.features
    for _ in range(config.head_layers):
        layers += [nn.Linear(width, config.head_width), ShiftedSoftplus()]
        width = config.head_width
    return nn.Sequential(*layers, ExactLinear(width, out_features))
