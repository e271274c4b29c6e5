"""Generation and reconstruction: latents from a prior or from crystals, decoded batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dpcdvae.config import Config
from dpcdvae.errors import InputError
from dpcdvae.io import Failure
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.progress import Progress
from dpcdvae.sampling.agreement import decode_by_agreement
from dpcdvae.sampling.atom_conditions import AtomConditions
from dpcdvae.sampling.conditional_latents import ConditionalLatents
from dpcdvae.sampling.decoding import Request, evaluating
from dpcdvae.sampling.decoding_settings import Decoding, check_some
from dpcdvae.sampling.encoding import drawn, encoded
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.sampling.guidance import moved_to, with_predictions
from dpcdvae.sampling.numbered_batches import OnProgress, numbered_batches
from dpcdvae.sampling.shards import BATCH_SIZE
from dpcdvae.sampling.target import Target
from dpcdvae.structures.crystal import PREDICTED, Crystal
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom


def generate(
    model: CDVAE,
    n: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    candidates: int | None = None,
    prior: str | None = None,
    num_atoms: int | str | Sequence[int] | None = None,
    formula: str | Sequence[str] | None = None,
    elements: str | Sequence[str] | None = None,
    chemical_system: str | Sequence[str] | None = None,
    neutral: bool = False,
    like: CrystalTable | None = None,
    spread: float = 1.0,
    target: Target | None = None,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: OnProgress | None = None,
) -> GenerationResult:
    """New crystals number ``first`` .. ``first + n - 1`` of this seed, from z of the model's prior.

    Args:
        steps: denoising steps, by default the model's own number (``diffusion.sampling_steps``). Each is one evaluation
            of the denoiser; with ``heun`` it is two.
        solver: one of ``model.diffusion.solvers``, by default the model's own (``docs/sampling.md``).
        candidates: most decodes of each z, of which the one that agrees best with it is kept
            (:mod:`dpcdvae.sampling.agreement`); by default the model's own number (``diffusion.sampling_candidates``).
        prior: "normal" for z ~ N(0, I), the paper's; by default the model's own.
        num_atoms: every crystal gets this many atoms, or one of several numbers; z is chosen to go with it.
        formula: every crystal gets these atoms, e.g. ``SrTiO3`` (or ``num_atoms`` / 5 times as many). Of several
            formulas crystal k takes number k, counted around.
        elements: no crystal gets others, e.g. ``Sr,Ti,O``. chemical_system: every crystal gets each of these and no
            other, e.g. ``Sr-Ti-O``.
        neutral: types are changed, in one or two atoms, where that balances the charges.
        like: one crystal with bonds. z is its μ + ``spread`` σ ε, with ε ~ N(0, I), and μ and σ of its own posterior:
            with 1 what the model was trained to decode to this crystal, beyond it ever less like it.
        target: z is moved until the property head predicts it; crystals carry what the head predicts for them.
        batch_size: crystals decoded at a time. Crystal k gets the same noise whatever it is; but the early
            steps amplify rounding, so only batches of the same crystals give the same digits.
        on_progress: instead of a progress bar, called after each step with the work done, in crystals.

    Raises:
        InputError: more steps than the schedule has, a solver it does not have, no candidate, a prior that it does not
            have, conditions that contradict or that the model cannot hold, less than 1 in a batch.
    """
    asked = {"num_atoms": num_atoms, "formula": formula, "elements": elements, "chemical_system": chemical_system}
    atoms = AtomConditions.of({**asked, "neutral": neutral}, model.config.model.max_atoms)
    how = Decoding.of(model.config, steps, solver, candidates)

    def batches() -> Iterator[Request]:
        return requests(model, first, n, seed, batch_size, atoms, prior=prior, like=like, spread=spread, target=target)

    result = decode_all(model, batches, n, how, "generating", on_progress)
    if target is None:
        return result
    return replace(result, crystals=with_predictions(model, result.crystals, f"{PREDICTED}{target.name}"))


def requests(
    model: CDVAE,
    first: int,
    n: int,
    seed: int,
    batch_size: int,
    atoms: AtomConditions,
    *,
    prior: str | None = None,
    like: CrystalTable | None = None,
    spread: float = 1.0,
    target: Target | None = None,
) -> Iterator[Request]:
    """Latents of the crystals that :func:`generate` makes, in batches, with what is fixed and allowed for them."""
    condition = ConditionalLatents(atoms)
    latents = model.latent_prior(prior) if like is None else None
    seed_crystal = None if like is None else encoded(model, like)
    for numbers, random, ids in numbered_batches(seed, first, n, batch_size, model.device):
        fixed = condition.of_batch(numbers, model.device)
        if seed_crystal is None:
            assert latents is not None
            z = condition.latents(model.stats, random, latents, model.config.model.latent_dim, fixed)
        else:
            z = drawn(seed_crystal, random, spread)
        if target is not None:
            z = moved_to(model, z, target)
        yield Request(z, random, ids, *fixed, condition.constraints)


def reconstruct(
    model: CDVAE,
    table: CrystalTable,
    *,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    candidates: int | None = None,
    force_num_atoms: bool = False,
    force_types: bool = False,
    sample_latent: bool = False,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: OnProgress | None = None,
) -> GenerationResult:
    """The crystals of ``table`` encoded and decoded again, under their own ids.

    Args:
        force_num_atoms: the true number of atoms instead of the decoded one.
        force_types: the true types, never changed (implies the true number of atoms).
        sample_latent: z drawn from the encoder's distribution (Eq. 8) instead of its mean.
        first: number of the first crystal, by which it gets its noise, where ``table`` is a part of another.
        steps: as of :func:`generate`, like ``solver``, ``candidates``, ``batch_size`` and ``on_progress``.
    """
    how = Decoding.of(model.config, steps, solver, candidates)
    check_some(table)
    forced = {"force_types": force_types, "force_num_atoms": force_num_atoms}
    for wrong in misfits(model.config, table, forced).values():
        raise InputError(f"a crystal {wrong}")

    def batches() -> Iterator[Request]:
        for start in range(0, len(table), batch_size):
            indices = np.arange(start, min(start + batch_size, len(table)))
            batch = CrystalBatch.from_table(table, indices, model.dtype).to(model.device)
            random = CrystalRandom(seed, torch.from_numpy(indices + first).to(model.device))
            posterior = model.encode(batch)
            z = drawn(posterior, random) if sample_latent else posterior.mu
            ids = [str(name) for name in table.ids[indices]]
            fixed = batch.num_atoms if force_types or force_num_atoms else None
            yield Request(z, random, ids, fixed, batch.atomic_numbers if force_types else None)

    return decode_all(model, batches, len(table), how, "reconstructing", on_progress)


def misfits(config: Config, table: CrystalTable, options: Mapping[str, Any]) -> dict[int, str]:
    """What of the crystals (by row) :func:`reconstruct` cannot do with these options, the largest first.

    Raises:
        InputError: crystals without bonds.
    """
    if (table.num_bonds == 0).any():
        raise InputError("the crystals carry no bonds: reconstruct a prepared data set (dpcdvae data add)")
    if not (options.get("force_types") or options.get("force_num_atoms")):
        return {}
    most = config.model.max_atoms
    large = np.flatnonzero(table.num_atoms > most)
    by_size = large[np.argsort(-table.num_atoms[large], kind="stable")]
    return {int(row): f"has {table.num_atoms[row]} atoms; this model holds at most {most}" for row in by_size}


@torch.inference_mode()
def decode_all(
    model: CDVAE,
    batches: Callable[[], Iterator[Request]],
    total: int,
    how: Decoding,
    description: str,
    on_progress: OnProgress | None = None,
) -> GenerationResult:
    """Crystals of every request, in order; ``batches`` is called with the model in evaluation mode.

    Args:
        total: crystals in all the requests, for the progress bar.
        on_progress: instead of that bar, called after each step with the work done, in crystals.
    """
    results: list[Crystal | Failure] = []
    each = how.steps * how.candidates  # most denoising steps of a crystal
    passes, finished = 0, 0.0

    def after_pass(done: float) -> None:
        nonlocal finished
        finished += done / each
        if on_progress is None:
            bar.advance(done / each)
        else:
            on_progress(finished)

    with evaluating(model), Progress(description, total=total) as bar:
        for request in batches():
            decoded = decode_by_agreement(model, request, how, after_pass)
            passes += decoded.passes
            results += decoded.results
    return GenerationResult.of(results, passes)
