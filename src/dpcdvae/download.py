"""The bytes behind an address: whole, bounded, and asked for again where the connection breaks."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from dpcdvae.errors import InputError, one_line
from dpcdvae.progress import Progress

ATTEMPTS = 3
PAUSE = 1.0  # seconds before the second attempt, doubled before the third
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 16


def download(
    url: str, name: str, *, most: int, check: Callable[[str], None], timeout: float = TIMEOUT, instead: str = ""
) -> bytes:
    """All bytes of ``url``; nothing is kept of a part.

    Args:
        name: what is fetched, for the progress bar.
        most: bytes; more are refused, at the latest when they have arrived.
        check: raises InputError for an address that must not be asked; it sees ``url`` and every redirect.
        timeout: seconds without a byte.
        instead: what to do where the address cannot be fetched, for the message.

    Raises:
        InputError: no connection, refused, not found, cut off (each after three attempts unless the server says that
            it is no use), or too many bytes.
    """
    check(url)
    opener = urllib.request.build_opener(_redirects(check))
    for attempt in range(ATTEMPTS):
        try:
            return _read(opener, url, name, most, timeout)
        except InputError:
            raise
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code < 500:
                break
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = one_line(getattr(error, "reason", error)) or type(error).__name__
        if attempt + 1 < ATTEMPTS:
            time.sleep(PAUSE * 2**attempt)
    raise InputError(f"cannot fetch {url}: {reason}{f'; {instead}' if instead else ''}")


def _redirects(check: Callable[[str], None]) -> urllib.request.HTTPRedirectHandler:
    """Follows a redirect only to an address that would be asked itself; urllib follows none to a file."""

    class Checked(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
            check(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return Checked()


def _read(opener: urllib.request.OpenerDirector, url: str, name: str, most: int, timeout: float) -> bytes:
    data = bytearray()
    with opener.open(url, timeout=timeout) as response:
        length = int(response.headers.get("Content-Length") or 0)
        if length > most:
            raise InputError(f"{url} has {length} bytes, more than are fetched ({most})")
        with Progress(f"fetching {name}", length or None) as bar:
            while block := response.read(BLOCK):
                data += block
                bar.advance(len(block))
                if len(data) > most:
                    raise InputError(f"{url} has more bytes than are fetched ({most})")
    if len(data) < length:
        raise ConnectionError(f"cut off after {len(data)} of {length} bytes")
    return bytes(data)
