"""Relaxation and comparison with ground states, of crystals from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from dpcdvae.arguments import checked
from dpcdvae.errors import InputError
from dpcdvae.io import CrystalsLike, Failure, as_crystals
from dpcdvae.parallel import HERE, TIME_LIMIT, Engine, engine_for
from dpcdvae.relaxation.batching import check_one_process
from dpcdvae.relaxation.campaign import RELAXATION_TIME_LIMIT, relax_all
from dpcdvae.relaxation.from_files import pair_relaxed
from dpcdvae.relaxation.ground_state import GroundState
from dpcdvae.relaxation.ground_state import ground_state as compare
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.relaxation.relaxed_crystal import Relaxations, Relaxed


@checked
def relax(
    crystals: CrystalsLike,
    *,
    work: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    engine: Engine | None = None,
    batch: int = 1,
    time_limit: float = RELAXATION_TIME_LIMIT,
    retry: bool = False,
    **settings: Any,
) -> Relaxations:
    """Relaxes atoms and cell of crystals under pressure.

    Example:
        >>> relaxed = dpcdvae.relax("crystals.extxyz", pressure=10.0, calculator="chgnet")
        >>> dpcdvae.write(relaxed, "relaxed.extxyz")

    Args:
        crystals: anything that :func:`~dpcdvae.io.as_crystals` takes.
        work: folder that keeps the results as they come; what lies there is not computed again.
        workers: processes, by default one for each core. scheduler: a dask cluster instead.
        engine: where to work, instead of both; it stays open.
        batch: crystals computed together, in this process, by a calculator that can.
        time_limit: seconds for one crystal.
        retry: try again what did not converge before.
        settings: fields of :class:`Settings`: calculator, options, pressure (GPa), thresholds.

    Returns:
        One result for each crystal, in their order, also for those that did not converge.

    Raises:
        InputError: as :func:`relax_all`, or a setting that is none.
    """
    found = as_crystals(crystals)
    chosen = Settings.of(**settings)
    check_one_process(batch, workers, scheduler)
    with chosen_engine_of(engine, workers, scheduler) as chosen_engine:
        results = relax_all(
            found, chosen, work=work, engine=chosen_engine, batch=batch, time_limit=time_limit, retry=retry
        )
    return Relaxations(results, found.failures)


def chosen_engine_of(
    engine: Engine | None, workers: int | None, scheduler: str | None
) -> AbstractContextManager[Engine]:
    """The engine given, which stays open, or one of workers or a scheduler. InputError where both are given."""
    if engine is None:
        return engine_for(workers, scheduler)
    if workers is not None or scheduler is not None:
        raise InputError("an engine is given: leave out workers and scheduler")
    return nullcontext(engine)


@checked
def ground_state(
    crystals: CrystalsLike,
    relaxed: CrystalsLike | None = None,
    *,
    failures: Sequence[Failure] = (),
    engine: Engine = HERE,
    time_limit: float = TIME_LIMIT,
    seed: int = 0,
    pressure: float = 0.0,
    **settings: Any,
) -> GroundState:
    """Table 3: how far crystals were from their ground states, found by :func:`relax` where they are not given.

    Example:
        >>> table = dpcdvae.ground_state(dpcdvae.relax("crystals.extxyz", pressure=10.0))
        >>> table["match_rate"].value

    Args:
        crystals: results of :func:`relax`, or anything that :func:`~dpcdvae.io.as_crystals` takes.
        relaxed: the same crystals as they were relaxed elsewhere, by id or in the same order.
        failures: crystals that could not be built; they count as crystals without a match.
        engine: where crystals are relaxed and compared. time_limit: seconds for one comparison.
        seed: of the bootstrap.
        pressure: GPa, of crystals that are to be relaxed or were relaxed elsewhere.
        settings: of :func:`relax`, where the crystals are still to be relaxed.

    Raises:
        InputError: as :func:`relax`; crystals that cannot be paired.
    """
    results, known = _relaxed(crystals, relaxed, engine, pressure, settings)
    return compare(results, failures=[*known, *failures], engine=engine, time_limit=time_limit, seed=seed)


def _relaxed(
    crystals: CrystalsLike,
    relaxed: CrystalsLike | None,
    engine: Engine,
    pressure: float,
    settings: Mapping[str, Any],
) -> tuple[Sequence[Relaxed], Sequence[Failure]]:
    """One relaxation for each crystal, and what could not be read."""
    if isinstance(crystals, list | tuple) and all(isinstance(item, Relaxed) for item in crystals):
        if relaxed is not None or settings or pressure:
            raise InputError("the crystals are relaxed already: give no other settings")
        return crystals, getattr(crystals, "failures", ())
    if relaxed is None:
        results = relax(as_crystals(crystals), engine=engine, pressure=pressure, **settings)
        return results, results.failures
    if settings:
        raise InputError(f"the crystals are relaxed already: leave out {', '.join(settings)}")
    found = as_crystals(crystals)
    return pair_relaxed(found, as_crystals(relaxed), pressure), found.failures
