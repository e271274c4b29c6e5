"""What every engine does: the same function on many items, of which one may hang or kill its worker."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from dpcdvae.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")
OnReport = Callable[[int, float], None]

TIME_LIMIT = 60.0
"""Seconds for the bonds, a fingerprint or a comparison of one crystal, unless other seconds are asked for."""

WALL_FACTOR = 10
"""Times a limit of CPU time that an item may take by the clock: a machine so crowded that this ends an item that
computes has ten processes on each core."""


@dataclass(frozen=True)
class Lost:
    """What an engine gives for an item without a result: the time ran out or the worker died."""

    reason: str


class Engine(ABC):
    """Where the work of a loop is done: in this process, in processes of this machine, on a cluster.

    ``function`` must be importable, items and results picklable, unless the work is done in this process.
    An engine may keep processes from one loop to the next; ``close``, or leaving its ``with``, ends them.
    """

    @abstractmethod
    def stream(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        time_limit: float,
        cpu: bool = False,
        on_report: OnReport | None = None,
    ) -> Generator[tuple[int, Result | Lost]]:
        """(index of the item, result) in the order in which they come, each item once.

        Args:
            time_limit: seconds for one item; after that its worker is ended and replaced.
            cpu: whether they are of CPU time, all threads together, which does not depend on what else the machine
                does. An item that waits is ended by the clock, after :data:`WALL_FACTOR` times as many seconds. For
                what computes in the worker itself, not in a program that it starts.
            on_report: called from time to time with an item's index and what ``function`` last passed to
                :func:`dpcdvae.parallel.report`; not called on a cluster.

        Raises:
            Exception: what ``function`` raised, first come first; the rest of the work is dropped.
        """

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, time_limit: float, description: str
    ) -> list[Result | Lost]:
        """``[function(item) for item in items]``, with a progress bar and a limit of CPU time; see :meth:`stream`."""
        results: list[Any] = [None] * len(items)
        stream = self.stream(function, items, time_limit=time_limit, cpu=True)
        with closing(stream), Progress(description, len(items)) as bar:
            for index, result in stream:
                results[index] = result
                bar.advance()
        return results

    @abstractmethod
    def close(self) -> None:
        """Ends what the engine started. It can still be used, and starts again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def available_cores() -> int:
    """Cores this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
