"""Where a run took place, its JSON file in the history, and tables to read."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, one_line
from dpcdvae.files import write_json
from speed.cases import PUBLISHED_SECONDS, Case

ROOT = Path(__file__).resolve().parents[2]
HISTORY = ROOT / "benchmarks" / "results" / "speed"
SCHEMA = "dpcdvae.speed/1"


def machine(device: str, threads: int) -> dict[str, Any]:
    """What times depend on."""
    import torch

    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        rows = []
    models = [row.partition(":")[2].strip() for row in rows if row.startswith("model name")]
    cpu = models[0] if models else platform.processor() or platform.machine()
    return {
        "device": cpu if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(ROOT),
    }


def threads(default: int) -> int:
    """What OMP_NUM_THREADS allows; raises InputError where that is no number of threads."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2": of the outer loop
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"OMP_NUM_THREADS={one_line(text)} is no number of threads: set it to 1")
    return int(text)


def revision(folder: Path) -> str:
    """The commit of a checkout, with ``+`` where its sources differ from it; "" where there is no history."""
    try:
        commit, changes = (
            _git(folder, "rev-parse", "--short", "HEAD"),
            _git(folder, "status", "--porcelain", "--", "src"),
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changes else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def history_file(facts: dict[str, Any], kind: str = "") -> Path:
    """``DATE-REVISION-DEVICE-THREADS.json``: one file a run, so that nothing is ever overwritten or merged."""
    device = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
    name = "-".join(filter(None, [facts["date"], facts["revision"], device, f"{facts['threads']}t", kind]))
    file, number = HISTORY / f"{name}.json", 2
    while file.exists():
        file, number = HISTORY / f"{name}-{number}.json", number + 1
    return file


def save(file: Path, facts: dict[str, Any], **lists: list[dict[str, Any]]) -> None:
    write_json(file, {"schema": SCHEMA, "machine": facts, **lists})


def read_history(folder: Path = HISTORY) -> list[dict[str, Any]]:
    """Every run, the oldest first."""
    runs = [json.loads(file.read_text()) | {"file": file.name} for file in sorted(folder.glob("*.json"))]
    return sorted(
        (run for run in runs if run["schema"] == SCHEMA and "cases" in run), key=lambda run: run["machine"]["date"]
    )


_PART = f"{'ms':>6} {'floor':>5} {'publ.':>5}"
_MADE = f"{'trained':>7} {'made':>6} {'@1000':>6}"
HEADER = (
    f"{'':40} | {'one pass':^18} | {'training step':^18} | {'crystals a second':^21} | MiB of the\n"
    f"{'preset':34} {'batch':>5} | {_PART} | {_PART} | {_MADE} | {'pass':>5} {'step':>5}"
)


def line(case: dict[str, Any]) -> str:
    """A row of the table under :data:`HEADER`."""
    name, data = case["preset"], case["data"]
    if data not in name:
        name += f" on {data}"
    a_pass, step, made = (case.get(part) or {} for part in ("pass", "step", "generation"))
    trained = case["batch"] / step["seconds"] if step else None
    columns = [
        f"{name:34.34} {case['batch']:5}",
        _times(a_pass),
        _times(step),
        f"{_cell(trained, 7)} {_cell(made.get('crystals_per_second'), 6)} "
        + _cell(made.get("crystals_per_second_1000_passes"), 6),
        " ".join(_cell(part.get("peak_mib"), 5) for part in (a_pass, step)),
    ]
    return " | ".join(columns)


def _times(part: dict[str, Any]) -> str:
    shares = ("-" if x is None else f"{x:.0%}" for x in (part.get("of_floor"), part.get("of_published")))
    return " ".join([_cell(part.get("seconds"), 6, 1000), *(share.rjust(5) for share in shares)])


def against_published(case: dict[str, Any], facts: dict[str, Any]) -> str:
    """How many times faster than the public code was on two such cores; "" where that was not measured."""
    seconds = PUBLISHED_SECONDS.get(Case(case["preset"], case["data"], case["batch"]))
    if not seconds or facts["threads"] != 2 or "EPYC" not in facts["device"] or not {"pass", "step"} <= case.keys():
        return ""
    step, a_pass = seconds[0] / case["step"]["seconds"], seconds[1] / case["pass"]["seconds"]
    return (
        f"{case['preset']}: the public code on two such cores took {a_pass:.1f} x for a pass, {step:.1f} x for a step"
    )


def _cell(value: float | None, width: int, factor: float = 1.0) -> str:
    """At least three digits where there is room."""
    if value is None:
        return "-".rjust(width)
    value *= factor
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 4
    return f"{value:{width}.{digits}f}"
