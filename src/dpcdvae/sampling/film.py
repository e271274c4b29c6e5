"""The way of one generated crystal from noise to structure, as frames that a viewer plays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from dpcdvae.arguments import checked
from dpcdvae.errors import InputError
from dpcdvae.io import CrystalList, Failure
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.agreement import decode_by_agreement
from dpcdvae.sampling.atom_conditions import CONDITIONS, AtomConditions
from dpcdvae.sampling.decoding import evaluating
from dpcdvae.sampling.decoding_settings import Decoding, check_counts
from dpcdvae.sampling.generation import requests
from dpcdvae.sampling.kinds import film_options
from dpcdvae.sampling.training_range import Subject
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.batch import CrystalBatch

STEP = "step"
"""The property of a frame that counts its denoising steps."""


@checked
def film(
    model: CDVAE,
    number: int = 0,
    *,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    candidates: int | None = None,
    **conditions: Any,
) -> CrystalList:
    """Crystal ``number`` of a seed as it is at the start, in noise, and after each denoising step.

    It has the noise of that crystal of :func:`~dpcdvae.sampling.generation.generate` and is decoded in a batch of its
    own: the early steps amplify rounding, so the digits are those of ``generate`` with a batch size of 1.

    Example:
        >>> dpcdvae.view(dpcdvae.film(model, 17), "film.html")

    Args:
        model: a crystal VAE.
        steps, solver, candidates: as in ``generate``. Of several candidates the one that is kept is shown.
        conditions: of ``generate``: ``prior``, ``num_atoms``, ``formula``, ``elements``, ``chemical_system``,
            ``like``, ``spread``, ``anyway``.

    Returns:
        Frames with ids ``{id}@{step}`` and the property ``step``; the last one is the crystal.

    Raises:
        InputError: as ``generate``; another option; a crystal that cannot be built.
    """
    asked = film_options(Subject.loaded(model), conditions).options
    return frames_of(model, number, asked, seed=seed, steps=steps, solver=solver, candidates=candidates)


def frames_of(
    model: CDVAE,
    number: int,
    asked: Mapping[str, Any],
    *,
    seed: int,
    steps: int | None,
    solver: str | None,
    candidates: int | None,
) -> CrystalList:
    """:func:`film` with the checked options of :func:`~dpcdvae.sampling.kinds.film_options`."""
    check_counts(seed=seed, first=number)
    how = Decoding.of(model.config, steps, solver, candidates)
    options = {name: value for name, value in asked.items() if name not in ("anyway", *CONDITIONS)}
    atoms = AtomConditions.of(asked, model.config.model.max_atoms)
    frames: dict[int, list[Crystal]] = {}

    def watch(candidate: int, crystals: CrystalBatch) -> None:
        frames.setdefault(candidate, []).extend(crystals.to_crystals())

    with evaluating(model), torch.inference_mode():
        (request,) = requests(model, number, 1, seed, 1, atoms, **options)
        decoded = decode_by_agreement(model, request, how, watch=watch)
    (result,) = decoded.results
    if isinstance(result, Failure):
        raise InputError(f"crystal {result.id} could not be built: {result.reason}; try another number")
    kept = frames[decoded.kept[0]]
    return CrystalList(
        replace(crystal, id=f"{result.id}@{step}", properties={STEP: float(step)}) for step, crystal in enumerate(kept)
    )
