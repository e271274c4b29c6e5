"""In which order the atoms of known crystals are placed, and the steps that a model learns from.

As in G-SchNet, a step is taken at a focus, an atom in place: another atom is placed beside it, or the focus is given
up for good ("stop"). The first step is taken at the origin, the last gives up the last focus: 2N steps for N atoms.

Here all choices are fixed, so that a crystal has one order: the focus is the atom longest in place; what is placed is
the neighbour of the focus that is nearest to the origin (clusters, as published) or to the focus (periodic crystals,
where no point is a centre). Neighbours lie within ``contact`` sums of covalent radii, or hang together in the minimum
spanning tree of distances in such sums, so every order is complete.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dpcdvae.placement.geometry import Space, ranked, spanning_tree, unwrapped
from dpcdvae.structures.element_data import covalent_radii
from dpcdvae.structures.elements import ATOMIC_MASSES
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import frac_to_cart, full_precision


class Growth(NamedTuple):
    """C crystals with their atoms in the order of placement, and all steps of it. Places that are empty hold zeros.

    Attributes:
        numbers: (C, n) atomic numbers; positions: (C, n, 3) Å with the origin at zero; num_atoms: (C,).
        space: where the positions lie.
        focus: (C, 2n) the focus of each step, counted in the order of placement from 1; 0 is the origin.
        placed: (C, 2n) atoms in place before each step; stop: (C, 2n) whether the step gives up its focus.
    """

    numbers: Tensor
    positions: Tensor
    num_atoms: Tensor
    space: Space
    focus: Tensor
    placed: Tensor
    stop: Tensor


class Steps(NamedTuple):
    """S steps of each of C crystals: focus, placed and stop (C, S), as in :class:`Growth`."""

    focus: Tensor
    placed: Tensor
    stop: Tensor


@full_precision
def grow(batch: CrystalBatch, periodic: bool, contact: float) -> Growth:
    """The order of placement of every crystal; see the module. ``contact`` is in sums of covalent radii."""
    numbers, frac, real = batch.padded()
    crystals, atoms = numbers.shape
    rows = torch.arange(crystals, device=numbers.device)
    if periodic:
        cells = batch.lattice[:, None].expand(-1, atoms, -1, -1).reshape(-1, 3, 3)
        positions = frac_to_cart((frac - frac[:, :1]).reshape(-1, 3), cells).view(crystals, atoms, 3)
        first = torch.zeros_like(batch.num_atoms)
    else:
        positions = unwrapped(frac, batch.lattice, batch.num_atoms)
        masses = torch.from_numpy(ATOMIC_MASSES).to(positions)[numbers]
        centre = (positions * masses[..., None]).sum(1) / masses.sum(1, keepdim=True)
        positions = (positions - centre[:, None]) * real[..., None]
        from_centre = ranked(torch.linalg.vector_norm(positions, dim=-1))
        first = from_centre.masked_fill(~real, torch.inf).argmin(1)
    space = Space(batch.lattice if periodic else None)
    distances = space.distances(positions[:, None] - positions[:, :, None]).squeeze(-1)
    radii = radii_of(numbers).to(distances)
    relative = distances / (radii[:, :, None] + radii[:, None])
    near = relative < contact
    for new, by in spanning_tree(relative.nan_to_num(torch.inf), batch.num_atoms):
        near[rows, new, by] = near[rows, by, new] = True
    preferred = ranked(distances) if periodic else from_centre[:, None].expand_as(distances)

    never = 2 * atoms
    since = torch.full_like(numbers, never)  # when each atom was placed
    waiting = real.clone()
    finished = ~real
    order, focus, placed, stop = torch.zeros_like(numbers), [], [], []
    count = torch.zeros_like(batch.num_atoms)
    for step in range(2 * atoms):
        at = torch.where(finished, never, since).argmin(1)
        candidates = near[rows, at] & waiting
        new = preferred[rows, at].masked_fill(~candidates, torch.inf).argmin(1) if step else first
        stops = ~candidates.any(1) & (count > 0)
        focus.append(since[rows, at] + 1 if step else torch.zeros_like(count))
        placed.append(count)
        stop.append(stops)
        some = (~stops & (count < batch.num_atoms)).nonzero().squeeze(1)
        order[some, count[some]] = new[some]
        since[some, new[some]] = count[some]
        waiting[some, new[some]] = False
        finished[rows[stops], at[stops]] = True
        count = count + (~stops & (count < batch.num_atoms))
    numbers = numbers.gather(1, order) * real
    positions = positions.gather(1, order[..., None].expand(-1, -1, 3)) * real[..., None]
    taken = torch.arange(2 * atoms, device=numbers.device) < 2 * batch.num_atoms[:, None]
    steps = (torch.stack(values, 1) * taken for values in (focus, placed, stop))
    return Growth(numbers, positions, batch.num_atoms, space, *steps)


def draw_steps(growth: Growth, count: int, generator: torch.Generator) -> Steps:
    """``count`` random steps of every crystal, drawn with replacement from its 2N."""
    random = torch.rand((len(growth.num_atoms), count), generator=generator, device=generator.device)
    there_are = 2 * growth.num_atoms[:, None]
    drawn = torch.minimum((random.to(there_are.device) * there_are).long(), there_are - 1)
    return Steps(*(values.gather(1, drawn) for values in (growth.focus, growth.placed, growth.stop)))


def radii_of(numbers: Tensor) -> Tensor:
    """Covalent radii in Å of atomic numbers, NaN where none is known (beyond curium, and for 0)."""
    return torch.from_numpy(covalent_radii()).to(numbers.device)[numbers]
