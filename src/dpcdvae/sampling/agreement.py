"""Decoding by agreement: of several decodes of a latent, the one whose own encoding lies nearest to it.

The reverse process is random, and some decodes miss. The encoder shows which: encoded again, the crystal that z stands
for comes back near z, another one does not. It needs no ground truth, so it serves generation and reconstruction alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dpcdvae.errors import InputError
from dpcdvae.interfaces import LatentPosterior
from dpcdvae.io import Failure
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.decoding import Request, decode
from dpcdvae.sampling.decoding_settings import Decoding
from dpcdvae.sampling.encoding import encoded
from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.crystal import CANDIDATES, LATENT_DISTANCE, Crystal
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch


@dataclass(frozen=True)
class _Candidate:
    """A decode: the crystal, or why there is none, and how far it lies from its z (inf: it cannot be encoded)."""

    crystal: Crystal | None
    reason: str
    distance: float

    def better_than(self, other: _Candidate) -> bool:
        """Nearer; or a crystal at least, where the other is none."""
        if (self.crystal is None) != (other.crystal is None):
            return other.crystal is None
        return self.distance < other.distance


@dataclass(frozen=True)
class Decoded:
    """Crystals and failures of a batch, in its order.

    Attributes:
        passes: network evaluations, one per crystal.
        kept: number of the candidate that each of them is.
    """

    results: list[Crystal | Failure]
    passes: int
    kept: list[int]


@torch.inference_mode()
def latent_distances(model: CDVAE, crystals: Sequence[Crystal | None], z: Tensor) -> list[float]:
    """The distance of each crystal's encoding from its z (C, latent_dim), in standard deviations.

    √(mean over the latent's dimensions of ((μ - z)/σ)²), with the mean μ and the standard deviation σ of the crystal's
    own posterior: about 1 for a z that was drawn from it. The cell is encoded as it was decoded: reduced again, one
    next to a boundary of Niggli's conditions could become another one and seem far.

    Returns:
        inf where there is no crystal, or one without bonds.
    """
    distances = [math.inf] * len(crystals)
    places, (mu, log_var) = encode_crystals(model, crystals)
    away = (mu - z[places]) * torch.exp(-0.5 * log_var)
    for k, distance in zip(places, away.square().mean(-1).sqrt().tolist(), strict=True):
        distances[k] = distance if math.isfinite(distance) else math.inf
    return distances


@torch.inference_mode()
def encode_crystals(model: CDVAE, crystals: Sequence[Crystal | None]) -> tuple[list[int], LatentPosterior]:
    """The places (n,) of the crystals that can be encoded (None and one without bonds cannot), and their posteriors."""
    places: list[int] = []
    found = []
    for k, crystal in enumerate(crystals):
        if crystal is None:
            continue
        try:
            bonds = crystal_nn_bonds(crystal)
        except InputError:
            continue
        places.append(k)
        found.append((crystal, bonds))
    table = CrystalTable.from_crystals([crystal for crystal, _ in found], [bonds for _, bonds in found])
    return places, encoded(model, table)


def decode_by_agreement(
    model: CDVAE,
    request: Request,
    how: Decoding,
    on_step: Callable[[float], Any] = lambda crystals: None,
    watch: Callable[[int, CrystalBatch], Any] = lambda candidate, crystals: None,
) -> Decoded:
    """Decodes every latent of a request up to ``how.candidates`` times and keeps the decode that lies nearest to it.

    A crystal is done as soon as one decode lies within the model's threshold; one whose decoded lattice is no cell is
    done at once, as every candidate has the same lattice. Candidate j of a crystal has its own noise, candidate 0 that
    of a single decode.

    Args:
        on_step: called after each step with the number of crystals that it moved; each is moved at most
            ``how.steps * how.candidates`` times.
        watch: called with the number of a candidate and the crystals that are decoded, as
            :func:`~dpcdvae.sampling.decoding.decode` calls its own.
    """
    threshold = 0.0 if model.agreement is None else model.agreement.threshold
    waiting = list(range(len(request.ids)))
    best: dict[int, _Candidate] = {}
    tried: dict[int, int] = {}
    kept: dict[int, int] = {}
    passes = 0

    def after_step(evaluations: int) -> None:
        nonlocal passes
        passes += len(waiting) * evaluations
        on_step(len(waiting))

    for number in range(how.candidates):
        part = request.select(waiting, number)
        batch, usable = decode(
            model,
            part.z,
            part.random,
            how.steps,
            part.num_atoms,
            part.types,
            on_step=after_step,
            solver=how.solver,
            constraints=part.constraints,
            watch=partial(watch, number),
        )
        candidates = _with_distances(model, batch.to_crystals(part.ids), usable.tolist(), part.z)
        done = []
        for k, candidate, real_cell in zip(waiting, candidates, usable.tolist(), strict=True):
            tried[k] = number + 1
            if k not in best or candidate.better_than(best[k]):
                best[k], kept[k] = candidate, number
            if candidate.distance <= threshold or not real_cell:
                done.append(k)
        on_step(len(done) * how.steps * (how.candidates - number - 1))
        waiting = sorted(set(waiting).difference(done))
        if not waiting:
            break
    order = range(len(request.ids))
    return Decoded([_result(best[k], tried[k], request.ids[k]) for k in order], passes, [kept[k] for k in order])


def _with_distances(
    model: CDVAE, crystals: Sequence[Crystal], real_cells: Sequence[bool], z: Tensor
) -> list[_Candidate]:
    reasons = [
        (crystal.problem() or "") if real_cell else "the decoded lattice is no cell"
        for crystal, real_cell in zip(crystals, real_cells, strict=True)
    ]
    built = [None if reason else crystal for crystal, reason in zip(crystals, reasons, strict=True)]
    distances = latent_distances(model, built, z)
    return [_Candidate(*found) for found in zip(built, reasons, distances, strict=True)]


def _result(candidate: _Candidate, tried: int, id: str) -> Crystal | Failure:
    if candidate.crystal is None:
        return Failure(id, "sampling", candidate.reason)
    known = {CANDIDATES: float(tried)}
    if math.isfinite(candidate.distance):
        known[LATENT_DISTANCE] = candidate.distance
    return replace(candidate.crystal, properties=known)
