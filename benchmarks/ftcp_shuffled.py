"""How much of FTCP's match rate depends on the order of the atoms, the origin and the cell that the data have.

    python benchmarks/ftcp_shuffled.py --model RUN [--data perov_5] [--split test] [-n 500]

A matrix depends on how a crystal is described, the crystal does not. The first n crystals of the split are encoded (the
mean, or --sample-latent) and decoded as the data have them, which is the published reading, and described anew: the
atoms in random order, the origin anywhere, another basis of the same lattice, all of these, and all of these brought to
Niggli's cell again, as `dpcdvae data add` prepares any crystal. Match rate and mean rms distance (both over all pairs,
with the published tolerances), with their intervals and the causes of the misses, go to
benchmarks/results/ftcp-shuffled-MODEL.json. ``--page`` writes the table of docs/systems.md from these files alone. Set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.files import json_object, write_text
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.standardise import standardise, wrap
from quality.batches import begun, here, split_table
from quality.judging import cell, judge_reconstruction, markdown_table
from quality.marked import with_part
from speed.command import Parser, positive, run, seed_number, usable_device
from speed.record import ROOT

RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "systems.md"
Disguise = Callable[[Crystal, np.random.Generator], Crystal]
SHEARS = 4


def other_order(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    order = rng.permutation(crystal.num_atoms)
    return _changed(crystal, crystal.atomic_numbers[order], crystal.frac_coords[order], crystal.lattice)


def other_origin(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    return _changed(crystal, crystal.atomic_numbers, wrap(crystal.frac_coords + rng.random(3)), crystal.lattice)


def other_cell(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Another basis of the same lattice and handedness: some vectors with others added, and all of them moved on."""
    basis = np.roll(np.eye(3), rng.integers(3), axis=0)
    for _ in range(SHEARS):
        i, j = rng.permutation(3)[:2]
        basis[i] += rng.choice([-1, 1]) * basis[j]
    frac = wrap(crystal.frac_coords @ np.linalg.inv(basis))
    return _changed(crystal, crystal.atomic_numbers, frac, basis @ crystal.lattice)


def all_of_these(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    return other_cell(other_origin(other_order(crystal, rng), rng), rng)


DISGUISES: dict[str, Disguise] = {
    "as in the data": lambda crystal, rng: crystal,
    "order of the atoms": other_order,
    "origin": other_origin,
    "cell": other_cell,
    "all three": all_of_these,
    "all three, Niggli's cell again": lambda crystal, rng: standardise(all_of_these(crystal, rng)),
}


def _changed(crystal: Crystal, numbers: Any, frac: Any, lattice: Any) -> Crystal:
    return Crystal(numbers, frac, lattice, crystal.id)


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a run folder or a checkpoint folder of FTCP")
    parser.add_argument("--page", action="store_true", help=f"write the table of {PAGE.name} from the results")
    parser.add_argument("--data", default="perov_5")
    parser.add_argument("--split", default="test")
    parser.add_argument("-n", type=positive, default=500, help="crystals")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--sample-latent", action="store_true", help="z as the public code draws it")
    parser.add_argument("--device", type=usable_device, default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    arguments = parser.parse_args()
    if not arguments.model and not arguments.page:
        raise InputError("which model? --model RUN; or --page")
    if arguments.model:
        name = Path(arguments.model).resolve().name
        out = arguments.out or RESULTS / f"ftcp-shuffled-{name}.json"
        print(markdown(measure(arguments, name, out)))
    if arguments.page:
        write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))


def measure(a: argparse.Namespace, name: str, out: Path) -> dict[str, Any]:
    """The result of this command, also in the file, where it replaces one of the same setting."""
    from dpcdvae.checkpoints.loading import load_model
    from dpcdvae.files import write_json
    from dpcdvae.ftcp.model import FTCP
    from dpcdvae.model_store import find_model
    from dpcdvae.sampling.ftcp_sampling import reconstruct
    from dpcdvae.structures.table import CrystalTable

    source = find_model(a.model)
    model = load_model(source, a.device)
    if not isinstance(model, FTCP):
        raise InputError(f"{source.name} is no FTCP model: others do not depend on how a crystal is described")
    record = begun(out, {"model": name, "checkpoint": source.sha256}, {"results": []})
    crystals = list(split_table(a.data, a.split, a.n))
    ids = [crystal.id for crystal in crystals]
    setting = {"data": a.data, "split": a.split, "n": a.n, "seed": a.seed, "sample_latent": a.sample_latent}
    judged = {}
    for number, (what, disguise) in enumerate(DISGUISES.items()):
        rng = np.random.default_rng([a.seed, number])
        table = CrystalTable.from_crystals([disguise(crystal, rng) for crystal in crystals])
        found = reconstruct(model, table, seed=a.seed, sample_latent=a.sample_latent)
        judged[what] = judge_reconstruction(found.crystals, found.failures, f"{a.data}:{a.split}", ids)
        print(f"{what}: match rate {judged[what]['match_rate']['value']:.4f}", flush=True)
    result = {**setting, "order": model.config.representation.order, "machine": here(a.device), "described": judged}
    record["results"] = [*(old for old in record["results"] if not setting.items() <= old.items()), result]
    write_json(out, record)
    return result


def markdown(result: dict[str, Any]) -> str:
    rows = [[what, *_cells(one)] for what, one in result["described"].items()]
    title = f"{result['data']}:{result['split']}, {result['n']} crystals, representation.order {result['order']}"
    return f"{title}\n\n" + markdown_table(["described anew", "match rate", "mean rms distance"], rows)


def render(page: str) -> str:
    """The page with the table of all kept results between its two marks."""
    latest = {}
    for file in sorted(RESULTS.glob("ftcp-shuffled-*.json")):
        record = json_object(file, "remove it, or measure it again")
        try:
            latest[record["model"]] = {"n": record["results"][-1]["n"], **record["results"][-1]["described"]}
        except (KeyError, IndexError, TypeError):
            raise InputError(f"{file} is no result of this script: remove it, or measure it again") from None
    header = ["crystals given to the encoder", *(f"`{name}`, n = {result['n']}" for name, result in latest.items())]
    rows = [[what, *(" / ".join(_cells(result[what])) for result in latest.values())] for what in DISGUISES]
    return with_part(page, "ftcp-shuffled", markdown_table(header, rows))


def _cells(one: dict[str, Any]) -> list[str]:
    """Match rate and mean rms distance."""
    return [cell(one["match_rate"]), cell(one["match_rms"], 4)]


if __name__ == "__main__":
    run(main)
