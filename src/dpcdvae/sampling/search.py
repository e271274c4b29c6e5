"""Property-guided search: latents moved downhill in the property that the model's head predicts, and decoded.

The third task of CDVAE (Xie et al., ICLR 2022): Adam on z, the weights held, crystals decoded on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpcdvae.arguments import checked
from dpcdvae.datasets.preparation import bonded_table
from dpcdvae.errors import InputError
from dpcdvae.io import CrystalsLike
from dpcdvae.model.cdvae import CDVAE, PropertyHead
from dpcdvae.progress import Progress
from dpcdvae.sampling.decoding import Request, evaluating
from dpcdvae.sampling.decoding_settings import Decoding, check_counts
from dpcdvae.sampling.encoding import encoded
from dpcdvae.sampling.finished_batches import GenerationResult, generated_id
from dpcdvae.sampling.generation import decode_all
from dpcdvae.sampling.shards import BATCH_SIZE
from dpcdvae.structures.crystal import PREDICTED
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.noise import CrystalRandom


@dataclass(frozen=True)
class Start:
    """Starting points: z (n, latent_dim) and a name for each."""

    z: Tensor
    ids: Sequence[str]


@dataclass(frozen=True)
class Descent:
    """The saved points of a descent: gradient steps taken (S,), z (S, n, latent_dim), the head's prediction (S, n)."""

    steps: tuple[int, ...]
    z: Tensor
    predicted: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, repr=False)
