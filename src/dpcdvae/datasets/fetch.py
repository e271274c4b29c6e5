"""Fetching a file once, whole, and checked against its checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from dpcdvae.download import TIMEOUT, download
from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output

MOST_BYTES = 1 << 30


def git_blob(data: bytes) -> str:
    """SHA-1 by which git, and so the page of a public repository, names a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def check_address(url: str) -> None:
    """Raises InputError for anything but https and http (a mirror's); the content has a checksum anyway."""
    try:
        known = urlsplit(url).scheme in ("https", "http")
    except ValueError:
        known = False
    if not known:
        raise InputError(f"'{url}' is no address to fetch from: it must start with https:// or http://")


def fetch(url: str, path: Path, blob: str, *, timeout: float = TIMEOUT) -> None:
    """Fetches ``url`` to ``path`` unless it is there already; the file appears only when it is whole and right.

    Args:
        blob: :func:`git_blob` of the content.
        timeout: seconds without a byte.

    Raises:
        InputError: as :func:`~dpcdvae.download.download`, or other content.
    """
    if path.is_file() and git_blob(path.read_bytes()) == blob:
        return
    instead = "get the files by other means and use --from DIR"
    data = download(url, path.name, most=MOST_BYTES, check=check_address, timeout=timeout, instead=instead)
    found = git_blob(data)
    if found != blob:
        raise InputError(
            f"{url} is not the published file (git blob {found[:12]}, not {blob[:12]}): "
            "it was changed there or on the way; use --from DIR to prepare other files"
        )
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)
