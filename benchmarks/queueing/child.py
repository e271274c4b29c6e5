"""A command of dpcdvae in a process of its own, of low priority, that does not outlive the queue."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from queueing.clones import environment

PRIORITY = 10
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PATIENCE = 10.0  # seconds between asking a child to end and ending it
KEPT_LINES = 5


class ChildError(Exception):
    """A command failed; the message holds the last lines of what it said."""


def call(
    arguments: Sequence[str], *, source: Path, log: Path, held: IO[str], tick: Callable[[], None] = lambda: None
) -> None:
    """``python -m dpcdvae`` with the package in ``source``; what it says is appended to ``log``.

    Args:
        held: the lock of the run. The child holds it too, so nobody can take the run while it lives.
        tick: called about once a second.

    Raises:
        ChildError: the exit code is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=KEPT_LINES)
    process = subprocess.Popen(
        [sys.executable, "-m", "dpcdvae", *arguments],
        cwd=source,
        env=environment(source),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(held.fileno(),),
        preexec_fn=_background(),
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        while content := _read(process.stdout, tick):
            with contextlib.suppress(OSError), log.open("ab") as stream:  # a full disk: the child says so
                stream.write(content)
            text = (last.pop() if last else "") + content.decode("utf-8", errors="replace")
            last.extend(text.split("\n"))
        process.wait()
    finally:
        _end(process)
        process.stdout.close()
    tick()
    if process.returncode:
        said = "; ".join(line.strip() for line in last if line.strip()) or "it said nothing"
        raise ChildError(f"dpcdvae {arguments[0]} ended with exit code {process.returncode}: {said}")


def _read(stream: IO[bytes], tick: Callable[[], None]) -> bytes:
    """What the child says next, b"" at its end."""
    due = time.monotonic() + 1.0
    while not select.select([stream], [], [], max(0.0, due - time.monotonic()))[0]:
        tick()
        due = time.monotonic() + 1.0
    return os.read(stream.fileno(), 65536)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()  # a run can be killed at any moment
        process.wait()


def _background() -> Callable[[], None]:
    """What a child does before anything else: low priority, and on Linux its end is tied to that of the queue."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        os.nice(PRIORITY)
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it ended before the tie was made
                os._exit(1)

    return prepare
