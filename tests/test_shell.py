"""The whole way from the shell: train, generate, reconstruct, evaluate; stopped half-way; given bad input."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dpcdvae.cli import main
from dpcdvae.datasets import load_dataset
from dpcdvae.io import cif_text, read, write
from dpcdvae.structures.crystal import Crystal

# One worker trains the model that the others would train again.
pytestmark = pytest.mark.xdist_group("shell")

DPCDVAE = [sys.executable, "-m", "dpcdvae"]
SMALL = ["--preset", "compact"] + [
    part
    for value in (
        "model.latent_dim=16",
        "encoder.options.dimenet++={hidden=16, blocks=1, int_emb=8, out_emb=16, output_layers=1}",
        "denoiser.options={hidden=16, atom_width=16, blocks=1, num_radial=8, emb_trip=8, emb_cbf=4, bil_trip=8,"
        " layers_atom=1, time_embedding=16, fourier=[]}",
    )
    for part in ("--set", value)
]
FEW_STEPS = ["--steps", "5"]
PROGRESS = re.compile(r"\d+/\d+")  # of a bar, which appears once something has gone on for two seconds


def without_network() -> dict[str, str]:
    """An environment in which Python ends as soon as it looks for another machine, in worker processes too."""
    folder = str(Path(__file__).parent / "no_network")
    others = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *others])}


def shell(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*DPCDVAE, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=without_network(), capture_output=True, text=True, check=False, timeout=1800
    )


@pytest.mark.parametrize("call", ["create_connection(('127.0.0.1', 9))", "getaddrinfo('localhost', 9)"])
def test_a_connection_would_end_every_command_of_this_file(call: str) -> None:
    code = f"import socket\ntry: socket.{call}\nexcept Exception: pass"
    done = subprocess.run([sys.executable, "-c", code], env=without_network(), capture_output=True, text=True)
    assert (done.returncode, done.stderr.split(" ")[0]) == (70, "network:")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the built-in data set; RUN, trained on it for three epochs; and its best model exported."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPCDVAE_HOME", str(folder / "home"))
        patch.setenv("OMP_NUM_THREADS", "1")
        done = shell("train", "prototypes", *SMALL, "--set", "train.max_epochs=3", "--out", "RUN", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "RUN\n"
        assert sum(line.startswith("epoch ") for line in done.stderr.splitlines()) == 3
        assert main(["export", str(folder / "RUN"), "--out", str(folder / "model")]) == 0
        yield folder


def test_generated_crystals_are_the_same_in_every_format_and_can_be_evaluated(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = shell("generate", "RUN", "-n", "6", "--seed", "3", *FEW_STEPS, "--out", "g.extxyz", cwd=work)
    assert done.returncode == 0, done.stderr
    found = read(work / "g.extxyz")
    assert len(found) + done.stderr.count("not built") == 6
    monkeypatch.chdir(work)
    for out in ("cifs", "g.zip", "g.csv"):
        assert main(["generate", "RUN", "-n", "6", "--seed", "3", *FEW_STEPS, "--out", out]) == 0
        assert [crystal.formula for crystal in read(out)] == [crystal.formula for crystal in found]
    assert len(list(Path("cifs").glob("*.cif"))) == len(found)
    manifest = json.loads((work / "g.extxyz.manifest.json").read_text())
    assert (manifest["command"], manifest["arguments"]["seed"]) == ("generate", 3)
    assert main(["evaluate", "g.extxyz", "--reference", "prototypes", "--json", "g.json"]) == 0
    names = {metric["name"] for metric in json.loads((work / "g.json").read_text())["metrics"]}
    assert "structural_validity" in names


def test_the_same_seed_gives_the_same_crystals(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    assert main(["generate", "RUN", "-n", "4", *FEW_STEPS, "--out", "whole.json"]) == 0
    assert main(["generate", "RUN", "-n", "4", *FEW_STEPS, "--batch-size", "3", "--out", "again.json"]) == 0
    for one, other in zip(read(work / "whole.json"), read(work / "again.json"), strict=True):
        assert (one.id, one.formula) == (other.id, other.formula)
        apart = one.frac_coords - other.frac_coords
        np.testing.assert_allclose(apart - apart.round(), 0, atol=1e-4)


def test_reconstructed_crystals_have_a_match_rate(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    reconstruct = ["reconstruct", "RUN", "prototypes:test", "--limit", "8", "--force-types", *FEW_STEPS]
    assert main([*reconstruct, "--out", "r.extxyz"]) == 0
    assert main(["evaluate", "r.extxyz", "--reference", "prototypes:test", "--paired", "--json", "r.json"]) == 0
    names = {metric["name"] for metric in json.loads((work / "r.json").read_text())["metrics"]}
    assert "match_rate" in names


def test_a_file_is_reconstructed_as_the_data_set_that_it_was_written_from(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crystal that nothing can be made of counts as not built, in the whole run and in the first shard alone."""
    monkeypatch.chdir(work)
    known = list(load_dataset("prototypes")["test"])[:3]
    heavy = Crystal.from_parameters([118], np.zeros((1, 3)), [4, 4, 4], [90, 90, 90], "heavy")
    write([*known, heavy], "four.json")
    options = [*FEW_STEPS, "--workers", "0", "--batch-size", "2"]
    assert main(["reconstruct", "RUN", "prototypes:test", "--limit", "3", *options, "--out", "three.json"]) == 0
    assert main(["reconstruct", "RUN", "four.json", *options, "--out", "file.json"]) == 0
    assert [crystal.id for crystal in read("file.json")] == [crystal.id for crystal in known]
    for one, other in zip(read("three.json"), read("file.json"), strict=True):
        assert one.formula == other.formula
        np.testing.assert_allclose(one.lattice, other.lattice, atol=1e-4)
    failures = json.loads(Path("file.json.manifest.json").read_text())["failures"]
    assert [(failure["id"], "118" in failure["reason"] or "Og" in failure["reason"]) for failure in failures] == [
        ("heavy", True)
    ]
    for number, lost in ((1, 1), (2, 0)):
        out = f"share{number}.json"
        assert main(["reconstruct", "RUN", "four.json", *options, "--shard", f"{number}/2", "--out", out]) == 0
        assert len(json.loads(Path(f"{out}.manifest.json").read_text())["failures"]) == lost
    write([heavy], "heavy.json")
    capsys.readouterr()
    assert main(["reconstruct", "RUN", "heavy.json", *options, "--out", "none.json"]) == 2
    assert "none of 1 crystals can be used" in capsys.readouterr().err


