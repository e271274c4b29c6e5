"""Crystals made batch by batch, each batch kept as a file: the same command goes on after a kill."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.files import json_object, write_json
from dpcdvae.io import Failure
from dpcdvae.structures.crystal import Crystal
from speed.command import real_data
from speed.record import machine, threads

if TYPE_CHECKING:
    from dpcdvae.sampling.finished_batches import GenerationResult
    from dpcdvae.structures.table import CrystalTable

BATCH = 100
Kept = dict[str, Any]


def parts(n: int) -> Iterator[tuple[int, int]]:
    """(first, count) of the batches of n crystals: a larger n begins with the whole batches of a smaller one."""
    for first in range(0, n, BATCH):
        yield first, min(BATCH, n - first)


def kept(file: Path, make: Callable[[], Kept]) -> Kept:
    """What is in ``file``; where it is not there, it is made first, with the seconds that took."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        cpu, wall = time.process_time(), time.perf_counter()
        made = make()
        spent = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
        write_json(file, {**spent, **made})
    return json_object(file, "remove it, and the same command makes it again")


def stored(result: GenerationResult) -> Kept:
    """A result of ``generate`` or ``reconstruct`` as JSON."""
    return {
        "passes": result.passes,
        "failures": [(failure.id, failure.where, failure.reason) for failure in result.failures],
        "crystals": [to_json(crystal) for crystal in result.crystals],
    }


def crystals_of(batches: Sequence[Kept]) -> list[Crystal]:
    return [from_json(crystal) for batch in batches for crystal in batch["crystals"]]


def failures_of(batches: Sequence[Kept]) -> list[Failure]:
    return [Failure(*failure) for batch in batches for failure in batch["failures"]]


def cpu_seconds(batches: Sequence[Kept]) -> float:
    return sum(batch["cpu_seconds"] for batch in batches)


def to_json(crystal: Crystal) -> list[Any]:
    return [crystal.atomic_numbers.tolist(), crystal.frac_coords.tolist(), crystal.lattice.tolist(), crystal.id]


def from_json(values: Sequence[Any]) -> Crystal:
    numbers, coords, lattice, id = values
    return Crystal(np.array(numbers), np.array(coords), np.array(lattice), id)


def split_table(data: str, split: str, n: int | None = None) -> CrystalTable:
    """The first n crystals of a split, all without n; a published data set that is not prepared is prepared first.

    Raises:
        InputError: no such data set or split, or it has fewer crystals.
    """
    from dpcdvae.datasets import DATASETS, get_dataset, load_split, prepared_names

    if data in DATASETS and data not in prepared_names():
        get_dataset(data, folder=real_data() / data)
    table = load_split(f"{data}:{split}")
    if n is None:
        return table
    if n > len(table):
        raise InputError(f"-n {n}: {data}:{split} has {len(table)} crystals")
    return table.select(range(n))


def begun(file: Path, setting: dict[str, Any], empty: dict[str, Any]) -> dict[str, Any]:
    """The results in ``file``, or the setting with no results yet.

    Raises:
        InputError: it holds those of another setting, or lacks a part, as a file of an older version does.
    """
    record = json_object(file, "remove it, or give another --out") if file.exists() else {**setting, **empty}
    other = [key for key, value in setting.items() if record.get(key) != value]
    if other:
        raise InputError(f"{file} holds results of another {other[0]}: give another --out, or move it away")
    if lacks := [key for key, value in empty.items() if not isinstance(record.get(key), type(value))]:
        raise InputError(f"{file} has no {lacks[0]}: give another --out, or move it away")
    return record


def here(device: str) -> dict[str, Any]:
    """The machine, with the threads that OMP_NUM_THREADS allows."""
    return machine(device, threads(os.cpu_count() or 1))
