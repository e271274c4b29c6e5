"""The same function on many items in worker processes, where an item may hang or kill its worker.

A pool of the standard library waits for ever for a worker that hangs and gives up on everything when
one dies. Here each item has a time limit and loses only itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, Generic

from dpcdvae.parallel.engine import Engine, Item, Lost, Result

CHUNK = 16
"""Items sent to a worker at a time: enough to hide the way there and back, few enough to share evenly."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class LocalEngine(Engine):
    """Processes of this machine that can be killed and replaced.

    They are spawned, so that no thread or lock is inherited. Only where ``function`` is the calling program's
    own does that program need the usual ``if __name__ == "__main__"``: it is not run again otherwise.

    Args:
        workers: processes; 0 to work in this one, without a time limit.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def stream(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, time_limit: float
    ) -> Generator[tuple[int, Result | Lost]]:
        if self.workers == 0:
            return ((index, function(item)) for index, item in enumerate(items))
        return _Pool(function, items, time_limit).run(self.workers)

    def close(self) -> None:
        return


class _Pool(Generic[Item, Result]):
    def __init__(self, function: Callable[[Item], Result], items: Sequence[Item], time_limit: float) -> None:
        self.function = function
        self.items = items
        self.time_limit = time_limit
        self.waiting = deque(range(start, min(start + CHUNK, len(items))) for start in range(0, len(items), CHUNK))
        self.workers: list[_Worker] = []

    def run(self, workers: int) -> Generator[tuple[int, Result | Lost]]:
        try:
            for _ in range(min(workers, len(self.waiting))):
                self.workers.append(_Worker(self.function))
                self._feed(self.workers[-1])
            while self.workers:
                ready = wait([worker.connection for worker in self.workers], timeout=0.2)
                for worker in list(self.workers):
                    if worker.connection in ready:
                        yield from self._receive(worker)
                    elif worker.started and time.monotonic() - worker.since > self.time_limit:
                        yield from self._lose(worker, f"no result after {self.time_limit:g} s")
        finally:
            for worker in self.workers:
                worker.end()

    def _feed(self, worker: _Worker) -> None:
        if not self.waiting:
            worker.end()
            self.workers.remove(worker)
            return
        chunk = self.waiting.popleft()
        worker.todo = deque(chunk)
        worker.since = time.monotonic()
        # A worker that is just dying is noticed when it is read from.
        worker.send([self.items[i] for i in chunk])

    def _receive(self, worker: _Worker) -> Iterator[tuple[int, Result | Lost]]:
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            yield from self._lose(worker, f"the worker process died (exit code {worker.process.exitcode})")
            return
        worker.since = time.monotonic()
        if kind == "error":
            raise value
        if kind == "started":
            worker.started = True
            return
        yield worker.todo.popleft(), value
        if not worker.todo:
            self._feed(worker)

    def _lose(self, worker: _Worker, reason: str) -> Iterator[tuple[int, Lost]]:
        """Gives up the item a worker was at; a new worker goes on with what it had left."""
        worker.end()
        self.workers.remove(worker)
        if not worker.started:
            raise RuntimeError(f"a worker process did not start: {reason}")
        yield worker.todo.popleft(), Lost(reason)
        if worker.todo:
            self.waiting.appendleft(range(worker.todo[0], worker.todo[-1] + 1))
        if self.waiting:
            self.workers.append(_Worker(self.function))
            self._feed(self.workers[-1])


class _Worker:
    """A spawned process, the connection to it, and the indices of the items it still owes."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, function), daemon=True)
        self.todo: deque[int] = deque()
        self.since = time.monotonic()
        self.started = False
        # Ctrl-C reaches every process of the terminal; only this one is to answer it. A blocked signal
        # stays blocked in the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        kept = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        program = sys.modules["__main__"]
        if getattr(function, "__module__", "__main__") != "__main__":
            # A spawned process runs the calling program once more, all of it if it is a plain script.
            sys.modules["__main__"] = ModuleType("__main__")
        try:
            self.process.start()
        finally:
            sys.modules["__main__"] = program
            for name, value in kept.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def send(self, items: list[Any]) -> None:
        try:
            self.connection.send(items)
        except OSError:
            return

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The worker's loop: lists of items in, one message per item out."""
    connection.send(("started", None))
    while True:
        try:
            items = connection.recv()
        except EOFError:  # the main process is gone
            return
        for item in items:
            try:
                message = ("result", function(item))
            except Exception as error:
                message = ("error", error)
            connection.send(message)
