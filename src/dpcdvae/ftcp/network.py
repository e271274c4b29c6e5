"""The one-dimensional convolutional variational autoencoder of FTCP: along the rows, with the columns as channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpcdvae.interfaces import LatentPosterior
from dpcdvae.nn.layers import ExactLinear
from dpcdvae.tensors.lattice import full_precision

KERNELS, STRIDES = (5, 3, 3), (2, 2, 1)
SHRINKS = 4  # the product of the strides: the height has to be a multiple of it
PROPERTY_WIDTHS = (128, 32)


def _norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)  # as Keras has them, in which the public code is written


class Encoder(nn.Module):
    """Scaled matrices (C, height, width) to mean and log variance of z, (C, latent_dim) each."""

    def __init__(self, height: int, width: int, channels: Sequence[int], hidden: int, latent_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, kernel, stride in zip([width, *channels], channels, KERNELS, STRIDES, strict=False):
            layers += [nn.Conv1d(before, after, kernel, stride, kernel // 2), _norm(after), nn.LeakyReLU(0.2)]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(channels[-1] * height // SHRINKS, hidden)
        self.mu, self.log_var = ExactLinear(hidden, latent_dim), ExactLinear(hidden, latent_dim)
        glorot_(self)

    def forward(self, scaled: Tensor) -> LatentPosterior:
        hidden = torch.sigmoid(self.dense(self.convolutions(scaled.mT).flatten(1)))
        return LatentPosterior(self.mu(hidden), self.log_var(hidden))


class Decoder(nn.Module):
    """z (C, latent_dim) to logits (C, height, width); their sigmoids are scaled matrices."""

    def __init__(self, height: int, width: int, channels: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.last, rows = channels[-1], height // SHRINKS
        self.dense = nn.Linear(latent_dim, self.last * rows)
        first, second, third = channels
        self.convolutions = nn.Sequential(
            _norm(third),
            *(_widened(third, second, KERNELS[2], STRIDES[2]), _norm(second), nn.ReLU()),
            *(_widened(second, first, KERNELS[1], STRIDES[1]), _norm(first), nn.ReLU()),
            _widened(first, width, KERNELS[0], STRIDES[0]),
        )
        glorot_(self)

    def forward(self, z: Tensor) -> Tensor:
        hidden = torch.relu(self.dense(z)).unflatten(1, (self.last, -1))
        logits: Tensor = self.convolutions(hidden)
        return logits.mT


class PropertyBranch(nn.Module):
    """The mean of z (C, latent_dim) to a property (C,) scaled to 0 to 1."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        first, second = PROPERTY_WIDTHS
        self.layers = nn.Sequential(
            *(nn.ReLU(), nn.Linear(latent_dim, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()),
            nn.Linear(second, 1),
        )
        glorot_(self)

    @full_precision
    def forward(self, mu: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(mu)).squeeze(-1)


def _widened(before: int, after: int, kernel: int, stride: int) -> nn.ConvTranspose1d:
    """A transposed convolution that makes rows ``stride`` times as many."""
    return nn.ConvTranspose1d(before, after, kernel, stride, kernel // 2, output_padding=stride - 1)


@torch.no_grad()
def glorot_(network: nn.Module) -> None:
    """Uniform weights by Glorot and Bengio (2010) and biases of 0, Keras' defaults."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
