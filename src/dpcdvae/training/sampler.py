"""Which crystals make a batch: an order that the seed and the epoch decide alone, so that a resumed run repeats it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Indices = npt.NDArray[np.int64]


class Share(NamedTuple):
    """One process' part of a step: which crystals, and the factor of their mean loss.

    The gradients of all processes are averaged, whatever the number of crystals behind each; the factor undoes that.
    """

    indices: Indices
    weight: float


class EpochSampler(Sampler[Share]):
    """The steps of an epoch for one of ``world_size`` processes: every crystal once, in one of them.

    By crystals (``batch_atoms`` 0): a step joins ``batch_size`` random crystals of each process, as one process would
    with a batch of ``world_size * batch_size``, and deals them out so that all have about as many atoms. Its loss is
    the mean over the crystals of the step; the last step has what is left.

    By atoms: crystals of like size fill batches of about ``batch_atoms`` atoms at most, all of nearly as many, in
    random order. A batch of large crystals holds few of them, so its mean loss counts less: each crystal has the same
    weight in the sum over an epoch, and the mean of the factors is 1.
    """

    def __init__(
        self,
        num_atoms: npt.ArrayLike,
        batch_size: int,
        *,
        batch_atoms: int = 0,
        seed: int | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """``num_atoms`` (n,) of each crystal; without ``seed`` the order of the table, or by size, in every epoch."""
        self.num_atoms = np.asarray(num_atoms, dtype=np.int64)
        self.batch_size, self.batch_atoms, self.seed = batch_size, batch_atoms, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Steps, the same in every epoch and process, or synchronised training would wait for ever."""
        crystals, processes = len(self.num_atoms), self.world_size
        if self.batch_atoms:
            wanted = -(-int(self.num_atoms.sum()) // (self.batch_atoms * processes))
            return max(1, min(wanted, crystals // processes))
        whole, rest = divmod(crystals, self.batch_size * processes)
        return max(1, whole + (rest >= processes))  # fewer than one for each process join the step before

    def __iter__(self) -> Iterator[Share]:
        random = None if self.seed is None else np.random.default_rng([self.seed, self.epoch])
        crystals = max(len(self.num_atoms), self.world_size)
        # Only a table of fewer crystals than processes has some twice.
        order = np.resize(np.arange(len(self.num_atoms)), crystals)
        if random is not None:
            order = random.permutation(order)
        # A generator: Lightning asks for an iterator before it says which epoch it is for.
        yield from self._by_atoms(order, random) if self.batch_atoms else self._by_crystals(order)

    def _by_crystals(self, order: Indices) -> Iterator[Share]:
        bounds = self.batch_size * self.world_size * np.arange(1, len(self))
        for joint in np.split(order, bounds):
            mine = joint
            if self.world_size > 1:
                by_size = joint[np.argsort(self.num_atoms[joint], kind="stable")]
                mine = by_size[_snake(len(joint), self.world_size) == self.rank]
            yield Share(mine, len(mine) * self.world_size / len(joint))

    def _by_atoms(self, order: Indices, random: np.random.Generator | None) -> Iterator[Share]:
        batches = len(self) * self.world_size
        order = order[np.argsort(self.num_atoms[order], kind="stable")]
        parts = np.split(order, _equal_cuts(self.num_atoms[order], batches))
        turns = np.arange(batches) if random is None else random.permutation(batches)
        for turn in turns[self.rank :: self.world_size]:
            yield Share(parts[turn], len(parts[turn]) * batches / len(order))


def _snake(count: int, processes: int) -> Indices:
    """(count,) who gets the k-th of the crystals sorted by size: 0 1 2 2 1 0 0 1 2 ..."""
    row, column = np.divmod(np.arange(count), processes)
    return np.where(row % 2, processes - 1 - column, column)


def _equal_cuts(sizes: Indices, parts: int) -> Indices:
    """Where to cut a row of sizes into ``parts`` of nearly equal sums, none of them empty: (parts - 1,) positions."""
    ends = np.cumsum(sizes)
    cuts = np.searchsorted(ends - sizes / 2, ends[-1] * np.arange(1, parts) / parts)
    steps = np.arange(parts - 1)
    cuts = np.maximum.accumulate(np.maximum(cuts, 1) - steps) + steps  # at least one crystal each, from the left
    inner: Indices = np.minimum(cuts, len(sizes) - parts + 1 + steps)  # and from the right
    return inner
