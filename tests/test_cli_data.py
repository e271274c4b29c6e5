"""``dpcdvae data`` from the shell: results on stdout, one line on a bad input, nothing left by Ctrl-C."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpcdvae import __version__
from dpcdvae.cli import main
from dpcdvae.datasets import load_dataset
from dpcdvae.io import cif_text, write
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    return build_prototypes()[::10][:40]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "DPCDVAE_HOME": str(tmp_path / "home")}


@pytest.fixture
def here(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Called:
    """``dpcdvae data`` in this process: its exit code, standard output and standard error."""
    monkeypatch.setenv("DPCDVAE_HOME", environment["DPCDVAE_HOME"])

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["data", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def data(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dpcdvae", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)


def write_csv(path: Path, crystals: list[Crystal], repeat: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", "cif", "energy"])
        rows = [(c.id, cif_text(c), 0.5) for c in crystals]
        for k in range(repeat):
            writer.writerows((f"{id}-{k}", cif, energy) for id, cif, energy in rows)
    return path


def test_an_added_data_set_is_listed_and_described(
    tmp_path: Path, environment: dict[str, str], here: Called, crystals: list[Crystal]
) -> None:
    source = write_csv(tmp_path / "own.csv", crystals)
    with source.open("a") as stream:
        stream.write("bad,no cif at all,\n")
    done = data(environment, "add", source, "--name", "own", "--split", "0.5,0.25,0.25", "--workers", 2)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "home" / "datasets" / "own.npz"
    assert done.stdout == f"{file}\n"
    assert "own: 40 crystals (train 20, val 10, test 10); 1 could not be used" in done.stderr
    assert f"{source} row 41" in done.stderr

    listed = here("list")[1].splitlines()
    assert [line.split()[0] for line in listed] == ["perov_5", "carbon_24", "mp_20", "prototypes", "own"]
    assert "20 + 10 + 10" in listed[-1]

    facts = json.loads(here("info", "own", "--json")[1])
    assert {split: part["crystals"] for split, part in facts["splits"].items()} == {"train": 20, "val": 10, "test": 10}
    assert facts["properties"]["energy"]["coverage"] == 1.0
    assert sum(facts["failures"].values()) == 1
    assert (facts["version"], facts["file"], facts["bytes"]) == (__version__, str(file), file.stat().st_size)
    assert sum(facts["elements"].values()) == sum(c.num_atoms for c in crystals)
    words = here("info", "own")[1]
    for part in ("own data from own.csv", "20 crystals", "property: energy", "left out: 1", str(file), "sha256"):
        assert part in words

    [failure] = csv.DictReader(io.StringIO(here("info", "own", "--failures")[1]))
    assert (failure["part"], failure["id"], failure["where"]) == ("all", "bad", f"{source} row 41")


def test_files_of_a_folder_that_are_not_published_are_named_so(
    tmp_path: Path, here: Called, crystals: list[Crystal]
) -> None:
    for split in ("train", "val", "test"):
        write_csv(tmp_path / "source" / f"{split}.csv", crystals[:5])
    arguments = ("get", "carbon_24", "--from", tmp_path / "source", "--name", "other", "--workers", 1)
    code, out, err = here(*arguments)
    assert code == 0, err
    assert out == f"{tmp_path / 'home' / 'datasets' / 'other.npz'}\n"
    words = here("info", "other")[1]
    assert "in the place of carbon_24" in words
    assert "not the published file" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("get", "perov5"), ["unknown data set 'perov5'", "did you mean 'perov_5'"]),
        (("get", "perov_5", "--from", "nowhere"), ["no such folder: nowhere"]),
        (("get", "perov_5", "--url", "ftp://x"), ["must start with https://"]),
        (("get", "perov_5", "--url", "http://127.0.0.1:9"), ["cannot fetch", "--from DIR"]),
        (("info", "prototype"), ["did you mean 'prototypes'"]),
        (("info", "mp_20"), ["run 'dpcdvae data get mp_20'"]),
        (("info", "missing.npz"), ["no data set file missing.npz"]),
        (("add", "missing.csv", "--name", "x"), ["no such file or folder: missing.csv"]),
        (("add", ".", "--name", "x", "--split", "a,b"), ["--split takes three fractions", "'a,b'"]),
        (("add", ".", "--name", "mp_20"), ["is the name of a published data set"]),
        (("add", ".", "--nam", "x"), ["--name"]),
    ],
)
def test_bad_input_is_refused_in_one_line(here: Called, arguments: tuple[str, ...], words: list[str]) -> None:
    code, out, err = here(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert word in err


def test_the_column_of_crystals_can_be_named_wherever_crystals_are_read(
    tmp_path: Path, here: Called, capsys: pytest.CaptureFixture[str]
) -> None:
    source, name, columns = tmp_path / "two.csv", "own", ["material_id", "cif", "relaxed"]
    small, large = (
        [Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * (edge + 0.1 * k), f"c{k}") for k in range(4)]
        for edge in (3.3, 3.9)
    )
    with source.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows((a.id, cif_text(a), cif_text(b)) for a, b in zip(small, large, strict=True))
    code, _, _ = here("add", source, "--name", name, "--split", "1,0,0", "--workers", 0, "--column", "relaxed")
    dataset = load_dataset(name)
    assert code == 0
    assert sorted(crystal.volume for crystal in dataset["train"]) == pytest.approx([c.volume for c in large], rel=1e-4)
    assert dataset.metadata["source"]["all"]["column"] == "relaxed"
    write(small, tmp_path / "reference.json")
    (tmp_path / "phases.csv").write_text("formula,energy_per_atom\nNa,0\nCl,0\n")
    for command in (
        ["data", "add", source, "--name", "x", "--workers", 0],
        ["evaluate", source, "--reference", tmp_path / "reference.json", "--workers", 0],
        ["relax", source, "--out", tmp_path / "out.extxyz", "--calculator", "ase.calculators.emt:EMT"],
        ["ground-state", source, "--calculator", "ase.calculators.emt:EMT"],
        ["ground-state", source, "--relaxed", tmp_path / "reference.json"],
        ["stability", source, "--phases", tmp_path / "phases.csv", "--calculator", "ase.calculators.emt:EMT"],
        ["reconstruct", "perov-5-compact", source, "--out", tmp_path / "out.extxyz"],
        ["interpolate", "perov-5-compact", source, tmp_path / "reference.json", "--out", tmp_path / "out.extxyz"],
        ["generate", "perov-5-compact", "--like", source, "--out", tmp_path / "out.extxyz"],
        ["generate", "perov-5-compact", "--novel", "--training", source, "--out", tmp_path / "out.extxyz"],
    ):
        assert main([*map(str, command), "--column", "relxed"]) == 2, command
        said = capsys.readouterr().err.splitlines()[-1]
        assert "unknown column 'relxed': did you mean 'relaxed'? choose from cif, material_id, relaxed" in said
    assert not (tmp_path / "out.extxyz").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["reconstruct", "perov-5-compact", "one.json", "--out", "out.extxyz"],
        ["interpolate", "perov-5-compact", "one.json", "one.json", "--out", "out.extxyz"],
        ["generate", "perov-5-compact", "--like", "one.json", "--out", "out.extxyz"],
        ["generate", "perov-5-compact", "--out", "out.extxyz"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_a_column_without_a_table_is_refused(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write([Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 3.3, "a")], "one.json")
    assert main([*command, "--column", "cif"]) == 2
    assert "no table (.csv, .parquet) that could have a column 'cif': leave out --column" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


@pytest.mark.parametrize("command", ["list", "get", "add", "info"])
def test_help_has_an_example(here: Called, command: str) -> None:
    code, out, _ = here(command, "--help")
    assert code == 0
    assert f"  dpcdvae data {command}" in out


def children(pid: int) -> list[int]:
    """Processes whose parent is ``pid`` (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, environment: dict[str, str], crystals: list[Crystal]) -> None:
    for split in ("train", "val", "test"):
        write_csv(tmp_path / "source" / f"{split}.csv", crystals, repeat=60 if split == "train" else 1)
    arguments = ["get", "perov_5", "--from", str(tmp_path / "source"), "--workers", "2"]
    command = [sys.executable, "-m", "dpcdvae", "data", *arguments]
    # Its own group of processes, as a terminal makes one and sends Ctrl-C to all of it.
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 1800
        while len(workers := children(process.pid)) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(1.0)  # both are at work
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=1800)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "dpcdvae: stopped"
    assert "Traceback" not in err
    assert [p for p in (tmp_path / "home").rglob("*") if p.is_file()] == []
    end = time.monotonic() + 1800
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < end, "a worker outlives the command"
        time.sleep(0.05)
