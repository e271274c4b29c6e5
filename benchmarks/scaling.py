"""What a million crystals cost: files, memory, comparisons, measured here; core hours, from the rates that were kept.

    python benchmarks/scaling.py [--quick] [--out FILE.json]

Crystals are synthetic: as generated ones they all differ a little. Every case runs in a process of its own; seconds are
CPU seconds of one core, so that others on the machine disturb them little, and MiB the highest resident size, which
holds some 100 MiB of libraries. The tables of docs/scaling.md come from here.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpcdvae.io import Failure, read, write
from dpcdvae.structures.crystal import Crystal
from speed.command import Parser

CASES = [  # what, crystals, atoms of each
    ("extxyz", 100_000, 5),
    ("extxyz", 100_000, 20),
    ("extxyz.gz", 100_000, 5),
    ("json", 100_000, 5),
    ("npz", 100_000, 5),
    ("cif folder", 10_000, 5),
    ("parts", 100_000, 5),
    ("relaxed", 20_000, 5),
    ("duplicates", 1_000, 5),
    ("duplicates", 10_000, 5),
    ("duplicates of one composition", 500, 8),
]
PER_MILLION = 1_000_000


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the crystals")
    parser.add_argument("--only", default="", help="cases with this in their name")
    parser.add_argument("--out", type=Path, help="write the figures as JSON here too")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)  # one case, in a process of its own
    arguments = parser.parse_args()
    if arguments.case is not None:
        what, count, atoms = arguments.case
        print(json.dumps(measure(what, int(count), int(atoms))))
        return
    figures = []
    print(f"{'case':32} {'crystals':>9} {'atoms':>5}  per million crystals")
    for what, count, atoms in CASES:
        if arguments.only in what:
            count = max(100, count // 100) if arguments.quick else count
            command = [sys.executable, __file__, "--case", what, str(count), str(atoms)]
            figures.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
            print(line(figures[-1]), flush=True)
    print_costs()
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


def measure(what: str, count: int, atoms: int) -> dict[str, Any]:
    crystals = synthetic(count, atoms, one_composition="one composition" in what)
    begin = peak()
    with tempfile.TemporaryDirectory() as folder:
        if what.startswith("duplicates"):
            facts = duplicates(crystals)
        elif what == "parts":
            facts = parts(crystals, Path(folder))
        elif what == "relaxed":
            facts = relaxed(crystals, Path(folder))
        else:
            facts = files(crystals, Path(folder) / ("cifs" if what == "cif folder" else f"crystals.{what}"))
    return {"what": what, "crystals": count, "atoms": atoms, "mib": peak(), "mib_of_crystals": begin, **facts}


def synthetic(count: int, atoms: int, *, one_composition: bool) -> list[Crystal]:
    """Random cells; ABO3 and the like with A and B of 50 elements, or carbon alone."""
    rng = np.random.default_rng(0)
    cells = 4 * np.eye(3) * (atoms / 5) ** (1 / 3) + rng.normal(0, 0.3, (count, 3, 3))
    numbers = np.full((count, atoms), 6 if one_composition else 8)
    if not one_composition:
        numbers[:, 0], numbers[:, 1] = rng.integers(20, 70, (2, count))
    coords = rng.random((count, atoms, 3))
    return [Crystal(numbers[k], coords[k], cells[k], f"0-{k}") for k in range(count)]


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = act()
    return result, time.process_time() - start


def files(crystals: Sequence[Crystal], path: Path) -> dict[str, float]:
    _, writing = timed(lambda: write(crystals, path))
    back, reading = timed(lambda: read(path))
    assert len(back) == len(crystals)
    paths = list(path.iterdir()) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in paths)
    return {"write_seconds": writing, "read_seconds": reading, "bytes": size, "files": len(paths)}


def parts(crystals: list[Crystal], folder: Path) -> dict[str, float]:
    """Batches of 256, as a run keeps them, and their way into the output."""
    from dpcdvae.sampling.finished_batches import Parts

    failures = [Failure("0-0", "sampling", "the decoded lattice is no cell")]
    starts = range(0, len(crystals), 256)
    with Parts(folder / "crystals.extxyz", {}) as kept:
        _, writing = timed(lambda: [kept.add(start, (crystals[start : start + 256], failures)) for start in starts])
        size = sum(path.stat().st_size for path in kept.folder.glob("*.part"))
        crystals.clear()
        _, reading = timed(lambda: write([c for start in starts for c in kept.get(start)[0]], folder / "out.extxyz"))
        kept.remove()
    return {"write_seconds": writing, "read_seconds": reading, "bytes": size, "files": len(starts)}


def relaxed(crystals: Sequence[Crystal], folder: Path) -> dict[str, float]:
    """Results of relaxations, each committed as it comes."""
    from dpcdvae.relaxation.relaxed_crystal import lost
    from dpcdvae.relaxation.store import Store
    from dpcdvae.structures.content import content_hash

    with Store(folder, {}) as store:

        def add_all() -> None:
            for crystal in crystals:
                store.add(content_hash(crystal), crystal.id, True, lost(crystal, 0.0, "").to_record())

        _, writing = timed(add_all)
        _, reading = timed(lambda: [store.get(content_hash(crystal)) for crystal in crystals])
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"write_seconds": writing, "read_seconds": reading, "bytes": size, "files": 1}


def duplicates(crystals: Sequence[Crystal]) -> dict[str, float]:
    from dpcdvae.parallel import HERE
    from dpcdvae.parallel.results import Results
    from dpcdvae.structures.duplicates import find_duplicates

    found, seconds = timed(lambda: find_duplicates(crystals, Results(HERE, 60.0)))
    return {"compare_seconds": seconds, "duplicates": int(found.duplicate.sum())}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def line(facts: dict[str, Any]) -> str:
    times = PER_MILLION / facts["crystals"]
    text = f"{facts['what']:32} {facts['crystals']:9} {facts['atoms']:5}  "
    if "bytes" in facts:
        text += (
            f"write {facts['write_seconds'] * times:7.0f} s  read {facts['read_seconds'] * times:7.0f} s  "
            f"{facts['bytes'] * times / 1e6:7.0f} MB  {facts['files'] * times:9.0f} files"
        )
    else:
        text += f"compare {facts['compare_seconds']:7.1f} s for these, {facts['duplicates']} duplicates"
    return f"{text}   ({facts['mib']:.0f} MiB, {facts['mib_of_crystals']:.0f} with the crystals alone)"


def print_costs() -> None:
    """Of the latest run that was kept for each machine and case: core or GPU hours per million crystals."""
    from speed import record

    latest = {
        (run["machine"]["device"], run["machine"]["threads"], case["preset"], case["data"], case["batch"]): (run, case)
        for run in record.read_history()
        for case in run["cases"]
        if "generation" in case
    }
    print(f"\n{'generation':28} {'data':12} {'batch':>5} {'passes':>6} {'crystals/s':>10}  hours per million")
    for (device, threads, preset, data, batch), (run, case) in sorted(latest.items(), key=lambda item: str(item[0])):
        made = case["generation"]
        gpu = "cuda" in device.lower() or "nvidia" in device.lower()
        rates = {
            made["default_passes"]: made["crystals_per_second"],
            1000: made["crystals_per_second_1000_passes"],
        }
        for passes, rate in rates.items():
            hours = PER_MILLION / rate / 3600 * (1 if gpu else threads)
            unit = "GPU hours" if gpu else "core hours"
            print(
                f"{preset:28} {data:12} {batch:5} {passes:6} {rate:10.2f}  {hours:.0f} {unit} "
                f"({device}, {threads} threads, {run['machine']['date']}, {run['machine']['revision']})"
            )


if __name__ == "__main__":
    main()
