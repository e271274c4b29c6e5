"""Runs in shards, in processes, killed and taken up again: the crystals are those of the plain run, digit for digit."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpcdvae.checkpoints.checkpoint import write_checkpoint
from dpcdvae.checkpoints.loading import load_model
from dpcdvae.cli import main
from dpcdvae.errors import InputError
from dpcdvae.evaluation import read_generated
from dpcdvae.files import manifest_path, work_folder
from dpcdvae.io import Failure, read, write
from dpcdvae.model_store import find_model
from dpcdvae.parallel import HERE, LocalEngine, available_cores
from dpcdvae.parallel.store import RECORDS, SETTINGS, scan
from dpcdvae.sampling.distributed import engine_of, generate_batch, make_batches
from dpcdvae.sampling.finished_batches import GenerationResult, Parts, is_writing
from dpcdvae.sampling.generation import generate
from dpcdvae.sampling.shards import Shard, batches_of
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import save_tables
from lost_batches import die_at_8
from tensors import random_crystal, table_of, tiny_model

N, SIZE = 23, 4  # six batches, the last one smaller
STEPS = 8
RUN = [
    "generate",
    "model",
    "-n",
    str(N),
    "--batch-size",
    str(SIZE),
    "--seed",
    "7",
    "--steps",
    str(STEPS),
    "--workers",
    "0",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of which some crystals cannot be built, and a data set."""
    folder = tmp_path_factory.mktemp("shards")
    model = tiny_model(torch.float32)
    model.stats.scaler.scale.copy_(torch.tensor([0.3, 0.3, 0.3, 120, 120, 120]))
    write_checkpoint(folder / "model", model.state_dict(), model.config.model_dump(mode="json"), {})
    crystals = [random_crystal(k, 1 + k % 8) for k in range(11)]
    save_tables(folder / "data.npz", {"train": table_of([]), "test": table_of(crystals, bonded=True)}, {})
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The plain run, made by the function that knows of no batches elsewhere."""
    out = place / "whole.extxyz"
    result = generate(load_model(place / "model", "cpu"), N, seed=7, steps=STEPS, batch_size=SIZE)
    assert result.crystals
    assert result.failures
    write(result.crystals, out)
    (place / "failures.json").write_text(json.dumps([[f.id, f.reason] for f in result.failures]))
    return out


def kept_batches(out: Path) -> list[str]:
    """Keys of the batches of a run that are on disk, in the order in which they were kept."""
    return [record.key for record in scan(work_folder(out) / RECORDS) if record.key != SETTINGS]


def failures_of(out: str | Path) -> list[list[str]]:
    manifest = json.loads(Path(f"{out}.manifest.json").read_text())
    return [[failure["id"], failure["reason"]] for failure in manifest["failures"]]


# shards


@pytest.mark.parametrize("total", [0, 1, 3, 4, 5, 23, 1000])
@pytest.mark.parametrize("size", [1, 4, 256])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 300])
def test_shards_share_the_batches_of_the_whole(total: int, size: int, count: int) -> None:
    everything = batches_of(total, size)
    assert [k for batch in everything for k in batch] == list(range(total))
    shares = [batches_of(total, size, Shard(k, count)) for k in range(1, count + 1)]
    assert list(itertools.chain(*shares)) == everything
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_union_of_shards_is_the_whole(whole: Path, tmp_path: Path, count: int) -> None:
    outs = [tmp_path / f"{k}.extxyz" for k in range(1, count + 1)]
    for k, out in enumerate(outs, 1):
        assert main([*RUN, "--shard", f"{k}/{count}", "--out", str(out)]) == 0
        arguments = json.loads(Path(f"{out}.manifest.json").read_text())["arguments"]
        assert (arguments["shard"], arguments["batch_size"], arguments["n"]) == (f"{k}/{count}", SIZE, N)
    assert b"".join(out.read_bytes() for out in outs if out.exists()) == whole.read_bytes()
    assert list(itertools.chain(*map(failures_of, outs))) == json.loads(Path("failures.json").read_text())


def test_a_shard_with_nothing_to_do_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "1.extxyz"
    assert main([*RUN, "--shard", "1/7", "--out", str(out)]) == 0
    assert "shard 1/7 has nothing to do" in capsys.readouterr().out
    assert json.loads(Path(f"{out}.manifest.json").read_text())["crystals"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["1.extxyz.manifest.json"]
    out.write_text("an old one")
    assert main([*RUN, "--shard", "1/7", "--out", str(out), "--overwrite"]) == 2
    assert out.read_text() == "an old one"


def test_shards_of_a_reconstruction_are_the_whole(tmp_path: Path) -> None:
    """Each crystal has the noise of its place in the whole, also where z is drawn."""
    command = ["reconstruct", "model", "data.npz", "--batch-size", "3", "--sample-latent", "--workers", "0"]
    assert main([*command, "--out", str(tmp_path / "whole.json")]) == 0
    for k in (1, 2, 3):
        assert main([*command, "--shard", f"{k}/3", "--out", str(tmp_path / "parts" / f"{k}.json")]) == 0
    for one, other in zip(read(tmp_path / "whole.json"), read(tmp_path / "parts"), strict=True):
        assert one.id == other.id
        for name in ("atomic_numbers", "frac_coords", "lattice"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
    joined, lone = read_generated(tmp_path / "parts"), read_generated(tmp_path / "parts" / "2.json")
    assert joined.ids == {f"random-{k}" for k in range(11)}
    assert not joined.part
    assert lone.part


# processes


def test_processes_make_the_same(whole: Path, tmp_path: Path) -> None:
    """Two, which load the model once each, and a run that goes on with other ones than it began with."""
    out = tmp_path / "two.extxyz"
    assert main([*RUN[:-2], "--workers", "2", "--out", str(out)]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert failures_of(out) == json.loads(Path("failures.json").read_text())


def test_the_default_is_a_process_for_each_core_and_none_on_a_gpu() -> None:
    def workers(device: str, batches: int) -> int:
        engine = engine_of(None, None, device, batches)
        assert isinstance(engine, LocalEngine)
        return engine.workers

    assert workers("cpu", 1) == workers("cuda", 100) == workers("cpu", 0) == 0
    assert workers("cpu", 1000) == (available_cores() if available_cores() > 1 else 0)


def test_a_lost_batch_is_an_error_and_the_others_are_kept(tmp_path: Path) -> None:
    batches = batches_of(N, SIZE)
    with Parts(tmp_path / "out.json", {}) as parts, LocalEngine(2) as engine:
        with pytest.raises(InputError, match="1 of 6 batches were lost"):
            make_batches(die_at_8, batches, batches, parts, engine, "testing")
        assert parts.done() == {0, 4, 12, 16, 20}


def test_another_model_in_its_place_is_noticed() -> None:
    other = replace(find_model("model"), sha256="0" * 64)
    with pytest.raises(InputError, match="is another one"):
        generate_batch(other, "cpu", range(1), first=0, options={})


# going on


def test_a_killed_run_started_again_gives_the_same_file(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed.extxyz"
    process = subprocess.Popen([sys.executable, "-m", "dpcdvae", *RUN, "--out", str(out)], stderr=subprocess.PIPE)
    while len(kept := kept_batches(out)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not out.exists()
    kept = kept_batches(out)
    assert 2 <= len(kept) < 6
    made: list[str] = []

    def watch(*_: Any) -> None:
        made.extend(kept_batches(out))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "begin_writing", before(Parts.begin_writing, watch))
        assert main([*RUN, "--out", str(out)]) == 0
    assert made[: len(kept)] == kept
    assert sorted(made, key=int) == [str(batch.start) for batch in batches_of(N, SIZE)], "each batch was made once"
    assert out.read_bytes() == whole.read_bytes()
    assert failures_of(out) == json.loads(Path("failures.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.extxyz", "killed.extxyz.manifest.json"]


def before(function: Callable[..., Any], act: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any, **options: Any) -> Any:
        act(*args)
        return function(*args, **options)

    return both


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", ["", ".extxyz"], ids=["folder", "file"])
@pytest.mark.parametrize("old", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize(
    "where", ["Parts.add", "Parts.get", "Parts.begin_writing", "io.write", "files.write_manifest", "Parts.remove"]
)
def test_stopped_at_any_act_the_output_is_old_or_complete(tmp_path: Path, where: str, old: bool, suffix: str) -> None:
    """Before each of its acts in turn: what was there stays or is complete, and the same command completes it."""
    out = tmp_path / f"out{suffix}"
    command = ["generate", "model", "-n", "6", "--batch-size", "3", "--steps", "2", "--workers", "0", "--out"]
    if old:
        write([random_crystal(1)], out)
        before_it = content(out)
        manifest_path(out).write_text("{}")
    assert main([*command, str(tmp_path / f"plain{suffix}")]) == 0
    expected = content(tmp_path / f"plain{suffix}")
    options = ["--overwrite"] if old else []
    module, _, name = where.rpartition(".")
    target = Parts if module.endswith("Parts") else sys.modules[f"dpcdvae.{module}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, before(getattr(target, name), stop))
        assert main([*command, str(out), *options]) == 130
    if where in ("files.write_manifest", "Parts.remove"):
        assert content(out) == expected
        assert is_writing(out)
        assert manifest_path(out).exists() == (where == "Parts.remove")  # none of the old output
        options = []  # it had been given leave, and the old one is gone
    elif old:
        assert content(out) == before_it
    else:
        assert not out.exists()
    assert main([*command, str(out), *options]) == 0
    assert content(out) == expected
    assert not work_folder(out).exists()
    assert main([*command, str(out)]) == 2


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.glob("*.cif"))
    return {file.name if path.is_dir() else "": file.read_bytes() for file in files}


def test_parts_come_back_bit_by_bit(tmp_path: Path) -> None:
    crystal = Crystal(np.array([6, 8]), np.array([[0.1, 1 / 3, 1e-17], [0.5, 0.7, 0.9]]), np.eye(3) * np.pi, 'a "b"')
    failures = [Failure("x", "sampling", "the decoded lattice is no cell")]
    with Parts(tmp_path / "out", {"seed": 1}) as parts:
        parts.add(0, GenerationResult([crystal], failures, 40))
        parts.add(256, GenerationResult([], failures, 0))
        assert parts.done() == {0, 256}
        first, empty = parts.get(0), parts.get(256)
        (back,) = first.crystals
        assert (first.failures, first.passes, empty) == (failures, 40, GenerationResult([], failures, 0))
        assert back.id == crystal.id
        for name in ("atomic_numbers", "frac_coords", "lattice"):
            assert getattr(back, name).tobytes() == getattr(crystal, name).tobytes()
        records = parts.folder / RECORDS
        records.write_bytes(records.read_bytes().replace(b"sampling", b"smapling"))
        with pytest.raises(InputError, match="damaged"):
            parts.get(0)
    with Parts(tmp_path / "out", {"seed": 1}) as parts:
        assert parts.done() == set(), "a damaged batch is made again"
        parts.add(0, GenerationResult([crystal], failures, 40))
    with pytest.raises(InputError, match="seed 1, not 2"):
        Parts(tmp_path / "out", {"seed": 2})


# bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "0/0"], "--shard 0/0"),
        (["--shard", "0/3"], "--shard 0/3"),
        (["--shard", "5/3"], "--shard 5/3"),
        (["--shard", "a/b"], "--shard a/b: write i/n"),
        (["--shard", "3"], "--shard 3: write i/n"),
        (["--shard", "-1/3"], "--shard -1/3"),
        (["--shard", "1/3/5"], "--shard 1/3/5"),
        (["--shard", "1/3", "--out", "there.json"], "there.json exists"),
        (["--workers", "2", "--scheduler", "local:2"], "give one of them"),
        (["--workers", "-1"], "--workers"),
        (["--steps", "21", "--workers", "0"], "--steps must lie in 1..20"),
        (["--seed", "8", "--out", "half.json"], "half.json.work was begun with seed 7, not 8"),
        (["--batch-size", "5", "--out", "half.json"], "batch_size 4, not 5"),
        (["--shard", "1/2", "--out", "half.json"], "shard None, not '1/2'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_in_one_line(whole: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("half.json")
    if not work_folder(out).exists():
        Path("there.json").write_text("{}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Parts, "begin_writing", stop)
            assert main([*RUN, "--out", str(out)]) == 130
    files = set(Path().rglob("*"))
    capsys.readouterr()
    assert main([*RUN[:-2], *([] if "--out" in options else ["--out", "new.json"]), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert set(Path().rglob("*")) == files


def test_one_process_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    with Parts(out, {}):
        assert main([*RUN, "--out", str(out)]) == 2
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err


# many files at once


def test_a_folder_of_shards_is_the_whole(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Crystals in order, every failure; a missing shard is reported."""
    shards = tmp_path / "shards"
    for k in range(1, 8):
        suffix = "" if k == 2 else ".extxyz"  # one of them as a folder of CIFs
        assert main([*RUN, "--shard", f"{k}/7", "--out", str(shards / f"{k}{suffix}")]) == 0
    capsys.readouterr()
    joined, plain = read_generated(shards), read(whole)
    assert [crystal.id for crystal in joined.crystals] == [crystal.id for crystal in plain]
    assert [[f.id, f.reason] for f in joined.failures] == json.loads(Path("failures.json").read_text())
    assert "missing" not in capsys.readouterr().err
    (shards / "3.extxyz.manifest.json").unlink()
    assert read_generated(shards).part
    assert capsys.readouterr().err.endswith(f"\n{shards}: not all shards are there: missing 3 of 7\n")


def test_manifests_of_other_files_do_not_count(tmp_path: Path) -> None:
    failure = {"id": "x", "reason": "no cell"}
    for k, counted in enumerate((2, 3)):
        write([random_crystal(j) for j in (5 * k, 5 * k + 1)], tmp_path / f"{k}.extxyz")
        manifest = {"command": "generate", "crystals": counted, "failures": [{**failure, "id": f"x{k}"}]}
        (tmp_path / f"{k}.extxyz.manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "report.json.manifest.json").write_text("[]")
    assert read_generated(tmp_path).failures == [Failure("x0", "generate", "no cell")]


def test_the_engine_of_this_process_starts_no_other(tmp_path: Path) -> None:
    """An engine without any is the plain loop."""
    batches = batches_of(5, 2)
    with Parts(tmp_path / "out.json", {}) as parts:
        made = [GenerationResult([random_crystal(k) for k in batch], [], len(batch)) for batch in batches]
        make_batches(lambda part: part, made, batches, parts, HERE, "testing")
        assert parts.done() == {0, 2, 4}
