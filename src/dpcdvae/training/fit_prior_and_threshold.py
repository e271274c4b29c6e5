"""What is fitted when a run has ended: the prior of the latents, and the latent distance at which a decode is good."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dpcdvae.checkpoints.checkpoint import PRIOR, read_checkpoint, read_training, write_checkpoint
from dpcdvae.checkpoints.loading import loaded_model
from dpcdvae.config import NORMAL
from dpcdvae.ftcp.model import FTCP
from dpcdvae.interfaces import LatentPosterior, LatentPrior
from dpcdvae.model.agreement_threshold import Agreement
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model_store import TRAINING, best_checkpoint
from dpcdvae.parallel import LocalEngine
from dpcdvae.parallel.results import Results
from dpcdvae.priors import PRIORS
from dpcdvae.sampling.encoding import encoded
from dpcdvae.sampling.generation import reconstruct
from dpcdvae.structures.crystal import LATENT_DISTANCE
from dpcdvae.structures.pair_matching import match_pairs
from dpcdvae.structures.table import CrystalTable

CRYSTALS, FEWEST = 200, 50  # of the validation set, decoded to find the threshold
MOST_PASSES = 50  # of each decode: the distances hardly depend on it, the time does
FEWEST_ACCEPTED = 20
WANTED = 0.98  # share of decodes below the threshold that are the crystal that was meant
SECONDS = 10.0  # for one comparison of two crystals


def fit_prior_and_threshold(
    run: str | Path, tables: Mapping[str, CrystalTable], device: torch.device | str = "auto"
) -> None:
    """Fits the prior of a run's best checkpoint on its training set and its threshold on its validation set.

    The checkpoint is written again, all other weights as they were. With fewer than ``FEWEST`` validation crystals
    there is no threshold, nor is there one of FTCP, which decodes a latent in one way only.
    """
    folder = best_checkpoint(run)
    checkpoint = read_checkpoint(folder)
    model = loaded_model(checkpoint, device)
    assert isinstance(model, CDVAE | FTCP)
    if (prior := model.config.prior).name != NORMAL:  # which has nothing to learn from the latents
        train, val = encoded(model, tables["train"]), encoded(model, tables["val"])
        model.prior = fit_prior(prior.name, prior.options, train, val, model.config.train.seed)
    facts = {name: value for name, value in checkpoint.facts.items() if name != "agreement"}
    if isinstance(model, CDVAE) and len(tables["val"]) >= FEWEST:
        facts["agreement"] = calibrate(model, tables["val"]).to_facts()
    training = read_training(folder) if (folder / TRAINING).is_file() else None
    fitted = {f"{PRIOR}{name}": value for name, value in model.prior.state_dict().items()}
    write_checkpoint(folder, {**checkpoint.weights, **fitted}, checkpoint.config, facts, training)


def fit_prior(
    name: str, options: Mapping[str, Any], train: LatentPosterior, val: LatentPosterior, seed: int
) -> LatentPrior:
    """The prior of this name, fitted on the latents (n, dim) of ``train``, on their device and in their precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = PRIORS[name](train.mu.shape[1], options).to(train.mu).requires_grad_(False)
    prior.fit(train, val, seed)
    return prior


def calibrate(model: CDVAE, table: CrystalTable, *, crystals: int = CRYSTALS) -> Agreement:
    """Decodes crystals of ``table`` once, and finds the largest latent distance up to which ``WANTED`` of them match.

    A match is one under the published tolerances where even the largest displacement of an atom is within them.
    """
    chosen = np.random.default_rng(0).permutation(len(table))[:crystals]
    truths = table.select(chosen)
    steps = min(model.config.diffusion.sampling_steps or MOST_PASSES, model.diffusion.max_steps, MOST_PASSES)
    result = reconstruct(model, truths, steps=steps, candidates=1)
    by_id = {str(truth.id): truth for truth in truths}
    made = [crystal for crystal in result.crystals if LATENT_DISTANCE in crystal.properties]
    with LocalEngine(1) as engine:
        matched = match_pairs(made, [by_id[crystal.id] for crystal in made], Results(engine, SECONDS)).fits
    distances = np.array([crystal.properties[LATENT_DISTANCE] for crystal in made])
    threshold = threshold_of(distances, matched)
    accepted = distances <= threshold
    return Agreement(
        threshold, len(truths), int(matched.sum()), int(accepted.sum()), int((accepted & matched).sum()), steps
    )


def threshold_of(
    distances: npt.NDArray[np.float64], matched: npt.NDArray[np.bool_], least: int = FEWEST_ACCEPTED
) -> float:
    """The largest of ``distances`` (n,) up to which ``WANTED`` of the decodes are matches (n,).

    0 where there is none, or where fewer than ``least`` decodes lie below it: a share of so few says little.
    """
    order = np.argsort(distances, kind="stable")
    ordered = distances[order]
    share = np.cumsum(matched[order]) / np.arange(1, len(order) + 1)
    last = np.append(ordered[1:] > ordered[:-1], True)[: len(order)]  # of those that lie equally far
    good = np.flatnonzero(last & (share >= WANTED))
    good = good[good >= least - 1]
    return float(ordered[good[-1]]) if len(good) else 0.0
