"""Results on disk: one for each crystal, complete or absent, whenever the process is killed.

An SQLite database with a row per result, committed as it comes. Only the process that began the campaign
writes, so that it may lie on any file system that has locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from dpcdvae.crystal import Crystal
from dpcdvae.errors import InputError

FORMAT = 1
DATABASE = "results.sqlite"


class Store:
    """The results of one campaign in a folder, locked while it is open.

    Args:
        folder: made if it is not there.
        settings: all that shapes the results, as plain values.

    Raises:
        InputError: another process is at it, it was begun with other settings, or it cannot be written. The lock
            goes with the process that holds it, however that ends.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / DATABASE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder)
        except OSError as error:
            raise InputError(f"cannot write {self.folder}: {error.strerror or error}: give another --work") from error
        try:
            with self._one_line():
                self._database = sqlite3.connect(self.path)
                self._begin(dict(settings))
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, settings: dict[str, Any]) -> None:
        with self._database:  # one transaction: all of this or nothing
            self._database.execute("CREATE TABLE IF NOT EXISTS campaign (format INTEGER, settings TEXT)")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, id TEXT, converged INTEGER, record TEXT)"
            )
            row = self._database.execute("SELECT format, settings FROM campaign").fetchone()
            if row is None:
                self._database.execute("INSERT INTO campaign VALUES (?, ?)", (FORMAT, _text(settings)))
        if row is None:
            return
        if row[0] != FORMAT:
            raise InputError(f"{self.path} is of format {row[0]}, {FORMAT} is needed: use another --work")
        before = json.loads(row[1])
        for name in sorted({*before, *settings}):
            if before.get(name) != (now := json.loads(_text(settings)).get(name)):
                raise InputError(
                    f"{self.folder} was begun with {name} {before.get(name)!r}, not {now!r}: go on with the same "
                    "settings, or use another --work"
                )

    def keys(self) -> set[str]:
        """Of the crystals whose results are there."""
        with self._one_line():
            return {row[0] for row in self._database.execute("SELECT key FROM results")}

    def add(self, key: str, id: str, converged: bool, record: Mapping[str, Any]) -> None:
        """Keeps a result, for good when this returns. The first result of a crystal stays."""
        with self._one_line(), self._database:
            self._database.execute(
                "INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?)", (key, id, converged, _text(record))
            )

    def get(self, key: str) -> dict[str, Any]:
        with self._one_line():
            row = self._database.execute("SELECT record FROM results WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0])

    def forget_unconverged(self) -> None:
        """Removes what did not converge, so that it is tried again."""
        with self._one_line(), self._database:
            self._database.execute("DELETE FROM results WHERE NOT converged")

    def close(self) -> None:
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
            raise InputError(f"cannot use {self.path}: {error}") from error


def crystal_key(crystal: Crystal, start: Crystal | None = None) -> str:
    """Content hash of a crystal, and of where its relaxation starts if that is elsewhere. The id does not matter."""
    digest = hashlib.sha256()
    for part in (crystal, start):
        if part is not None:
            for array in (part.atomic_numbers, part.lattice, part.frac_coords):
                digest.update(array.tobytes())
    return digest.hexdigest()


def _lock(folder: Path) -> IO[str]:
    """Raises InputError where a living process holds it."""
    stream = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read().strip() or "another process"
        stream.close()
        raise InputError(f"{folder} is in use by {holder}: wait for it, or use another --work") from None
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}")
    stream.flush()
    return stream


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
