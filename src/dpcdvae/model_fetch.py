"""Models fetched once from a hub or an address, checked against a checksum, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import io
import re
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from dpcdvae.download import TIMEOUT, download
from dpcdvae.errors import InputError, one_line, unknown_name
from dpcdvae.files import atomic_output, check_output, refuse_device, sha256, write_json
from dpcdvae.model_store import (
    BUNDLED,
    CARD,
    CONFIG,
    FETCHED,
    WEIGHTS,
    StoredModel,
    bundled_models,
    fetched_folder,
    find_model,
    read_json,
    stored_in,
)

INDEX = BUNDLED / "index.json"
"""Name -> ``url`` and ``sha256`` of the zip archive, for models that do not come with the package."""

MOST_BYTES = 256 * 1024 * 1024
"""Of an archive, and of the files in it together."""

LOCAL = ("localhost", "127.0.0.1", "::1")


def known_models(index: Path = INDEX) -> Mapping[str, Mapping[str, str]]:
    """The models of the index: name -> ``url`` and ``sha256``."""
    return read_json(index)


def get_model(
    source: str, *, checksum: str | None = None, name: str | None = None, index: Path = INDEX, timeout: float = TIMEOUT
) -> StoredModel:
    """Fetches a model, which every command then knows by its name; one that is here already is not fetched again.

    Args:
        source: a name of the index, or the address (https or file; http on this machine only) of a zip archive that
            holds the files of an exported model.
        checksum: SHA-256 of the archive, in hex; needed for an address.
        name: by which the model is known, by default that of the index or of the archive.
        timeout: seconds without a byte.

    Raises:
        InputError: an unknown name, an address of another kind, no connection, more bytes than :data:`MOST_BYTES`,
            other bytes than the checksum's, an archive of something else, a name that is taken.
    """
    url = source
    if "://" not in source:
        known = known_models(index)
        if source not in known:
            if source in bundled_models():
                raise InputError(f"'{source}' comes with the package: it needs no fetching")
            raise InputError(f"{unknown_name('model of the index', source, known)}; or give an address and --sha256")
        url, checksum = known[source]["url"], known[source]["sha256"]
    if checksum is None:
        raise InputError(f"{source}: an address needs --sha256, the checksum of the archive")
    checksum = checksum.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", checksum):
        raise InputError(f"--sha256 {checksum[:80]}: a SHA-256 has 64 hexadecimal digits")
    check_address(url)
    name = name or (source if url != source else PurePosixPath(unquote(urlsplit(url).path)).stem)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError(f"'{name[:80]}' cannot be the name of a model: letters, digits, '.', '-' and '_'; give --name")
    if name in bundled_models():
        raise InputError(f"'{name}' is the name of a model that comes with the package: give another --name")
    folder = fetched_folder() / name
    if folder.exists():
        if read_json(folder / FETCHED).get("sha256") == checksum:
            return find_model(name)
        raise InputError(f"{folder} holds another model of this name: give another --name, or remove it")
    check_output(folder)
    if (parts := urlsplit(url)).scheme == "file":
        refuse_device(Path(urllib.request.url2pathname(parts.path)))  # a pipe could be waited for without an end
    data = download(url, f"model {name}", most=MOST_BYTES, check=check_address, timeout=timeout)
    if (found := hashlib.sha256(data).hexdigest()) != checksum:
        raise InputError(f"{url} has other bytes than expected (SHA-256 {found[:12]}..., not {checksum[:12]}...)")
    files = _files_of(data, url)
    with atomic_output(folder) as temporary:
        temporary.mkdir(parents=True)
        for file, content in files.items():
            (temporary / file).write_bytes(content)
        write_json(temporary / FETCHED, {"url": url, "sha256": checksum})
        try:
            found_model = stored_in(temporary)
            found_model.card()
        except InputError as error:
            raise InputError(f"{url}: {str(error).replace(f'{temporary}/', '')}") from None
        if sha256(temporary / WEIGHTS) != found_model.sha256:
            raise InputError(f"{url}: {WEIGHTS} and {CONFIG} are not of the same model")
    return find_model(name)


def check_address(url: str) -> None:
    """Raises InputError for anything but https, a file, or http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise InputError(f"{url} is no address: {one_line(error)}") from None
    if parts.scheme not in ("https", "file") and not (parts.scheme == "http" and host in LOCAL):
        raise InputError(f"{url}: only https and file are fetched from (http from this machine alone)")


def _files_of(data: bytes, url: str) -> dict[str, bytes]:
    """The files of a model in a zip archive, at its top or all in one folder; nothing else may be in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            paths = [PurePosixPath(entry.filename) for entry in entries]
            for path in paths:
                if (
                    path.is_absolute()
                    or len(path.parts) > 2
                    or ".." in path.parts
                    or path.name not in (WEIGHTS, CONFIG, CARD)
                ):
                    raise InputError(f"{url}: '{str(path)[:80]}' in the archive is no file of an exported model")
            if len({path.parent for path in paths}) != 1 or len(set(paths)) < len(paths):
                raise InputError(f"{url}: the archive does not hold the files of one model")
            if lacking := {WEIGHTS, CONFIG, CARD} - {path.name for path in paths}:
                raise InputError(f"{url}: the archive lacks {', '.join(sorted(lacking))}")
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise InputError(f"{url}: the files in the archive are larger than a model may be ({MOST_BYTES})")
            # ZipExtFile stops at the size that the entry claims, and then compares the checksum.
            return {path.name: archive.read(entry) for path, entry in zip(paths, entries, strict=True)}
    except InputError:
        raise
    except Exception as error:  # damaged, encrypted, of an unknown method: zipfile and zlib raise many kinds
        raise InputError(f"{url} is no zip archive that can be read: {one_line(error)}") from None
