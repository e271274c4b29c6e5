"""From a generated crystal to the minimum it lies closest to, under pressure. Loads no torch of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.parallel import Engine, engine_for
from dpcdvae.relaxation.batching import check_one_process
from dpcdvae.relaxation.calculators import CALCULATORS, build_calculator
from dpcdvae.relaxation.campaign import TIME_LIMIT, relax_all
from dpcdvae.relaxation.ground_state import GroundState, ground_state
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.relaxation.ranking import Ranked, rank
from dpcdvae.relaxation.relaxed_crystal import Relaxed
from dpcdvae.relaxation.single_point import SinglePoint, single_points
from dpcdvae.relaxation.staged_relaxation import relax_in_stages, stages_of
from dpcdvae.structures.crystal import Crystal

__all__ = [
    "CALCULATORS",
    "GroundState",
    "Ranked",
    "Relaxed",
    "Settings",
    "SinglePoint",
    "build_calculator",
    "ground_state",
    "rank",
    "relax",
    "relax_all",
    "relax_in_stages",
    "single_points",
    "stages_of",
]


def relax(
    crystals: Sequence[Crystal],
    *,
    work: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    engine: Engine | None = None,
    batch: int = 1,
    time_limit: float = TIME_LIMIT,
    retry: bool = False,
    **settings: Any,
) -> list[Relaxed]:
    """Relaxes crystals, e.g. ``relax(read("crystals.extxyz"), pressure=10.0)``.

    Args:
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
    if isinstance(crystals, str | Path | Crystal):
        raise InputError("relax takes a list of crystals, such as read(path) gives")
    chosen = Settings.of(**settings)
    check_one_process(batch, workers, scheduler)
    if engine is not None and (workers is not None or scheduler is not None):
        raise InputError("an engine is given: leave out workers and scheduler")
    with engine_for(workers, scheduler) if engine is None else nullcontext(engine) as chosen_engine:
        return relax_all(
            crystals, chosen, work=work, engine=chosen_engine, batch=batch, time_limit=time_limit, retry=retry
        )
