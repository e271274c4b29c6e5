"""What a choice in training changes: runs held against each other by their losses, reconstructions and generations.

    python benchmarks/studies.py evaluate RUN... [--data carbon_24] [--split val] [-n 300] [--steps 20]
        [--candidates 1 4] [--priors normal gaussian flow posterior] [--seed 0] [--leave-out metre crmse]
    python benchmarks/studies.py table 'benchmarks/results/studies/*.json'

RUN is a run folder (its best checkpoint), a checkpoint folder or a bundled model. Of each:

- training: the losses of the best epoch on the validation set, epochs and CPU minutes spent;
- reconstruction: the first n crystals of the split, encoded (the mean) and decoded with up to K candidates: match rate,
  mean rms distance, and the cause of each miss (quality/misses.py);
- generation: n crystals, one decode each, with z from each of the priors, held against the test split. A prior that the
  checkpoint does not have is fitted here, on the latents of the training split. "posterior" is z of the posterior of a
  training crystal drawn at random: what a perfect prior would give. Beside: the median distance of these z to the
  nearest mean of a training crystal; "held out" is that of posteriors of validation crystals.

A model without an agreement threshold gets one from validation crystals first, where candidates are asked for. METRe
and cRMSE compare every crystal of the reference with many of the generated ones, and are left out unless --leave-out
says otherwise (name what is to be left out, "none" for nothing). Novelty describes the crystals of the training set,
once for a data set: many minutes for one of few compositions.

Results go to benchmarks/results/studies/NAME.json, part by part; crystals and priors are kept in
runs/studies-NAME-CHECKPOINT/. The same command goes on after a kill; other --candidates, --priors and metrics are added
to what is there. --steps: by default the model's own. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError, unknown_name
from dpcdvae.evaluation.protocol import PROTOCOLS, Protocol
from dpcdvae.model_store import find_model
from dpcdvae.run_log import METRICS_FILE, read_run
from quality.batches import (
    begun,
    cpu_seconds,
    crystals_of,
    failures_of,
    here,
    kept,
    parts,
    split_table,
    stored,
)
from quality.judging import cell, judge, judge_reconstruction
from quality.study_table import LOSSES, tables
from speed.command import Parser, positive, run, seed_number, usable_device
from speed.record import ROOT

if TYPE_CHECKING:
    from dpcdvae.model.cdvae import CDVAE
    from dpcdvae.sampling.decoding import Request
    from quality.latents import Source

GENERATED = {
    "coverage_recall": "",
    "coverage_precision": "",
    "density_wasserstein": "none",
    "num_elements_wasserstein": "none",
    **dict.fromkeys("structural_validity uniqueness novelty metre crmse".split(), ""),
}
DEAR = ("metre", "crmse")
PRIOR_NAMES = ("normal", "gaussian", "flow", "posterior")
CALIBRATION = 200


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("evaluate", help="measure runs, one JSON file each")
    one.add_argument("runs", nargs="+", metavar="RUN")
    one.add_argument("--data", default="carbon_24", help="prepared data set, or a published one in DPCDVAE_DATA")
    one.add_argument("--split", default="val", help="what is reconstructed")
    one.add_argument("-n", type=positive, default=300, help="crystals to reconstruct, and to generate from each prior")
    one.add_argument("--steps", type=positive, help="passes of each decode; by default the model's own")
    one.add_argument("--candidates", nargs="+", type=positive, default=[1, 4])
    one.add_argument("--priors", nargs="+", default=PRIOR_NAMES, help="normal, gaussian, flow, posterior")
    one.add_argument("--seed", type=seed_number, default=0)
    one.add_argument(
        "--leave-out", nargs="+", default=DEAR, metavar="METRIC", help=f"of {', '.join(GENERATED)}; or none"
    )
    one.add_argument("--calibration", type=positive, default=CALIBRATION, help="crystals, where a threshold is missing")
    one.add_argument("--device", type=usable_device, default="cpu")
    one.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "studies", help="folder")
    one.add_argument("--work", type=Path, default=ROOT / "runs", help="folder of the crystals")
    table = actions.add_parser("table", help="a markdown table of what was measured")
    table.add_argument("files", help="pattern of the JSON files")
    arguments = parser.parse_args()
    if arguments.action == "table":
        print(tables([Path(name) for name in sorted(glob.glob(arguments.files))], arguments.files))
        return
    names = [Path(name).resolve().name for name in arguments.runs]
    if len(set(names)) < len(names):
        raise InputError(
            f"two of the runs bear the same name ({', '.join(names)}): evaluate them into two --out folders"
        )
    for option, given, known in (
        ("--priors", arguments.priors, PRIOR_NAMES),
        ("--leave-out", arguments.leave_out, (*GENERATED, "none")),
    ):
        if odd := [name for name in given if name not in known]:
            raise unknown_name(option, odd[0], known)
    for given in arguments.runs:  # before hours are spent on the first
        find_model(given)
    for given, name in zip(arguments.runs, names, strict=True):
        Study(given, name, arguments).measure()


class Study:
    """One run: what is measured goes into its file at once."""

    def __init__(self, given: str, name: str, arguments: argparse.Namespace) -> None:
        from dpcdvae.checkpoints.loading import load_crystal_vae
        from dpcdvae.sampling.decoding_settings import Decoding

        self.given, self.name, self.a = given, name, arguments
        self.table = split_table(arguments.data, arguments.split, arguments.n)
        self.source = find_model(given)
        self.model: CDVAE = load_crystal_vae(self.source, arguments.device)
        self.how = Decoding.of(self.model.config, arguments.steps, None, 1)
        self.out: Path = arguments.out / f"{name}.json"
        self.work: Path = arguments.work / f"studies-{name}-{self.source.sha256[:8]}"
        setting = {
            "name": name,
            "checkpoint": self.source.sha256,
            "data": arguments.data,
            "split": arguments.split,
            "n": arguments.n,
            "steps": self.how.steps,
            "solver": self.how.solver,
            "seed": arguments.seed,
        }
        self.record = begun(self.out, setting, {"training": {}, "reconstruction": {}, "generation": {}})
        self.record["machine"] = here(arguments.device)

    def measure(self) -> None:
        from quality.thresholds import find_threshold

        self.record["training"] = training(Path(self.given), self.source.description["facts"])
        self.save(f"{self.name}: {self.record['training']}")
        for candidates in self.a.candidates:
            if str(candidates) not in self.record["reconstruction"]:
                if candidates > 1:
                    self.record["threshold"] = find_threshold(
                        self.model, self.name, self.a.data, self.a.calibration, self.work
                    )
                self.record["reconstruction"][str(candidates)] = found = self.reconstruct(candidates)
                self.save(f"{self.name}: {candidates} candidates, match rate {cell(found['match_rate'])}")
        done, wanted = self.record["generation"], {m for m in GENERATED if m not in self.a.leave_out}
        missing = [name for name in self.a.priors if not wanted <= done.get(name, {}).keys()]
        if missing:
            self.generate(missing)

    def save(self, line: str) -> None:
        from dpcdvae.files import write_json

        write_json(self.out, self.record)
        print(line, flush=True)

    def reconstruct(self, candidates: int) -> dict[str, Any]:
        from dpcdvae.sampling.generation import reconstruct

        threshold = None if self.model.agreement is None else self.model.agreement.threshold
        chosen = "1" if candidates == 1 else f"{candidates}-{threshold:.5g}"  # what the kept crystals depend on
        made = []
        for first, count in parts(self.a.n):
            file = self.work / f"{self.a.data}-{self.a.split}-{chosen}-{self.key(first, count)}"
            part = self.table.select(range(first, first + count))
            how: dict[str, Any] = {"steps": self.how.steps, "candidates": candidates, "seed": self.a.seed}
            made.append(
                kept(
                    file,
                    lambda part=part, first=first, how=how: stored(reconstruct(self.model, part, first=first, **how)),
                )
            )
        crystals, failures = crystals_of(made), failures_of(made)
        reference = f"{self.a.data}:{self.a.split}"
        return {
            **judge_reconstruction(crystals, failures, reference, [str(id) for id in self.table.ids]),
            "passes_per_crystal": sum(batch["passes"] for batch in made) / self.a.n,
            "cpu_seconds": cpu_seconds(made),
        }

    def key(self, first: int, count: int) -> str:
        return f"{self.how.solver}-{self.how.steps}-{self.a.seed}-{first}-{count}.json"

    def generate(self, names: list[str]) -> None:
        from dpcdvae.sampling.encoding import encoded
        from quality.latents import POSTERIOR, fitted_prior, nearest, posterior_source, prior_source

        train, val = (encoded(self.model, split_table(self.a.data, split)) for split in ("train", "val"))
        self.record["held_out_distance"] = float(nearest(self.all_latents(posterior_source(val)), train.mu).median())
        for name in names:
            if name == POSTERIOR:
                source, fitted = posterior_source(train), {"from": "crystals of the training split"}
            else:
                prior, fitted = fitted_prior(self.model, name, train, val, self.work / f"{self.a.data}-prior-{name}")
                source = prior_source(prior, self.model)
            made = [
                kept(
                    self.work / f"{self.a.data}-{name}-{self.key(first, count)}",
                    lambda f=first, c=count, s=source: self.decode(f, c, s),
                )
                for first, count in parts(self.a.n)
            ]
            found = judge(crystals_of(made), failures_of(made), f"{self.a.data}:test", protocol(self.a.leave_out))
            self.record["generation"][name] = {
                **self.record["generation"].get(name, {}),
                **found,
                "prior": fitted,
                "cpu_seconds": cpu_seconds(made),
                "median_distance_to_training": float(nearest(self.all_latents(source), train.mu).median()),
            }
            told = ", ".join(f"{metric} {cell(number)}" for metric, number in found.items())
            self.save(f"{self.name}: {name}, {told}")

    def all_latents(self, source: Source) -> Any:
        import torch

        from dpcdvae.tensors.noise import CrystalRandom

        return source(CrystalRandom(self.a.seed, torch.arange(self.a.n, device=self.model.device)))

    def decode(self, first: int, count: int, source: Source) -> dict[str, Any]:
        """Crystals number ``first`` .. of the seed, as ``dpcdvae generate`` would make them from such a prior."""
        import torch

        from dpcdvae.sampling.decoding import Request
        from dpcdvae.sampling.generation import decode_all
        from dpcdvae.tensors.noise import CrystalRandom

        def requests() -> Iterator[Request]:
            numbers = torch.arange(first, first + count, device=self.model.device)
            random = CrystalRandom(self.a.seed, numbers)
            yield Request(source(random), random, [f"{self.a.seed}-{k}" for k in numbers.tolist()])

        return stored(decode_all(self.model, requests, count, self.how, "generating"))


def protocol(left_out: Sequence[str]) -> str:
    """The name of a protocol of all metrics but these."""
    gates = {metric: gate for metric, gate in GENERATED.items() if metric not in left_out}
    name = f"study of {', '.join(gates)}"
    if name not in PROTOCOLS:
        PROTOCOLS.register(name)(Protocol("generation of a study", gates))
    return name


def training(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Losses of the best epoch on the validation set; epochs and CPU minutes where the run's table is there."""
    losses = facts.get("metrics", {})
    told = {"best_epoch": facts.get("epoch"), **{name: losses.get(f"val/{name}") for name in LOSSES}}
    if not (folder / METRICS_FILE).is_file():
        return {**told, "epochs": None, "cpu_minutes": None}
    log = read_run(folder)
    return {**told, "epochs": len(log.epochs), "cpu_minutes": log.total("cpu_seconds") / 60}


if __name__ == "__main__":
    run(main)
