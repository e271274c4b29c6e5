"""The work of a loop on a cluster, through dask.distributed.

Dask places batches of items and runs those again that were lost with a machine; in each of its threads a
process that can be killed does the items, with the same time limit as at home.
"""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from dpcdvae.errors import InputError
from dpcdvae.parallel.clusters import opener
from dpcdvae.parallel.engine import Engine, Item, Lost, Result
from dpcdvae.parallel.local import LocalEngine

if TYPE_CHECKING:
    from distributed import Client, Future

BATCH_SECONDS = 2.0
"""Batches grow until they take about so long: next to that, what dask needs for one is nothing."""

MOST_IN_BATCH = 512
AHEAD = 2
"""Batches handed over for each thread of the cluster: one at work, one to go on with."""

CONNECT_SECONDS = 30.0
WORKER_SECONDS = 300.0
"""For the first worker of a scheduler that somebody else has started."""

RESULT_SECONDS = 20.0
"""For the way of a finished batch to here. It may be on a worker that died since, and then it is done again."""

LOOK_SECONDS = 5.0
"""Between two looks at the cluster while nothing comes."""

SAME = ("dpcdvae", "numpy", "scipy", "pymatgen", "pymatgen-core", "spglib", "smact")
"""Packages that shape results, so that here and on the workers they must be the same."""


class DaskEngine(Engine):
    """A cluster of dask; one that it starts, it also ends.

    It is connected to when the first work comes.

    Args:
        scheduler: as ``--scheduler``: see :data:`dpcdvae.parallel.clusters.FORMS`.

    Raises:
        InputError: dask is missing, or ``scheduler`` is no form of one; later, from ``stream``: it cannot be
            reached, has no workers, or they have other versions of the packages that shape results.
    """

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        self._open = opener(scheduler)
        self._client: Client | None = None
        self._cluster: Any = None
        self._checked: set[str] = set()

    def stream(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, time_limit: float
    ) -> Generator[tuple[int, Result | Lost]]:
        if not len(items):
            return
        client = self._client or self._connect()
        batches = _Batches(len(items))
        flying: dict[Any, tuple[Future, list[int]]] = {}
        done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        slots, looked = self._look(client), time.monotonic()
        try:
            while batches.left or flying:
                while len(flying) < AHEAD * slots and (indices := batches.next(slots, alone=not flying)):
                    payload = pickle.dumps((function, [items[index] for index in indices], time_limit))
                    future = client.submit(run_batch, payload, pure=False)
                    flying[future.key] = future, indices
                    future.add_done_callback(done.put)
                with contextlib.suppress(queue.Empty):
                    future, indices = flying.pop(done.get(timeout=LOOK_SECONDS).key)
                    kind, value, seconds = self._result(future)
                    if kind == "done":
                        batches.learn(len(indices), seconds)
                        yield from zip(indices, value, strict=True)
                    elif kind == "gone":
                        batches.again(indices)
                    elif not batches.again_apart(indices):
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

        # What goes wrong is told in one line or as a lost item; dask would print its own tracebacks besides.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        target = self._open()
        started = not isinstance(target, str)
        self._cluster = target if started else None
        try:
            client = self._client = Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"--scheduler {self.scheduler}: no dask scheduler answers: {_line(error)}") from None
        began, told = time.monotonic(), False
        while not client.nthreads():
            waited = time.monotonic() - began
            if not started and waited > WORKER_SECONDS:
                raise InputError(f"--scheduler {self.scheduler}: no dask worker joined it in {WORKER_SECONDS:.0f} s")
            if not told and waited > LOOK_SECONDS:
                print(f"waiting for the first worker of {self.scheduler}", file=sys.stderr)
                told = True
            time.sleep(0.2)
        return client

    def _look(self, client: Client) -> int:
        """Threads of all workers, at least one. New workers are checked, jobs whose time was over submitted again."""
        try:
            threads = client.nthreads()
            if not self._checked.issuperset(threads):
                check_versions(cast("Mapping[str, Any]", client.get_versions(packages=list(SAME))))
                self._checked.update(threads)
        except OSError:
            raise self._gone() from None
        if self._cluster is not None:
            self._cluster.scale(len(self._cluster.worker_spec))
        return max(1, sum(threads.values()))

    def _result(self, future: Future) -> tuple[str, list[Any], float]:
        """("done", results, seconds they took); ("gone", ...) with a worker; ("killer", ...) of workers."""
        from distributed import CancelledError, KilledWorker

        try:
            return "done", *future.result(timeout=RESULT_SECONDS)
        except KilledWorker:
            return "killer", [], 0.0
        except TimeoutError:
            return "gone", [], 0.0
        except CancelledError:
            raise self._gone() from None

    def _gone(self) -> InputError:
        return InputError(f"--scheduler {self.scheduler}: the scheduler went away; run again, what was saved is kept")


