"""Fetching over a real connection to a server on this machine, and everything that can go wrong with it."""

from __future__ import annotations

import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpcdvae import download
from dpcdvae.datasets.fetch import fetch, git_blob
from dpcdvae.errors import InputError

CONTENT = b"material_id,cif\n" + bytes(range(256)) * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """The name of the file says how the server behaves; ``requests`` counts."""

    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        if self.path.startswith("/overloaded") and self.requests < 3:
            self.send_error(503)
            return
        self.send_response(200)
        if not self.path.startswith("/nolength"):
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path.startswith("/cut"):
            self.wfile.write(CONTENT[:1000])
        elif self.path.startswith("/corrupt"):
            self.wfile.write(CONTENT[:-1] + b"!")
        elif self.path.startswith("/hang"):
            threading.Event().wait(3)
        else:
            self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.01)


@pytest.fixture
def server() -> Iterator[str]:
    Handler.requests = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def get(url: str, path: Path, timeout: float = 5.0) -> None:
    fetch(url, path, git_blob(CONTENT), timeout=timeout)


def test_the_checksum_is_git_s_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    by_git = subprocess.run(["git", "hash-object", tmp_path / "file"], capture_output=True, text=True, check=True)
    assert git_blob(CONTENT) == by_git.stdout.strip()
    assert git_blob(b"") == hashlib.sha1(b"blob 0\0").hexdigest()


@pytest.mark.parametrize("name", ["good", "nolength"])
def test_a_file_arrives_whole_and_is_fetched_once(server: str, tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "train.csv"
    get(f"{server}/{name}", path)
    get(f"{server}/{name}", path)
    assert path.read_bytes() == CONTENT
    assert Handler.requests == 1


def test_a_file_spoilt_on_disk_is_fetched_again(server: str, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b"half")
    get(f"{server}/good", path)
    assert path.read_bytes() == CONTENT


def test_an_overloaded_server_is_asked_again(server: str, tmp_path: Path) -> None:
    get(f"{server}/overloaded", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "reason", "requests"),
    [
        ("missing", "the server answers 404", 1),
        ("corrupt", "is not the published file", 1),
        ("cut", "cut off after 1000 of 256016 bytes", 3),
        ("hang", "timed out", 3),
    ],
)
def test_failures_are_named_and_leave_nothing(
    server: str, tmp_path: Path, name: str, reason: str, requests: int
) -> None:
    with pytest.raises(InputError, match=reason):
        get(f"{server}/{name}", tmp_path / "x", timeout=0.3)
    assert Handler.requests == requests
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot fetch http.*refused.*--from DIR"):
        get("http://127.0.0.1:9/x", tmp_path / "x")
