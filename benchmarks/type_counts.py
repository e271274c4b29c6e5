"""How strongly the types of a crystal should keep to the composition that its latent gives.

    python benchmarks/type_counts.py MODEL [--data mp_20] [--split val] [-n 300] [--weights 0 0.5 3 12] [--show]

Each of the first n crystals of the split is encoded (the mean) and decoded once in 20 steps, for every value of
diffusion.type_count_weight (0: each atom by itself), with the same noise. Told: match rate and mean rms of the matcher
alone, and the share of crystals whose composition is wrong. Results: results/type-counts-MODEL.json. Set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from dpcdvae.checkpoints.loading import load_crystal_vae
from dpcdvae.config import override_config
from dpcdvae.files import write_json
from dpcdvae.model_store import find_model
from dpcdvae.sampling.generation import reconstruct
from quality.batches import here, split_table
from quality.judging import cell, judge_reconstruction, markdown_table
from speed.command import Parser, positive, run
from speed.record import ROOT

STEPS = 20


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a run folder, a checkpoint folder or a bundled name")
    parser.add_argument("--data", default="mp_20")
    parser.add_argument("--split", default="val")
    parser.add_argument("-n", type=positive, default=300)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.5, 3.0, 12.0])
    parser.add_argument("--show", action="store_true", help="the table of the results that are there")
    arguments = parser.parse_args()
    name = Path(arguments.model).resolve().name
    file = ROOT / "benchmarks" / "results" / f"type-counts-{name}.json"
    if not arguments.show:
        table = split_table(arguments.data, arguments.split, arguments.n)
        source = find_model(arguments.model)
        model = load_crystal_vae(source, "cpu")
        rows = []
        for weight in arguments.weights:
            model.config = override_config(model.config, [f"diffusion.type_count_weight={weight}"])
            start = time.process_time()
            made = reconstruct(model, table, steps=STEPS, candidates=1)
            seconds = time.process_time() - start
            ids = [str(id) for id in table.ids]
            judged = judge_reconstruction(made.crystals, made.failures, f"{arguments.data}:{arguments.split}", ids)
            rows.append({"weight": weight, "seconds": seconds, **judged})
        given = {"data": arguments.data, "split": arguments.split, "n": arguments.n, "steps": STEPS}
        write_json(file, {**given, "model_sha256": source.sha256, "machine": here("cpu"), "rows": rows})
    header = ["weight", "match rate", "mean rms", "wrong composition, %", "CPU s"]
    rows = json.loads(file.read_text())["rows"]
    print(markdown_table(header, [shown(row) for row in rows]))


def shown(row: dict) -> list[str]:
    wrong = f"{100 * row['misses']['composition']:.1f}"
    return [str(row["weight"]), cell(row["match_rate"]), cell(row["match_rms"]), wrong, f"{row['seconds']:.0f}"]


if __name__ == "__main__":
    run(main)
