"""Tables 1 to 3 of the paper beside the models of this package: one command for every row.

    python benchmarks/reproduce.py carbon-24-reconstruct-4 --work FOLDER   # makes, evaluates, keeps the numbers
    python benchmarks/reproduce.py --tables                                # writes docs/reproduction.md

Rows are those of reproduction.toml. Crystals and reports lie in --work, so that a killed command goes on; the numbers
of a row in results/reproduction/, with the call and the hash of the model. Data sets must be prepared
(``dpcdvae data get NAME``). Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpcdvae.cli import main as dpcdvae
from dpcdvae.datasets import load_split
from dpcdvae.errors import InputError
from dpcdvae.files import json_object, manifest_path, write_json, write_text
from dpcdvae.io import Failure, read, write
from dpcdvae.model_store import WEIGHTS, bundled_models, find_model
from quality.judging import judge_reconstruction
from quality.published import PAGE, SAMPLING, render
from quality.rows import CEILING, Row, row_of, rows
from queueing.state import MODELS
from speed.command import Parser, positive, run
from speed.record import ROOT, machine

RELAXED = {
    "relax": ["--calculator", "chgnet"],
    "relax-dft": ["--calculator", "chgnet,gpaw", "--settings", "screening", "--time-limit", "900"],
}
"""Tasks that relax what was generated, and how."""

DRAWN = 300
"""So many crystals are generated for a row of task relax-dft, which takes those with the fewest atoms."""

RESULTS = ROOT / "benchmarks" / "results" / "reproduction"


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names in reproduction.toml")
    parser.add_argument("--work", type=Path, help="folder of crystals and reports")
    parser.add_argument("-n", type=positive, help="so many crystals instead of the row's; nothing is kept in results")
    parser.add_argument("--tables", action="store_true", help=f"write {PAGE.name} from what is kept")
    arguments = parser.parse_args()
    if not arguments.rows and not arguments.tables:
        raise InputError(f"which rows? {', '.join(rows())}; or --tables")
    if arguments.rows and arguments.work is None:
        raise InputError("--work FOLDER: where crystals and reports go")
    for row in [row_of(name) for name in arguments.rows]:
        measure(row, arguments.work, arguments.n)
    if arguments.tables:
        write_text(PAGE, render(PAGE.read_text(encoding="utf-8"), RESULTS))


def place_of(model: str) -> str:
    """What commands in the checkout find the model by: its name if it is bundled, else its folder."""
    return model if model in bundled_models() else f"{MODELS.relative_to(ROOT)}/{model}"


def anywhere(word: str) -> str:
    """The same word of a command from any working directory."""
    return str(ROOT / word) if word.startswith(f"{MODELS.relative_to(ROOT)}/") else word


def measure(row: Row, work: Path, n: int | None) -> dict[str, Any]:
    """Makes the crystals of a row, judges them, and keeps the numbers if they are all of the row's."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--work {work} cannot be written ({error.strerror}): name another folder") from None
    kept = _of_test_crystals(row, work) if row.task == CEILING else _of_model(row, work, n)
    kept = {"row": row.__dict__, **kept, "machine": machine("cpu", int(os.environ.get("OMP_NUM_THREADS", "0")) or 1)}
    if n is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_json(RESULTS / f"{row.name}.json", kept)
    return kept


def _of_test_crystals(row: Row, work: Path) -> dict[str, Any]:
    """All test crystals themselves, judged as if they had been reconstructed."""
    crystals = work / f"{row.name}.extxyz"
    write(list(load_split(f"{row.dataset}:test")), crystals, overwrite=True)
    command, found = _judged(row, crystals, crystals.with_suffix(".json"))
    return {
        "commands": [command],
        "sampling": {},
        "crystals": found["crystals"]["generated"],
        "metrics": found["metrics"],
    }


