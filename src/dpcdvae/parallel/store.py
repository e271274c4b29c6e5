"""The one store for work that may be killed: results by key, one line of text with its checksum each.

A cache of results (:mod:`dpcdvae.parallel.results`) is a few files of records to which any process appends. A run that
goes on after a kill (relaxation, batches of crystals, a comparison of presets) is a :class:`Store`: a folder with one
such file, the settings that must agree, and a lock for the process that writes.

Why neither a database nor a file for each result: the hardest place is a folder on a network file system, where each
change of a folder, each lock and each flush is a round trip to a server. Here a result takes one system call that
changes anything (``write``). A file under a temporary name, renamed, takes four changes of the folder. An SQLite
transaction takes 14 writes, 9 locks, 4 flushes and a journal made and removed, and where locks do not work two writers
can spoil the database. Here a lock only saves work: two writers can damage a line, its checksum shows it, and that
result is made again.

Measured (records of 1.5 kB, local disk, two cores busy with other work; writing includes making the JSON):

============================  =============  =============  =============  =============
results a second              10^4, written  10^4, read     10^5, written  10^5, read
============================  =============  =============  =============  =============
this module                   4900           15 000         4800           18 000
a file for each result        2300           8100           800 (10^4)     9100 (10^4)
SQLite, a commit for each     104            13 000         85             14 000
============================  =============  =============  =============  =============

10^5 results take 154 MB (SQLite 214 MB, files 410 MB), and opening a store of them takes 1.2 s. A kill loses no result
whose :meth:`Store.add` has returned; a power cut may lose those since the last flush (:data:`SYNC`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Self

from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output, missing_folders, remove_empty
from dpcdvae.locks import LOCK, lock

RECORDS = "records.txt"
SETTINGS = "settings"
"""Key of the first record of a :class:`Store`."""

FORMAT = 2
SYNC = 1.0
"""Seconds between two flushes to the disk, at least: flushing after every fast result would take most of the time."""


class Record(NamedTuple):
    """A line of a file of records."""

    key: str
    value: bytes
    place: tuple[int, int]
    """Its first byte and how many it has."""


def scan(path: Path) -> Iterator[Record]:
    """The undamaged records of a file, in the order in which they were written; none where there is no file."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        place = 0
        for line in stream:
            if (parsed := _parsed(line)) is not None:
                yield Record(*parsed, (place, len(line)))
            place += len(line)


