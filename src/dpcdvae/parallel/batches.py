"""Which items travel together to a cluster, and how often those are tried that did not come back."""

from __future__ import annotations

import math
from collections import Counter, deque

BATCH_SECONDS = 2.0
"""Batches grow until they take about so long: next to that, what dask needs for one is nothing."""

MOST_IN_BATCH = 512
AHEAD = 2
"""Batches handed over for each thread of the cluster: one at work, one to go on with."""

TRIES = 3
"""Of a batch as it is, if its results do not arrive; after that its items are tried apart."""


class Batches:
    """Few items together at first, then as many as take :data:`BATCH_SECONDS`, at the end few again."""

    def __init__(self, items: int) -> None:
        self.size = 1
        self._waiting = deque(range(items))
        self._again: deque[list[int]] = deque()
        self._suspects: deque[int] = deque()
        self._tried_alone: set[int] = set()
        self._missed: Counter[int] = Counter()

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

    def again(self, indices: list[int]) -> bool:
        """After results that did not arrive: as before, :data:`TRIES` times in all, then apart. False after that."""
        self._missed.update(indices)
        if max(self._missed[index] for index in indices) >= TRIES:
            return self.again_apart(indices)
        self._again.append(indices)
        return True

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
