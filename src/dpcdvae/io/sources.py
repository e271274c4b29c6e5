"""The bytes behind a path: a file, plain or gzipped, or every file of a folder or zip archive."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO

from dpcdvae.errors import InputError, one_line, printable
from dpcdvae.files import refuse_device

MAX_BYTES = 2**31  # of one file, unpacked; the largest data set in use has about 0.1 GB
MAX_RATIO, ALWAYS_ALLOWED = 100, 2**26
"""A file may unpack to this many times its size (text of crystals: 5 to 30), and to 64 MiB in any case."""


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        path: where it stands, of one in an archive ``archive:path``; as it is, so that no two files share it.
        name: without ``.gz``.
        load: gives its content.
        closed: an archive or a folder in what is read that cannot be opened; ``load`` says why.
    """

    path: str
    name: str
    load: Callable[[], bytes]
    closed: bool = False

    @property
    def where(self) -> str:
        """The path for messages."""
        return printable(self.path)

    @property
    def stem(self) -> str:
        return PurePath(self.name).stem


def files_at(path: Path) -> Iterator[Source]:
    """The files at ``path``, in natural order of their names (``a-2`` before ``a-10``).

    Hidden files and manifests in a folder or archive are passed over. Archives and folders in it that cannot be
    opened come as ``closed`` sources, so that the others are read.

    Raises:
        InputError: no such path, or it is a broken archive itself.
    """
    try:
        yield from _files_at(path)
    except (OSError, ValueError) as error:  # a name too long or with NUL, a folder above that may not be entered
        if isinstance(error, InputError):
            raise
        raise InputError(f"{printable(str(path))[:200]}: cannot be read ({one_line(error)[:200]})") from error


def _files_at(path: Path) -> Iterator[Source]:
    if path.is_dir():
        yield from _files_in(path)
        return
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    refuse_device(path)
    if _is_archive(path.name):
        yield from _archived(path)
    else:
        yield Source(str(path), _plain_name(path.name), lambda: _read(path))


def _files_in(folder: Path) -> Iterator[Source]:
    """Those of a folder and of the folders in it. What is wrong with one of them does not end the reading of others."""
    shut: list[OSError] = []
    files = [Path(above, name) for above, _, names in os.walk(folder, onerror=shut.append) for name in names]
    reasons = {Path(error.filename): error for error in shut}
    if folder in reasons:
        raise reasons[folder]
    for file in sorted([*files, *reasons], key=lambda p: _natural(str(p))):
        if not _is_wanted(file.relative_to(folder)):
            continue
        if file in reasons:
            yield _unreadable(str(file), f"cannot be opened ({reasons[file].strerror})", closed=True)
            continue
        try:
            if file.is_file() or not file.exists():  # no pipe and no device; a link to nothing is reported
                yield from _files_at(file)
        except Exception as error:
            reason = one_line(error).removeprefix(f"{printable(str(file))}: ")
            yield _unreadable(str(file), reason, closed=_is_archive(file.name))


def _unreadable(path: str, reason: str, *, closed: bool) -> Source:
    def load() -> bytes:
        raise InputError(reason)

    return Source(path, _plain_name(PurePath(path).name), load, closed)


def _is_archive(name: str) -> bool:
    return name.lower().endswith(".zip")


def _archived(path: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir() and _is_wanted(PurePath(e.filename))]
            check_claims(archive, path.stat().st_size)
            for entry in sorted(entries, key=lambda e: _natural(e.filename)):
                inside = f"{path}:{entry.filename}"
                if _is_archive(entry.filename):
                    yield _unreadable(inside, "an archive in an archive: unpack it", closed=True)
                    continue

                def load(entry: zipfile.ZipInfo = entry) -> bytes:
                    try:
                        with archive.open(entry) as stream:
                            return _unpacked(read_at_most(stream, entry.file_size), entry.filename)
                    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                        raise InputError(f"cannot be unpacked ({error})") from error

                yield Source(inside, _plain_name(PurePath(entry.filename).name), load)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: not a zip archive, or cut off ({error})") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return _unpacked(read_at_most(stream, MAX_BYTES + 1), path.name)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error


def _unpacked(data: bytes, name: str) -> bytes:
    if name.lower().endswith(".gz"):
        try:
            limit = most_unpacked(len(data))
            with gzip.open(io.BytesIO(data)) as stream:
                data = read_at_most(stream, limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"not a gzip file, or cut off ({error})") from error
        if limit < len(data) <= MAX_BYTES:
            raise InputError(f"unpacks to more than {MAX_RATIO} times its size: not a file of crystals")
    if len(data) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES / 2**30:.0f} GiB: split it")
    if not data.strip():
        raise InputError("the file is empty")
    return data


def read_at_most(stream: IO[bytes] | gzip.GzipFile, limit: int) -> bytes:
    """The content of a stream, cut off at ``limit``. Python's own ``read`` would allocate what is asked for at once."""
    parts, left = [], limit
    while left > 0 and (part := stream.read(min(left, 2**20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def most_unpacked(packed: int) -> int:
    """The most bytes that a file of ``packed`` bytes may unpack to."""
    return min(MAX_BYTES, max(ALWAYS_ALLOWED, MAX_RATIO * packed))


def check_claims(archive: zipfile.ZipFile, size: int) -> None:
    """Raises InputError if the files of an archive of ``size`` bytes would unpack to far more than it holds."""
    claimed = sum(entry.file_size for entry in archive.infolist())
    if claimed > max(ALWAYS_ALLOWED, MAX_RATIO * size) or any(e.file_size > MAX_BYTES for e in archive.infolist()):
        raise InputError(
            f"{archive.filename or 'the file'} would unpack to {claimed / 2**30:.1f} GiB, "
            f"{claimed / max(size, 1):.0f} times its size: refused"
        )


def decode(data: bytes) -> str:
    """Text of a file in UTF-8, UTF-16 (with its mark) or, where it is neither, ISO-8859-1.

    Raises:
        InputError: it holds NUL, so it is no text.
    """
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "iso-8859-1"):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            if "\0" not in text:
                return text
    raise InputError("not a text file: save it as text in UTF-8")


def _plain_name(name: str) -> str:
    return name[:-3] if name.lower().endswith(".gz") else name


def _is_wanted(path: PurePath) -> bool:
    # The folder __MACOSX of a zip holds what macOS adds to it; a file of that name is a crystal's.
    hidden = any(part.startswith(".") for part in path.parts) or "__MACOSX" in path.parts[:-1]
    passed_over = ("manifest.json", "Thumbs.db", "atom_init.json")  # the last: CGCNN's table of elements
    return not hidden and path.name not in passed_over and not path.name.endswith(".manifest.json")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
