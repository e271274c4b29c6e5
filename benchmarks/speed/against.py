"""Two versions of the package on the same cases, turn about, each time in a new process."""

from __future__ import annotations

import statistics
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dpcdvae.errors import InputError
from speed.record import ROOT
from speed.worker import SOURCE, WorkerError, in_new_process

WHAT = {
    "sampling pass": ("pass", "seconds"),
    "training step": ("step", "seconds"),
    "memory of a pass": ("pass", "peak_mib"),
    "memory of a step": ("step", "peak_mib"),
}
AGREEMENT = 1e-4  # relative, of norms and losses in float32


@contextmanager
def source_of(other: str) -> Iterator[Path]:
    """The ``src`` folder of a checkout, or of a git revision of this one (in a temporary folder).

    Raises:
        InputError: it is neither.
    """
    folder = Path(other)
    if folder.is_dir():
        if not (folder / "src" / "dpcdvae").is_dir():
            raise InputError(f"{other} is no checkout of dpcdvae: it has no src/dpcdvae")
        yield folder.resolve() / "src"
        return
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", other, "src"], capture_output=True)
    if packed.returncode:
        raise InputError(f"--against {other}: neither a folder nor a revision of this repository")
    with TemporaryDirectory() as temporary:
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
            archive.extractall(temporary, filter="data")
        yield Path(temporary).resolve() / "src"


def alternate(other: Path, table: Path, pairs: int, **arguments: Any) -> dict[str, Any]:
    """Ratios other / here of ``pairs`` of measurements, by what was measured; above 1 this checkout is better.

    ``beside``: of the times each in units of the matrix product measured beside it, which does not see that the
    machine was slower in between. ``apart``: the largest relative difference of results.
    """
    sources = {"here": SOURCE, "other": other}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sources}
    for number in range(pairs):
        for name in sorted(sources, reverse=bool(number % 2)):
            try:
                found[name].append(in_new_process(sources[name], table, parts=("pass", "step"), **arguments))
            except WorkerError as error:
                return {**arguments, "error": f"{sources[name]}: {error}"}
    measured = list(zip(found["here"], found["other"], strict=True))
    ratios: dict[str, Any] = {}
    for title, (part, key) in WHAT.items():
        plain = [there[part][key] / here[part][key] for here, there in measured]
        ratios[title] = {"ratio": _spread(plain)}
        if key == "seconds":
            speeds = [there[part]["square_gflops"] / here[part]["square_gflops"] for here, there in measured]
            ratios[title]["beside"] = _spread([a * b for a, b in zip(plain, speeds, strict=True)])
    first, second = measured[0][0]["check"], measured[0][1]["check"]
    apart = max(abs(a - b) / max(abs(a), 1e-12) for a, b in zip(first, second, strict=True))
    return {**arguments, "batch": measured[0][0]["batch"], "pairs": pairs, "apart": apart, "ratios": ratios}


def _spread(values: list[float]) -> list[float]:
    return [min(values), statistics.median(values), max(values)]


def lines(result: dict[str, Any], data: str) -> str:
    """A block of the report on one case."""
    if "error" in result:
        return f"{result['preset']}, {data}: {result['error']}"
    same = "same results" if result["apart"] < AGREEMENT else "OTHER RESULTS"
    rows = [f"{result['preset']}, {data}, batch {result['batch']}: {same} (apart by {result['apart']:.0e})"]
    for title, found in result["ratios"].items():
        low, middle, high = found["ratio"]
        row = f"  {title:18}{middle:7.2f} [{low:.2f}, {high:.2f}]"
        if "beside" in found:
            low, middle, high = found["beside"]
            row += f"    in matrix products {middle:7.2f} [{low:.2f}, {high:.2f}]"
        rows.append(row)
    return "\n".join(rows)
