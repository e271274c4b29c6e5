"""One decode of each of some latents, and everything by which the best of several decodes could be chosen.

Of every criterion less is better; None where a crystal has none (it is none, or has no bonds).

latent: the distance that ``dpcdvae.sampling.agreement`` keeps the nearest by. true sigma: the same in units of the
posterior of the true crystal, which generation does not know. euclidean: |mu' - z|. posterior: -log q(z | crystal) but
for a constant. standardised: as latent, with the crystal in its Niggli cell. denoising: the coordinate loss of the
decoded crystal given z, at four noise levels, with the same noise for all decodes of a latent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcdvae.errors import InputError, reason_of
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.parallel import Engine, Lost
from dpcdvae.sampling.agreement import encode_crystals
from dpcdvae.sampling.decoding import Request, decode
from dpcdvae.sampling.decoding_settings import Decoding
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.standardise import standardise
from dpcdvae.structures.tolerances import PUBLISHED
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom
from quality.batches import to_json

CRITERIA = ("latent", "true sigma", "euclidean", "posterior", "standardised", "denoising")
LEVELS = (0.10, 0.25, 0.50, 0.75)  # of the schedule
SECONDS = 10.0  # for one comparison of two crystals


@dataclass(frozen=True)
class Task:
    """Latents to decode, with the crystals that they are the encodings of, and their log variances (C, dim)."""

    request: Request
    truths: Sequence[Crystal]
    log_var: Tensor


@torch.inference_mode()
def decode_once(model: CDVAE, task: Task, number: int, how: Decoding, engine: Engine) -> dict[str, Any]:
    """Candidate ``number`` of each latent as JSON: crystals, matches, criteria, agreement of what z says directly."""
    seconds: dict[str, float] = {}
    own = task.request
    part = own.select(range(len(own.ids)), number)
    with timed(seconds, "decode"):
        batch, usable = decode(model, part.z, part.random, how.steps, part.num_atoms, part.types, solver=how.solver)
    found = batch.to_crystals(part.ids)
    crystals = [c if real and c.problem() is None else None for c, real in zip(found, usable.tolist(), strict=True)]
    with timed(seconds, "encode"):
        criteria, num_atoms_agree = of_encodings(model, crystals, own.z, task.log_var)
    with timed(seconds, "encode standardised"):
        criteria["standardised"] = of_encodings(model, [standard(c) for c in crystals], own.z, task.log_var)[0][
            "latent"
        ]
    with timed(seconds, "denoise"):
        criteria["denoising"] = denoising_losses(model, crystals, own.z, own.random)
    return {
        "seconds": seconds,
        "real_cell": usable.tolist(),
        "crystals": [None if crystal is None else to_json(crystal) for crystal in crystals],
        "rms": matches(crystals, task.truths, engine),
        "criteria": criteria,
        "num_atoms_agree": num_atoms_agree,
        "composition_agrees": compositions_agree(model, crystals, own.z),
    }


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """CPU seconds of this process."""
    begin = time.process_time()
    yield
    seconds[name] = time.process_time() - begin


def standard(crystal: Crystal | None) -> Crystal | None:
    try:
        return None if crystal is None else standardise(crystal)
    except InputError:
        return None


def of_encodings(
    model: CDVAE, crystals: Sequence[Crystal | None], z: Tensor, true_log_var: Tensor
) -> tuple[dict[str, list[float | None]], list[bool]]:
    """The criteria that compare each crystal's own posterior with z; and whether it says the number of atoms it has."""
    places, (mu, log_var) = encode_crystals(model, crystals)
    away = mu - z[places]
    measured = away * torch.exp(-0.5 * log_var)
    values = {
        "latent": measured.square().mean(-1).sqrt(),
        "true sigma": (away * torch.exp(-0.5 * true_log_var[places])).square().mean(-1).sqrt(),
        "euclidean": away.square().sum(-1).sqrt(),
        "posterior": 0.5 * (measured.square() + log_var).sum(-1),
    }
    said = model.stats(mu).num_atoms[:, 1:].argmax(-1) + 1
    agree = [False] * len(crystals)
    for k, number in zip(places, said.tolist(), strict=True):
        crystal = crystals[k]
        agree[k] = crystal is not None and crystal.num_atoms == number
    return {name: spread(value, places, len(crystals)) for name, value in values.items()}, agree


