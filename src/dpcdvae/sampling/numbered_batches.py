"""Numbered crystals in batches, each with its own noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from dpcdvae.errors import InputError
from dpcdvae.sampling.finished_batches import generated_id
from dpcdvae.tensors.noise import CrystalRandom

OnProgress = Callable[[float], None]


class NumberedBatch(NamedTuple):
    """Crystals of one batch: their numbers, their noise and their ids."""

    numbers: list[int]
    random: CrystalRandom
    ids: list[str]


def numbered_batches(seed: int, first: int, n: int, batch_size: int, device: torch.device) -> Iterator[NumberedBatch]:
    """Crystals number ``first`` .. ``first + n - 1`` of a seed in batches; raises InputError for less than 1 in one."""
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, not {batch_size}")
    for start in range(first, first + n, batch_size):
        numbers = range(start, min(start + batch_size, first + n))
        random = CrystalRandom(seed, torch.arange(numbers.start, numbers.stop, device=device))
        yield NumberedBatch(list(numbers), random, [generated_id(seed, k) for k in numbers])
