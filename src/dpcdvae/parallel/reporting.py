"""Progress of an item, reported from inside the function that works on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_listener: Callable[[float], None] | None = None


def report(done: float) -> None:
    """How much of the item is done by now, in a unit of the caller's choice: see :meth:`Engine.stream`.

    Nothing happens where nobody listens.
    """
    if _listener is not None:
        _listener(done)


@contextlib.contextmanager
def heard_by(listener: Callable[[float], None] | None) -> Iterator[None]:
    """What is reported in here goes to ``listener``."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before
