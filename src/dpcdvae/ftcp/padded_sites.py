"""Crystals in rows of equal length: atoms on numbered sites, elements in numbered columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dpcdvae.tensors.batch import CrystalBatch


class Sites(NamedTuple):
    """C crystals on S sites each; what is beyond a crystal's atoms is 0.

    numbers: (C, S) atomic numbers, 0 for no atom; frac: (C, S, 3); lattice: (C, 3, 3) Å.
    """

    numbers: Tensor
    frac: Tensor
    lattice: Tensor

    @property
    def occupied(self) -> Tensor:
        """(C, S)."""
        return self.numbers > 0


def element_columns(numbers: Tensor) -> Tensor:
    """The column of each site's element, by first appearance: (C, S) from 0, meaningless where there is no atom.

    Args:
        numbers: (C, S), 0 for no atom.
    """
    slots = torch.arange(numbers.shape[1], device=numbers.device)
    same = numbers[:, :, None] == numbers[:, None, :]
    first = torch.where(same, slots, numbers.shape[1]).amin(-1)  # (C, S) first site with the same element
    begins = (first == slots) & (numbers > 0)
    rank = begins.cumsum(1) - 1
    return rank.gather(1, first)


def parts(batch: CrystalBatch, size: int) -> Iterator[CrystalBatch]:
    """The crystals of a batch without their bonds, ``size`` at a time."""
    ends = torch.cat([batch.num_atoms.new_zeros(1), batch.num_atoms.cumsum(0)])
    for start in range(0, len(batch), size):
        some = slice(start, min(start + size, len(batch)))
        atoms = slice(int(ends[some.start]), int(ends[some.stop]))
        yield CrystalBatch.unbonded(
            batch.atomic_numbers[atoms], batch.frac_coords[atoms], batch.lattice[some], batch.num_atoms[some]
        )
