"""Speed and memory of this machine: preparing, training and sampling, beside its own matrix rate.

    python benchmarks/run.py                                        # every case, saved in results/speed/
    python benchmarks/run.py --quick                                # one small case, not saved
    python benchmarks/run.py --case paper --device cuda             # cases whose preset or data has "paper" in it
    python benchmarks/run.py --case compact --against HEAD~20       # before and after, turn about

Crystals come from DPCDVAE_DATA (or ../shared/data), from prepared data sets (DPCDVAE_HOME) or --data FOLDER, else from
the built-in prototypes. How to read the table: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.structures.table import save_tables
from speed import against, record
from speed.cases import CASES, QUICK, Case, crystals
from speed.command import Parser, positive, real_data, run, usable_device
from speed.timing import PRECISIONS
from speed.worker import SOURCE, WorkerError, in_new_process


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="", help="only presets or data sets with this in their name")
    parser.add_argument("--batch", type=positive, nargs="+", help="crystals in a batch, instead of the cases' own")
    parser.add_argument("--quick", action="store_true", help="one small case, few rounds")
    parser.add_argument("--against", metavar="CHECKOUT|REVISION", help="ratios to another version of the package")
    parser.add_argument("--rounds", type=positive, help="for medians (default 7; 3 with --quick or --against)")
    parser.add_argument("--pairs", type=positive, default=5, help="with --against: measurements of each version")
    parser.add_argument("--threads", type=positive, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--device", type=usable_device, default="cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--data", type=Path, help="a folder of NAME/val.csv.gz or prepared NAME.npz")
    parser.add_argument("--out", type=Path, help="JSON here instead of benchmarks/results/speed/")
    arguments = parser.parse_args()
    chosen = choose(arguments)
    arguments.rounds = arguments.rounds or (3 if arguments.quick or arguments.against else 7)
    facts = record.machine(arguments.device, arguments.threads)
    print("  ".join(f"{name} {value}" for name, value in facts.items()))
    with TemporaryDirectory() as folder:
        if arguments.against:
            return compare(chosen, arguments, facts, Path(folder))
        return table(chosen, arguments, facts, Path(folder))


def choose(arguments: argparse.Namespace) -> list[Case]:
    cases = QUICK if arguments.quick else CASES
    chosen = [case for case in cases if arguments.case in case.preset or arguments.case in case.data]
    if arguments.batch:
        networks = dict.fromkeys((case.preset, case.data) for case in chosen)
        chosen = [Case(*network, batch) for network in networks for batch in arguments.batch]
    if not chosen:
        known = dict.fromkeys(case.preset for case in cases)
        raise InputError(f"no case has '{arguments.case}' in it: {', '.join(known)}")
    return chosen


def table(chosen: list[Case], arguments: argparse.Namespace, facts: dict[str, Any], folder: Path) -> int:
    """Measures and prints; what is there is saved after every case."""
    file = arguments.out or (None if arguments.quick else record.history_file(facts))
    found: list[dict[str, Any]] = []
    failures, preparation = 0, {}
    print(record.HEADER)
    for case in chosen:
        prepared, data, rate = written(case, arguments, folder)
        if rate is not None:
            preparation[data] = {"data": data, "crystals_per_second": rate}
        try:
            result = in_new_process(SOURCE, prepared, preset=case.preset, **settings(arguments))
        except WorkerError as error:
            failures += 1
            print(f"{case.preset}, {data}, batch {case.batch}: {error}", flush=True)
            continue
        found.append({**result, "data": data})
        print(record.line(found[-1]), flush=True)
        if file:
            record.save(file, facts, cases=found, preparation=list(preparation.values()))
    rates = ", ".join(f"{row['data']} {row['crystals_per_second']:.0f}" for row in preparation.values())
    print(f"prepared, crystals a second on one core: {rates or 'nothing (prepared before)'}")
    for result in found:
        if words := record.against_published(result, facts):
            print(words)
    if file and found:
        print(f"saved in {file}")
    return int(failures > 0)


def compare(chosen: list[Case], arguments: argparse.Namespace, facts: dict[str, Any], folder: Path) -> int:
    print(f"{arguments.against} / here, {arguments.pairs} pairs: median [least, most]; above 1 this checkout is better")
    found: list[dict[str, Any]] = []
    with against.source_of(arguments.against) as other:
        for case in chosen:
            prepared, data, _ = written(case, arguments, folder)
            result = against.alternate(other, prepared, arguments.pairs, preset=case.preset, **settings(arguments))
            found.append({**result, "data": data, "against": arguments.against})
            print(against.lines(result, data), flush=True)
            if arguments.out:
                record.save(arguments.out, facts, comparisons=found)
    return int(any("error" in result for result in found))


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("device", "threads", "precision", "rounds")}


def written(case: Case, arguments: argparse.Namespace, folder: Path) -> tuple[Path, str, float | None]:
    """The crystals of a case in a file for other processes, their data set, and how many a second were prepared."""
    source = crystals(case.data, case.batch, folders_of_data(arguments.data))
    file = folder / f"{source.name}-{case.batch}.npz"
    save_tables(file, {"val": source.table}, {"title": source.name})
    return file, source.name, source.prepared_per_second


def folders_of_data(given: Path | None) -> list[Path]:
    from dpcdvae.files import home

    if given and not given.is_dir():
        raise InputError(f"--data {given} is no folder")
    return [*([given] if given else []), real_data(), home() / "datasets"]


if __name__ == "__main__":
    run(main)
