"""The decoders of number of atoms, lattice and composition from z, and the scaler of the lattice."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpcdvae.config import ModelConfig
from dpcdvae.nn.layers import mlp
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import full_precision, lattice_from_parameters, parameters_from_lattice


class Statistics(NamedTuple):
    """Decoded from z. num_atoms: (C, max_atoms + 1) logits; lattice: (C, 6) scaled; composition: (C, 100) logits."""

    num_atoms: Tensor
    lattice: Tensor
    composition: Tensor


def frequencies(wanted: Tensor) -> Tensor:
    """Of each class (K,), from what each of C crystals has of it: ``wanted`` (C, K), rows that add up to 1.

    One more crystal, of all classes alike, keeps those that do not occur possible.
    """
    return (wanted.double().sum(0) + 1 / wanted.shape[1]) / (len(wanted) + 1)


def prior_shift(logits: Tensor, wanted: Tensor, iterations: int = 100) -> Tensor:
    """The shift (K,) of logits (C, K) after which their mean probabilities are the frequencies of ``wanted`` (C, K).

    A change of the prior probabilities of the classes (Saerens et al. 2002, Neural Comput. 14, 21), found by iteration.
    """
    logits, aim = logits.double(), frequencies(wanted).log()
    shift = torch.zeros_like(aim)
    for _ in range(iterations):
        mean = (logits + shift).softmax(-1).mean(0)
        shift = shift + aim - mean.clamp(min=1e-30).log()
    return shift - shift.mean()


class LatticeScaler(nn.Module):
    """Scales lengths and angles (C, 6) to numbers of order one and back, by statistics of the training set.

    Lengths are divided by the cube root of the number of atoms first (option ``lattice_per_atom``). A
    component that is constant in the training set (the angles of Perov-5) keeps its unit.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind, self.per_atom = config.lattice_scaler, config.lattice_per_atom
        self.register_buffer("shift", torch.zeros(6))
        self.register_buffer("scale", torch.ones(6))

    @torch.no_grad()
    def fit(self, lattice: Tensor, num_atoms: Tensor) -> None:
        values = self._per_atom_parameters(lattice.double(), num_atoms)
        if self.kind == "minmax":
            shift, scale = values.amin(0), values.amax(0) - values.amin(0)
        else:
            shift, scale = values.mean(0), values.std(0, correction=0)
        self.shift.copy_(shift)
        self.scale.copy_(torch.where(scale > 1e-4, scale, torch.ones_like(scale)))

    def forward(self, lattice: Tensor, num_atoms: Tensor) -> Tensor:
        """Scaled parameters (C, 6) of lattices (C, 3, 3)."""
        return (self._per_atom_parameters(lattice, num_atoms) - self.shift) / self.scale

    def inverse(self, scaled: Tensor, num_atoms: Tensor) -> Tensor:
        """Lattices (C, 3, 3) from scaled parameters (C, 6); NaN where the six numbers make no cell."""
        values = scaled * self.scale + self.shift
        lengths = values[:, :3] * self._size(values, num_atoms)
        lengths = torch.where(lengths > 0, lengths, torch.nan)
        return lattice_from_parameters(torch.cat([lengths, values[:, 3:]], -1))

    def _per_atom_parameters(self, lattice: Tensor, num_atoms: Tensor) -> Tensor:
        values = parameters_from_lattice(lattice)
        return torch.cat([values[:, :3] / self._size(values, num_atoms), values[:, 3:]], -1)

    def _size(self, like: Tensor, num_atoms: Tensor) -> Tensor:
        return num_atoms.to(like.dtype).pow(1 / 3 if self.per_atom else 0)[:, None]


class StatisticsDecoder(nn.Module):
    """Three perceptrons that decode :class:`Statistics` from z (C, latent_dim)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

        def head(out_features: int) -> nn.Sequential:
            return mlp(config.latent_dim, config.stats_hidden_dim, out_features, config.stats_hidden_layers)

        self.num_atoms, self.lattice, self.composition = head(config.max_atoms + 1), head(6), head(NUM_ELEMENTS)
        self.scaler = LatticeScaler(config)

    @full_precision
    def forward(self, z: Tensor) -> Statistics:
        return Statistics(self.num_atoms(z), self.lattice(z), self.composition(z))

    @torch.no_grad()
    def start_at_frequencies(self, crystals: CrystalBatch) -> None:
        """Sets the biases of a new decoder, whose scaler is fitted, to what is right for the training set on average.

        Else the first steps learn just that, from losses so large that Adam's running mean of their squares keeps later
        steps small for an epoch or more: Carbon-24, where every atom is C, learnt its cells half as fast.
        """
        sizes, elements = self._classes(crystals)
        _last(self.num_atoms).bias.copy_(frequencies(sizes).log())
        _last(self.composition).bias.copy_(frequencies(elements).log())
        _last(self.lattice).bias.copy_(self.scaler(crystals.lattice, crystals.num_atoms).mean(0))

    @torch.no_grad()
    def fit_outputs(self, z: Tensor, crystals: CrystalBatch) -> None:
        """Fits the last layers of a decoder that was trained on other crystals to ``crystals``, encoded as z.

        Biases of number of atoms and composition, so that the mean probabilities are the frequencies; a factor and a
        bias of each lattice parameter, by least squares.
        """
        stats = self(z)
        sizes, elements = self._classes(crystals)
        _last(self.num_atoms).bias.add_(prior_shift(stats.num_atoms, sizes))
        _last(self.composition).bias.add_(prior_shift(stats.composition, elements))
        lattice, wanted = stats.lattice.double(), self.scaler(crystals.lattice, crystals.num_atoms).double()
        covariance = ((lattice - lattice.mean(0)) * (wanted - wanted.mean(0))).mean(0)
        factor = covariance / lattice.var(0, correction=0).clamp(min=1e-4)
        last = _last(self.lattice)
        last.weight.mul_(factor[:, None])
        last.bias.sub_(lattice.mean(0)).mul_(factor).add_(wanted.mean(0))

    def _classes(self, crystals: CrystalBatch) -> tuple[Tensor, Tensor]:
        """What each crystal has of each number of atoms (C, max_atoms + 1) and of each element (C, 100)."""
        sizes = nn.functional.one_hot(crystals.num_atoms, _last(self.num_atoms).out_features)
        return sizes, crystals.element_fractions(torch.float64)

    @full_precision
    def losses(self, stats: Statistics, batch: CrystalBatch) -> dict[str, Tensor]:
        """Cross entropies and mean square error against the true crystals, averaged over crystals."""
        cross_entropy = nn.functional.cross_entropy
        per_atom = cross_entropy(batch.per_atom(stats.composition), batch.atomic_numbers - 1, reduction="none")
        return {
            "num_atoms": cross_entropy(stats.num_atoms, batch.num_atoms),
            "lattice": nn.functional.mse_loss(stats.lattice, self.scaler(batch.lattice, batch.num_atoms)),
            "composition": batch.mean_over_atoms(per_atom).mean(),
        }


def _last(head: nn.Sequential) -> nn.Linear:
    last = head[-1]
    assert isinstance(last, nn.Linear)
    return last
