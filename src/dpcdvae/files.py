"""Writing without leaving halves: temporary name, then rename. Hashes and manifests."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, misfit, one_line, reason_of


def home() -> Path:
    """Folder of everything cached: ``$DPCDVAE_HOME``, else ``dpcdvae`` in the user's cache folder.

    Raises:
        InputError: the user has no home folder, and no other is named.
    """
    named, cache = os.environ.get("DPCDVAE_HOME"), os.environ.get("XDG_CACHE_HOME")
    try:
        if named:
            return Path(named).expanduser()
        return (Path(cache) if cache else Path.home() / ".cache") / "dpcdvae"
    except RuntimeError as error:  # Python's way to say that there is no home
        raise InputError(f"there is no home folder ({one_line(error)}): set DPCDVAE_HOME to a folder") from None


MANIFEST = ".manifest.json"
"""The end of the name of the manifest beside a file."""

LONGEST_NAME = 225
"""Bytes of the name of an output or a manifest: file systems take 255, and what is written beside it is longer."""


def check_name(path: Path) -> None:
    """Raises InputError for an output without a name, or where a part of its path is too long for a file system."""
    if path.name in ("", ".."):
        raise InputError(f"cannot write '{path}': it has no name of its own: name a file or folder in it")
    for part in path.parts:
        if (length := len(os.fsencode(part))) > LONGEST_NAME:
            raise InputError(
                f"cannot write {part[:40]}...: a name of {length} bytes is too long ({LONGEST_NAME} at most)"
            )


def check_output(path: str | Path, *, overwrite: bool | None = False) -> Path:
    """The output path, after making sure *before any work* that it can be written.

    Args:
        overwrite: True where it may exist, None where it may not and the command has no ``--overwrite``.

    Raises:
        InputError: the path exists (and ``overwrite`` is off) or its folder cannot be written.
    """
    path = Path(path)
    check_name(beside(path) if path.name else path)
    if path.name and beside(path).is_dir():
        raise InputError(f"cannot write {path}: its manifest {beside(path)} would replace a folder")
    if path.exists() and not overwrite:
        instead = " or remove it" if overwrite is None else ", remove it, or add --overwrite"
        raise InputError(f"{path} exists: give another name{instead}")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"cannot write {path}: it is a device or a pipe")
    if path.exists() and os.path.ismount(path):
        raise InputError(f"cannot write {path}: it cannot be replaced as a whole; name something below it")
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise InputError(f"cannot write {path}: {parent} is not a folder")
    if not os.access(parent, os.W_OK):
        raise InputError(f"cannot write {path}: no permission to write in {parent}")
    try:  # to root every folder looks writable: those of /proc, and of what is mounted to be read only
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: nothing can be written in {parent}: {error.strerror}") from None
    return path


def missing_folders(path: Path) -> list[Path]:
    """The folders above a path that are not there, the innermost first."""
    return [folder for folder in path.parents if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders, the innermost first, up to one that is not empty: those that were made for what then failed."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling path to fill (a file or a folder); renamed onto ``path`` on success.

    On any exception, Ctrl-C included, the temporary is removed, and so are the folders made for it; ``path`` is what
    it was before.
    The temporary keeps the suffix of ``path``, as writers choose the format by it. It is on the disk before it is
    renamed, so that not even a power cut leaves an empty file under the name.
    """
    path = Path(path)
    check_name(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    made: list[Path] = []
    try:
        made = missing_folders(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        if path.is_dir() and temporary.is_dir():
            # A folder cannot be renamed onto a folder that is not empty: swap, then remove.
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            path.rename(old)
            try:
                temporary.rename(path)
            finally:
                if not path.exists():
                    old.rename(path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
        _flush_one(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # on what cannot be written there is none
                temporary.unlink(missing_ok=True)
        remove_empty(made)


MANY = 64
"""Files of a folder from which on one flush of all file systems (0.4 s) beats one of each file (5 ms)."""


def _flush(path: Path) -> None:
    """Puts a file, or all that is in a folder, on the disk."""
    inside = list(path.rglob("*")) if path.is_dir() else []
    if len(inside) > MANY:
        os.sync()
        return
    for part in (*inside, path):
        _flush_one(part)


def _flush_one(path: Path) -> None:
    stream = os.open(path, os.O_RDONLY)
    try:
        os.fsync(stream)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP):  # it cannot be flushed
            raise
    finally:
        os.close(stream)


def refuse_device(path: Path) -> None:
    """Raises InputError for a pipe or a device: reading it could wait for ever, or never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: a pipe or a device, not a file")


def read_whole(path: Path) -> bytes:
    """The bytes of a file that somebody names; raises OSError, and InputError as :func:`refuse_device`."""
    refuse_device(path)
    return path.read_bytes()


def json_object(file: Path, instead: str) -> dict[str, Any]:
    """The JSON object in a file; raises InputError, with what to do ``instead``, where there is none."""
    refuse_device(file)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged, it is not JSON or cut off ({one_line(error)}): {instead}") from None
    if not isinstance(value, dict):
        raise InputError(f"{file} is damaged, it holds no JSON object: {instead}")
    return value


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Raises InputError, with ``what`` the file is, where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(read_whole(path).decode())
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{what} {error}") from None
    except Exception as error:  # no TOML, no text, too deep, numbers without an end
        raise InputError(f"{what} {path} is not TOML: {one_line(error)[:200]}") from None


def complaint(error: Exception) -> str:
    """What a reader has against a file, in one line."""
    from pydantic import ValidationError

    return misfit(error) if isinstance(error, ValidationError) else reason_of(error)


def write_text(path: str | Path, text: str) -> None:
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def sha256(path: str | Path) -> str:
    """Hex digest of a file, or of every file of a folder in the order of their names.

    A file of a folder that cannot be read, or is gone by then, stands in its digest as that.

    Raises:
        InputError: a pipe or a device.
    """
    path = Path(path)
    refuse_device(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            try:
                content = sha256(file)
            except OSError:
                content = "unreadable"
            digest.update(f"{file.relative_to(path)}\0{content}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def work_folder(output: Path) -> Path:
    """The folder beside an output that keeps finished work until the output is complete.

    Raises:
        InputError: its name would be too long.
    """
    check_name(output)
    return output.parent / f"{output.name}.work"


NOT_SHAPING = ("model", "workers", "scheduler")
"""Arguments in a manifest that do not shape the crystals; the model is identified by its hash."""


def manifest_path(output: str | Path) -> Path:
    """Where the manifest of an output lies: inside a folder, beside a file."""
    output = Path(output)
    return output / "manifest.json" if output.is_dir() else beside(output)


def beside(file: Path) -> Path:
    """Where the manifest of an output lies that is a file."""
    return file.with_name(file.name + MANIFEST)


def manifest_text(command: str, arguments: Mapping[str, Any], **facts: Any) -> str:
    """How an output was made: version, command, arguments, seed, hashes, counts."""
    from dpcdvae import __version__

    return json_text(
        {
            "dpcdvae": __version__,
            "python": sys.version.split()[0],
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command,
            "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()},
            **facts,
        }
    )


def write_manifest(output: str | Path, command: str, arguments: Mapping[str, Any], **facts: Any) -> None:
    write_text(manifest_path(output), manifest_text(command, arguments, **facts))
