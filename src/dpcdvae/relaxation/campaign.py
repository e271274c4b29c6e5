"""Many crystals, on an engine, into a store: killed and started again, it goes on where it was."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpcdvae.errors import InputError
from dpcdvae.parallel import HERE, Engine, Lost
from dpcdvae.progress import Progress
from dpcdvae.relaxation.batching import relax_in_batches
from dpcdvae.relaxation.calculators import (
    CALCULATORS,
    batch_evaluator,
    build_calculator,
    calculator_version,
    option_files,
    unknown_elements,
)
from dpcdvae.relaxation.minimise import Settings, relax
from dpcdvae.relaxation.relaxed_crystal import Relaxed, lost
from dpcdvae.relaxation.store import open_results
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

RELAXATION_TIME_LIMIT = 3600.0
"""Seconds for one crystal."""

Item = tuple[Crystal, Crystal | None]  # as generated, where to start from if elsewhere


def relax_all(
    crystals: Sequence[Crystal],
    settings: Settings,
    *,
    work: str | Path | None = None,
    starts: Sequence[Crystal] | None = None,
    engine: Engine = HERE,
    batch: int = 1,
    time_limit: float = RELAXATION_TIME_LIMIT,
    retry: bool = False,
) -> list[Relaxed]:
    """Relaxes every crystal once; crystals of the same content share a result.

    Args:
        work: folder that keeps the results; what lies there is not computed again. None for a temporary one.
        starts: where to start from instead of ``crystals``, one for each.
        batch: crystals whose energies are computed together, in this process instead of the engine's; 1 for none.
            What is kept does not depend on it: a campaign may go on with another batch.
        time_limit: seconds for one crystal (no limit where the engine is this process).
        retry: try again what did not converge before, be it with more steps. What ran out of time, or whose
            process died, is tried again anyway.

    Returns:
        One result for each crystal, in their order. Crystals that failed are among them, with the reason:
        of those nothing is kept.

    Raises:
        InputError: a time limit that is none, the calculator cannot be built or takes no batches, or the folder
            cannot be used: another campaign works in it, it was begun with other settings, the disk is full.
    """
    # Before any work: what is missing or refused ends here, in one line.
    if not time_limit > 0:
        raise InputError(f"the time limit of a crystal must be above 0 s, not {time_limit}")
    calculator = build_calculator(settings.calculator, settings.options)
    evaluate = batch_evaluator(settings.calculator, calculator) if batch > 1 else None
    begins: Sequence[Crystal | None] = starts if starts is not None else [None] * len(crystals)
    items: list[Item] = list(zip(crystals, begins, strict=True))
    shaping = {**settings.to_json(), "calculator_version": calculator_version(settings.calculator, settings.options)}
    if files := option_files(settings.options):
        shaping["calculator_files"] = files
    keys = [content_hash(*filter(None, item)) for item in items]
    given_up = {
        key: reason
        for key, item in zip(keys, items, strict=True)
        if (reason := _problem(item) or unknown_elements(settings.calculator, calculator, item[0])) is not None
    }
    with ExitStack() as stack:
        if work is None:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="dpcdvae-relax-"))
        store = stack.enter_context(open_results(work, shaping, retry=retry))
        known = set(store)
        todo = list({key: k for k, key in enumerate(keys) if key not in known and key not in given_up}.values())
        if known and todo:
            print(f"{work}: {len(set(keys) & known)} of {len(set(keys))} are there already", file=sys.stderr)
        scratch = Path(work).absolute() / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        work_list = [items[k] for k in todo]
        if evaluate is not None:
            stream = relax_in_batches(work_list, settings, evaluate, batch=batch, time_limit=time_limit)
        else:
            function = Relaxer(json.dumps(settings.to_json()), str(scratch))
            stream = engine.stream(function, work_list, time_limit=time_limit)
        with closing(stream), Progress("relaxing", len(todo)) as bar:
            for place, result in stream:
                k = todo[place]
                if isinstance(result, Lost):  # nothing was learnt of the crystal: the next run tries it again
                    given_up[keys[k]] = result.reason
                else:
                    store.add(keys[k], {"id": crystals[k].id, **result.to_record()})
                bar.advance()
        results = [
            lost(crystal, settings.pressure, given_up[key])
            if key in given_up
            else Relaxed.from_record(store.get(key), crystal)
            for key, crystal in zip(keys, crystals, strict=True)
        ]
        if all(result.converged for result in results):
            shutil.rmtree(scratch, ignore_errors=True)
    return results


def _problem(item: Item) -> str | None:
    """Why there is nothing to relax: coordinates that are not finite, a cell without volume."""
    return next((problem for crystal in item if crystal is not None and (problem := crystal.problem())), None)


@dataclass(frozen=True)
class Relaxer:
    """:func:`relax` as a function of an item, for worker processes: each builds its calculator once.

    Attributes:
        settings: of :class:`Settings`, as JSON.
        scratch: folder for the files of a DFT code, with one of its own for each process. What a process wrote
            last stays there until the next run, or until all crystals have converged.
    """

    settings: str
    scratch: str

    def __call__(self, item: Item) -> Relaxed:
        settings = Settings(**json.loads(self.settings))
        crystal, start = item
        return relax(crystal, settings, _calculator(self), start=start)


@functools.lru_cache(maxsize=1)
def _calculator(relaxer: Relaxer) -> Calculator:
    settings = Settings(**json.loads(relaxer.settings))
    options = dict(settings.options)
    if settings.calculator in CALCULATORS and CALCULATORS[settings.calculator].writes_files:
        options.setdefault("directory", str(Path(relaxer.scratch) / f"{socket.gethostname()}-{os.getpid()}"))
    return build_calculator(settings.calculator, options)
