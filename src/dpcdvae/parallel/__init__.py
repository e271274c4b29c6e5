"""One engine for everything that does the same to many crystals: preparation, evaluation, relaxation.

Its users know :class:`Engine` alone, so that what runs in this process runs on a cluster too.
"""

from __future__ import annotations

from dpcdvae.errors import InputError
from dpcdvae.parallel.engine import TIME_LIMIT, Engine, Lost, available_cores
from dpcdvae.parallel.local import LocalEngine
from dpcdvae.parallel.reporting import report

__all__ = ["HERE", "TIME_LIMIT", "Engine", "LocalEngine", "Lost", "available_cores", "engine_for", "report"]

HERE = LocalEngine(0)
"""The engine that works in this process, without a time limit."""


def engine_for(workers: int | None = None, scheduler: str | None = None) -> Engine:
    """The engine of a command line; close it after use.

    Args:
        workers: processes here, by default one for each core; 0 for none.
        scheduler: a cluster instead: see :class:`dpcdvae.parallel.dask_engine.DaskEngine`.

    Raises:
        InputError: both are given, workers are fewer than none, dask is missing, or no such scheduler can be.
    """
    if scheduler is None:
        return LocalEngine(available_cores() if workers is None else workers)
    if workers is not None:
        raise InputError("--workers is for processes here and --scheduler for a cluster: give one of them")
    from dpcdvae.parallel.dask_engine import DaskEngine

    return DaskEngine(scheduler)
