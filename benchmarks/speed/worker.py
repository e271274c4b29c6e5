"""One measurement in a process of its own, with whatever ``dpcdvae`` the PYTHONPATH puts first.

    python -m speed.worker '{"table": "crystals.npz", "source": "/the/expected/src", "preset": "compact", ...}'

The last line on standard output is the result as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
SOURCE = BENCHMARKS.parent / "src"


class WorkerError(Exception):
    """A measurement that ended without a result; the message says why."""


def in_new_process(source: Path, table: Path, **arguments: Any) -> dict[str, Any]:
    """``speed.measure.measure`` with the package in ``source``; raises WorkerError."""
    order = json.dumps({"table": str(table), "source": str(source), **arguments})
    threads = str(arguments.get("threads", 1))
    path = os.pathsep.join([str(source), str(BENCHMARKS)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-m", "speed.worker", order], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise WorkerError(_reason(done.stderr) or f"ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _reason(text: str) -> str:
    """The last line of an error, with the place of a traceback."""
    lines = [line.strip() for line in text.strip().splitlines()]
    places = [line for line in lines if line.startswith("File ")]
    return ", ".join([*lines[-1:], *places[-1:]])


def main() -> None:
    order = json.loads(sys.argv[1])
    table, source = Path(order.pop("table")), Path(order.pop("source"))

    import dpcdvae
    from dpcdvae.structures.table import load_tables
    from speed.measure import measure

    used = Path(dpcdvae.__file__).resolve().parents[1]
    if used != source.resolve():
        raise SystemExit(f"measured {used} instead of {source}")
    if "parts" in order:
        order["parts"] = tuple(order["parts"])
    print(json.dumps(measure(table=load_tables(table)[0]["val"], **order)))


if __name__ == "__main__":
    main()