def compositions_agree(model: CDVAE, crystals: Sequence[Crystal | None], z: Tensor) -> list[bool]:
    """Whether the number of atoms of every element is what z says, N_a p, rounded up or down at a half."""
    expected = model.stats(z).composition.softmax(-1).double().cpu()
    agree = []
    for crystal, shares in zip(crystals, expected, strict=True):
        if crystal is None:
            agree.append(False)
            continue
        counts = torch.bincount(torch.from_numpy(crystal.atomic_numbers) - 1, minlength=len(shares))
        agree.append(bool(((counts - crystal.num_atoms * shares).abs() <= 0.5).all()))
    return agree


def denoising_losses(
    model: CDVAE, crystals: Sequence[Crystal | None], z: Tensor, random: CrystalRandom
) -> list[float | None]:
    """The loss of the coordinates, summed over :data:`LEVELS`, of each crystal with its own types and cell."""
    places = [k for k, crystal in enumerate(crystals) if crystal is not None]
    if not places:
        return [None] * len(crystals)
    batch = CrystalBatch.from_crystals([c for c in crystals if c is not None], model.dtype).to(model.device)
    chosen = random.select(torch.tensor(places, device=model.device))
    slots = int(batch.num_atoms.max())
    real = torch.arange(slots, device=model.device) < batch.num_atoms[:, None]
    total = torch.zeros(len(places), dtype=model.dtype, device=model.device)
    for number, share in enumerate(LEVELS):
        noise = chosen.normal("denoising", 3 * slots, number).unflatten(1, (slots, 3))[real].to(total)
        corrupted = model.diffusion.corrupt(batch, noise, torch.full_like(total, share))
        noisy = batch.replace(frac_coords=corrupted.frac_coords)
        prediction, _ = model.denoise(noisy, z[places], corrupted.time)
        squared = (prediction - corrupted.target).square().sum(-1)
        total += batch.mean_over_atoms(squared) * corrupted.weight
    return spread(total, places, len(crystals))


def spread(values: Tensor, places: Sequence[int], count: int) -> list[float | None]:
    """One value for each of ``count`` crystals, None where there is none or it is not finite."""
    all_of_them: list[float | None] = [None] * count
    for k, value, finite in zip(places, values.tolist(), values.isfinite().tolist(), strict=True):
        all_of_them[k] = value if finite else None
    return all_of_them


def matches(crystals: Sequence[Crystal | None], truths: Sequence[Crystal], engine: Engine) -> list[float | None]:
    """The rms distance to each truth under the published tolerances, None without a match, or where it is lost."""
    pairs = {k: (c, t) for k, (c, t) in enumerate(zip(crystals, truths, strict=True)) if c is not None}
    found = engine.map(published_rms, list(pairs.values()), time_limit=SECONDS, description="comparing")
    rms: list[float | None] = [None] * len(crystals)
    for k, answer in zip(pairs, found, strict=True):
        rms[k] = answer if isinstance(answer, float) else None
        if isinstance(answer, Lost | str):
            print(f"{truths[k].id}: {answer}: counted as no match", flush=True)
    return rms


def published_rms(pair: Sequence[Crystal]) -> float | str | None:
    """(V/N)^(1/3) units, by pymatgen; None without a match, or the reason for no result."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(ltol=PUBLISHED.ltol, stol=PUBLISHED.stol, angle_tol=PUBLISHED.angle_tol)
    first, second = (crystal.to_pymatgen() for crystal in pair)
    try:
        found = matcher.get_rms_dist(first, second)
    except Exception as error:  # odd cells break it in many ways
        return reason_of(error)
    return None if found is None else float(found[0])
