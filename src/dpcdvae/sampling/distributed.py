"""Sampling in many batches, each in whatever process: this one, others, a cluster. Finished batches are kept.

Nothing here needs torch before a batch is made, so a process that only hands batches out stays small.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError
from dpcdvae.model_store import WEIGHTS, StoredModel, stored_in
from dpcdvae.parallel import Engine, LocalEngine, Lost, available_cores, engine_for, report
from dpcdvae.progress import Progress
from dpcdvae.sampling.finished_batches import GenerationResult, Parts

if TYPE_CHECKING:
    from dpcdvae.interfaces import Trainable
    from dpcdvae.model.regressor import PropertyRegressor
    from dpcdvae.structures.table import CrystalTable


@functools.lru_cache(maxsize=1)
def loaded(model: StoredModel, device: str) -> Trainable:
    """The model, loaded once by each process; raises InputError where its files hold another one by now."""
    from dpcdvae.checkpoints.loading import load_model

    try:
        return load_model(model, device)
    except InputError:
        now = stored_in(model.folder).sha256 if (model.folder / WEIGHTS).is_file() else ""
        if now == model.sha256:  # the same model, which cannot be loaded
            raise
        state = f"have the hash {now[:12]}, not {model.sha256[:12]}" if now else "are gone"
        raise InputError(
            f"the model {model.name} is another one where the work is done: its weights {state}; leave it as it "
            "is until the run has ended"
        ) from None


@functools.lru_cache(maxsize=1)
def loaded_property_model(model: StoredModel, device: str) -> PropertyRegressor:
    """A model of a property, loaded once by each process."""
    from dpcdvae.checkpoints.loading import load_regressor

    return load_regressor(model, device)


def generate_batch(
    model: StoredModel,
    device: str,
    crystals: range,
    *,
    first: int,
    options: Mapping[str, Any],
    property_model: StoredModel | PropertyRegressor | None = None,
) -> GenerationResult:
    """New crystals by their numbers, counted from ``first``; the rest as in ``kinds.make``."""
    from dpcdvae.sampling.kinds import make

    n, first = len(crystals), first + crystals.start
    by = loaded_property_model(property_model, device) if isinstance(property_model, StoredModel) else property_model
    return make(loaded(model, device), n, first=first, batch_size=n, on_progress=report, property_model=by, **options)


def reconstruct_batch(
    model: StoredModel, device: str, crystals: tuple[int, CrystalTable], *, options: Mapping[str, Any]
) -> GenerationResult:
    """Crystals encoded and decoded, from (number of the first, crystals); ``options`` as those of ``reconstruct``."""
    from dpcdvae.sampling.reconstruction import encode_and_decode

    first, table = crystals
    return encode_and_decode(
        loaded(model, device), table, first=first, batch_size=len(table), on_progress=report, **options
    )


def make_batches(
    make: Callable[[Any], GenerationResult],
    items: Sequence[Any],
    batches: Sequence[range],
    parts: Parts,
    engine: Engine,
    what: str,
) -> None:
    """Makes those batches that ``parts`` has not; item k is what ``make`` needs for the crystals ``batches[k]``.

    Raises:
        InputError: a batch was lost with its process. The others are kept.
    """
    there = parts.done() & {batch.start for batch in batches}
    todo = [k for k, batch in enumerate(batches) if batch.start not in there]
    if there and todo:
        print(
            f"{parts.folder}: {len(batches) - len(todo)} of {len(batches)} batches are there already", file=sys.stderr
        )
    finished = dict.fromkeys(range(len(todo)), 0.0)  # crystals of each batch
    lost: list[Lost] = []
    with Progress(what, sum(len(batches[k]) for k in todo)) as bar:

        def show(index: int, crystals: float) -> None:
            bar.advance(crystals - finished[index])
            finished[index] = crystals

        stream = engine.stream(make, [items[k] for k in todo], time_limit=math.inf, on_report=show)
        with closing(stream):
            for index, part in stream:
                batch = batches[todo[index]]
                show(index, len(batch))
                if isinstance(part, Lost):
                    lost.append(part)
                else:
                    parts.add(batch.start, part)
    if lost:
        raise InputError(
            f"{len(lost)} of {len(batches)} batches were lost ({lost[0].reason}): the others are kept, and the same "
            "command goes on; if it was the memory, give fewer --workers"
        )


def engine_of(workers: int | None, scheduler: str | None, device: str, batches: int) -> Engine:
    """The engine for so many batches on a device.

    By default it is a process for each core, and this one where there is one batch or a GPU.

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
    """The device that ``auto`` stands for on this machine; any other as it is."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
