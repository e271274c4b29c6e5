"""A row of the tables made: its crystals, and what is found of them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpcdvae import __version__
from dpcdvae.cli import main as dpcdvae
from dpcdvae.datasets import DATASETS, dataset_file, load_split
from dpcdvae.errors import InputError
from dpcdvae.files import json_object, manifest_path, sha256, write_json
from dpcdvae.io import Failure, read, write
from dpcdvae.model_store import WEIGHTS, find_model
from quality.judging import judge_reconstruction
from quality.records import SAMPLING, model_place
from quality.rows import CEILING, Row
from queueing.state import MODELS
from speed.record import ROOT, machine, threads

RELAXED = {
    "relax": ["--calculator", "chgnet"],
    "relax-dft": ["--calculator", "chgnet,gpaw", "--settings", "screening", "--time-limit", "900"],
}
"""Tasks that relax what was generated, and how."""

DRAWN = 300
"""So many crystals are generated for a row of task relax-dft, which takes those with the fewest atoms."""

INSTEAD = "remove it, and the row is made again"


def check_whole(row: Row) -> None:
    """Raises InputError where the data set of a row is not whole, as of another one nothing may be kept."""
    if row.task in RELAXED:
        return  # it needs none
    count, whole = len(load_split(f"{row.dataset}:test")), DATASETS[row.dataset].rows["test"]
    if count != whole:
        raise InputError(
            f"{row.dataset}:test has {count} crystals, not the published {whole}: prepare it whole, or give -n"
        )


def make(row: Row, work: Path, n: int | None) -> dict[str, Any]:
    """Makes the crystals of a row, or the first ``n``, and judges them; returns what a record keeps.

    What is in ``work`` of the same model, data and options is not made again.
    """
    if n and row.task == CEILING:
        raise InputError(f"-n {n}: {row.name} is of the whole test split: leave -n out")
    here = machine("cpu", threads(1))
    found = _of_test_crystals(row, work) if row.task == CEILING else _of_model(row, work, n)
    data = {"data_sha256": sha256(dataset_file(row.dataset))} if row.task in ("reconstruct", CEILING) else {}
    return {"row": row.model_dump(), **found, **data, "machine": here}


def place_of(model: str) -> str:
    """What commands in the checkout find the model by: its name if it is bundled, else its folder."""
    place = model_place(model)
    return str(place.relative_to(ROOT)) if isinstance(place, Path) else place


def _of_test_crystals(row: Row, work: Path) -> dict[str, Any]:
    """The test crystals themselves, judged as if they had been reconstructed."""
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
    model = find_model(model_place(row.model))
    if not (model.folder / WEIGHTS).exists():
        raise InputError(
            f"{row.model} is here without its weights: train it again (train_queue.py --only {row.model}, then "
            "--collect); on another processor it may be another model in the last digits"
        )
    command = _command(row, DRAWN if row.task == "relax-dft" else n or row.n)
    # Crystals of another model or version, by other options or of other data have another name.
    parts = [model.sha256, __version__, *command]
    if row.task == "reconstruct":
        parts.append(sha256(dataset_file(row.dataset)))
    tag = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]
    crystals, made = _crystals(command, work / f"{row.model}-{tag}.extxyz")
    report = work / f"{row.name}-{tag}.json"
    if row.task == "relax-dft":
        crystals = _smallest(crystals, n or row.n, report.with_suffix(".extxyz"))
    judged, found = _judged(row, crystals, report)
    kept = {
        "commands": [" ".join(["dpcdvae", *command]), judged],
        "model_sha256": model.sha256,
        "sampling": {name: made["arguments"][name] for name in SAMPLING if made["arguments"].get(name)},
        "passes": made["passes"],
        "made": made["machine"],
    }
    if row.task in RELAXED:
        return kept | _relaxed(found)
    kept |= {"crystals": found["crystals"]["generated"], "metrics": found["metrics"]}
    if row.task == "reconstruct":
        failures = [Failure(each["id"], "sampling", each["reason"]) for each in made["failures"]]
        ids = [str(id) for id in load_split(f"{row.dataset}:test").ids][: n or row.n or None]
        kept["misses"] = judge_reconstruction(list(read(crystals)), failures, f"{row.dataset}:test", ids)["misses"]
    return kept


def _crystals(command: Sequence[str], file: Path) -> tuple[Path, dict[str, Any]]:
    """The file of crystals that a command makes, and its manifest with the machine; made where they are not there."""
    where = file.with_suffix(".machine.json")
    if not (manifest_path(file).exists() and where.exists()):
        here = machine("cpu", threads(1))
        call([*command, "--out", str(file), "--overwrite"])
        write_json(where, here)
    made = json_object(manifest_path(file), INSTEAD)
    lacks = [key for key in ("arguments", "crystals", "failures", "passes") if key not in made]
    if lacks or len(read(file)) != made["crystals"]:
        raise InputError(f"{manifest_path(file)} and {file.name} do not belong together: remove both")
    return file, {**made, "machine": json_object(where, INSTEAD)}


def _relaxed(found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a report of ground states."""
    known = {each["id"]: each["delta_energy"] for each in found["rows"] if each["delta_energy"] is not None}
    return {
        "crystals": found["crystals"]["given"],
        "relaxation": found["crystals"],
        "metrics": found["figures"],
        "delta_energies": {id: round(value, 3) for id, value in known.items()},  # meV/atom
        "not_converged": {each["id"]: each["reason"] for each in found["rows"] if not each["converged"]},
    }


def _command(row: Row, count: int) -> list[str]:
    """The command that makes the crystals of a row, without its output; of the whole split where ``count`` is 0."""
    place = place_of(row.model)
    if row.task == "reconstruct":
        made = ["reconstruct", place, f"{row.dataset}:test", *(["--limit", str(count)] if count else [])]
    else:
        made = ["generate", place, "-n", str(count), "--seed", "0"]
    return [*made, *row.options, "--workers", "0"]


def _smallest(crystals: Path, n: int, out: Path) -> Path:
    """A file of the ``n`` crystals with the fewest atoms, of equal ones the first."""
    write(sorted(read(crystals), key=lambda crystal: crystal.num_atoms)[:n], out, overwrite=True)
    return out


def _judged(row: Row, crystals: Path, report: Path) -> tuple[str, dict[str, Any]]:
    """The command that judges a file of crystals, in words, and its report."""
    name, *options = _judge(row)
    call([name, str(crystals), *options, "--json", str(report), "--overwrite"])
    return " ".join(["dpcdvae", name, "CRYSTALS", *options]), json_object(report, INSTEAD)


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
    """A command of dpcdvae in this process; its models are found from any working directory."""
    print("dpcdvae", *command, file=sys.stderr)
    folder = f"{MODELS.relative_to(ROOT)}/"
    if code := dpcdvae([str(ROOT / word) if word.startswith(folder) else word for word in command]):
        sys.exit(code)
