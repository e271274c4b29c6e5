"""Generation with models that place atom after atom: a lattice by a rule, then the atoms."""

from __future__ import annotations

import numpy as np
import torch

from dpcdvae.errors import InputError
from dpcdvae.io import Failure
from dpcdvae.placement.bounding_box import bounding_cell
from dpcdvae.placement.geometry import Space
from dpcdvae.placement.model import PlacementModel
from dpcdvae.placement.sampler import REASONS, Placed, Rules, place_atoms
from dpcdvae.progress import Progress
from dpcdvae.sampling.decoding import evaluating
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.sampling.numbered_batches import OnProgress, numbered_batches
from dpcdvae.sampling.shards import BATCH_SIZE
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.noise import CrystalRandom


@torch.inference_mode()
def generate(
    model: PlacementModel,
    n: int,
    *,
    seed: int = 0,
    lattice: str | None = None,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: OnProgress | None = None,
) -> GenerationResult:
    """New crystals number ``first`` .. ``first + n - 1`` of this seed. ``passes`` counts steps, each of one crystal.

    Args:
        lattice: the rule, by default the model's own. ``box``: around the finished cluster (G-SchNet). ``uniform``: a
            training lattice at random. ``conditional``: one together with its atoms, which are placed in it.
        batch_size: crystals at a time. Crystal k gets the same noise whatever it is.
        on_progress: instead of a progress bar, called with how many crystals are done.

    Raises:
        InputError: a rule that does not go with the model, less than 1 in a batch, a model that kept no training cell.
    """
    rule = model.config.lattice_rule(lattice)
    if rule != "box" and not len(model.cells):
        raise InputError("the model has kept no training cell to draw from: train it first")
    results: list[Crystal | Failure] = []
    passes = 0
    with evaluating(model), Progress("generating", total=n) as bar:
        for _, random, ids in numbered_batches(seed, first, n, batch_size, model.device):
            found, lattices = _place(model, random, rule)
            passes += found.steps
            results += _finished(found, lattices, ids)
            if on_progress is None:
                bar.advance(len(ids))
            else:
                on_progress(len(results))
    return GenerationResult.of(results, passes)


def _place(model: PlacementModel, random: CrystalRandom, rule: str) -> tuple[Placed, torch.Tensor | None]:
    """Atoms placed for every crystal of ``random``, and the lattices (C, 3, 3) Å, where they come first."""
    sampling = model.config.sampling
    rules = Rules(
        model.config.model.max_atoms,
        sampling.inner,
        sampling.outer,
        sampling.spacing,
        sampling.fine,
        sampling.temperature,
    )
    uniform = random.uniform("cell", 1).squeeze(1)
    if rule == "box":
        return place_atoms(model, Space(None), random, rules, None, uniform.to(model.dtype)), None
    cells = model.cells.draw(uniform)
    contents = cells.contents if rule == "conditional" else None
    return place_atoms(model, Space(cells.lattice), random, rules, contents, cells.lattice), cells.lattice


def _finished(found: Placed, lattices: torch.Tensor | None, ids: list[str]) -> list[Crystal | Failure]:
    results: list[Crystal | Failure] = []
    for k, (size, reason) in enumerate(zip(found.num_atoms.tolist(), found.reason.tolist(), strict=True)):
        if reason:
            results.append(Failure(ids[k], "sampling", REASONS[reason]))
            continue
        numbers = found.numbers[k, :size].cpu().numpy()
        positions = found.positions[k, :size].double().cpu().numpy()
        if lattices is None:
            cell, frac = bounding_cell(numbers, positions)
        else:
            cell = lattices[k].double().cpu().numpy()
            frac = positions @ np.linalg.inv(cell)
        crystal = Crystal(numbers, frac - np.floor(frac), cell, ids[k])
        problem = crystal.problem()
        results.append(crystal if problem is None else Failure(ids[k], "sampling", problem))
    return results
