"""The work of a loop on a cluster, through dask.distributed.

Dask places batches of items and runs those again that were lost with a machine; in each of its threads a
process that can be killed does the items, with the same time limit as at home.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from dpcdvae.errors import InputError, one_line
from dpcdvae.parallel.batches import AHEAD, Batches
from dpcdvae.parallel.clusters import source_of
from dpcdvae.parallel.engine import Engine, Item, Lost, OnReport, Result
from dpcdvae.parallel.local import LocalEngine, threads_of_each
from dpcdvae.parallel.versions import SAME, SAME_IF_HERE, check_versions
from dpcdvae.parallel.worker import portable

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 30.0
WORKER_SECONDS = 300.0
"""Without any worker, at the start or later, after which no more are expected if none is in SLURM's queue."""

RESULT_SECONDS = 20.0
"""For the way of a finished batch to here. It may be on a worker that died since, and then it is done again."""

LOOK_SECONDS = 5.0
"""Between two looks at the cluster while nothing comes."""


class DaskEngine(Engine):
    """A cluster of dask; one that it starts, it also ends.

    It is connected to when the first work comes.

    Args:
        scheduler: as ``--scheduler``: see :data:`dpcdvae.parallel.clusters.FORMS`.

    Raises:
        InputError: dask is missing, or ``scheduler`` is no form of one; later, from ``stream``: it cannot be
            reached, has or keeps no workers, or they have other versions of the packages that shape results.
    """

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        self._source = source_of(scheduler)
        self._client: Client | None = None
        self._cluster: Any = None
        self._checked: set[str] = set()
        self._empty_since: float | None = None
        self._reported = False

    def stream(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        time_limit: float,
        cpu: bool = False,
        on_report: OnReport | None = None,
    ) -> Generator[tuple[int, Result | Lost]]:
        if not len(items):
            return
        self._empty_since = None
        client = self._client or self._connect()
        batches = Batches(len(items))
        flying: dict[Any, tuple[Future[Any], list[int]]] = {}
        done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        while not (slots := self._look(client)):
            time.sleep(0.5)
        looked = time.monotonic()
        try:
            while batches.left or flying:
                while len(flying) < AHEAD * slots and (indices := batches.next(slots, alone=not flying)):
                    payload = pickle.dumps((function, [items[index] for index in indices], time_limit, cpu))
                    future = client.submit(run_batch, payload, pure=False)
                    flying[future.key] = future, indices
                    future.add_done_callback(done.put)
                try:
                    future = done.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    pass
                else:
                    _, indices = flying.pop(future.key)
                    kind, value, seconds = self._result(future)
                    if kind == "done":
                        batches.learn(len(indices), seconds)
                        yield from zip(indices, value, strict=True)
                    elif kind == "error":
                        raise value
                    elif kind == "missed" and not batches.again(indices):
                        yield indices[0], Lost("its result never arrived from the dask workers that were given it")
                    elif kind == "killer" and not batches.again_apart(indices):
                        yield indices[0], Lost("every dask worker that was given it died")
                if time.monotonic() - looked > LOOK_SECONDS:
                    slots, looked = self._look(client), time.monotonic()
        finally:
            if flying:
                with contextlib.suppress(Exception):  # a scheduler that is gone has nothing to cancel
                    client.cancel([future for future, _ in flying.values()], force=True)

    def close(self) -> None:
        client, cluster, self._client, self._cluster = self._client, self._cluster, None, None
        self._checked.clear()
        for opened in (client, cluster):
            if opened is not None:
                # What does not close properly ends with this process, and the workers some time after it.
                with contextlib.suppress(Exception):
                    opened.close()

    def _connect(self) -> Client:
        from distributed import Client

        # A failure is one line or a lost item; dask would print its own tracebacks too.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        target = self._source.open()
        self._cluster = None if isinstance(target, str) else target
        try:
            self._client = Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"--scheduler {self.scheduler}: no dask scheduler answers: {one_line(error)}") from None
        return self._client

    def _look(self, client: Client) -> int:
        """Threads of all workers. New workers are checked, jobs whose time was over submitted again.

        Raises:
            InputError: the scheduler is gone, a worker has other versions, or there are none and none to come.
        """
        try:
            threads = client.nthreads()
            if not self._checked.issuperset(threads):
                versions = cast("Mapping[str, Any]", client.get_versions(packages=[*SAME, *SAME_IF_HERE]))
                check_versions(versions)
                self._checked.update(versions["workers"])
        except OSError:
            raise self._gone() from None
        if self._cluster is not None:
            self._cluster.scale(len(self._cluster.worker_spec))
        if threads:
            self._empty_since = None
        else:
            self._wait()
        return sum(threads.values())

    def _wait(self) -> None:
        """Reports once that there are no workers; an error at once if none will come, otherwise after a time."""
        if said := self._source.refusal(self._cluster):
            raise InputError(f"--scheduler {self.scheduler}: SLURM refuses the job: {said}")
        now = time.monotonic()
        if self._empty_since is None:
            self._empty_since, self._reported = now, False
        waited = now - self._empty_since
        if waited > LOOK_SECONDS and not self._reported:
            print(f"waiting for a worker of {self.scheduler}", file=sys.stderr, flush=True)
            self._reported = True
        if waited > WORKER_SECONDS:
            if not self._source.queued(self._cluster):
                hint = f"; {self._source.hint}" if self._source.hint else ""
                raise InputError(f"--scheduler {self.scheduler}: no dask worker for {WORKER_SECONDS:g} s{hint}")
            self._empty_since = now

    def _result(self, future: Future[Any]) -> tuple[str, Any, float]:
        """What :func:`run_batch` gave; ("missed", ...) on its way to here; ("killer", ...) of workers."""
        from distributed import CancelledError, KilledWorker

        try:
            return cast("tuple[str, Any, float]", future.result(timeout=RESULT_SECONDS))
        except KilledWorker:
            return "killer", None, 0.0
        except TimeoutError:
            return "missed", None, 0.0
        except CancelledError:
            raise self._gone() from None

    def _gone(self) -> InputError:
        return InputError(f"--scheduler {self.scheduler}: the scheduler went away; run again, what was saved is kept")


_thread = threading.local()


def run_batch(payload: bytes) -> tuple[str, Any, float]:
    """On a dask worker: what becomes of pickled (function, items, time limit, cpu), and the seconds it took.

    ("done", results, seconds), or ("error", exception, seconds): a value, as a TimeoutError that is raised
    would be taken for one of the way to here, and one of dask's own for the end of a worker.
    """
    began = time.monotonic()
    try:
        function, items, time_limit, cpu = pickle.loads(payload)
        results: list[Any] = [None] * len(items)
        for index, result in _engine().stream(function, items, time_limit=time_limit, cpu=cpu):
            results[index] = result
    except Exception as error:
        return "error", portable(error), time.monotonic() - began
    return "done", results, time.monotonic() - began


def _engine() -> LocalEngine:
    """Of this thread of a dask worker; its process stays for the batches to come."""
    from distributed import get_worker

    if not hasattr(_thread, "engine"):
        _thread.engine = LocalEngine(1, threads=threads_of_each(get_worker().state.nthreads))
    return cast(LocalEngine, _thread.engine)