class _Batches:
    """Which items go together: few at first, then as many as take :data:`BATCH_SECONDS`, at the end few again."""

    def __init__(self, items: int) -> None:
        self.size = 1
        self._waiting = deque(range(items))
        self._again: deque[list[int]] = deque()
        self._suspects: deque[int] = deque()
        self._tried_alone: set[int] = set()

    @property
    def left(self) -> bool:
        return bool(self._waiting or self._again or self._suspects)

    def next(self, slots: int, *, alone: bool) -> list[int]:
        """The next batch, empty if none may start now; ``alone`` where nothing else is at work."""
        if self._again:
            return self._again.popleft()
        if self._waiting:
            share = math.ceil(len(self._waiting) / (AHEAD * slots))
            return [self._waiting.popleft() for _ in range(min(self.size, share))]
        if self._suspects and alone:
            self._tried_alone.add(self._suspects[0])
            return [self._suspects.popleft()]
        return []

    def learn(self, size: int, seconds: float) -> None:
        if seconds < BATCH_SECONDS / 2:
            self.size = max(self.size, min(2 * size, MOST_IN_BATCH))
        elif seconds > 2 * BATCH_SECONDS:
            self.size = min(self.size, max(1, size // 2))

    def again(self, indices: list[int]) -> None:
        self._again.append(indices)

    def again_apart(self, indices: list[int]) -> bool:
        """After workers that had this batch died: item by item, then with nothing beside it. False after that.

        Dask blames all that a worker had, and only one of them need have killed it.
        """
        if len(indices) > 1:
            self._again.extend([index] for index in indices)
        elif indices[0] in self._tried_alone:
            return False
        else:
            self._suspects.append(indices[0])
        return True


def check_versions(versions: Mapping[str, Any]) -> None:
    """Raises InputError where a worker has another Python or other packages: what ``Client.get_versions`` found."""
    here = versions["client"]["packages"]
    for address, facts in versions["workers"].items():
        there = facts["packages"]
        for name in ("python", *SAME):
            ours, theirs = here[name], there.get(name)
            if name == "python":
                ours, theirs = (".".join(str(version).split(".")[:2]) for version in (ours, theirs))
            if ours != theirs:
                raise InputError(
                    f"the dask worker {address} has {name} {theirs or 'not installed'}, here is {ours or 'none'}: "
                    "install the same versions on both"
                )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


_thread = threading.local()


def run_batch(payload: bytes) -> tuple[list[Any], float]:
    """On a dask worker: the results of pickled (function, items, time limit), and the seconds they took."""
    function, items, time_limit = pickle.loads(payload)
    if not hasattr(_thread, "engine"):
        _thread.engine = LocalEngine(1)  # its process stays for the batches to come
    began = time.monotonic()
    results: list[Any] = [None] * len(items)
    for index, result in _thread.engine.stream(function, items, time_limit=time_limit):
        results[index] = result
    return results, time.monotonic() - began
