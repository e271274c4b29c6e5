"""The quality of a model's crystals against the passes of the network, for every solver.

    python benchmarks/steps.py [--model perov-5-compact] [--data perov_5] [-n 200] [--solvers x0-jump] [--steps 50 20]

For each solver and number of passes the first n crystals of the test split are reconstructed and n new ones generated,
with the noise of one seed, and evaluated. The data set is the prepared one, or is prepared from the
folder named by DPCDVAE_DATA (or ../shared/data). Set OMP_NUM_THREADS=1.

Every batch is kept in runs/steps-MODEL/, every result in benchmarks/results/steps-MODEL.json as soon as it is there:
the same command goes on after a kill, and a larger -n begins with the crystals of the smaller one. Table and plot are
made from all results in that file of as many crystals (-n); --show makes nothing else.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.evaluation.protocol import PROTOCOLS, Protocol
from quality.batches import begun, cpu_seconds, crystals_of, failures_of, here, kept, parts, split_table, stored
from quality.judging import cell, judge
from speed.command import Parser, positive, run, seed_number, usable_device
from speed.record import ROOT

SOLVERS = ("x0-jump", "ancestral", "ddim", "dpm++2m", "heun")
STEPS = (100, 50, 20, 10)
RECONSTRUCTED = {"match_rate": "none", "match_rms": "none"}
GENERATED = {
    "coverage_recall": "",
    "coverage_precision": "",
    "density_wasserstein": "none",
    "num_elements_wasserstein": "none",
    "structural_validity": "",
    "compositional_validity": "",
}
TITLES = {
    "match_rate": "match",
    "match_rms": "<rms>",
    "coverage_recall": "COV-R",
    "coverage_precision": "COV-P",
    "density_wasserstein": "W density",
    "num_elements_wasserstein": "W elements",
    "structural_validity": "valid struct.",
    "compositional_validity": "valid comp.",
}
LOWER_IS_BETTER = {"match_rms", "density_wasserstein", "num_elements_wasserstein"}
PROTOCOLS.register("steps-reconstruct")(Protocol("reconstruction against passes", RECONSTRUCTED))
PROTOCOLS.register("steps-generate")(Protocol("generation against passes", GENERATED))


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="perov-5-compact", help="a bundled name or a folder")
    parser.add_argument("--data", default="perov_5", help="data set; its test split is the reference")
    parser.add_argument("-n", type=positive, default=200, help="crystals to reconstruct, and to generate")
    parser.add_argument("--solvers", nargs="+", default=SOLVERS)
    parser.add_argument("--steps", nargs="+", type=positive, default=STEPS)
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--device", type=usable_device, default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    parser.add_argument("--show", action="store_true", help="table and plot of what is there")
    arguments = parser.parse_args()
    name = Path(arguments.model).name
    out = arguments.out or ROOT / "benchmarks" / "results" / f"steps-{name}.json"
    if arguments.show and not out.exists():
        raise InputError(f"{out}: no results are there yet: leave out --show")
    if not arguments.show:
        measure(arguments, out, ROOT / "runs" / out.stem)
    record = json.loads(out.read_text())
    show(record, arguments.n)
    plot(record, arguments.n, out.with_name(f"{out.stem}-{arguments.n}.png"))


def measure(arguments: argparse.Namespace, out: Path, work: Path) -> None:
    """Adds what is missing to the file of results."""
    from dpcdvae.checkpoints.loading import load_crystal_vae
    from dpcdvae.files import write_json
    from dpcdvae.model_store import find_model

    table = split_table(arguments.data, "test", arguments.n)
    source = find_model(arguments.model)
    model = load_crystal_vae(source, arguments.device)
    setting = {
        "model": Path(arguments.model).name,
        "model_sha256": source.sha256,
        "reference": f"{arguments.data}:test",
        "seed": arguments.seed,
    }
    record = begun(out, setting, {"results": []})
    ids = [str(id) for id in table.ids]
    for steps in arguments.steps:
        for solver in arguments.solvers:
            key = {"solver": solver, "steps": steps, "n": arguments.n}
            if any(key.items() <= result.items() for result in record["results"]):
                continue
            made = {
                kind: crystals(kind, model, table, key, arguments.seed, work) for kind in ("reconstruct", "generate")
            }
            cpu = sum(cpu_seconds(batches) for batches in made.values())
            result = {
                **key,
                "crystals_per_cpu_second": 2 * arguments.n / cpu,
                "machine": here(arguments.device),
                **{
                    kind: judge(
                        crystals_of(made[kind]),
                        failures_of(made[kind]),
                        record["reference"],
                        f"steps-{kind}",
                        ids if kind == "reconstruct" else (),
                    )
                    for kind in made
                },
            }
            record["results"].append(result)
            write_json(out, record)
            print(row(result), flush=True)


def crystals(kind: str, model: Any, table: Any, key: dict[str, Any], seed: int, work: Path) -> list[dict[str, Any]]:
    """The batches of one solver and number of passes: those that are there, and those that are missing."""
    from dpcdvae.sampling.generation import generate, reconstruct

    made = []
    for first, count in parts(key["n"]):

        def make(first: int = first, count: int = count) -> dict[str, Any]:
            how: dict[str, Any] = {"seed": seed, "solver": key["solver"], "steps": key["steps"], "first": first}
            if kind == "generate":
                return stored(generate(model, count, **how))
            return stored(reconstruct(model, table.select(range(first, first + count)), **how))

        made.append(kept(work / f"{kind}-{key['solver']}-{key['steps']}-{seed}-{first}-{count}.json", make))
    return made


def numbers_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: (result["reconstruct"] | result["generate"])[name] for name in TITLES}


def row(result: dict[str, Any]) -> str:
    cells = [cell(number) for number in numbers_of(result).values()]
    name = f"{result['solver']:8}{result['steps']:6}{result['crystals_per_cpu_second']:9.2f}"
    return name + "".join(f"{text:>22}" for text in cells)


def chosen(record: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """The results of n crystals, the most passes first."""
    return sorted((r for r in record["results"] if r["n"] == n), key=lambda r: (r["solver"], -r["steps"]))


def show(record: dict[str, Any], n: int) -> None:
    """Every number with its 95 % interval, and which passes are as good as the most."""
    results = chosen(record, n)
    print(f"{record['model']}, {record['reference']}, n = {n} + {n}, seed {record['seed']}")
    print(f"{'solver':8}{'steps':>6}{'per CPU s':>9}" + "".join(f"{title:>22}" for title in TITLES.values()))
    for result in results:
        print(row(result))
    for solver in sorted({result["solver"] for result in results}):
        own = [result for result in results if result["solver"] == solver]
        good = [result["steps"] for result in own if is_as_good(result, own[0])]
        print(f"{solver}: no number worse than the interval of {own[0]['steps']} passes: {', '.join(map(str, good))}")


def is_as_good(result: dict[str, Any], most: dict[str, Any]) -> bool:
    """Whether no value lies beyond the worse end of the interval of the most passes."""
    here, there = numbers_of(result), numbers_of(most)
    return all(
        here[name]["value"] is not None
        and (
            here[name]["value"] <= there[name]["interval"][1]
            if name in LOWER_IS_BETTER
            else here[name]["value"] >= there[name]["interval"][0]
        )
        for name in TITLES
    )


def plot(record: dict[str, Any], n: int, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = chosen(record, n)
    figure, axes = plt.subplots(2, 4, figsize=(14, 6), sharex=True, layout="constrained")
    for (name, title), axis in zip(TITLES.items(), axes.flat, strict=True):
        for solver in sorted({result["solver"] for result in results}):
            points = [
                (result["steps"], *numbers_of(result)[name]["interval"], numbers_of(result)[name]["value"])
                for result in results
                if result["solver"] == solver and numbers_of(result)[name]["interval"] is not None
            ]
            if points:
                steps, low, high, value = zip(*points, strict=True)
                (line,) = axis.plot(steps, value, "o-", ms=3, label=solver)
                axis.fill_between(steps, low, high, alpha=0.12, color=line.get_color(), lw=0)
        axis.set(title=title, xscale="log")
        passes = sorted({result["steps"] for result in results})
        axis.set_xticks(passes, [str(steps) for steps in passes])
        axis.minorticks_off()
    for axis in axes[1]:
        axis.set_xlabel("steps of the solver")
    axes[0, 0].legend()
    figure.suptitle(f"{record['model']}, n = {n} + {n}, seed {record['seed']}; 95 % intervals")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    run(main)
