"""Batches of a table, assembled by a few array operations and moved without waiting."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import DataLoader

from dpcdvae.errors import InputError, listed
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.first_process import is_first_process
from dpcdvae.training.sampler import EpochSampler, Share


class TrainingBatch:
    """Crystals, where they stand in their table, the factor of their mean loss, and the property (C,) that is learnt of
    them, NaN where unknown.

    Not a tuple or dataclass: Lightning looks into those for tensors to convert, and a frozen one fails.
    """

    def __init__(self, crystals: CrystalBatch, share: Share, targets: torch.Tensor | None) -> None:
        self.crystals, self.share, self.targets = crystals, share, targets

    def to(self, device: torch.device, dtype: torch.dtype) -> TrainingBatch:
        """From pinned memory the copy runs beside what the device still does."""

        def moved(value: torch.Tensor) -> torch.Tensor:
            return value.to(device, dtype if value.is_floating_point() else None, non_blocking=value.is_pinned())

        return self._mapped(moved)

    def pin_memory(self) -> TrainingBatch:
        return self._mapped(torch.Tensor.pin_memory)

    def _mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> TrainingBatch:
        names = [item.name for item in dataclasses.fields(self.crystals)]
        crystals = self.crystals.replace(**{name: function(getattr(self.crystals, name)) for name in names})
        return TrainingBatch(crystals, self.share, None if self.targets is None else function(self.targets))


Loader = DataLoader[TrainingBatch]


class TableDataset(torch.utils.data.Dataset[TrainingBatch]):
    """Takes the indices of a whole batch at once."""

    def __init__(self, table: CrystalTable, target: str) -> None:
        self.table, self.targets = table, targets_of(table, target)

    def __getitem__(self, share: Share) -> TrainingBatch:
        targets = None if self.targets is None else self.targets[share.indices]
        return TrainingBatch(CrystalBatch.from_table(self.table, share.indices), share, targets)

    def __len__(self) -> int:
        return len(self.table)


def targets_of(table: CrystalTable, target: str) -> torch.Tensor | None:
    """(n,) float64, NaN where unknown; None without a name."""
    return torch.from_numpy(table.properties[target]) if target else None


def make_loader(
    table: CrystalTable,
    batch_size: int,
    *,
    target: str,
    seed: int | None,
    batch_atoms: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Batches as :class:`EpochSampler` fills them; ``target`` names the property that travels along, if any.

    In this process: assembling a batch takes a thousandth of a step (docs/training-speed.md), less than sending it.
    """
    sampler = EpochSampler(
        table.num_atoms, batch_size, batch_atoms=batch_atoms, seed=seed, rank=rank, world_size=world_size
    )
    return DataLoader(TableDataset(table, target), sampler=sampler, batch_size=None, pin_memory=pin_memory)


def of_known_elements(val: CrystalTable, train: CrystalTable) -> CrystalTable:
    """The validation crystals whose elements the training crystals hold; the others are named on standard error.

    Raises:
        InputError: none is left.
    """
    crystal = np.repeat(np.arange(len(val)), val.num_atoms)
    unknown = np.unique(crystal[~np.isin(val.atomic_numbers, train.atomic_numbers)])
    if not len(unknown):
        return val
    names = listed(val.ids[unknown].tolist())
    if len(unknown) == len(val):
        raise InputError(
            f"each crystal of 'val' has elements that no training crystal holds ({names}): split the data again"
        )
    if is_first_process():
        print(
            f"{len(unknown)} of {len(val)} crystals of 'val' left out: elements of no training crystal: {names}",
            file=sys.stderr,
        )
    return val.select(np.setdiff1d(np.arange(len(val)), unknown))
