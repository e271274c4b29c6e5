"""Runs of many batches, each made anywhere: in this process, in others, on a cluster. What is finished stays.

Nothing here needs torch before a batch is made, so a process that only hands batches out stays small.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.model_store import bundled_models, read_description, resolve_model
from dpcdvae.parallel import Engine, LocalEngine, Lost, available_cores, engine_for, report
from dpcdvae.progress import Progress
from dpcdvae.sampling.finished_batches import Part, Parts

if TYPE_CHECKING:
    from dpcdvae.model.cdvae import CDVAE
    from dpcdvae.structures.table import CrystalTable


@dataclass(frozen=True)
class ModelSource:
    """A model that each process loads for itself, once.

    Attributes:
        name: of a bundled model, or the folder of a checkpoint.
        sha256: of its weights, which must be the same everywhere.
        device: cpu, cuda or auto.
    """

    name: str
    sha256: str
    device: str

    @classmethod
    def of(cls, model: str, device: str) -> ModelSource:
        """Raises InputError as :func:`dpcdvae.model_store.resolve_model`."""
        folder = resolve_model(model)
        name = model if model in bundled_models() else str(folder.absolute())
        return cls(name, read_description(folder)["sha256"], device)

    def load(self) -> CDVAE:
        return _load(self)


@functools.lru_cache(maxsize=1)
def _load(source: ModelSource) -> CDVAE:
    from dpcdvae.checkpoints.checkpoint import load_model

    if (found := read_description(resolve_model(source.name))["sha256"]) != source.sha256:
        raise InputError(
            f"the model {source.name} is another one where the work is done: its weights have the hash {found[:12]}, "
            f"not {source.sha256[:12]}; leave it as it is until the run has ended"
        )
    return load_model(source.name, source.device)


@dataclass(frozen=True)
class Generate:
    """A batch of new crystals from their numbers; ``options`` of :func:`dpcdvae.sampling.generation.generate`."""

    source: ModelSource
    first: int
    options: Mapping[str, Any]

    def __call__(self, crystals: range) -> Part:
        from dpcdvae.sampling.generation import generate

        result = generate(
            self.source.load(), len(crystals), first=self.first + crystals.start, batch_size=len(crystals),
            tell=report, **self.options,
        )  # fmt: skip
        return Part(result.crystals, result.failures, result.passes)


@dataclass(frozen=True)
class Reconstruct:
    """A batch of crystals encoded and decoded, from (number of the first, crystals)."""

    source: ModelSource
    options: Mapping[str, Any]

    def __call__(self, item: tuple[int, CrystalTable]) -> Part:
        from dpcdvae.sampling.generation import reconstruct

        first, table = item
        result = reconstruct(
            self.source.load(), table, first=first, batch_size=len(table), tell=report, **self.options
        )  # fmt: skip
        return Part(result.crystals, result.failures, result.passes)


def make_batches(
    make: Callable[[Any], Part], items: Sequence[Any], batches: Sequence[range], parts: Parts, engine: Engine, what: str
) -> None:
    """Makes those batches that ``parts`` has not; item k is what ``make`` needs for the crystals ``batches[k]``.

    Raises:
        InputError: a batch was lost with its process. The others are kept.
    """
    there = parts.done()
    todo = [k for k, batch in enumerate(batches) if batch.start not in there]
    if there and todo:
        print(
            f"{parts.folder}: {len(batches) - len(todo)} of {len(batches)} batches are there already", file=sys.stderr
        )
    told = dict.fromkeys(todo, 0.0)
    lost: list[Lost] = []
    with Progress(what, sum(len(batches[k]) for k in todo)) as bar:

        def heard(index: int, crystals: float) -> None:
            bar.advance(crystals - told[todo[index]])
            told[todo[index]] = crystals

        stream = engine.stream(make, [items[k] for k in todo], time_limit=math.inf, on_report=heard)
        with closing(stream):
            for index, part in stream:
                heard(index, len(batches[todo[index]]))
                if isinstance(part, Lost):
                    lost.append(part)
                else:
                    parts.add(batches[todo[index]].start, part)
    if lost:
        raise InputError(
            f"{len(lost)} of {len(batches)} batches were lost ({lost[0].reason}): the others are kept, and the same "
            "command goes on; if it was the memory, give fewer --workers"
        )


def check_table(table: CrystalTable, model: str, *, whole: bool) -> None:
    """Raises InputError where crystals cannot be reconstructed; ``whole`` with their own numbers of atoms."""
    from dpcdvae.config import config_from_dict
    from dpcdvae.sampling.generation import check_reconstructible

    folder = resolve_model(model)
    config = config_from_dict(read_description(folder)["config"], where=str(folder))
    check_reconstructible(table, config.model.max_atoms if whole else None)


def table_hash(table: CrystalTable) -> str:
    """Of all that reconstruction reads of a table, bit by bit."""
    digest = hashlib.sha256()
    for item in dataclasses.fields(table):
        if item.name != "properties":
            digest.update(np.ascontiguousarray(getattr(table, item.name)).tobytes())
    return digest.hexdigest()


def engine_of(workers: int | None, scheduler: str | None, device: str, batches: int) -> Engine:
    """The engine for so many batches on a device.

    Without a wish it is a process for each core, and this one where there is one batch or a GPU.

    Args:
        device: cpu, or a GPU.
    """
    if workers is not None or scheduler is not None:
        return engine_for(workers, scheduler)
    cores = available_cores()
    workers = min(cores, batches)
    if workers < 2 or device != "cpu":
        return LocalEngine(0)
    return LocalEngine(workers, threads=None if "OMP_NUM_THREADS" in os.environ else cores // workers)


def device_here(device: str) -> str:
    """What ``auto`` stands for on this machine."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
