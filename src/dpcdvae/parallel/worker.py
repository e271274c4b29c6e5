"""A process that does one item after another and may be killed at any of them.

Started as a program of its own and spoken to over a pipe. Unlike a process of :mod:`multiprocessing` it may be
started from a daemon, as the workers of dask are, and it does not run the calling program once more.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn, cast

from dpcdvae.parallel.reporting import heard_by

_START = "import sys; sys.path[:] = sys.argv[2:]; from dpcdvae.parallel.worker import serve; serve(int(sys.argv[1]))"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_NOTE = "in a worker process:"

REPORT_SECONDS = 0.5
"""At least, between two reports from the middle of an item."""

EXIT_SECONDS = 5.0
"""For a process that has closed its pipe to end with its own exit code."""

OUT_OF_TIME = signal.SIGPROF
"""What ends a process whose CPU time for an item is over: the kernel's own timer, also inside of compiled code."""

LEAVE_SECONDS = 1.0
"""For programs that a process has started (a DFT code, ``mpirun``) to end after SIGTERM."""


class Worker:
    """The process as seen from where it was started.

    Args:
        threads: that libraries (BLAS, torch, DFT codes) may use in it.

    Attributes:
        todo: indices of the items it still owes, the one it is at first.
        since: when it began that one, by :func:`time.monotonic`; None while it starts or loads the function.
        cpu_limit: seconds of CPU time for each item of ``todo``, 0 for no limit.
        proven: whether it has ever come so far as to load a function.
        ended: whether it is gone.
    """

    def __init__(self, threads: int = 1) -> None:
        self.todo: deque[int] = deque()
        self.since: float | None = None
        self.cpu_limit = 0.0
        self.proven = self.ended = False
        self.connection, theirs = Pipe()
        with theirs, interrupts_held_back():
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # to be ended with all that it starts
                env=os.environ | dict.fromkeys(_THREADS, str(threads)),
            )

    def give(self, function: bytes, items: Sequence[Any], indices: Sequence[int], cpu_limit: float = 0.0) -> None:
        """Hands over a pickled function and the items of these indices."""
        self.cpu_limit = cpu_limit
        self.todo = deque(indices)
        self.since = None
        chunk = pickle.dumps((cpu_limit, [items[index] for index in indices]))
        # One that is just dying is noticed when it is read from.
        with contextlib.suppress(OSError):
            self.connection.send_bytes(function)
            self.connection.send_bytes(chunk)

    def receive(self) -> tuple[str, Any]:
        """Its next message: ("ready", None), ("report", value), ("result", value), ("error", exception).

        Or ("died", exit code), which is none of its own.
        """
        try:
            message: tuple[str, Any] = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(EXIT_SECONDS)
            self.end()
            return "died", self.process.returncode
        if message[0] != "report":  # which comes in the middle of an item
            self.since = time.monotonic()
        self.proven = True
        return message

    def overdue(self, time_limit: float) -> bool:
        late = self.since is not None and time.monotonic() - self.since > time_limit
        return late and not self.connection.poll()  # it may have answered while the caller was busy

    def end(self) -> None:
        """Ends the process and the programs that it has started, which would compute on for nobody."""
        self.ended = True
        deadline = time.monotonic() + LEAVE_SECONDS
        with contextlib.suppress(ProcessLookupError):  # nobody is left of its group
            os.killpg(self.process.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                self.process.poll()  # once waited for, it is no longer one of them
                os.killpg(self.process.pid, 0)
                time.sleep(0.01)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; those started in here never see it, this one does afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(descriptor: int) -> None:
    """The life of the process: functions and lists of items in; ``("ready", None)``, then one message per item out."""
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # what libraries print is no result of the command
    connection = Connection(descriptor)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    known, function = b"", cast(Any, None)
    signal.signal(OUT_OF_TIME, signal.SIG_DFL)
    while True:
        pickled, chunk = inbox.get(), inbox.get()
        try:
            if pickled != known:  # the same one stays, with what it may have loaded
                known, function = b"", pickle.loads(pickled)
                known = pickled
            _send(connection, pickle.dumps(("ready", None)))
            cpu_limit, items = pickle.loads(chunk)
            for item in items:
                signal.setitimer(signal.ITIMER_PROF, cpu_limit)
                with heard_by(_Reporter(connection)):
                    result = function(item)
                signal.setitimer(signal.ITIMER_PROF, 0)
                _send(connection, pickle.dumps(("result", result)))
        except Exception as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(connection, pickle.dumps(("error", portable(error))))


class _Reporter:
    """Sends what is reported of one item, not too often."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = time.monotonic()

    def __call__(self, done: float) -> None:
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS:
            self._last = now
            _send(self._connection, pickle.dumps(("report", done)))


def _listen(connection: Connection, inbox: queue.SimpleQueue[bytes]) -> None:
    """Takes what comes, and ends this process, whatever it is at, when the one that started it is gone."""
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        _leave()


def _send(connection: Connection, message: bytes) -> None:
    try:
        connection.send_bytes(message)
    except OSError:
        _leave()


def _leave() -> NoReturn:
    """Ends this process and the programs that it has started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)
    os._exit(1)


def portable(error: Exception) -> Exception:
    """The error with its traceback as one note; as a RuntimeError with its text if it cannot be pickled."""
    if not any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
        error.add_note(f"{_NOTE}\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of whatever kind: the text of the error itself is what matters
        words = RuntimeError("".join(traceback.format_exception_only(type(error), error)).strip())
        words.__notes__ = error.__notes__
        return words
    return error
