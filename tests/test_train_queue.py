"""The training queue: its budget, what it refuses, that it survives a kill, another commit and another machine."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from dpcdvae.checkpoints.checkpoint import read_checkpoint  # noqa: E402
from dpcdvae.cli import main  # noqa: E402
from dpcdvae.datasets import load_dataset  # noqa: E402
from dpcdvae.errors import InputError  # noqa: E402
from dpcdvae.locks import lock  # noqa: E402
from dpcdvae.model_store import last_checkpoint, read_card  # noqa: E402
from dpcdvae.structures.table import save_tables  # noqa: E402
from queueing.clones import environment  # noqa: E402
from queueing.plan import chosen, read_queue  # noqa: E402
from queueing.state import Run  # noqa: E402
from queueing.work import Queue  # noqa: E402

pytestmark = [
    pytest.mark.xdist_group("queue"),
    pytest.mark.skipif(shutil.which("git") is None, reason="runs are pinned to git commits, and there is no git"),
]
TINY = [
    "model.latent_dim=16",
    "model.stats_hidden_dim=16",
    "prior.name=gaussian",
    "encoder.options.dimenet++={hidden=16, blocks=1, int_emb=8, out_emb=16, output_layers=1}",
    "denoiser.options={hidden=16, atom_width=16, blocks=1, num_radial=8, emb_trip=8, emb_cbf=4, bil_trip=8,"
    " layers_atom=1, time_embedding=16, fourier=[]}",
]
MINUTES = 0.06


def entry(name: str, **changes: Any) -> str:
    """A ``[[run]]`` of a tiny network."""
    values = {"name": name, "dataset": "few", "preset": "compact", "seed": 0, "minutes": MINUTES, "set": TINY}
    return "[[run]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in (values | changes).items())


class Place:
    """A checkout of its own with one commit, a state folder, a queue's file, and a small data set."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.state, self.queue = folder / "checkout", folder / "state", folder / "queue.toml"
        self.home = folder / "home"
        ignored = shutil.ignore_patterns("__pycache__", "models", "results", "*.egg-info")
        for name in ("src", "benchmarks"):
            shutil.copytree(BENCHMARKS.parent / name, self.checkout / name, ignore=ignored)
        self.git("init", "--quiet")
        self.commit = self.committed("the package as it is")
        tables = load_dataset("prototypes").tables
        few = {"train": tables["train"].select(range(64)), "val": tables["val"].select(range(16))}
        (self.home / "datasets").mkdir(parents=True)
        save_tables(self.home / "datasets" / "few.npz", few, {"name": "few"})

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.checkout), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def committed(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def start(self, *options: str, state: Path | None = None) -> subprocess.Popen[str]:
        """``train_queue.py`` of the checkout; what it says comes with ``communicate``."""
        script, state = self.checkout / "benchmarks" / "train_queue.py", state or self.state
        return subprocess.Popen(
            [sys.executable, str(script), "--state", str(state), "--queue", str(self.queue), *options],
            env={**os.environ, "PYTHONPATH": str(self.checkout / "src"), "DPCDVAE_HOME": str(self.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *options: str, state: Path | None = None) -> tuple[int, str, str]:
        process = self.start(*options, state=state)
        out, err = process.communicate(timeout=1800)
        return process.returncode, out, err

    def refused(self, *options: str, state: Path | None = None) -> str:
        """The one line that a call which may not begin ends with."""
        code, out, err = self.call(*options, state=state)
        assert (code, out, err.count("\n")) == (2, "", 1), out + err
        return err

    def record(self, name: str) -> dict[str, Any]:
        file = self.state / "runs" / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else {}


def rows(run: Path) -> list[dict[str, str]]:
    file = run / "metrics.csv"
    return list(csv.DictReader(file.open())) if file.exists() else []


def without_times(run: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in rows(run)]


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 1800
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"waited in vain: {process.communicate()}")
        time.sleep(0.02)


def trainer(run: Path) -> str | None:
    """The process that trains a run, if the system has /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if str(run) in words:
            return folder.name
    return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("queue"))


@pytest.fixture(scope="module")
def worked(place: Place) -> Place:
    """A queue of two, killed in the middle of the first, and started again when the checkout was at another commit."""
    place.queue.write_text(entry("one", register="first") + entry("two", seed=1, minutes=MINUTES / 3))
    process = place.start()
    run = place.state / "runs" / "one"
    wait_until(lambda: place.record("one").get("planned_epochs") and len(rows(run)) > 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (place.state / "models" / "one").exists(), "it was over before it could be killed"
    place.committed("another commit")
    code, out, err = place.call()
    assert code == 0, out + err
    return place


@pytest.fixture
def queue(place: Place) -> Iterator[Path]:
    """The queue's file, to be changed for one test."""
    before = place.queue.read_text() if place.queue.exists() else ""
    yield place.queue
    place.queue.write_text(before)


@pytest.mark.slow
def test_a_killed_queue_trains_as_one_that_was_never_stopped(
    worked: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as the two commands by hand: one epoch, then all that were planned."""
    monkeypatch.setenv("DPCDVAE_HOME", str(worked.home))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    hand, run = tmp_path / "run", worked.state / "runs" / "one"
    options = [
        part for option in (*TINY, "train.max_minutes=1e-9", "train.max_epochs=1000") for part in ("--set", option)
    ]
    assert main(["train", "few", "--preset", "compact", "--out", str(hand), *options]) == 0
    assert len(rows(hand)) == 1
    planned = worked.record("one")["planned_epochs"]
    options = ["--set", f"train.max_epochs={planned}", "--set", "train.max_minutes=0"]
    assert main(["train", "--resume", "--out", str(hand), *options]) == 0
    torch.set_num_threads(threads)

    assert len(rows(run)) == planned
    assert without_times(run) == without_times(hand)
    ours, theirs = (read_checkpoint(last_checkpoint(folder)).weights for folder in (run, hand))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert float(rows(run)[-1]["lr"]) == pytest.approx(1e-5), "the schedule does not end with the budget"


def test_the_epochs_fill_the_budget(worked: Place) -> None:
    for name in ("one", "two"):
        record, all_rows = worked.record(name), rows(worked.state / "runs" / name)
        first = max(float(all_rows[0]["cpu_seconds"]), 0.05)
        assert record["planned_epochs"] == max(2, round(record["minutes"] * 60 / first))
        spent = sum(float(row["cpu_seconds"]) for row in all_rows) / 60
        assert record["minutes_spent"] == pytest.approx(spent, abs=1e-3)


def test_a_run_keeps_its_commit_and_a_new_one_takes_that_of_the_queue(worked: Place) -> None:
    later = worked.git("rev-parse", "HEAD")
    assert [worked.record(name)["commit"] for name in ("one", "two")] == [worked.commit, later]
    assert {path.name for path in (worked.state / "clones").iterdir()} == {worked.commit, later, "lock"}


def test_finished_runs_are_exported_and_left_alone(worked: Place) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        card = read_card(worked.state / "models" / name)
        assert (card["seed"], card["dataset"]["name"]) == (seed, "few")
    assert worked.call() == (0, "", "")


def test_the_table_of_runs(worked: Place) -> None:
    code, out, _ = worked.call("--show")
    assert code == 0
    lines = [line.split() for line in out.splitlines()[1:]]
    assert [line[:2] for line in lines] == [["one", "finished"], ["two", "finished"]]
    best = min(float(row["val/criterion"]) for row in rows(worked.state / "runs" / "one"))
    planned = worked.record("one")["planned_epochs"]
    assert (lines[0][2], lines[0][4]) == (f"{planned}/{planned}", f"{best:.4f}")


def test_finished_models_are_collected_in_half_precision(worked: Place) -> None:
    for _ in range(2):  # the second replaces the first
        code, out, err = worked.call("--collect")
        assert (code, err, out.count("\n")) == (0, "", 2)
    bundled, others = worked.checkout / "src" / "dpcdvae" / "models", worked.checkout / "benchmarks" / "models"
    assert [path.name for path in bundled.iterdir()] == ["first"]
    assert [path.name for path in others.iterdir()] == ["two"]
    assert read_card(bundled / "first")["weights"] == read_card(others / "two")["weights"] == "float16"

    other = (bundled / "first" / "card.json").read_text().replace('"val/loss"', '"val/other"')
    (bundled / "first" / "card.json").write_text(other)
    code, out, _ = worked.call("--collect")
    assert code == 1
    assert "is another model: remove it" in out
    assert (bundled / "first" / "card.json").read_text() == other

    # Of a card alone, whose weights are too large for the repository, the weights are put beside a card of theirs.
    (bundled / "first" / "model.safetensors").unlink()
    assert worked.call("--collect")[0] == 0
    assert (bundled / "first" / "card.json").read_text() != other


def copied(worked: Place, tmp_path: Path) -> Path:
    """The state after the runs were trained and before the first was exported."""
    state = tmp_path / "state"
    shutil.copytree(worked.state, state, ignore=shutil.ignore_patterns("clones"))
    shutil.rmtree(state / "models" / "one")
    return state


def test_a_run_of_another_recipe_is_refused(worked: Place, queue: Path, tmp_path: Path) -> None:
    queue.write_text(entry("one", seed=7))
    message = worked.refused(state=copied(worked, tmp_path))
    assert "run 'one' was begun with seed 0, and the queue has 7 now: put it back" in message


def test_a_commit_that_the_checkout_does_not_know_is_refused(worked: Place, tmp_path: Path) -> None:
    state = copied(worked, tmp_path)
    record = state / "runs" / "one.json"
    record.write_text(record.read_text().replace(worked.commit, "0" * 40))
    assert "which" in (message := worked.refused(state=state))
    assert "does not know: fetch it, or remove" in message
    assert "has no such commit" in worked.refused("--commit", "nowhere")


@pytest.mark.slow
def test_another_machine_goes_on_from_the_weights_in_the_checkout(worked: Place, queue: Path, tmp_path: Path) -> None:
    """The folder is at work and ``two`` is taken: with --join ``one`` is left, and starts from what was collected."""
    state = copied(worked, tmp_path)
    file = state / "runs" / "one" / "metrics.csv"
    changed = [row | {"cpu_seconds": "7200"} for row in rows(file.parent)[:1]]
    with file.open("w", newline="") as stream:  # as if it had taken two hours
        writer = csv.DictWriter(stream, list(changed[0]))
        writer.writeheader()
        writer.writerows(changed)
    assert worked.call("--collect", "--only", "one", state=state)[0] == 0
    weights = worked.checkout / "benchmarks" / "weights" / "one"
    assert sorted(path.name for path in weights.iterdir()) == ["config.json", "model.safetensors", "queue.json"]
    assert json.loads((weights / "queue.json").read_text())["minutes_spent"] == 120
    assert not [name for name in load_file(weights / "model.safetensors") if name.startswith("prior.")]

    other = tmp_path / "other"
    queue.write_text(entry("two", seed=1) + entry("one", minutes=120 + MINUTES / 3))
    (other / "locks" / "two").mkdir(parents=True)
    with lock(other, ""), lock(other / "locks" / "two", ""):
        assert "is in use by process" in (message := worked.refused(state=other))
        assert "--join" in message
        code, out, err = worked.call("--join", state=other)
    shutil.rmtree(weights)
    assert code == 0, out + err
    assert out.splitlines()[0] == "two: another process is at it"
    record = json.loads((other / "runs" / "one.json").read_text())
    assert record["init"]["minutes_spent"] == 120
    seconds = max(float(rows(other / "runs" / "one")[0]["cpu_seconds"]), 0.05)
    assert record["planned_epochs"] == max(2, round((record["minutes"] - 120) * 60 / seconds))
    assert record["minutes_spent"] > 120
    assert read_card(other / "models" / "one")["init"]["dataset"]["name"] == "few"
    assert not (other / "models" / "two").exists()


def test_a_failed_run_is_reported_and_the_next_one_is_trained(place: Place, queue: Path, tmp_path: Path) -> None:
    queue.write_text(
        entry("bad", set=[*TINY, "train.lr=10", "train.grad_clip_value=1e6"])
        + entry("skipped", requires="no_such_flag")
    )
    code, out, err = place.call(state=tmp_path)
    assert (code, err) == (1, "")
    begun, failed, skipped = out.splitlines()
    assert begun.startswith("bad: begun with commit")
    assert failed.startswith("bad: failed: dpcdvae train ended with exit code 2: ")
    assert "not finite" in failed
    assert skipped == "skipped: skipped, this processor has no no_such_flag"
    table = place.call("--show", state=tmp_path)[1].splitlines()
    assert [" ".join(line.split()[:2]) for line in table[1:]] == ["bad failed", "skipped skipped,"]


def test_a_stopped_queue_leaves_no_process(place: Place, queue: Path, tmp_path: Path) -> None:
    queue.write_text(entry("long", minutes=600))
    run = tmp_path / "runs" / "long"
    process = place.start(state=tmp_path)
    wait_until((run / "run.json").exists, process)
    child, table = trainer(run), place.call("--show", state=tmp_path)[1]
    process.terminate()
    assert process.communicate(timeout=1800)[1] == "stopped: the same command goes on\n"
    assert process.returncode == 130
    assert table.splitlines()[1].split()[:2] == ["long", "training"]
    assert trainer(run) is None
    if Path("/proc/self/cmdline").exists():
        assert child is not None
    assert place.call("--show", state=tmp_path)[1].splitlines()[1].split()[:2] == ["long", "stopped"]


def test_what_the_clone_does_not_know_is_refused_before_anything_begins(
    place: Place, queue: Path, tmp_path: Path
) -> None:
    messages = []
    wrong: list[dict[str, Any]] = [
        {"preset": "compcat"},
        {"dataset": "fwe"},
        {"set": ["train.lrr=1"]},
        {"dataset": "perov_5"},
        {"property": "mass"},
        {"set": ["denoiser.options={hiden=16}"]},
        {"set": ["train.precision=8-true"]},
    ]
    for changes in wrong:
        queue.write_text(entry("good") + entry("wrong", **changes))
        messages.append(place.refused(state=tmp_path / "state"))
    assert "run 'wrong': unknown preset 'compcat': did you mean 'compact'?" in messages[0]
    assert "run 'wrong': unknown data set 'fwe': did you mean 'few'?" in messages[1]
    assert "unknown option 'train.lrr'" in messages[2]
    assert "run 'wrong': data set 'perov_5' is not here yet: run 'dpcdvae data get perov_5'" in messages[3]
    assert "run 'wrong': unknown property of the data set 'mass'" in messages[4]
    assert "hiden" in messages[5]
    assert "precision" in messages[6]
    assert not list((tmp_path / "state" / "runs").iterdir())


def test_a_state_folder_that_cannot_be_one_is_refused(worked: Place) -> None:
    assert "lies in the checkout" in worked.refused("--show", state=worked.checkout / "runs")
    assert f"{worked.queue} is not a folder" in worked.refused("--show", state=worked.queue / "x")
    assert worked.refused("--show", "--state", "").startswith("error: argument --state: is empty")
    assert worked.refused("--shwo").startswith("error: unrecognized arguments")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("one.json", '{"entry": 3}', "entry is not a JSON object but 3"),
        ("one.json", '{"minutes": "x"}', "minutes is not a number of 0 or more but 'x'"),
        ("one.json", '{"min', "is not JSON or cut off"),
        ("one.json", '{"state": "failed"}', "it has no commit"),
        ("one/metrics.csv", "epoch,val/criterion\n1,2\n", "row 1 has None for cpu_seconds"),
        ("one/metrics.csv", "cpu_seconds,val/criterion\n1,2\nx,2\n", "row 2 has 'x' for cpu_seconds"),
    ],
)
def test_a_damaged_file_fails_its_run_alone(
    worked: Place, queue: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    """The next in the queue, which this machine has to skip, has its turn; what is damaged is left as it is."""
    queue.write_text(entry("one") + entry("next", requires="no_such_flag"))
    state = copied(worked, tmp_path)
    file = state / "runs" / name
    file.write_text(text)
    code, out, err = worked.call(state=state)
    assert (code, err) == (1, "")
    failed, following = out.splitlines()
    assert failed.startswith("one: failed: ")
    assert message in failed
    assert f"put back a copy of {file.name}, or remove" in failed
    assert "checkpoint" not in failed
    assert following.startswith("next: skipped")
    code, out, err = worked.call("--show", state=state)
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split()[:2] == ["one", "damaged"]
    assert message in out
    assert worked.call("--collect", "--only", "one", state=state)[0] == 1
    assert file.read_text() == text


def test_damaged_weights_of_the_checkout_fail_their_run_alone(worked: Place, queue: Path, tmp_path: Path) -> None:
    queue.write_text(entry("late"))
    weights = worked.checkout / "benchmarks" / "weights" / "late"
    weights.mkdir(parents=True)
    (weights / "queue.json").write_text('{"entry": {}, "minutes_spent": "long"}')
    shown, (code, out, err) = worked.call("--show", state=tmp_path), worked.call(state=tmp_path)
    shutil.rmtree(weights.parent)
    assert "minutes_spent is not a number" in shown[1]
    assert (code, err) == (1, "")
    assert out.startswith("late: failed: ")


def test_what_follows_the_training_waits_for_its_end(worked: Place, tmp_path: Path) -> None:
    """The first epoch leaves it out where the package of the run's commit has the option, and only there."""
    read = read_queue(worked.queue)[0]
    for known, words in ((["train.finish"], ["train.finish=false"]), ([], [])):
        run = Run(tmp_path / str(len(known)), read)
        (tmp_path / str(len(known)) / "clones" / worked.commit).mkdir(parents=True)
        queue = Queue(tmp_path / str(len(known)), [run], worked.commit, known)
        queue._begin(run)
        assert [word for word in queue._first(run) if "finish" in word] == words
    assert worked.record("one")["finish_at_end"] is True
    assert (worked.state / "runs" / "one" / "checkpoints").is_dir()


def test_a_relative_home_is_that_of_the_queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its processes work in a clone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCDVAE_HOME", "home")
    assert environment(tmp_path / "clone")["DPCDVAE_HOME"] == str(tmp_path / "home")
    monkeypatch.delenv("DPCDVAE_HOME")
    assert "DPCDVAE_HOME" not in environment(tmp_path / "clone")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no [[run]]"),
        ("runs = 1", "unknown key 'runs'"),
        ("[[run]", "is not TOML"),
        (entry("a") + entry("a"), "name 'a' occurs twice"),
        (entry("a", register="m") + entry("b", register="m"), "register 'm' occurs twice"),
        (entry("a", minute=1), "unknown key 'minute': did you mean 'minutes'?"),
        (entry("a", minutes=0), "minutes must be above 0, 1000000 at most, not 0"),
        (entry("a", minutes=-1.5), "minutes must be above 0, 1000000 at most, not -1.5"),
        (entry("a", minutes=10**400), "1000000 at most, not 1000000000"),
        (entry("a", minutes=True), "minutes must be a number, not True"),
        (entry("a", seed=0.5), "seed must be a whole number, not 0.5"),
        (entry("a", seed=-1), "seed must be 0 or more"),
        (entry("a", set="x=1"), "set must be a list of texts"),
        (entry("a", set=[1]), "set must be a list of texts"),
        (entry("a", set=["train.max_epochs = 3"]), "train.max_epochs follows from minutes"),
        (entry("a", set=["train.finish=true"]), "train.finish follows from"),
        (entry("a", preset="mine.toml"), "preset mine.toml is a file"),
        (entry("../a"), "name must be made of letters"),
        (entry("a.b"), "name must be made of letters"),
        (entry("a\nb"), "name must be made of letters"),
        (entry(""), "name is empty"),
        ('[[run]]\nname = "a"', "dataset is missing"),
        ("[[run]]\nseed = 1", "name is missing"),
    ],
)
def test_a_wrong_queue_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "queue.toml"
    file.write_text(text)
    with pytest.raises(InputError) as info:
        read_queue(file)
    assert message in str(info.value)
    assert "\n" not in str(info.value)


def test_the_queue_of_the_benchmarks_can_be_read() -> None:
    entries = read_queue(BENCHMARKS / "queue.toml")
    assert {entry.dataset for entry in entries} == {"perov_5", "carbon_24", "mp_20"}
    assert [e.name for e in chosen(entries, [entries[3].name, entries[1].name])] == [entries[1].name, entries[3].name]
    with pytest.raises(InputError, match="unknown run 'nobody'"):
        chosen(entries, ["nobody"])
