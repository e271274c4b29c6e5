"""The folder of a benchmark: whose it is, one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.files import check_output, write_json
from dpcdvae.model_store import read_json

PLAN, LOCK = "plan.json", ".lock"


@contextlib.contextmanager
def claimed(out: Path, recorded: dict[str, Any]) -> Iterator[None]:
    """Holds ``out`` for this process; a new folder gets the plan, in an old one it must be the same.

    The operating system releases the lock with the process, however that ends.

    Raises:
        InputError: another process holds it, it holds something else, or another plan.
    """
    if not (out / PLAN).exists() and out.is_dir() and any(path.name[0] != "." for path in out.iterdir()):
        raise InputError(f"{out} exists and is no benchmark: give another --out or remove it")
    check_output(out, overwrite=True)
    if out.is_file():
        raise InputError(f"{out} is a file: --out names a folder")
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            raise InputError(f"{out} is in use by process {owner}: wait for it, or give another --out") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        if (out / PLAN).exists():
            _check_same(out, read_json(out / PLAN), recorded)
        else:
            write_json(out / PLAN, recorded)
        yield
    finally:
        os.close(descriptor)


def _check_same(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    suites = old.get("suite", {}), new["suite"]
    changed = [key for key in new["suite"] if suites[0].get(key) != suites[1][key]]
    if changed:
        what = f"another suite: {', '.join(changed)} changed"
    elif old.get("dataset") != new["dataset"]:
        what = "other data under the same name"
    elif differing := [name for name, config in new["presets"].items() if old.get("presets", {}).get(name) != config]:
        what = f"another '{differing[0]}': the preset has changed"
    else:
        return
    raise InputError(f"{out} was started with {what}; give another --out, or go on with what it was started with")
