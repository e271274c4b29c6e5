"""Phases from the Materials Project: a server on this machine stands in for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlparse

import pytest

from dpcdvae.cli import main
from dpcdvae.evaluation import read_phases
from dpcdvae.evaluation.materials_project import ENDPOINT, KEY

GOOD_KEY = "k" * 32


class Project(BaseHTTPRequestHandler):
    """Answers as ``materials/thermo`` does: documents of the chemical systems asked for."""

    documents: ClassVar[list[Any]] = []
    asked: ClassVar[list[dict[str, list[str]]]] = []

    def do_GET(self) -> None:
        query = parse_qs(urlparse(self.path).query)
        Project.asked.append(query)
        allowed = self.headers["x-api-key"] == GOOD_KEY
        systems = query.get("chemsys", [""])[0].split(",")
        found = [d for d in Project.documents if not isinstance(d, dict) or d.get("chemsys", systems[0]) in systems]
        body = json.dumps({"data": found} if allowed else {"detail": "no"}).encode()
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def document(id: str, formula: str, system: str, energy: Any) -> dict[str, Any]:
    shared = {"thermo_type": "GGA_GGA+U", "@class": "ThermoDoc", "@module": "os"}
    return {"material_id": id, "formula_pretty": formula, "chemsys": system, "energy_per_atom": energy, **shared}


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Project]]:
    server = HTTPServer(("127.0.0.1", 0), Project)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv(KEY, GOOD_KEY)
    Project.asked = []
    Project.documents = [
        document("mp-3", "TiO2", "O-Ti", -9.1),
        document("mp-1", "Ti", "Ti", -7.9),
        document("mp-2", "O2", "O", -4.9),
        document("mp-9", "Sr", "Sr", -1.7),
    ]
    yield Project
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(out: Path, system: str = "Ti-O") -> int:
    return main(["phases", "--chemical-system", system, "--out", str(out)])


def test_the_file_holds_all_phases_of_the_system_and_is_read_as_a_hull(project: type[Project], tmp_path: Path) -> None:
    out = tmp_path / "phases.json"
    assert fetch(out) == 0
    phases = read_phases(out)
    assert [(p.id, p.energy) for p in phases.phases] == [("mp-1", -7.9), ("mp-2", -4.9), ("mp-3", -9.1)]
    assert not phases.missing(["Ti", "O"])
    assert set(project.asked[0]["chemsys"][0].split(",")) == {"O", "O-Ti", "Ti"}
    assert project.asked[0]["thermo_types"] == ["GGA_GGA+U"]
    manifest = (tmp_path / "phases.json.manifest.json").read_text()
    assert GOOD_KEY not in manifest + out.read_text()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", f"set {KEY}"),
        ("short", "no key of the"),
        ("k" * 31 + "\n\u00e9", "no key of the"),
        ("x" * 32, "refuses the key"),
    ],
)
def test_a_bad_key_is_one_line(
    project: type[Project],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
    said: str,
) -> None:
    monkeypatch.setenv(KEY, key)
    assert fetch(tmp_path / "p.json") == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (document("mp-1", "Ti", "Ti", "low"), "energy_per_atom 'low'"),
        (document("mp-1", "Ti", "Ti", None), "no 'energy_per_atom'"),
        (document("mp-1", "Tj(2", "Ti", -7.9), "'Tj(2'"),
        ({"material_id": 3, "formula_pretty": "Ti", "energy_per_atom": -7.9}, "no id"),
        (7, "no id"),
    ],
)
def test_an_answer_that_is_no_phase_is_one_line(
    project: type[Project], tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: Any, said: str
) -> None:
    project.documents = [answer]
    assert fetch(tmp_path / "p.json") == 2
    text = capsys.readouterr().err
    assert "gave what is no phase" in text
    assert said in text
    assert not list(tmp_path.iterdir())


def test_no_network_unknown_elements_and_missing_phases_are_one_line(
    project: type[Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.json"
    assert fetch(out, "Ti-Xx") == 2
    assert "Xx" in capsys.readouterr().err
    assert fetch(out, "Ti-N") == 2
    assert "none of N alone" in capsys.readouterr().err
    assert fetch(out, "--") == 2
    assert "unknown element" in capsys.readouterr().err
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    assert fetch(out) == 2
    text = capsys.readouterr().err
    assert "no answer from the Materials Project (http://127.0.0.1:9/): " in text
    assert "refused" in text
    assert not list(tmp_path.iterdir())
