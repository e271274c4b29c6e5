"""Batches of a table in an order that the seed and the epoch decide alone, so that a resumed run repeats it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler

from dpcdvae.batch import CrystalBatch
from dpcdvae.table import CrystalTable

Indices = npt.NDArray[np.int64]


class TrainingBatch:
    """Crystals, where they stand in their table, and the property (C,) that is learnt of them, NaN where unknown.

    Not a tuple or dataclass: Lightning looks into those for tensors to convert, and a frozen one fails.
    """

    def __init__(self, crystals: CrystalBatch, indices: Indices, targets: torch.Tensor | None) -> None:
        self.crystals, self.indices, self.targets = crystals, indices, targets

    def to(self, device: torch.device, dtype: torch.dtype) -> TrainingBatch:
        targets = None if self.targets is None else self.targets.to(device, dtype)
        return TrainingBatch(self.crystals.to(device, dtype), self.indices, targets)


Loader = DataLoader[TrainingBatch]


class EpochSampler(Sampler[Indices]):
    """Indices of each batch of this process: a permutation of the epoch, dealt out to ``world_size`` processes.

    Every process gets the same number of batches (some crystals twice where it does not divide), as
    synchronised training needs.
    """

    def __init__(self, size: int, batch_size: int, *, seed: int | None, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.size // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Indices]:
        if self.seed is None:
            order = np.arange(self.size)
        else:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        share = -(-self.size // self.world_size)
        order = np.resize(order, share * self.world_size)[self.rank :: self.world_size]
        for start in range(0, share, self.batch_size):
            yield order[start : start + self.batch_size]


class TableDataset(torch.utils.data.Dataset[TrainingBatch]):
    """Takes the indices of a whole batch at once: assembling it is a few array operations."""

    def __init__(self, table: CrystalTable, target: str) -> None:
        self.table, self.targets = table, targets_of(table, target)

    def __getitem__(self, indices: Indices) -> TrainingBatch:
        targets = None if self.targets is None else self.targets[indices]
        return TrainingBatch(CrystalBatch.from_table(self.table, indices), indices, targets)

    def __len__(self) -> int:
        return len(self.table)


def targets_of(table: CrystalTable, target: str) -> torch.Tensor | None:
    """(n,) float64, NaN where unknown; None without a name."""
    return torch.from_numpy(table.properties[target]) if target else None


def make_loader(
    table: CrystalTable, batch_size: int, *, target: str, seed: int | None, rank: int = 0, world_size: int = 1
) -> Loader:
    """Without ``seed`` in the order of the table; ``target`` names the property that travels along, if any."""
    sampler = EpochSampler(len(table), batch_size, seed=seed, rank=rank, world_size=world_size)
    return DataLoader(TableDataset(table, target), sampler=sampler, batch_size=None)
