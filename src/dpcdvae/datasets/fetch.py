"""Fetching a file once, whole, and checked against its checksum."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output
from dpcdvae.progress import Progress

ATTEMPTS = 3
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 16


def git_blob(data: bytes) -> str:
    """SHA-1 by which git, and so the page of a public repository, names a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def fetch(url: str, path: Path, blob: str, *, timeout: float = TIMEOUT, pause: float = 1.0) -> None:
    """Fetches ``url`` to ``path`` unless it is there already; the file appears only when it is whole and right.

    Args:
        blob: :func:`git_blob` of the content. timeout: seconds without a byte. pause: seconds before
            the second attempt, doubled before the third.

    Raises:
        InputError: no connection, refused, not found, cut off (after three attempts), or other content.
    """
    if path.is_file() and git_blob(path.read_bytes()) == blob:
        return
    for attempt in range(ATTEMPTS):
        try:
            _download(url, path, blob, timeout)
            return
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code < 500:
                break
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt + 1 < ATTEMPTS:
            time.sleep(pause * 2**attempt)
    raise InputError(f"cannot fetch {url}: {reason}; get the files by other means and use --from DIR")


def _download(url: str, path: Path, blob: str, timeout: float) -> None:
    # The connection is opened before the output: atomic_output takes every OSError for one of writing.
    with urllib.request.urlopen(url, timeout=timeout) as response:
        length = int(response.headers.get("Content-Length") or 0)
        data = bytearray()
        with Progress(f"fetching {path.name}", length or None) as bar:
            while block := response.read(BLOCK):
                data += block
                bar.advance(len(block))
    if length and len(data) < length:
        raise ConnectionError(f"cut off after {len(data)} of {length} bytes")
    found = git_blob(bytes(data))
    if found != blob:
        raise InputError(
            f"{url} is not the published file (git blob {found[:12]}, not {blob[:12]}): "
            "it was changed there or on the way; use --from DIR to prepare other files"
        )
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)
