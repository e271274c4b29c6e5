"""Whatever is in a file, the evaluation ends, in time, with numbers that add up: it never hangs and never dies."""

from __future__ import annotations

import csv
import faulthandler
import json
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystal_files import peer_file
from dpcdvae.cli import main
from dpcdvae.errors import InputError
from dpcdvae.io import Failure, cif_text, read, write
from dpcdvae.prototypes import build_prototypes
from odd_files import WRITERS, Odd, odd_crystals

LIMIT = 240
"""Seconds after which a test that hangs is ended with all that is running; each takes a few."""

SLOW = {"sliver", "needle", "skewed", "tenth", "five hundred", "five hundred of many"}
"""Take seconds to describe or compare: for worker processes, which can be cut off."""


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))


def quick() -> list[Odd]:
    """All kinds but the slow ones, and few of the elements."""
    elements = [f"simple {symbol}" for symbol in ("H", "He", "Cm", "Bk", "Og")]
    return [odd for odd in odd_crystals() if odd.id not in SLOW and (odd.id[:7] != "simple " or odd.id in elements)]


def check(report: dict[str, Any], rows: list[dict[str, str]]) -> None:
    """Every number finite or absent, in its interval, over no more than there is; every crystal in its place."""
    crystals = report["crystals"]
    assert crystals["generated"] == crystals["read"] + len(crystals["failures"]) == len(rows)
    most = max(crystals["generated"], report["reference"]["count"])
    for metric in report["metrics"]:
        name, value, interval, n = (metric[key] for key in ("name", "value", "interval", "n"))
        assert 0 <= n <= most, name
        assert (value is None) == (n == 0), name
        if value is not None:
            low, high = interval if interval is not None else (value, value)
            assert all(map(math.isfinite, (low, value, high))), name
            assert low <= value <= high, name
            assert metric["unit"] or 0 <= value <= 1, name
    assert all(failure["reason"] for failure in crystals["failures"])
    assert all(item["reason"] for item in report["given_up"])
    assert [row["failure"] != "" for row in rows] == [k >= crystals["read"] for k in range(len(rows))]
    for row in rows[: crystals["read"]]:
        valid = row["structurally_valid"] == row["compositionally_valid"] == "true"
        assert valid == (row["invalid_reason"] == ""), row["id"]


