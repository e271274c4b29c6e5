"""How far a long loop has come and how long it still takes, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

T = TypeVar("T")

SILENT_SECONDS = 2.0  # shorter work shows nothing
LINE_SECONDS = 30.0  # between two lines where standard error is no terminal
NOTEBOOK_SECONDS = 0.5  # between two states of the one line in a notebook


class Progress:
    """A bar on a terminal; in a notebook one line that is written again; elsewhere (a log file) a plain line now and
    then; nothing for short work.

    >>> with Progress("sampling", total=1000) as bar:
    ...     bar.advance()
    """

    def __init__(self, description: str, total: int | None = None) -> None:
        self.description = description
        self.total = total
        self.done = 0.0
        self._start = self._last_line = time.monotonic()
        self._bar: RichProgress | None = None
        self._width = 0  # of the line in a notebook

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.update(task, completed=self.done)
            self._bar.stop()
        if self._width:
            self._rewrite()
            print(file=sys.stderr, flush=True)

    def advance(self, steps: float = 1) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self._start < SILENT_SECONDS:
            return
        if sys.stderr.isatty():
            if self._bar is None:
                # Known before it starts: Ctrl-C may come in between, and who is not known is not stopped.
                self._bar = self._make_bar()
                self._bar.start()
                self._bar.add_task(self.description, total=self.total)
            self._bar.update(self._bar.task_ids[0], completed=self.done)
        elif in_notebook():
            if now - self._last_line >= NOTEBOOK_SECONDS:
                self._last_line = now
                self._rewrite()
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state in words, e.g. ``sampling 120/1000, 2 min 10 s left``."""
        seconds = time.monotonic() - self._start
        if not self.total:
            return f"{self.description} {self.done:.0f}, {duration(seconds)}"
        left = seconds / self.done * (self.total - self.done) if self.done else 0.0
        return f"{self.description} {self.done:.0f}/{self.total}, {duration(left)} left"

    def _rewrite(self) -> None:
        line = self.line()
        print("\r" + line.ljust(self._width), end="", file=sys.stderr, flush=True)
        self._width = len(line)

    def _make_bar(self) -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        return RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn() if self.total is None else TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, whose output takes ``\\r`` but is no terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yields ``items`` while a :class:`Progress` counts them; the total is ``len(items)`` where there is one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(description, total) as bar:
        for item in items:
            yield item
            bar.advance()


def duration(seconds: float) -> str:
    """``45 s``, ``2 min 10 s``, ``3 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
