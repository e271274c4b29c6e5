"""Models fetched over a real connection to a server on this machine, and everything that can go wrong with it."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dpcdvae import download, model_store
from dpcdvae.cli import main
from dpcdvae.errors import InputError
from dpcdvae.evaluation import resolve_reference
from dpcdvae.model_fetch import check_address, get_model
from dpcdvae.model_store import BUNDLED, fetched_folder, fetched_models, find_model

BUNDLED_FILES = {path.name: path.read_bytes() for path in (BUNDLED / "perov-5-energy").iterdir()}


def packed(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


GOOD = packed({f"oxides/{name}": content for name, content in BUNDLED_FILES.items()})


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how the server behaves."""

    def do_GET(self) -> None:
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", {"ftp": "ftp://localhost/x", "file": "file:///etc/hostname"}[self.path[6:]])
            self.end_headers()
            return
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(10**12 if self.path.startswith("/huge") else len(GOOD)))
        self.end_headers()
        self.wfile.write(GOOD[:1000] if self.path.startswith("/cut") else GOOD)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "PAUSE", 0.01)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_fetched_model_is_known_by_its_name_everywhere(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "get", f"{server}/oxides.zip", "--sha256", digest(GOOD)]) == 0
    assert fetched_models() == ["oxides"]
    assert find_model("oxides").sha256 == find_model("perov-5-energy").sha256
    assert resolve_reference("oxides").count == resolve_reference("perov-5-energy").count
    capsys.readouterr()
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "oxides" in listed
    assert "predicts heat_ref" in listed
    # It is here: no second request, which would fail.
    assert get_model("https://localhost:1/oxides.zip", checksum=digest(GOOD)).name == "oxides"
    with pytest.raises(InputError, match="another model of this name"):
        get_model("https://localhost:1/oxides.zip", checksum="0" * 64)


def test_a_card_of_any_content_is_listed_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = {
        "summary": "good\x1b[2J",
        "dataset": {"name": ["x"], "crystals": 3},
        "training_statistics": {"num_atoms": {"many": 1, "2": 1, "9" * 5000: 1}},
        "elements": [None, {"a": 1}],
        "errors": {"val": {"mae": "small"}, "test": 3},
    }
    data = packed({**BUNDLED_FILES, "card.json": json.dumps(card).encode()})
    (tmp_path / "odd.zip").write_bytes(data)
    get_model((tmp_path / "odd.zip").as_uri(), checksum=digest(data))
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "2 atoms" in out
    assert "\x1b" not in out


def test_bundled_models_are_found_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise InputError("no home folder")

    monkeypatch.setattr(model_store, "home", homeless)
    assert fetched_models() == []
    assert find_model("perov-5-energy").name == "perov-5-energy"


def test_a_name_of_the_index_stands_for_address_and_checksum(server: str, tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"oxides-2": {"url": f"{server}/any.zip", "sha256": digest(GOOD)}}))
    assert get_model("oxides-2", index=index).name == "oxides-2"
    with pytest.raises(InputError, match="did you mean 'oxides-2'"):
        get_model("oxides-3", index=index)


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        ("cut.zip", [], "cut off after 1000 of"),
        ("huge.zip", [], "more than are fetched"),
        ("missing.zip", [], "the server answers 404"),
        ("oxides.zip", ["--sha256", "0" * 64], "other bytes than expected"),
        ("oxides.zip", ["--sha256", "12"], "64 hexadecimal digits"),
        ("oxides.zip", ["--name", "perov-5-compact"], "comes with the package"),
        ("oxides.zip", ["--name", "../out"], "cannot be the name"),
        ("away/ftp", [], "only https and file"),
        ("away/file", [], "is not allowed"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    server: str, path: str, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["models", "get", f"{server}/{path}", "--sha256", digest(GOOD), *more]
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert says in said[-1]
    assert len(said) == 1
    assert not list(fetched_folder().glob("*"))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"../config.json": b"{}"}, "no file of an exported model"),
        ({"/config.json": b"{}"}, "no file of an exported model"),
        ({"a/b/config.json": b"{}"}, "no file of an exported model"),
        ({**BUNDLED_FILES, "setup.py": b"1"}, "no file of an exported model"),
        ({"config.json": b"{}"}, "lacks card.json, model.safetensors"),
        ({**BUNDLED_FILES, "model.safetensors": b"0"}, "not of the same model"),
        ({**BUNDLED_FILES, "config.json": b"[]"}, r"x.zip: config.json"),
        ({**BUNDLED_FILES, "config.json": b"/etc/passwd"}, r"x.zip: config.json is not JSON"),
        ({**BUNDLED_FILES, "config.json": b'{"format": 99}'}, r"x.zip: config.json has format 99, written by a newer"),
        ({**BUNDLED_FILES, "card.json": b'{"a": NaN}'}, r"x.zip: card.json"),
        ({**BUNDLED_FILES, "card.json": b"[" * 9999}, r"x.zip: card.json"),
        (None, "no zip archive"),
    ],
)
def test_an_archive_of_anything_else_is_refused(files: dict[str, bytes] | None, says: str, tmp_path: Path) -> None:
    data = b"no archive" if files is None else packed(files)
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(InputError, match=says):
        get_model((tmp_path / "x.zip").as_uri(), checksum=digest(data))
    assert not fetched_folder().exists()


def test_a_hub_that_is_down_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot fetch"):
        get_model("http://127.0.0.1:9/oxides.zip", checksum="0" * 64)


@pytest.mark.parametrize("url", ["http://example.org/a.zip", "ftp://example.org/a.zip", "https://[x/a.zip"])
def test_only_safe_addresses_are_asked(url: str) -> None:
    with pytest.raises(InputError):
        check_address(url)


def test_a_name_where_the_index_is_empty_offers_no_choice(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(InputError, match="unknown model of the index 'oxides': there are none; or give an address"):
        get_model("oxides", index=tmp_path / "index.json")
