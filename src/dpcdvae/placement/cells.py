"""Cells of training crystals, with the atoms in them: where P-G-SchNet, which predicts no lattice, takes one from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpcdvae.structures.crystal import MAX_LENGTH
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import MIN_FACE_DISTANCE, heights


class Cells(NamedTuple):
    """C cells. lattice: (C, 3, 3) Å; contents: (C, 101) atoms of each atomic number."""

    lattice: Tensor
    contents: Tensor


class TrainingCells(nn.Module):
    """Up to ``most`` cells of at most ``max_atoms`` atoms, which travel with the weights. Empty until they are kept."""

    lattices: Tensor
    numbers: Tensor
    count: Tensor

    def __init__(self, most: int, max_atoms: int) -> None:
        super().__init__()
        self.register_buffer("lattices", torch.zeros(most, 3, 3))
        self.register_buffer("numbers", torch.zeros(most, max_atoms, dtype=torch.uint8))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return int(self.count)

    def problem(self) -> str | None:
        """What makes these no cells of crystals, or None."""
        count = int(self.count)
        if not 0 <= count <= len(self.lattices):
            return f"cells.count is {count}, of {len(self.lattices)} cells"
        numbers, lattices = self.numbers[:count], self.lattices[:count]
        if bool((numbers > NUM_ELEMENTS).any()) or not bool((numbers > 0).any(1).all()):
            return "cells.numbers are no atomic numbers"
        sound = (lattices.abs().amax((1, 2)) < MAX_LENGTH) & (heights(lattices).amin(1) > MIN_FACE_DISTANCE)
        return None if bool(sound.all()) else "cells.lattices hold what is no cell"

    @torch.no_grad()
    def keep(self, crystals: CrystalBatch, generator: torch.Generator) -> None:
        """Keeps the cells of crystals, of too many a random choice."""
        chosen = torch.randperm(len(crystals), generator=generator)[: len(self.lattices)].sort().values
        table = crystals.padded(self.numbers.shape[1])[0]
        self.lattices.zero_()[: len(chosen)] = crystals.lattice[chosen.to(crystals.lattice.device)].to(self.lattices)
        self.numbers.zero_()[: len(chosen)] = table[chosen.to(table.device)].to(self.numbers)
        self.count.fill_(len(chosen))

    def draw(self, uniform: Tensor) -> Cells:
        """One cell for each of the numbers ``uniform`` (C,) in (0, 1), all cells with equal probability."""
        drawn = (uniform * self.count).long().clamp(max=int(self.count) - 1)
        numbers = self.numbers[drawn].long()
        contents = numbers.new_zeros((len(drawn), NUM_ELEMENTS + 1)).scatter_add_(1, numbers, torch.ones_like(numbers))
        contents[:, 0] = 0  # empty places
        return Cells(self.lattices[drawn], contents)
