"""Results on disk: one for each crystal, complete or absent, whenever the process is killed.

An SQLite database with a row per result, committed as it comes; where they come faster than the disk is, some
together, a moment later. Only the process that began the campaign writes, so that it may lie on any file system that
has locks.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dpcdvae.errors import InputError
from dpcdvae.files import lock

FORMAT = 1
DATABASE = "results.sqlite"
GROWING = "max_steps"
"""The setting that may be larger where what did not converge is tried again: what did had no need of it."""

PAUSE = 10
"""Times as long as the last commit took, until the next one: a tenth of the time at most goes into them."""
LONGEST_PAUSE = 1.0  # seconds


class Store:
    """The results of one campaign in a folder, locked while it is open.

    Args:
        folder: made if it is not there.
        settings: all that shapes the results, as plain values.
        retry: forget what did not converge, so that it is tried again, be it with a larger ``max_steps``.

    Raises:
        InputError: another process is at it, it was begun with other settings, or it cannot be written. The lock
            goes with the process that holds it, however that ends.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], *, retry: bool = False) -> None:
        self.folder = Path(folder)
        self.path = self.folder / DATABASE
        self._mutex = threading.Lock()  # a timer commits too
        self._timer: threading.Timer | None = None
        self._failure: sqlite3.DatabaseError | None = None
        self._next_commit = 0.0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.folder, "wait for it, or use another --work")
        except OSError as error:
            why = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
            raise InputError(f"cannot write {self.folder}: {why}: give another --work") from error
        try:
            with self._one_line():
                self._database = sqlite3.connect(self.path, check_same_thread=False)
                self._begin(json.loads(_text(dict(settings))), retry)
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, settings: dict[str, Any], retry: bool) -> None:
        with self._database:  # one transaction: all of this or nothing
            self._database.execute("CREATE TABLE IF NOT EXISTS campaign (format INTEGER, settings TEXT)")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, id TEXT, converged INTEGER, record TEXT)"
            )
            row = self._database.execute("SELECT format, settings FROM campaign").fetchone()
            if row is None:
                self._database.execute("INSERT INTO campaign VALUES (?, ?)", (FORMAT, _text(settings)))
                return
            if row[0] != FORMAT:
                raise InputError(f"{self.path} is of format {row[0]}, {FORMAT} is needed: use another --work")
            self._check(self._parsed(row[1]), settings, retry)
            if retry:
                self._database.execute("UPDATE campaign SET settings = ?", (_text(settings),))
                self._database.execute("DELETE FROM results WHERE NOT converged")

    def _check(self, before: dict[str, Any], settings: dict[str, Any], retry: bool) -> None:
        for name in sorted({*before, *settings}):
            was, now = before.get(name), settings.get(name)
            more = name == GROWING and was is not None and now is not None and now > was
            if was != now and not (more and retry):
                hint = ", add --retry" * more
                raise InputError(
                    f"{self.folder} was begun with {name} {was!r}, not {now!r}: go on with the same settings{hint}, or "
                    "use another --work"
                )

    def keys(self) -> set[str]:
        """Of the crystals whose results are there."""
        with self._mutex, self._one_line():
            return {row[0] for row in self._database.execute("SELECT key FROM results")}

    def add(self, key: str, id: str, converged: bool, record: Mapping[str, Any]) -> None:
        """Keeps a result, for good within ``PAUSE`` times as long as the disk takes. The first of a crystal stays."""
        with self._mutex, self._one_line():
            if self._failure is not None:
                raise self._failure
            self._database.execute(
                "INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?)", (key, id, converged, _text(record))
            )
            wait = self._next_commit - time.monotonic()
            if wait <= 0:
                self._commit()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._commit_later)
                self._timer.daemon = True
                self._timer.start()

    def _commit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        began = time.monotonic()
        self._database.commit()
        now = time.monotonic()
        self._next_commit = now + min(PAUSE * (now - began), LONGEST_PAUSE)

    def _commit_later(self) -> None:
        with self._mutex:
            if self._timer is not threading.current_thread():  # it was done while this one waited
                return
            try:
                self._commit()
            except sqlite3.DatabaseError as error:  # told where the next result is added
                self._failure = error

    def get(self, key: str) -> dict[str, Any]:
        with self._mutex, self._one_line():
            row = self._database.execute("SELECT record FROM results WHERE key = ?", (key,)).fetchone()
        return self._parsed(row[0])

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            return json.loads(text)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path} is damaged: {error}: use another --work") from None

    def close(self) -> None:
        try:
            with self._mutex, self._one_line():
                self._commit()
        finally:
            self._database.close()
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:  # a full disk, a file that is none or damaged
            full = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR"))
            advice = "make room and start again; what was kept stays" if full else "use another --work"
            raise InputError(f"cannot use {self.path}: {error}: {advice}") from error


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
