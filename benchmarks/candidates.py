"""By what the best of several decodes of a latent should be chosen, and how many decodes are worth their time.

    python benchmarks/candidates.py --model RUN [--data carbon_24] [--split test] [-n 300] [--most 8] [--steps 20]

Each of the first n crystals of the split is encoded (the mean), and its latent is decoded --most times. Every decode is
held against the true crystal (pymatgen's StructureMatcher with the published tolerances, 10 s a pair), and measured by
every criterion of quality/criteria.py; each also with the demand that the number of atoms (as its own encoding says it)
and the composition (as z says it) agree. Told for K = 1, 2, 4, ... candidates: match rate and mean rms of the candidate
that each criterion keeps, and of the best of all ("any"); the same for stopping at the model's threshold, with the mean
number of passes. A model without a threshold gets one from --calibration validation crystals first.

Tables and curve go to benchmarks/results/candidates-MODEL.json, a picture of the curve beside it, markdown tables
to the screen (--show: of all results in that file, nothing is made). What is known of each candidate is kept in
runs/candidates-MODEL-CHECKPOINT/, a file for each candidate of 100 crystals: the same command goes on after a kill; a
larger -n begins with the whole batches of a smaller one, a larger --most with the candidates of a smaller one. CPU
seconds are those of this process, without the comparisons by pymatgen. --steps: by default the model's own. Set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError
from quality.batches import begun, here, kept, parts, split_table
from quality.choosing import Candidates, markdown, summary
from speed.command import Parser, positive, run, seed_number, usable_device
from speed.record import ROOT

if TYPE_CHECKING:
    from dpcdvae.model.cdvae import CDVAE
    from dpcdvae.structures.table import CrystalTable
    from quality.criteria import Task

CALIBRATION = 200


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a run folder, a checkpoint folder or a bundled name")
    parser.add_argument("--data", default="carbon_24")
    parser.add_argument("--split", default="test")
    parser.add_argument("-n", type=positive, default=300, help="crystals")
    parser.add_argument("--most", type=positive, default=8, help="candidates of each")
    parser.add_argument("--steps", type=positive, help="passes of each decode; by default the model's own")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument(
        "--calibration", type=positive, default=CALIBRATION, help="crystals, where no threshold is there"
    )
    parser.add_argument("--device", type=usable_device, default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    parser.add_argument("--work", type=Path, default=ROOT / "runs", help="folder of what is kept")
    parser.add_argument("--show", action="store_true", help="tables of the results that are there")
    arguments = parser.parse_args()
    name = Path(arguments.model).resolve().name
    out = arguments.out or ROOT / "benchmarks" / "results" / f"candidates-{name}.json"
    if arguments.show:
        if not out.exists():
            raise InputError(f"{out}: no results are there yet: leave out --show")
        print("\n\n".join(markdown(result) for result in json.loads(out.read_text())["results"]))
        return
    result = measure(arguments, name, out)
    print(markdown(result))
    plot(result, name, out.with_name(f"{out.stem}-{result['data']}-{result['split']}-{result['n']}.png"))


def measure(a: argparse.Namespace, name: str, out: Path) -> dict[str, Any]:
    """The result of this command, also in the file; what is missing of it is made."""
    from dpcdvae.checkpoints.loading import load_crystal_vae
    from dpcdvae.files import write_json
    from dpcdvae.model.agreement_threshold import Agreement
    from dpcdvae.model_store import find_model
    from dpcdvae.parallel import LocalEngine
    from dpcdvae.sampling.decoding import evaluating
    from dpcdvae.sampling.decoding_settings import Decoding
    from quality.criteria import decode_once
    from quality.thresholds import find_threshold

    table = split_table(a.data, a.split, a.n)
    source = find_model(a.model)
    model, checkpoint = load_crystal_vae(source, a.device), source.sha256
    how = Decoding.of(model.config, a.steps, None, a.most)
    record = begun(out, {"model": name, "checkpoint": checkpoint}, {"results": []})
    work = a.work / f"candidates-{name}-{checkpoint[:8]}"
    threshold = find_threshold(model, name, a.data, a.calibration, work)
    assert isinstance(model.agreement, Agreement)
    passes = []
    with evaluating(model), LocalEngine(1) as engine:
        for first, count in parts(a.n):
            task = None
            batch = []
            for number in range(a.most):
                file = work / f"{a.data}-{a.split}-{how.solver}-{how.steps}-{a.seed}-{first}-{count}-{number}.json"
                if task is None and not file.exists():
                    task = encoded_part(model, table, first, count, a.seed)
                batch.append(kept(file, lambda t=task, k=number: decode_once(model, t, k, how, engine)))
                print(f"crystals {first + 1} to {first + count}, candidate {number + 1} of {a.most}", flush=True)
            passes.append(batch)
    seconds: Counter[str] = Counter()
    for one in (one for batch in passes for one in batch):
        seconds.update(one["seconds"])
    key = {
        "data": a.data,
        "split": a.split,
        "steps": how.steps,
        "solver": how.solver,
        "seed": a.seed,
        "n": a.n,
        "most": a.most,
    }
    result = {
        **key,
        "threshold": threshold,
        "cpu_seconds": dict(seconds),
        "machine": here(a.device),
        **summary(Candidates.of(passes), model.agreement.threshold, how.steps),
    }
    record["results"] = [*(old for old in record["results"] if not key.items() <= old.items()), result]
    write_json(out, record)
    return result


def encoded_part(model: CDVAE, table: CrystalTable, first: int, count: int, seed: int) -> Task:
    """The latents of some crystals with the noise that ``dpcdvae.sampling.generation.reconstruct`` gives them."""
    import torch

    from dpcdvae.sampling.decoding import Request
    from dpcdvae.sampling.encoding import encoded
    from dpcdvae.tensors.noise import CrystalRandom
    from quality.criteria import Task

    part = table.select(range(first, first + count))
    mu, log_var = encoded(model, part)
    random = CrystalRandom(seed, torch.arange(first, first + count, device=model.device))
    return Task(Request(mu, random, [str(id) for id in part.ids]), list(part), log_var)


def plot(result: dict[str, Any], name: str, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bins = result["curve"]
    if not bins:
        raise InputError("no candidate could be encoded: there is no curve to draw")
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    x, y = [one["distance"] for one in bins], [one["match"] for one in bins]
    across = [[one["distance"] - one["from"] for one in bins], [one["to"] - one["distance"] for one in bins]]
    up = [
        [max(0.0, one["match"] - one["interval"][0]) for one in bins],
        [max(0.0, one["interval"][1] - one["match"]) for one in bins],
    ]
    axis.errorbar(x, y, yerr=up, xerr=across, fmt="o-", capsize=3, elinewidth=1)
    threshold = result["threshold"]["threshold"]
    if threshold > 0:
        axis.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}")
        axis.legend(fontsize=11)
    axis.set(xscale="log", ylim=(-0.03, 1.03))
    axis.set_xlabel("latent distance of the decoded crystal (standard deviations)", fontsize=12)
    axis.set_ylabel("share that matches the true crystal", fontsize=12)
    axis.set_title(f"{name}, {result['data']}:{result['split']}, {result['n']} crystals, {result['most']} decodes each")
    axis.tick_params(labelsize=11)
    axis.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    run(main)