def outcome(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        return json.loads((folder / "report.json").read_text()), list(csv.DictReader(file))


def arguments(crystals: Path, reference: Path, folder: Path, **options: object) -> list[str]:
    named = {"reference": reference, "json": folder / "report.json", "table": folder / "table.csv", **options}
    words = [word for name, value in named.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["evaluate", str(crystals), *words, "--overwrite"]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_each_odd_crystal_or_a_reason(name: str, tmp_path: Path) -> None:
    WRITERS[name](odd_crystals(), tmp_path / name)
    failures: list[Failure] = []
    crystals = read(tmp_path / name, failures)
    assert len(crystals) > 130
    assert all(crystal.problem() is None for crystal in crystals)
    assert len({crystal.id for crystal in crystals}) == len(crystals)
    assert len(crystals) + len(failures) >= len(odd_crystals())
    assert all(failure.reason and "\n" not in failure.reason for failure in failures)
    if name in ("odd.csv", "odd.json"):
        assert {odd.id for odd in odd_crystals() if odd.id} <= {item.id for item in (*crystals, *failures)}


def sound_files(folder: Path) -> dict[str, bytes]:
    """A small file of each format, and of each way in which other programs write it."""
    import ase.db
    import pyarrow as pa
    import pyarrow.parquet as pq
    from ase.io import write as ase_write
    from pymatgen.io.cif import CifWriter

    some = [crystal for crystal in build_prototypes() if crystal.num_atoms < 9][::40]
    for name in ("a.cif", "a.csv", "a.csv.gz", "a.extxyz", "a.json", "a.npz", "a.zip"):
        write(some, folder / name)
    write(some[:1], folder / "a.vasp")
    structures = [crystal.to_pymatgen() for crystal in some]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (folder / "symmetric.cif").write_text("\n".join(str(CifWriter(s, symprec=0.01)) for s in structures))
    (folder / "pymatgen.json").write_text(json.dumps([s.as_dict() for s in structures]))
    peer_file(folder / "a.pt", some, setting=Path("a"))
    atoms = [crystal.to_ase() for crystal in some]
    ase_write(folder / "a.traj", atoms)
    with ase.db.connect(folder / "a.db") as database:
        for one in atoms:
            database.write(one, gap=1.0)
    pq.write_table(pa.table({"id": [c.id for c in some], "cif": [cif_text(c) for c in some]}), folder / "a.parquet")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".lock"}


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, bytes changed, a piece removed, repeated or exchanged for something that parsers trip over."""
    a, b = sorted(int(v) for v in rng.integers(0, len(content), 2))
    b = min(b, a + 200)
    match int(rng.integers(6)):
        case 0:
            return content[:a]
        case 1:
            return content[:a] + rng.bytes(int(rng.integers(1, 9))) + content[b:]
        case 2:
            return content[:a] + content[b:]
        case 3:
            return content[:b] + content[a:b] * 50 + content[b:]
        case 4:
            changed = bytearray(content)
            for place in rng.integers(0, len(content), 20):
                changed[place] = int(rng.integers(256))
            return bytes(changed)
    trips = [
        b"nan",
        b"-1",
        b"9" * 400,
        b"1e999",
        b"\0",
        b"\xff\xfe",
        b"'",
        b'"',
        b"{",
        b"[[",
        b"data_",
        b"loop_\n",
        b"None",
    ]
    return content[:a] + trips[int(rng.integers(len(trips)))] + content[a + 1 :]


def test_damaged_files_of_every_format_give_crystals_or_reasons(tmp_path: Path) -> None:
    """Whatever a parser meets, it is a failure of that item or one line about the file."""
    (tmp_path / "sound").mkdir()
    rng = np.random.default_rng(7)
    for name, content in sound_files(tmp_path / "sound").items():
        for _ in range(25):
            (tmp_path / name).write_bytes(damaged(content, rng))
            failures: list[Failure] = []
            said = ""
            try:
                crystals = read(tmp_path / name, failures)
            except InputError as error:
                crystals, said = [], str(error)
            assert crystals or failures or said.startswith(str(tmp_path / name)), name
            assert "\n" not in said
            assert all(crystal.problem() is None and crystal.id.isprintable() for crystal in crystals), name
            assert all(failure.reason.isprintable() and failure.reason for failure in failures), name


def test_a_file_of_everything_against_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    WRITERS["odd.csv"](quick(), tmp_path / "odd.csv")
    assert main(arguments(tmp_path / "odd.csv", tmp_path / "odd.csv", tmp_path, workers=0, baselines="none")) == 0
    assert "Traceback" not in capfd.readouterr().err
    report, rows = outcome(tmp_path)
    check(report, rows)
    assert len(report["crystals"]["failures"]) > 10
    reasons = {row["id"]: row["given_up"] for row in rows}
    assert "0.000 Å apart" in reasons["coincident"]
    assert "no covalent radius of Bk" in reasons["simple Bk"]


@pytest.mark.parametrize("id", ["coincident", "ten thousand, close", "half", "simple Og", "nan coordinate"])
def test_one_odd_crystal_on_either_side(id: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Alone with its trouble: nothing is left of some numbers, or of a reference, which then is refused in one line."""
    everything = {odd.id: odd for odd in odd_crystals()}
    odd, sound = tmp_path / "odd.json", tmp_path / "sound.json"
    WRITERS["odd.json"]([everything[id]], odd)
    WRITERS["odd.json"]([everything["sound"]], sound)
    for crystals, reference in ((odd, sound), (sound, odd)):
        code = main(arguments(crystals, reference, tmp_path, workers=0, baselines="none"))
        error = capfd.readouterr().err
        if id == "nan coordinate":  # it is not even read, and there is no other
            assert (code, error.count("error: ")) == (2, 1)
        else:
            assert (code, "Traceback" in error) == (0, False)
            check(*outcome(tmp_path))


def test_what_takes_too_long_is_ended_and_reported(tmp_path: Path) -> None:
    """The true command, with worker processes: slivers, needles, and five hundred atoms on both sides."""
    slow = [odd for odd in odd_crystals() if odd.id in {"sliver", "needle", "five hundred", "sound"}]
    WRITERS["odd"](slow, tmp_path / "odd")
    done = run(arguments(tmp_path / "odd", tmp_path / "odd", tmp_path, workers=2, time_limit=0.5, baselines="none"))
    assert done.returncode == 0, done.stderr
    report, rows = outcome(tmp_path)
    check(report, rows)
    assert {failure["id"] for failure in report["crystals"]["failures"]} == {"empty", "noise", "partial"}
    assert any(item["reason"].startswith("no result after 0.5 s") for item in report["given_up"])
    assert any("no result after 0.5 s" in row["given_up"] for row in rows)


def test_nothing_but_noise_is_refused_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    WRITERS["odd.json"](quick()[:1], tmp_path / "sound.json")
    (tmp_path / "empty.cif").write_text("")
    assert main(arguments(tmp_path / "empty.cif", tmp_path / "sound.json", tmp_path)) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("error: ")) == ("", 1)
    assert "Traceback" not in err


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dpcdvae", *words], capture_output=True, text=True, timeout=LIMIT)