class SearchResult(GenerationResult):
    """Crystals of S saved points of n searches, in the order of saved points, then of starting points.

    Their ids are ``{start id}@{step}``.

    Attributes:
        steps: (S,) gradient steps taken until each saved point; the first is 0.
        predicted: (S, n) the property as the head predicts it from z, in its unit.
        places: (crystals, 2) saved point and starting point of each.
    """

    steps: tuple[int, ...]
    predicted: npt.NDArray[np.float64]
    places: npt.NDArray[np.int64]

    def spread(self, values: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
        """(crystals,) -> (S, n), with ``fill`` where no crystal could be built."""
        whole = np.full(self.predicted.shape, fill)
        whole[tuple(self.places.T)] = values
        return whole


def property_head(model: CDVAE) -> PropertyHead:
    """The model's head; raises InputError where it was trained without one."""
    if model.property_head is None:
        raise InputError("the model has no property head: train one with dpcdvae train --property COLUMN")
    return model.property_head


@torch.no_grad()
def predict_from_latents(model: CDVAE, z: Tensor) -> npt.NDArray[np.float64]:
    """z (..., latent_dim) -> (...) the property as the head predicts it, in its unit."""
    head = property_head(model)
    with evaluating(model):
        return head.scaler.inverse(head(z)).double().cpu().numpy()


@torch.no_grad()
def random_start(model: CDVAE, n: int, *, seed: int = 0) -> Start:
    """The latents and names of the first n crystals that ``generate`` makes with this seed."""
    noise = CrystalRandom(seed, torch.arange(n, device=model.device)).normal("latent", model.config.model.latent_dim)
    return Start(model.latent_prior()(noise.to(model.dtype)), [generated_id(seed, k) for k in range(n)])


def encoded_start(model: CDVAE, crystals: CrystalTable | CrystalsLike, *, batch_size: int = BATCH_SIZE) -> Start:
    """The encoded means of crystals, whose bonds are found if they are no table.

    Raises:
        InputError: no crystals, a table without bonds, a crystal that cannot be prepared.
    """
    table, failures = bonded_table(crystals)
    if failures:
        raise InputError(f"cannot start from {failures[0]}")
    if not len(table):
        raise InputError("nothing to start from: there are no crystals")
    if (table.num_bonds == 0).any():
        raise InputError("the crystals to start from carry no bonds: give a prepared data set (dpcdvae data add)")
    return Start(encoded(model, table, batch_size=batch_size).mu, [str(name) for name in table.ids])


def saved_steps(gradient_steps: int, saved: int) -> tuple[int, ...]:
    """(saved,) numbers of gradient steps, evenly spaced: 0 first, all of them last.

    Raises:
        InputError: fewer than two points to save, or more than there are steps.
    """
    if not 2 <= saved <= gradient_steps:
        raise InputError(
            f"--saved must lie between 2 (start and end) and the {gradient_steps} gradient steps, not {saved}"
        )
    return tuple(k * gradient_steps // (saved - 1) for k in range(saved))


def descend(
    model: CDVAE, z: Tensor, *, gradient_steps: int = 5000, lr: float = 1e-3, saved: int = 10, maximize: bool = False
) -> Descent:
    """Adam on z (n, latent_dim), minimising the mean of what the head predicts; no weight is touched.

    Args:
        lr: of Adam; every component of z moves by about this much in a step. N(0, I), which z is drawn from where the
            model has no prior of its own, has a standard deviation of 1.
        maximize: uphill instead.

    Raises:
        InputError: a model without head, a learning rate that is not positive, ``saved`` as :func:`saved_steps` says.
    """
    head, points = property_head(model), saved_steps(gradient_steps, saved)
    if not 0 < lr <= 1:
        raise InputError(f"--lr must be above 0 and at most 1, not {lr:g}: z has a standard deviation of 1")
    sign = -1.0 if maximize else 1.0
    z = z.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([z], lr=lr)
    found = [z.detach().clone()]
    with evaluating(model), torch.enable_grad(), Progress("descending", total=gradient_steps) as bar:
        for step in range(1, gradient_steps + 1):
            (z.grad,) = torch.autograd.grad(sign * head(z).mean(), z)
            adam.step()
            if step in points:
                found.append(z.detach().clone())
            bar.advance()
    latents = torch.stack(found)
    return Descent(points, latents, predict_from_latents(model, latents))


@checked
def optimize(
    model: CDVAE,
    start: Start | CrystalTable | CrystalsLike,
    *,
    gradient_steps: int = 5000,
    lr: float = 1e-3,
    saved: int = 10,
    maximize: bool = False,
    steps: int | None = None,
    solver: str | None = None,
    candidates: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> SearchResult:
    """Descends from every starting point and decodes what lies at each saved point of the way.

    Example:
        >>> model = dpcdvae.load_model("runs/guided")  # trained with a property
        >>> result = dpcdvae.optimize(model, "start.cif", gradient_steps=1000)

    Starting point k is decoded with the same noise at all of them, so that only z changes: the noise of crystal k
    of this seed. At step 0 stands what ``generate`` or ``reconstruct`` make.

    Args:
        start: crystals (:func:`~dpcdvae.io.as_crystals`), a table of them, or :func:`random_start`.
        steps: as of :func:`~dpcdvae.sampling.generation.generate`, like ``solver`` and ``candidates``.
        seed: of the noise.

    Raises:
        InputError: as :func:`descend`, or steps or a solver that the reverse process does not have.
    """
    check_counts(seed=seed, batch_size=batch_size)
    how = Decoding.of(model.config, steps, solver, candidates)
    start = start if isinstance(start, Start) else encoded_start(model, start, batch_size=batch_size)
    descent = descend(model, start.z, gradient_steps=gradient_steps, lr=lr, saved=saved, maximize=maximize)
    n = len(start.ids)
    names = [[f"{id}@{step}" for id in start.ids] for step in descent.steps]

    def requests() -> Iterator[Request]:
        for z, ids in zip(descent.z, names, strict=True):
            for first in range(0, n, batch_size):
                numbers = torch.arange(first, min(first + batch_size, n), device=model.device)
                yield Request(z[numbers], CrystalRandom(seed, numbers), [ids[k] for k in numbers.tolist()])

    result = decode_all(model, requests, len(descent.steps) * n, how, "decoding")
    where = {id: (point, k) for point, ids in enumerate(names) for k, id in enumerate(ids)}
    places = np.array([where[crystal.id] for crystal in result.crystals], np.int64).reshape(-1, 2)
    key = f"{PREDICTED}{model.target}"
    crystals = [
        replace(crystal, properties={**crystal.properties, key: float(descent.predicted[point, k])})
        for crystal, (point, k) in zip(result.crystals, places.tolist(), strict=True)
    ]
    return SearchResult(
        crystals, result.failures, result.passes, steps=descent.steps, predicted=descent.predicted, places=places
    )