def append(stream: FileIO, records: Mapping[str, bytes]) -> None:
    """Writes records at the end of a file opened for that, with one system call where the disk has room.

    They begin with a line break of their own, so that half a line left by a kill or a full disk costs nothing else.

    Args:
        records: by keys without spaces; values without line breaks.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    data = memoryview(b"\n" + b"".join(_line(key.encode(), value) for key, value in records.items()))
    while data:
        data = data[stream.write(data) :]


def _line(key: bytes, value: bytes) -> bytes:
    return b"%b %b %08x\n" % (key, value, zlib.crc32(value, zlib.crc32(key)))


def _parsed(line: bytes) -> tuple[str, bytes] | None:
    """Key and value; None for a line that is damaged, or empty."""
    key, _, rest = line.rstrip(b"\n").partition(b" ")
    value, _, checksum = rest.rpartition(b" ")
    if checksum != b"%08x" % zlib.crc32(value, zlib.crc32(key)):
        return None
    return key.decode(errors="replace"), value


class Store:
    """The results of one run in a folder, by key. One process has it open at a time.

    Args:
        folder: made if it is not there.
        settings: all that shapes the results, as plain values. A run that goes on must have the same.
        instead: what a user can do where the folder cannot be used, for the end of an error's line.
        forget: which of the results that are there are to be made again (``--retry``).
        growing: name of a setting that may become larger where ``forget`` is given.

    Raises:
        InputError: another process has it open, it was begun with other settings or holds something else, or it
            cannot be written. The lock goes with the process that holds it, however that ends.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        *,
        instead: str,
        forget: Callable[[dict[str, Any]], bool] | None = None,
        growing: str = "",
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / RECORDS
        self._instead = instead
        self._synced = time.monotonic()
        with self._one_line():
            if self.folder.is_dir() and not self.path.exists() and any(map(_foreign, self.folder.iterdir())):
                raise InputError(f"{folder} holds other files, or work of an earlier version: {instead}")
            self._made = missing_folders(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.folder, f"wait for it, or {instead}")
            try:
                self._begin(json.loads(_text(settings)), forget, growing)
                self._places = {record.key: record.place for record in scan(self.path) if record.key != SETTINGS}
                self._stream = FileIO(self.path, "a+")
            except BaseException:
                self._lock.close()
                raise

    def _begin(self, settings: dict[str, Any], forget: Callable[[dict[str, Any]], bool] | None, growing: str) -> None:
        kept: Iterator[Record] = iter(())
        if self.path.exists():
            records = scan(self.path)
            first = next(records, None)
            if first is None or first.key != SETTINGS:
                raise InputError(f"{self.path} is damaged: {self._instead}")
            self._check(json.loads(first.value), {"format": FORMAT, **settings}, growing, forget is not None)
            if forget is None:
                return
            kept = (record for record in records if not forget(json.loads(record.value)))
        # In a new file that takes the old one's place: the settings and what is kept change at once or not at all.
        with atomic_output(self.path) as temporary, temporary.open("wb") as stream:
            stream.write(_line(SETTINGS.encode(), _text({"format": FORMAT, **settings}).encode()))
            stream.writelines(_line(record.key.encode(), record.value) for record in kept)
            stream.flush()
            os.fsync(stream.fileno())

    def _check(self, before: dict[str, Any], now: dict[str, Any], growing: str, retry: bool) -> None:
        more = growing in before and growing in now and now[growing] > before[growing]
        if more and retry:
            before = {**before, growing: now[growing]}
        if (difference := _difference(before, now)) is not None:
            hint = ", add --retry" if more else ""
            raise InputError(
                f"{self.folder} was begun with {difference}: go on with the same settings{hint}, or {self._instead}"
            )

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        """The keys of the results that are there."""
        return iter(self._places)

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Keeps a result; no kill of this process can lose it once this returns. The last one of a key counts."""
        with self._one_line():
            before = os.fstat(self._stream.fileno()).st_size
            append(self._stream, {key: _text(record).encode()})
            self._places[key] = before + 1, self._stream.tell() - before - 1
            if time.monotonic() - self._synced > SYNC:
                self._sync()

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())  # a network file system says only here that it is full
        self._synced = time.monotonic()

    def get(self, key: str) -> dict[str, Any]:
        """A result as it was added. Raises InputError if it has been damaged since."""
        place, length = self._places[key]
        with self._one_line():
            parsed = _parsed(os.pread(self._stream.fileno(), length, place))
        if parsed is None or parsed[0] != key:
            raise InputError(f"{self.path} was damaged while it was in use: give the command again")
        record: dict[str, Any] = json.loads(parsed[1])
        return record

    def remove(self) -> None:
        """Removes the folder: all of it at once, or nothing."""
        with self._one_line():
            gone = self.folder.rename(self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex[:8]}"))
        shutil.rmtree(gone, ignore_errors=True)
        remove_empty(self._made)

    def close(self) -> None:
        try:
            with self._one_line(), self._stream:
                self._sync()
        finally:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "make room and start again; what was kept stays" if full else self._instead
            why = "it is not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
            raise InputError(f"cannot write {self.folder}: {why or error}: {advice}") from error


def _foreign(path: Path) -> bool:
    return path.name not in (RECORDS, LOCK) and not path.name.startswith(".")


def _difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first setting in which two nested dictionaries differ, with both values; None where they are the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else key
            if key not in before or key not in now:
                old, new = (repr(d[key]) if key in d else "unset" for d in (before, now))
                return f"{inner} {old}, not {new}"
            if (difference := _difference(before[key], now[key], inner)) is not None:
                return difference
        return None
    return None if before == now else f"{name} {before!r}, not {now!r}"


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, allow_nan=False)
