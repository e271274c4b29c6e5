"""The bytes behind a path: a file, plain or gzipped, or every file of a folder or zip archive."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from dpcdvae.errors import InputError

MAX_BYTES = 2**31  # of one file, unpacked; the largest data set in use has about 0.1 GB


@dataclass(frozen=True)
class Source:
    """One file: where it stands (for messages), its name without ``.gz``, and how to get its content."""

    where: str
    name: str
    load: Callable[[], bytes]

    @property
    def stem(self) -> str:
        return PurePath(self.name).stem


def files_at(path: Path) -> Iterator[Source]:
    """The files at ``path``, in natural order of their names (``a-2`` before ``a-10``).

    Hidden files and manifests in a folder or archive are passed over.

    Raises:
        InputError: no such path, or a broken archive.
    """
    if path.is_dir():
        for file in sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: _natural(str(p))):
            if _is_wanted(file.relative_to(path)):
                yield from files_at(file)
    elif path.suffix.lower() == ".zip":
        yield from _archived(path)
    elif path.exists():
        yield Source(str(path), _plain_name(path.name), lambda: _read(path))
    else:
        raise InputError(f"no such file or folder: {path}")


def _archived(path: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir() and _is_wanted(PurePath(e.filename))]
            for entry in sorted(entries, key=lambda e: _natural(e.filename)):
                where = f"{path}:{entry.filename}"

                def load(entry: zipfile.ZipInfo = entry, where: str = where) -> bytes:
                    try:
                        with archive.open(entry) as stream:
                            return _unpacked(stream.read(MAX_BYTES + 1), entry.filename)
                    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                        raise InputError(f"cannot be unpacked ({error})") from error

                yield Source(where, _plain_name(PurePath(entry.filename).name), load)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: not a zip archive, or cut off ({error})") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return _unpacked(stream.read(MAX_BYTES + 1), path.name)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error


def _unpacked(data: bytes, name: str) -> bytes:
    if name.lower().endswith(".gz"):
        try:
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"not a gzip file, or cut off ({error})") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES / 2**30:.0f} GiB: split it")
    if not data.strip():
        raise InputError("the file is empty")
    return data


def decode(data: bytes) -> str:
    """Text of a file. Raises InputError if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not a text file in UTF-8 (byte {error.start}): save it as UTF-8") from None


def _plain_name(name: str) -> str:
    return name[:-3] if name.lower().endswith(".gz") else name


def _is_wanted(path: PurePath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.name != "manifest.json" and not path.name.endswith(".manifest.json")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
