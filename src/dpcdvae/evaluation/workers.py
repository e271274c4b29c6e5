"""Work in processes that can be killed: a time limit for each item, and nothing hangs.

Workers are started as fresh interpreters rather than forked or spawned by :mod:`multiprocessing`: they
do not inherit threads, do not import the caller's script, and die with their parent.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dpcdvae.progress import Progress


@dataclass(frozen=True)
class Cut:
    """Stands for the result of an item that has none, and says why."""

    reason: str


def default_workers() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_limited(
    function: Callable[[Any], Any],
    tasks: Iterable[tuple[int, Any]],
    *,
    workers: int,
    time_limit: float,
    description: str,
    total: int,
    preload: Sequence[str] = (),
) -> Iterator[tuple[int, Any | Cut]]:
    """Yields (index, ``function(item)``) for each (index, item) of ``tasks``, in the order in which they finish.

    A worker that takes longer than ``time_limit`` seconds over an item is killed and replaced, and the
    item's result is a :class:`Cut`, as it is when the function raises or the worker dies. ``tasks`` is read
    as workers become free, so what it gives may depend on the results so far. ``preload`` names
    modules whose import should not count into the limit. Leaving the iteration kills the workers.
    """
    results: queue.SimpleQueue[tuple[int, Any] | BaseException | None] = queue.SimpleQueue()
    source, lock = iter(tasks), threading.Lock()
    pool = [_Worker(function, preload) for _ in range(max(1, min(workers, total)))]

    def serve(worker: _Worker) -> None:
        try:
            while True:
                with lock:
                    task = next(source, None)
                if task is None:
                    break
                results.put((task[0], worker.call(task[1], time_limit)))
            results.put(None)
        except BaseException as error:  # to be raised where the results are read
            results.put(error)

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in pool]
    try:
        for thread in threads:
            thread.start()
        busy = len(threads)
        with Progress(description, total) as bar:
            while busy:
                for worker in pool:
                    worker.kill_if_late()
                try:
                    result = results.get(timeout=0.05)
                except queue.Empty:
                    bar.advance(0)
                    continue
                if result is None:
                    busy -= 1
                elif isinstance(result, BaseException):
                    raise result
                else:
                    bar.advance()
                    yield result
    finally:
        for worker in pool:
            worker.close()


class _Worker:
    """One process, and its replacement once it was killed. Spoken to by one thread, killed by another."""

    def __init__(self, function: Callable[[Any], Any], preload: Sequence[str]) -> None:
        self._first_words = pickle.dumps((function, tuple(preload)))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None
        self._closed = False

    def call(self, item: Any, time_limit: float) -> Any | Cut:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            self._deadline = time.monotonic() + time_limit
        try:
            _send(process.stdin, pickle.dumps(item))
            result = _receive(process.stdout)
        except (EOFError, OSError):
            with self._lock:
                late = self._deadline is None
                self._process = None
            _end(process)
            return Cut(f"longer than {time_limit:g} s" if late else f"its process died (code {process.returncode})")
        finally:
            with self._lock:
                self._deadline = None
        return result

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, after starting one if there is none."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the workers are closed")
            if self._process is not None and self._process.poll() is None:
                return self._process
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
            # A session of its own: Ctrl-C reaches the parent only, which then ends its workers.
            process = self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from dpcdvae.evaluation.workers import serve_parent; serve_parent()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True,
            )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, self._first_words)
            _receive(process.stdout)  # it has imported what it needs
        except (EOFError, OSError) as error:
            raise RuntimeError("a worker process could not start: see its message above") from error
        return process

    def kill_if_late(self) -> None:
        with self._lock:
            if self._deadline is not None and time.monotonic() > self._deadline and self._process is not None:
                self._process.kill()
                self._process = self._deadline = None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not sent yet has nobody to go to
                stream.close()


def _send(stream: Any, message: bytes) -> None:
    stream.write(len(message).to_bytes(8, "little") + message)
    stream.flush()


def _receive(stream: Any) -> Any:
    header = stream.read(8)
    message = stream.read(int.from_bytes(header, "little"))
    if len(header) < 8 or len(message) < int.from_bytes(header, "little"):
        raise EOFError
    return pickle.loads(message)


def serve_parent() -> None:
    """What a worker process runs: items come in on standard input, results go out on standard output."""
    parent = os.getppid()
    words, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not fall among the results
    warnings.simplefilter("ignore")
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    function, preload = _receive(words)
    for module in preload:
        __import__(module)
    _send(answers, pickle.dumps(None))
    while True:
        try:
            item = _receive(words)
        except EOFError:
            return
        try:
            result = function(item)
        except Exception as error:  # odd crystals break libraries in many ways: all are counted, with their reason
            result = Cut(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        _send(answers, pickle.dumps(result))


def _leave_with(parent: int) -> None:
    """Ends this process, however busy, soon after its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