def _of_model(row: Row, work: Path, n: int | None) -> dict[str, Any]:
    sha256 = find_model(anywhere(place_of(row.model))).sha256
    if row.model not in bundled_models() and not (MODELS / row.model / WEIGHTS).exists():
        raise InputError(
            f"{row.model} is without its weights, which are too large for the repository: train it again "
            f"(train_queue.py --only {row.model}, then --collect)"
        )
    make = _make(row, DRAWN if row.task == "relax-dft" else n or row.n)
    # Crystals of another model or by other options have another name, so what is there is never taken for them.
    tag = hashlib.sha256(" ".join([sha256, *make]).encode()).hexdigest()[:8]
    crystals = work / f"{row.model}-{tag}.extxyz"
    if not manifest_path(crystals).exists():
        call([*make, "--out", str(crystals), "--overwrite"])
    made = json_object(manifest_path(crystals), "run it again")
    report = work / f"{row.name}-{tag}.json"
    if row.task == "relax-dft":
        crystals = _smallest(crystals, n or row.n, report.with_suffix(".extxyz"))
    command, found = _judged(row, crystals, report)
    kept = {
        "commands": ["dpcdvae " + " ".join(make), command],
        "model_sha256": sha256,
        "sampling": {name: made["arguments"][name] for name in SAMPLING if made["arguments"].get(name)},
        "passes": made["passes"],
    }
    if row.task in RELAXED:
        kept |= {"crystals": found["crystals"]["given"], "relaxation": found["crystals"], "metrics": found["figures"]}
        known = {each["id"]: each["delta_energy"] for each in found["rows"] if each["delta_energy"] is not None}
        kept["delta_energies"] = {id: round(value, 3) for id, value in known.items()}  # meV/atom
        kept["not_converged"] = {each["id"]: each["reason"] for each in found["rows"] if not each["converged"]}
    else:
        kept |= {"crystals": found["crystals"]["generated"], "metrics": found["metrics"]}
    if row.task == "reconstruct":
        failures = [Failure(each["id"], "sampling", each["reason"]) for each in made["failures"]]
        ids = [str(id) for id in load_split(f"{row.dataset}:test").ids][: n or row.n or None]
        kept["misses"] = judge_reconstruction(list(read(crystals)), failures, f"{row.dataset}:test", ids)["misses"]
    return kept


def _make(row: Row, count: int) -> list[str]:
    """The command that makes the crystals of a row, without its output; of the whole split where ``count`` is 0."""
    place = place_of(row.model)
    if row.task == "reconstruct":
        make = ["reconstruct", place, f"{row.dataset}:test", *(["--limit", str(count)] if count else [])]
    else:
        make = ["generate", place, "-n", str(count), "--seed", "0"]
    return [*make, *row.options, "--workers", "0"]


def _smallest(crystals: Path, n: int, out: Path) -> Path:
    """A file of the ``n`` crystals with the fewest atoms, of equal ones the first."""
    write(sorted(read(crystals), key=lambda crystal: crystal.num_atoms)[:n], out, overwrite=True)
    return out


def _judged(row: Row, crystals: Path, report: Path) -> tuple[str, dict[str, Any]]:
    """The command that judges a file of crystals, in words, and its report."""
    name, *options = _judge(row)
    call([name, str(crystals), *options, "--json", str(report), "--overwrite"])
    return " ".join(["dpcdvae", name, "CRYSTALS", *options]), json_object(report, "run it again")


def _judge(row: Row) -> list[str]:
    """The command that judges the crystals of a row, without its files."""
    if row.task in RELAXED:
        return ["ground-state", *RELAXED[row.task], "--pressure", "10", "--optimizer", "lbfgs", "--workers", "1"]
    judge = ["evaluate", "--reference", f"{row.dataset}:test", "--protocol", "cdvae", "--workers", "0"]
    judge += (
        ["--paired", "--baselines", "none"]
        if row.task in ("reconstruct", CEILING)
        else ["--baselines", "reference,training"]
    )
    return [*judge, *(["--energy-model", place_of(row.energy_model)] if row.energy_model else [])]


def call(command: Sequence[str]) -> None:
    print("dpcdvae", *command, file=sys.stderr)
    if code := dpcdvae([anywhere(word) for word in command]):
        sys.exit(code)


if __name__ == "__main__":
    run(main)
