"""Clones of the checkout at fixed commits, so that a change of it never reaches a run that has begun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output
from queueing.plan import Entry
from queueing.state import Run, patient_lock
from speed.record import ROOT

CHECK = Path("benchmarks", "queueing", "check.py")  # of the clone: it knows the package there


def resolve(ref: str) -> str | None:
    """The hash of a commit of the checkout; None where it has no such commit.

    Raises:
        InputError: there is no git, or the checkout is no repository.
    """
    # ROOT itself, not a repository around it: a clone of that would be another project.
    if not (ROOT / ".git").exists():
        raise InputError(f"{ROOT} is no git repository: runs are pinned to commits, so work from a git clone")
    done = _git("-C", str(ROOT), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    return done.stdout.strip() if done.returncode == 0 else None


def check_commits(runs: Sequence[Run]) -> None:
    """Raises InputError where an unfinished run was begun with a commit that the checkout does not know."""
    for run in runs:
        if run.begun and not run.finished:
            commit = str(run.record.get("commit"))
            if resolve(commit) is None:
                raise InputError(
                    f"run '{run.name}' was begun with commit {commit}, which {ROOT} does not know: fetch it, or remove "
                    f"{run.folder} and {run.record_file.name} to begin anew"
                )


def clone(state: Path, commit: str) -> Path:
    """The checkout at ``commit``, in ``state/clones``.

    Raises:
        InputError: git cannot make it.
    """
    folder = state / "clones" / commit
    if folder.is_dir():
        return folder
    held = patient_lock(folder.parent, 120)  # a queue that joined may be at it
    if held is None:
        raise InputError(f"{folder.parent} is in use: another queue is making a clone, wait for it")
    with held:
        if folder.is_dir():
            return folder
        for leftover in folder.parent.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with atomic_output(folder) as temporary:
            for command in (
                ["clone", "--quiet", "--no-checkout", str(ROOT), str(temporary)],
                ["-C", str(temporary), "checkout", "--quiet", "--detach", commit],
            ):
                done = _git(*command)
                if done.returncode:
                    raise InputError(f"cannot make {folder}: git: {' '.join(done.stderr.split())}")
    return folder


def check_entries(source: Path, entries: Sequence[Entry]) -> list[str]:
    """The names of the training options that the package in ``source`` knows.

    Raises:
        InputError: for the first of the entries that it cannot train.
    """
    values = [
        {"name": entry.name, "dataset": entry.dataset, "preset": entry.preset, "set": settings(entry)}
        for entry in entries
    ]
    done = subprocess.run(
        [sys.executable, "-P", str(source / CHECK)],
        input=json.dumps(values),
        env=environment(source),
        cwd=source,
        capture_output=True,
        text=True,
    )
    if done.returncode == 2:
        raise InputError(last_line(done.stderr))
    if done.returncode:
        raise InputError(f"the package in {source} cannot check the queue: {last_line(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def settings(entry: Entry) -> list[str]:
    """``--set`` of a run, its length aside."""
    target = [f"model.property={json.dumps(entry.property)}"] if entry.property else []
    return [*entry.set, *target, f"train.seed={entry.seed}"]


def environment(source: Path) -> dict[str, str]:
    """Of a process that works in ``source``, uses the package there, and has one thread."""
    home = os.environ.get("DPCDVAE_HOME")
    absolute = {"DPCDVAE_HOME": str(Path(home).expanduser().absolute())} if home else {}
    return {**os.environ, **absolute, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError("git is not installed: runs are pinned to commits, so it is needed") from None
