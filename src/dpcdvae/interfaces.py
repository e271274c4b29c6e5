"""The contracts between trainer, model and components. A component knows these and none of the other components."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dpcdvae.config import AnyConfig
from dpcdvae.model_store import StoredModel
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom


class Trainable(nn.Module, ABC):
    """A model that can be trained: what it measures first, its losses, and by which number the best is chosen.

    ``target`` is the property column it needs, "" for none; ``targets`` below are its values (C,), NaN where unknown.

    Attributes:
        about: what the card of a trained model says of this kind, "" for nothing.
        of_property: beginnings of the names of tensors that a model of another property has no use for.
        of_training_set: likewise of tensors that hold the training set, which a model of another one does not take.
        only_known_elements: whether its losses are defined only for elements of the training set.
    """

    about: ClassVar[str] = ""
    of_property: ClassVar[tuple[str, ...]] = ()
    of_training_set: ClassVar[tuple[str, ...]] = ()
    only_known_elements: ClassVar[bool] = False
    config: AnyConfig
    source: StoredModel | None = None  # where its weights were loaded from

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def target(self) -> str:
        return self.config.model.property

    def read_facts(self, facts: Mapping[str, Any], where: str) -> None:
        """Takes what else it needs from the facts of the checkpoint ``where`` that its weights come from."""

    def problem(self) -> str | None:
        """What among the loaded tensors no training leaves, such as a count beyond what is there; None for nothing."""
        return None

    def record_training_set(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        """Stores what the training set holds (its elements), also in a model that starts from another's weights."""

    def encoder_parameters(self) -> list[nn.Parameter]:
        """What ``train.freeze_encoder_epochs`` keeps as it is at first; empty where nothing is left beside it."""
        return []

    @abstractmethod
    def measure(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        """Sets the scalers from the whole training set, before the first step."""

    def set_first_outputs(self, crystals: CrystalBatch) -> None:
        """Lets a new model begin with outputs that are right for the training set on average."""

    @abstractmethod
    def step_losses(
        self, batch: CrystalBatch, targets: Tensor | None, generator: torch.Generator, epoch: int
    ) -> dict[str, Tensor]:
        """Every term of the loss, unweighted, by name; all noise comes from ``generator``."""

    def count(self, batch: CrystalBatch, targets: Tensor | None) -> int | Tensor:
        """Crystals that the losses are averaged over."""
        return len(batch)

    @abstractmethod
    def total(self, losses: dict[str, Tensor], epoch: int) -> Tensor:
        """The weighted sum that is minimised."""

    @abstractmethod
    def criterion(self, losses: dict[str, Tensor]) -> Tensor:
        """The number by which the best checkpoint is chosen; less is better."""


class LatentPosterior(NamedTuple):
    """Mean and log variance of z for n crystals, (n, latent_dim) each."""

    mu: Tensor
    log_var: Tensor


class Encoder(nn.Module, ABC):
    """A network from bonded crystals to features (C, out_features) that do not depend on the description of a crystal.

    The features of "num_atoms" and "lattice" depend on the choice of the cell as well. They are the same for every
    description that standardises (:func:`dpcdvae.structures.standardise.standardise`) to the same cell.
    """

    out_features: int

    @abstractmethod
    def forward(self, batch: CrystalBatch) -> Tensor:
        """Features (C, out_features) of crystals with bonds."""


class LatentPrior(nn.Module, ABC):
    """The distribution that generation draws z from, fitted to the latents of the training set when a run ends."""

    @property
    def fitted(self) -> bool:
        """Whether z can be drawn from it yet."""
        return True

    def problem(self) -> str | None:
        """As :meth:`Trainable.problem`."""
        return None

    def fit(self, train: LatentPosterior, val: LatentPosterior, seed: int) -> None:
        """Learns the distribution of z ~ N(μ, σ²) over the training crystals; may stop early by ``val``."""

    @abstractmethod
    def forward(self, noise: Tensor) -> Tensor:
        """Turns standard normal noise (..., latent_dim) into z of the same shape, each vector by itself."""


class Denoiser(nn.Module, ABC):
    """A network that predicts, for a noisy crystal, the noise on its coordinates and its true atom types."""

    @abstractmethod
    def forward(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            noisy: crystals with noisy coordinates (of any periodic image) and types, in the lattice of the sampler.
            z: (C, latent_dim). time: (C,) float, in the units of :meth:`CoordinateDiffusion.time`.

        Returns:
            vectors (N, 3), Cartesian, which turn with the crystal; type logits (N, NUM_ELEMENTS).
        """


@dataclass(frozen=True)
class Corrupted:
    """Noisy coordinates, and what a perfect denoiser would predict from them.

    Attributes:
        frac_coords: (N, 3) noisy.
        time: (C,) as the denoiser is given it.
        target: (N, 3) in the space of :meth:`CoordinateDiffusion.to_target`.
        weight: (C,) of each crystal's squared error in the loss.
    """

    frac_coords: Tensor
    time: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True)
class ReverseRun:
    """One reverse process, as a solver sees it.

    Attributes:
        batch: the crystals, for their lattices and sizes; a solver is given the coordinates with each step.
        predict: (frac_coords (N, 3), level) -> (N, 3), the denoiser's prediction in the space of the target.
        noise: () -> (N, 3) standard normal, new with each call.
    """

    batch: CrystalBatch
    predict: Callable[[Tensor, int], Tensor]
    noise: Callable[[], Tensor]


class Solver(ABC):
    """A rule for the steps of the reverse process. Each object serves one run and keeps its own state."""

    def __init__(self, run: ReverseRun) -> None:
        self.run = run

    @abstractmethod
    def step(self, frac_coords: Tensor, level: int, next_level: int) -> Tensor:
        """Moves coordinates (N, 3) from a level to the next one, by as many calls of ``run.predict`` as it needs."""


class CoordinateDiffusion(nn.Module, ABC):
    """A noise process on the coordinates: how noise is added, which levels there are, and which solvers lead back.

    Attributes:
        max_steps: steps of the longest reverse process.
        solvers: the solvers by name; solver: the name of the default one.
    """

    max_steps: int
    solvers: Mapping[str, Callable[..., Solver]]
    solver: str

    @abstractmethod
    def corrupt(self, batch: CrystalBatch, noise: Tensor, uniform: Tensor) -> Corrupted:
        """Adds noise to clean coordinates, in the lattice that the denoiser will see.

        ``noise`` (N, 3) is standard normal; ``uniform`` (C,) in [0, 1) chooses the level of each crystal.
        """

    @abstractmethod
    def to_target(self, batch: CrystalBatch, vectors: Tensor) -> Tensor:
        """Turns the denoiser's Cartesian vectors (N, 3) into the space in which ``target`` lies."""

    @abstractmethod
    def prior(self, batch: CrystalBatch, noise: Tensor) -> Tensor:
        """Start of the reverse process (N, 3), from standard normal ``noise``."""

    @abstractmethod
    def levels(self, steps: int) -> list[tuple[int, int]]:
        """The reverse process in ``steps`` <= ``max_steps`` steps: pairs (level, next level), from noise to data.

        Levels fall to 0, the data. A process with several steps at a level lists the level several times.
        """

    @abstractmethod
    def time(self, level: int) -> float:
        """The time that the denoiser is given at a level."""

    @abstractmethod
    def start(self, run: ReverseRun, solver: str) -> Solver:
        """A solver for one reverse process, by its name in ``solvers``."""


class NoisyTypes(NamedTuple):
    """Noisy atomic numbers (N,), and the scale (C,) that each crystal's cross entropy in the loss is divided by."""

    atomic_numbers: Tensor
    scale: Tensor


class TypeDiffusion(nn.Module, ABC):
    """A noise process on the atom types: how noise is added, where the reverse process starts, and what a step does."""

    @abstractmethod
    def corrupt(self, batch: CrystalBatch, composition: Tensor, level: Tensor, uniform: Tensor) -> NoisyTypes:
        """Draws noisy types for clean crystals.

        Args:
            composition: (C, NUM_ELEMENTS) probabilities of the elements, decoded from z.
            level: (C,) in [0, 1), chooses the noise level; uniform: (N,) in [0, 1), chooses the types.
        """

    @abstractmethod
    def prior(self, composition: Tensor, num_atoms: Tensor, random: CrystalRandom) -> Tensor:
        """Atomic numbers (N,) that the reverse process starts with, for crystals of ``num_atoms`` (C,) atoms."""

    @abstractmethod
    def update(self, logits: Tensor) -> Tensor:
        """Atomic numbers (N,) after a step, by the ``logits`` (N, NUM_ELEMENTS) that the denoiser gave last."""
