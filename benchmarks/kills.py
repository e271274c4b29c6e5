"""kill -9 at random moments: is the repeated command's output that of an undisturbed one?

    python benchmarks/kills.py --work FOLDER [--kills 10] [--seed 0] [--only add evaluate relax train writers]

Each command of :data:`TARGETS` runs once undisturbed. Then it is started again and again in one folder and killed at a
moment drawn evenly from the time that it took, so that later starts go on from what earlier ones left. Counted are
kills of a command that was still running. After each kill the output is absent or that of the undisturbed run, and no
process is left. A start that comes to its end must leave that output and nothing else; then everything begins anew.
``train`` are two ``train --resume`` of a run that was stopped after its first epoch, ``writers`` two ``generate`` of
one output, started at once: the kill hits one of the two. A line of JSON for each command; the exit code is 1 if
anything is not as it must be.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpcdvae import write
from dpcdvae.prototypes import build_prototypes
from speed.command import Parser, positive, run, seed_number

GRACE = 60.0
"""Seconds for the workers of a killed command to end, and for two starts to meet."""


@dataclass(frozen=True)
class Target:
    """A command to kill.

    Attributes:
        command: arguments of dpcdvae; relative paths are of the folder it runs in.
        outcome: what the folder holds of the output, as comparable values by name; empty before there is any.
        temporary: patterns of what may be left only until the command has come to its end.
        at_once: how many are started together.
        refusals: what may be said, with exit code 2, by one that finds another at work or the output complete.
    """

    command: str
    outcome: Callable[[Path], dict[str, Any]]
    temporary: tuple[str, ...] = ()
    at_once: int = 1
    refusals: tuple[str, ...] = ()


def _bytes(*names: str) -> Callable[[Path], dict[str, Any]]:
    def outcome(folder: Path) -> dict[str, Any]:
        return {name: _digest(folder / name) for name in names if (folder / name).exists()}

    return outcome


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _relaxed(folder: Path) -> dict[str, Any]:
    """The relaxed crystals without the seconds that each of them took."""
    out = folder / "out.extxyz"
    return {"crystals": re.sub(r" seconds=\S+", "", out.read_text())} if out.exists() else {}


def _run(folder: Path) -> dict[str, Any]:
    """Weights of a finished run and its curve without times; a run in the middle is no output."""
    if not (best := [*folder.glob("run/checkpoints/*/card.json")]):
        return {}
    with (folder / "run/metrics.csv").open() as stream:
        rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(stream)]
    weights = {path.parent.name: _digest(path) for path in sorted(folder.glob("run/checkpoints/*/model.safetensors"))}
    return {"best": best[0].parent.name, "rows": rows, "weights": weights}


TARGETS = {
    "add": Target(
        "data add crystals.extxyz --name killed --workers 1",
        _bytes("home/datasets/killed.npz"),
        ("home/datasets/.*",),
        refusals=("exists: choose another",),
    ),
    "evaluate": Target(
        "evaluate crystals.extxyz --reference reference.extxyz --baselines none"
        " --workers 1 --overwrite --json out.json",
        _bytes("out.json"),
        (".out.*",),
    ),
    "relax": Target(
        "relax crystals.extxyz --calculator ase.calculators.lj:LennardJones --calculator-option sigma=2.2"
        " --steps 4 --workers 1 --out out.extxyz",
        _relaxed,
        (".out.*",),  # its work folder stays
        refusals=("exists: give another name",),
    ),
    "train": Target(
        "train --resume --out run --set train.max_epochs=4 --set train.finish=true",
        _run,
        ("run/.*", "run/checkpoints/.*"),
        at_once=2,
        refusals=("is in use by",),
    ),
    "writers": Target(
        "generate perov-5-compact -n 16 --batch-size 2 --steps 2 --candidates 1 --workers 0 --seed 1 --out out.extxyz",
        _bytes("out.extxyz"),
        (".out.*", "out.extxyz.work"),
        at_once=2,
        refusals=("is in use by", "exists: give another name"),
    ),
}

STARTED: list[subprocess.Popen[str]] = []
"""All commands; those that still run when this script ends, after Ctrl-C, end with it."""


def start(arguments: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "DPCDVAE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dpcdvae", *arguments.split()],
        cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    STARTED.append(process)
    return process


def kill(process: subprocess.Popen[str]) -> bool:
    """Kills the command alone; whether its workers end too, as nobody is there to read what they do."""
    process.kill()
    process.communicate()
    end = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        return False
    return True


def begin(inputs: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs, folder)


def finish(process: subprocess.Popen[str], counts: Counter[str], refusals: tuple[str, ...] = ()) -> None:
    """Waits for a command and counts how it ended."""
    words = process.communicate()[1]
    if process.returncode == 0:
        counts["finished"] += 1
    elif process.returncode == 2 and any(refusal in words for refusal in refusals):
        counts["refused"] += 1
    else:
        counts["failed"] += 1
        print(words[-2000:], file=sys.stderr)


def measure(target: Target, inputs: Path, work: Path, kills: int, seed: int) -> dict[str, Any]:
    """Counts of what happened; ``different``, ``left`` (processes), ``halves`` and ``failed`` should be absent."""
    random, counts = np.random.default_rng(seed), Counter[str]()
    right, folder = work / "undisturbed", work / "killed"
    begin(inputs, right)
    began = time.monotonic()
    finish(start(target.command, right), counts)
    seconds = time.monotonic() - began
    expected = target.outcome(right)
    begin(inputs, folder)

    def check(*, complete: bool) -> None:
        now = target.outcome(folder)
        counts["different"] += now != expected and (complete or bool(now))
        if complete:
            counts["halves"] += sum(len([*folder.glob(pattern)]) for pattern in target.temporary)
            begin(inputs, folder)

    while counts["kills"] < kills:
        running = [start(target.command, folder) for _ in range(target.at_once)]
        end = time.monotonic() + random.uniform(0, seconds)
        while time.monotonic() < end and any(process.poll() is None for process in running):
            time.sleep(0.01)
        alive = [process for process in running if process.poll() is None]
        if alive:
            victim = alive[int(random.integers(len(alive)))]
            counts["kills"] += 1
            print(f"kill {counts['kills']}/{kills}: {target.command.split(' --')[0]}", file=sys.stderr)
            counts["left"] += not kill(victim)
            running.remove(victim)
            check(complete=False)
        before = counts["finished"]
        for process in running:
            finish(process, counts, target.refusals)
        if counts["finished"] == before and target.outcome(folder):  # killed at its very end: nothing may be left to do
            finish(start(target.command, folder), counts, target.refusals)
        if not alive or target.outcome(folder):
            check(complete=True)
    finish(start(target.command, folder), counts)
    check(complete=True)
    return {"seconds": round(seconds, 1), **{name: n for name, n in sorted(counts.items()) if n}}


def make_inputs(folder: Path) -> None:
    """120 crystals to work on, 80 as reference, a data set of 60, and a run on it that was stopped after an epoch."""
    crystals = build_prototypes()
    order = np.random.default_rng(0).permutation(len(crystals))
    write([crystals[k] for k in order[:120]], folder / "crystals.extxyz")
    write([crystals[k] for k in order[120:200]], folder / "reference.extxyz")
    write([crystals[k] for k in order[200:260]], folder / "small.extxyz")
    finish(start("data add small.extxyz --name small --workers 1", folder), Counter())
    few = "--set train.max_epochs=1 --set train.batch_size=16 --set train.finish=false"
    finish(start(f"train small --out run {few}", folder), Counter())


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and outputs; must not exist yet")
    parser.add_argument("--kills", type=positive, default=10, help="counted kills of each command [10]")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the moments [0]")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS), help="some of the commands")
    args = parser.parse_args()
    work = args.work.absolute()
    if work.exists():
        parser.error(f"{work} exists: name another folder")
    (work / "inputs").mkdir(parents=True)
    wrong = False
    try:
        make_inputs(work / "inputs")
        for name in args.only:
            counts = measure(TARGETS[name], work / "inputs", work / name, args.kills, args.seed)
            print(json.dumps({"command": name, "seed": args.seed, **counts}), flush=True)
            wrong |= any(counts.get(bad) for bad in ("different", "left", "halves", "failed"))
    finally:
        for process in STARTED:
            if process.poll() is None:
                process.kill()
    return int(wrong)


if __name__ == "__main__":
    run(main)