@pytest.fixture(scope="module")
def many(work: Path) -> Path:
    """So many crystals that half a minute is not enough to do anything with them."""
    rng = np.random.default_rng(0)
    crystals = [
        Crystal.from_parameters(rng.integers(1, 90, 16), rng.random((16, 3)), 7 + rng.random(3), [80, 90, 100], f"c{k}")
        for k in range(3000)
    ]
    write(crystals, work / "many.csv")
    return work / "many.csv"


@pytest.mark.skipif(os.name != "posix", reason="opens a terminal")
@pytest.mark.parametrize(
    ("command", "outputs"),
    [
        ("data add many.csv --name many --workers 2", ["home/datasets/many.npz"]),
        ("generate RUN -n 50000 --out stopped/", ["stopped"]),
        ("reconstruct RUN prototypes:train --workers 0 --out stopped.extxyz", ["stopped.extxyz"]),
        ("evaluate many.csv --reference many.csv --json stopped.json --workers 2", ["stopped.json"]),
        ("demo --model model --out stopped-demo -n 50000", ["stopped-demo"]),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_ctrl_c_ends_with_one_line_and_leaves_nothing(work: Path, many: Path, command: str, outputs: list[str]) -> None:
    """The terminal sends it to the whole group, workers included: one line, nothing half-written, nobody left."""
    before = {path for path in work.rglob("*") if path.is_file()}
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*DPCDVAE, *command.split()],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = _until_shown(ours, PROGRESS)
    assert PROGRESS.search(shown), f"it ended, or showed no progress: {shown}"
    os.killpg(process.pid, signal.SIGINT)
    shown += _until_shown(ours, None)
    out, _ = process.communicate(timeout=1800)
    assert process.returncode == 130, shown
    lines = [line.strip() for line in re.split(r"[\r\n]|\x1b\[[?0-9;]*[A-Za-z]", shown)]
    assert lines.count("dpcdvae: stopped") == 1, shown
    assert "Traceback" not in shown
    assert out == b""
    assert not [name for name in outputs if (work / name).exists()]
    after = {path for path in work.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    # What is known of single crystals is kept, so that the next evaluation goes on from there.
    assert {path.relative_to(work).parts[:2] for path in after - before} <= {("home", "evaluation")}
    assert _group_ends(process.pid)


def _until_shown(terminal: int, what: re.Pattern[str] | None) -> str:
    """What a process writes on a terminal until ``what`` is there, or until its end."""
    text, end = "", time.monotonic() + 1800
    while what is None or not what.search(text):
        assert time.monotonic() < end, f"waited in vain: {text}"
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # so Linux tells that nobody has it open any more
            chunk = b""
        if not chunk:
            break
        text += chunk.decode(errors="replace")
    return text


def _group_ends(group: int) -> bool:
    """Whether within seconds nobody of a process group is left."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_in_training_leaves_a_run_that_goes_on(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    process = subprocess.Popen(
        [*DPCDVAE, "train", "prototypes", *SMALL, "--set", "train.max_epochs=6", "--out", "HALF"],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (work / "HALF" / "checkpoints" / "last" / "config.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 130, err
    assert out == ""
    told = ["dpcdvae train --resume --out HALF goes on after its last whole epoch", "dpcdvae: stopped"]
    assert err.splitlines()[-2:] == told
    assert "Traceback" not in err
    capfd.readouterr()
    assert main(["train", "--resume", "--out", "HALF"]) == 0
    assert "epoch 6/6" in capfd.readouterr().err


def test_a_second_demo_replaces_the_first(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    for n in ("5", "4"):
        assert main(["demo", "--model", "model", "-n", n, *FEW_STEPS, "--out", "demo"]) == 0
        assert "novelty" in capfd.readouterr().out.lower()
        assert (work / "demo" / "crystals.png").read_bytes().startswith(b"\x89PNG")
        crystals = read(work / "demo" / "crystals.extxyz")
        assert len(crystals) == len(read(work / "demo" / "crystals")) <= int(n)
        assert json.loads((work / "demo" / "manifest.json").read_text())["arguments"]["n"] == int(n)


@pytest.fixture
def bad(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of things that cannot be used."""
    monkeypatch.chdir(tmp_path)
    good = Crystal.from_parameters([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], [4, 4, 4], [90, 90, 90], "good")
    (tmp_path / "RUN").symlink_to(work / "RUN")
    (tmp_path / "no_cif.csv").write_text("id,structure\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "good.cif").write_text(cif_text(good))
    (tmp_path / "model").symlink_to(work / "model")
    for name in ("cut", "newer", "pickle"):
        shutil.copytree(work / "model", tmp_path / name)
    weights = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    description = json.loads((tmp_path / "newer" / "config.json").read_text())
    (tmp_path / "newer" / "config.json").write_text(json.dumps(description | {"format": 999}))
    (tmp_path / "pickle" / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"." * 100)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("data add no_cif.csv --name x", "no_cif.csv"),
        ("data add empty.csv --name x", "empty.csv"),
        ("data add folder --name x", "no crystals"),
        ("data add nothing.csv --name x", "no such file"),
        ("data get perov5", "did you mean 'perov_5'"),
        ("data info prototype", "did you mean 'prototypes'"),
        ("train prototype --out x", "did you mean 'prototypes'"),
        ("train prototypes --preset compat --out x", "did you mean 'compact'"),
        ("train prototypes --set train.epochs=3 --out x", "did you mean 'train.max_epochs'"),
        ("train prototypes --set train.max_epochs=many --out x", "must be a whole number"),
        ("train prototypes --set diffusion.options.schedule=cosin --out x", "did you mean 'cosine'"),
        ("train prototypes --set encoder.names=['dimnet'] --out x", "did you mean 'dimenet++'"),
        ("train prototypes --set encoder.names=[] --out x", "encoder.names is empty"),
        ("train prototypes --preset energy --out x", "give --property, choose from mean_radius"),
        ("train prototypes --property mean_radus --out x", "did you mean 'mean_radius'"),
        ("train prototypes --set denoiser.options.hiden=3 --out x", "did you mean 'hidden'"),
        ("train prototypes --set model.max_atoms=2 --out x", "max_atoms"),
        ("train prototypes --out folder", "folder exists"),
        ("train --resume --out folder", "folder"),
        ("generate RUN --out good.cif", "good.cif exists"),
        ("generate RUN --out good.cif/inside/x.extxyz", "is not a folder"),
        ("generate RUN --out x.abc", "ending"),
        ("generate RUN --steps 100000 --out x/", "--steps"),
        ("generate RUN --formula C1000 --out x/", "holds 1 to 20"),
        ("generate RUN --formula Xy2 --out x/", "element"),
        ("generate RUN --num-atoms 1000 --out x/", "holds 1 to 20"),
        ("generate RUN --step 3 --out x/", "did you mean --steps"),
        ("generate RUN -n 0 --out x/", "-n"),
        ("generate RUM --out x/", "RUM"),
        ("generate folder --out x/", "folder"),
        ("generate cut --out x/", "cut"),
        ("generate newer --out x/", "newer dpcdvae"),
        ("generate pickle --out x/", "pickle"),
        ("reconstruct RUN prototypes:tset --out x/", "did you mean 'test'"),
        ("evaluate good.cif --reference perov_5:tets", "perov_5"),
        ("evaluate nothing.cif --reference good.cif", "nothing.cif"),
        ("evaluate good.cif --reference good.cif --json o.x --picture o.x", "named for two outputs"),
        ("optimize RUN --out x.json --json x.json", "named for two outputs"),
        ("evaluate good.cif --reference good.cif --json folder", "exists"),
        ("demo --model model --out folder", "folder exists"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    bad: Path, command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error says what is wrong (after what was logged until then), code 2, nothing written."""
    before = sorted(bad.rglob("*"))
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    *log, error = captured.err.splitlines()
    assert message in error
    assert not any("error" in line or "Traceback" in line for line in log)
    assert captured.out == ""
    assert sorted(bad.rglob("*")) == before
