"""Processes of this machine, of which one may hang or die.

A pool of the standard library waits for ever for a worker that hangs and gives up on everything when
one dies. Here each item has a time limit and loses only itself.
"""

from __future__ import annotations

import os
import pickle
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.parallel.engine import WALL_FACTOR, Engine, Item, Lost, OnReport, Result, available_cores
from dpcdvae.parallel.reporting import heard_by
from dpcdvae.parallel.worker import OUT_OF_TIME, Worker

CHUNK = 16
"""Most items sent to a worker at a time: enough to hide the way there and back, few enough to share evenly."""

MOST_WORKERS = 4096  # more is a typing error, and would end the machine, not the work


class LocalEngine(Engine):
    """Processes of this machine that can be killed and replaced, kept from one loop to the next.

    Args:
        workers: processes; 0 to work in this one, without a time limit.
        threads: of libraries in each process, by default :func:`threads_of_each`.

    Raises:
        InputError: fewer than no processes, or more than ``MOST_WORKERS``.
    """

    def __init__(self, workers: int, *, threads: int | None = None) -> None:
        if workers < 0:
            raise InputError(f"workers is a number of processes, or 0 for none, not {workers}")
        if workers > MOST_WORKERS:
            raise InputError(f"at most {MOST_WORKERS} workers can be started, not {workers}")
        self.workers = workers
        self.threads = threads
        self._idle: list[Worker] = []
        weakref.finalize(self, _end, self._idle)  # runs at exit too

    def stream(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        time_limit: float,
        cpu: bool = False,
        on_report: OnReport | None = None,
    ) -> Generator[tuple[int, Result | Lost]]:
        if self.workers == 0:
            for index, item in enumerate(items):
                with heard_by(None if on_report is None else partial(on_report, index)):
                    result = function(item)
                yield index, result
            return
        pickled, cpu_limit, clock_limit = pickle.dumps(function), 0.0, time_limit
        if cpu and time_limit < 1e9:  # thirty years, beyond which the timer of the system overflows
            cpu_limit, clock_limit = time_limit, WALL_FACTOR * time_limit
        threads = threads_of_each(self.workers) if self.threads is None else self.threads
        size = max(1, min(CHUNK, len(items) // (4 * self.workers)))
        waiting: deque[Sequence[int]] = deque(
            range(start, min(start + size, len(items))) for start in range(0, len(items), size)
        )
        busy: list[Worker] = []
        try:
            while waiting or busy:
                while waiting and len(busy) < self.workers:
                    busy.append(self._idle.pop() if self._idle else Worker(threads))
                    busy[-1].give(pickled, items, waiting.popleft(), cpu_limit)
                speaking = wait([worker.connection for worker in busy], timeout=0.2)
                for worker in list(busy):
                    if worker.connection in speaking:
                        yield from _hear(worker, on_report)
                    elif worker.overdue(clock_limit):
                        worker.end()
                        yield worker.todo.popleft(), Lost(f"no result after {clock_limit:g} s")
                    if not worker.ended and worker.todo:
                        continue
                    busy.remove(worker)
                    if not worker.ended:
                        self._idle.append(worker)
                    elif worker.todo:
                        waiting.appendleft(worker.todo)
        finally:
            _end(busy)

    def close(self) -> None:
        _end(self._idle)


def threads_of_each(workers: int) -> int:
    """Threads that libraries may use in each of so many processes.

    ``OMP_NUM_THREADS`` says, as for any program, but not beyond the cores there are for each: where nobody says
    anything, and where there is a process for each core, it is one.
    """
    wish = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = int(wish) if wish.isascii() and wish.isdigit() else 1
    return max(1, min(threads, available_cores() // workers))


def _hear(worker: Worker, on_report: OnReport | None) -> Generator[tuple[int, Any]]:
    kind, value = worker.receive()
    if kind == "report" and on_report is not None:
        on_report(worker.todo[0], value)
    if kind == "error":
        raise value
    if kind == "result":
        yield worker.todo.popleft(), value
    elif kind == "died" and worker.since is not None and value == -OUT_OF_TIME:
        yield worker.todo.popleft(), Lost(f"no result after {worker.cpu_limit:g} s of CPU time")
    elif kind == "died" and worker.since is not None:
        yield worker.todo.popleft(), Lost(f"the worker process died (exit code {value})")
    elif kind == "died" and not worker.proven:
        raise RuntimeError(f"a worker process did not start (exit code {value})")


def _end(workers: list[Worker]) -> None:
    while workers:
        workers.pop().end()
