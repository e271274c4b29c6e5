"""The contracts between the model and its components. A component knows these and nothing of its peers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from dpcdvae.tensors.batch import CrystalBatch

NUM_ELEMENTS = 100  # types are one-hot over atomic numbers 1..100


class LatentPosterior(NamedTuple):
    """Mean and log variance of z for n crystals, (n, latent_dim) each."""

    mu: Tensor
    log_var: Tensor


class Encoder(nn.Module, ABC):
    """A crystal with its bonds -> features (C, out_features), the same for every description of the crystal.

    Those of "num_atoms" and "lattice" depend on the choice of the cell as well: they are the same for every
    description that standardises (:func:`dpcdvae.structures.standardise.standardise`) to the same cell.
    """

    out_features: int

    @abstractmethod
    def forward(self, batch: CrystalBatch) -> Tensor: ...


class LatentPrior(nn.Module, ABC):
    """What z is drawn from where nothing is encoded: fitted to the latents of the training set when a run ends."""

    @property
    def fitted(self) -> bool:
        """Whether it can be drawn from."""
        return True

    def fit(self, train: LatentPosterior, val: LatentPosterior, seed: int) -> None:
        """Learns the distribution of z ~ N(μ, σ²) over the training crystals; ``val`` is what it may stop by."""

    @abstractmethod
    def forward(self, noise: Tensor) -> Tensor:
        """Standard normal noise (..., latent_dim) -> z of the same shape, one of each other whatever the batch."""


class Denoiser(nn.Module, ABC):
    """A noisy crystal -> what the diffusion needs to clean it."""

    @abstractmethod
    def forward(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            noisy: coordinates of any image, types and lattice as the sampler has them.
            z: (C, latent_dim). time: (C,) float, in the units the diffusion counts.

        Returns:
            vectors (N, 3), Cartesian, turning with the crystal; type logits (N, NUM_ELEMENTS).
        """


@dataclass(frozen=True)
class Corrupted:
    """Noisy coordinates and what a perfect denoiser would say about them.

    Attributes:
        frac_coords: (N, 3); time: (C,) as the denoiser is told; target: (N, 3) in the frame of the diffusion.
        weight: (C,) of each crystal's squared error in the loss.
    """

    frac_coords: Tensor
    time: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Pass:
    """One evaluation of the denoiser in the reverse process.

    Attributes:
        level: where; frac_coords: (N, 3) that it was shown; prediction: (N, 3) in the frame of the diffusion.
    """

    level: int
    frac_coords: Tensor
    prediction: Tensor


class CoordinateDiffusion(nn.Module, ABC):
    """Noise on the coordinates, forwards and backwards. One reverse loop serves every kind.

    Attributes:
        frame: where ``target`` and the prediction given to :meth:`step` live; the model turns the
            denoiser's Cartesian vectors into it, in one place.
        max_steps: evaluations of the denoiser in the whole reverse process.
        solvers: names of the ways to make a step; solver: the one to take where nothing is asked.
    """

    frame: Literal["fractional", "cartesian"]
    max_steps: int
    solvers: tuple[str, ...]
    solver: str

    @abstractmethod
    def corrupt(self, batch: CrystalBatch, noise: Tensor, uniform: Tensor) -> Corrupted:
        """Forward process on clean coordinates in the lattice that the denoiser will see.

        ``noise`` (N, 3) standard normal, ``uniform`` (C,) in [0, 1) chooses the level.
        """

    def project(self, batch: CrystalBatch, vectors: Tensor) -> Tensor:
        """Vectors (N, 3) in the frame of the target, projected on the space that targets can lie in."""
        return vectors

    @abstractmethod
    def prior(self, batch: CrystalBatch, noise: Tensor) -> Tensor:
        """Start of the reverse process (N, 3), from standard normal ``noise``."""

    @abstractmethod
    def levels(self, steps: int) -> list[tuple[int, int]]:
        """The reverse process in ``steps`` <= ``max_steps`` evaluations: pairs (level, next level), from noise to data.

        Levels fall to 0, the data; a kind that stays at a level for a while names it twice.
        """

    @abstractmethod
    def time(self, level: int) -> float:
        """What the denoiser is told at a level."""

    @abstractmethod
    def step(
        self,
        batch: CrystalBatch,
        now: Pass,
        next_level: int,
        noise: Tensor,
        *,
        solver: str | None = None,
        before: Pass | None = None,
    ) -> Tensor:
        """One reverse step: (N, 3) coordinates at ``next_level``, by one of the ``solvers``.

        ``noise`` (N, 3) standard normal; ``before`` is the pass of the step before, None in the first.
        """
