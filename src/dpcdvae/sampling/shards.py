"""Batches of a run: which crystals are made together, and which batches a shard takes.

The noise of crystal k depends on (seed, k) alone, but sums round differently in batches of other crystals. So the
batches are those of the whole run, whatever the number of shards: then each crystal has the same digits in every one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dpcdvae.errors import InputError

BATCH_SIZE = 256
"""Crystals that a network takes at a time, by default."""


@dataclass(frozen=True)
class Shard:
    """Number ``number`` (1 .. count) of ``count`` shares of a run."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(f"--shard {self}: the first number must lie in 1 to the second")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``3/100`` -> the third of a hundred; raises InputError for anything else."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if found is None:
            raise InputError(f"--shard {text}: write i/n, e.g. 3/100 for the third of a hundred")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Shard(1, 1)


def batches_of(total: int, batch_size: int, shard: Shard = WHOLE) -> list[range]:
    """The crystals of each batch of a shard, of those 0 .. total - 1 of the whole run.

    Shards take neighbouring batches, their numbers of batches differ by one at most, and those of all shards in turn
    are those of the whole run. With more shards than batches some have none.
    """
    batches = -(-total // batch_size)
    mine = range(batches * (shard.number - 1) // shard.count, batches * shard.number // shard.count)
    return [range(k * batch_size, min((k + 1) * batch_size, total)) for k in mine]
