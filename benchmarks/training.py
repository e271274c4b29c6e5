"""Training beyond the networks: parts of a step, how batches are filled, the loop around the steps, processes.

    python benchmarks/training.py parts --preset compact --dataset perov_5 --batch 64   # CPU ms of each part of a step
    python benchmarks/training.py batches                       # by crystals and by atoms: padding, time of an epoch
    python benchmarks/training.py loop --against REVISION       # the trainer around a tiny network, before and after
    python benchmarks/training.py processes --preset compact    # one process of two threads, two processes of one
    python benchmarks/training.py precision --against REVISION  # steps in float32 and bfloat16, here and there

CPU seconds, as others may use the machine; what is compared takes turns. One thread, except in ``processes``. Data sets
are prepared ones (DPCDVAE_HOME).
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dpcdvae.checkpoints.loading import build_model
from dpcdvae.config import load_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.nn.basis import legendre_harmonics
from dpcdvae.structures.table import CrystalTable, save_tables
from dpcdvae.tensors.graph import bond_graph, radius_graph
from dpcdvae.training.loader import TrainingBatch, make_loader
from dpcdvae.training.sampler import EpochSampler
from dpcdvae.training.train import prepare
from speed import record
from speed.against import source_of
from speed.command import Parser, positive, run
from speed.timing import PRECISIONS, use_precision
from speed.worker import SOURCE

TINY = [
    "model.latent_dim=16",
    "model.stats_hidden_dim=16",
    "encoder.options.dimenet++={hidden=16, blocks=1, int_emb=8, out_emb=16, output_layers=1}",
    "denoiser.options={hidden=16, atom_width=16, blocks=1, num_radial=8, emb_trip=8, emb_cbf=4, bil_trip=8,"
    " layers_atom=1, time_embedding=16, fourier=[]}",
]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parts", "batches", "loop", "processes", "precision", "answer"))
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--dataset", default="perov_5")
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--against", help="with loop and precision: a checkout or a revision")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="with answer")
    parser.add_argument("--out", type=Path, help="JSON here too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facts = record.machine("cpu", 1)
    table = load_dataset(arguments.dataset).tables["train"]
    if arguments.what == "answer":
        answer(table, arguments)
        return
    print("  ".join(f"{name} {value}" for name, value in facts.items()))
    functions = {"parts": parts, "batches": batches, "loop": loop, "processes": processes, "precision": precision}
    found = functions[arguments.what](table, arguments)
    if arguments.out:
        record.save(arguments.out, facts, training={**vars(arguments), "out": None, **found})


def parts(table: CrystalTable, arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a step, and of what it consists of besides the layers of the networks."""
    trainee = Trainee(arguments.preset, table, arguments.batch)
    loader = iter(make_loader(table, arguments.batch, target="", seed=0))
    batch = next(loader)
    crystals, encoder = batch.crystals, trainee.encoder
    cell = (crystals.num_atoms, crystals.frac_coords, crystals.lattice)
    bonds = bond_graph(crystals.bonds, crystals.bond_images, crystals.num_bonds, *cell)

    @torch.no_grad()
    def bases() -> None:
        encoder.radial_basis(bonds.distances)
        encoder.spherical_basis(bonds.distances)
        legendre_harmonics(bonds.cosines(), encoder.options.num_spherical)

    options = trainee.model.denoiser.options
    parameters = list(trainee.model.parameters())
    plain, average = torch.optim.Adam(parameters, 1e-9), copy.deepcopy(trainee.model).requires_grad_(False)
    averaged = list(average.parameters()), parameters
    trainee.step(batch)  # gradients for the optimisers
    found = medians(
        {
            "whole step": lambda: trainee.step(batch),
            "batch put together": lambda: next(loader),
            "bond graph": lambda: bond_graph(crystals.bonds, crystals.bond_images, crystals.num_bonds, *cell),
            "bases of the bonds": bases,
            "encoder, both passes": lambda: trainee.encode(batch),
            "radius graph": lambda: radius_graph(
                crystals.frac_coords, crystals.lattice, crystals.num_atoms, options.cutoff, options.max_neighbours
            ),
            "Adam, fused": trainee.optimizer.step,
            "Adam, as torch chooses": plain.step,
            "clipping": lambda: torch.nn.utils.clip_grad_value_(parameters, 1.0),
            "average": lambda: get_ema_multi_avg_fn(0.999)(*averaged, 0),
        },
        arguments.rounds,
    )
    for name, seconds in found.items():
        print(f"{name:24}{seconds * 1e3:10.2f} ms {seconds / found['whole step']:8.2%}")
    print(
        f"{int(crystals.num_atoms.sum())} atoms, {bonds.mask.shape[1]} slots for bonds of which "
        f"{float(bonds.mask.float().mean()):.0%} are filled"
    )
    return {"seconds": found}


def batches(table: CrystalTable, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ways to fill batches of as many atoms on average: their sizes, padding, and seconds an epoch."""
    trainee = Trainee(arguments.preset, table, arguments.batch)
    atoms = round(arguments.batch * float(table.num_atoms.mean()))
    ways = {"by crystals": 0, "by atoms": atoms}
    found: dict[str, Any] = {}
    for name, batch_atoms in ways.items():
        shares = list(EpochSampler(table.num_atoms, arguments.batch, batch_atoms=batch_atoms, seed=0))
        sizes = np.array([table.num_atoms[share.indices].sum() for share in shares])
        searched = sum(table.num_atoms[s.indices].sum() * table.num_atoms[s.indices].max() for s in shares)
        found[name] = {
            "batches": len(shares),
            "crystals": [f(len(s.indices) for s in shares) for f in (min, max)],
            "atoms": [int(sizes.min()), int(sizes.max())],
            "pairs_searched": int(searched),
        }
    loaders = {
        name: iter(make_loader(table, arguments.batch, target="", seed=0, batch_atoms=n)) for name, n in ways.items()
    }
    counts: dict[str, int] = dict.fromkeys(ways, 0)
    seconds: dict[str, float] = dict.fromkeys(ways, 0.0)
    for number in range(arguments.rounds + 1):
        for name, loader in loaders.items():
            batch = next(loader)
            start = time.process_time()
            trainee.step(batch)
            if number:
                seconds[name] += time.process_time() - start
                counts[name] += int(batch.crystals.num_atoms.sum())
    for name, facts in found.items():
        facts["epoch_cpu_seconds"] = seconds[name] / counts[name] * int(table.num_atoms.sum())
        print(f"{name:12}", facts)
    return found


def loop(table: CrystalTable, arguments: argparse.Namespace) -> dict[str, Any]:
    """CPU milliseconds a step with a network of next to no arithmetic: what the trainer adds to each."""
    tables = {"train": table.select(np.arange(300) % len(table)), "val": table.select([0])}
    settings = [*TINY, "train.batch_size=1", "train.max_epochs=2", f"model.max_atoms={int(table.num_atoms.max())}"]
    times: dict[str, list[float]] = {"here": []} | ({"other": []} if arguments.against else {})
    with source_of(arguments.against or str(record.ROOT)) as other:
        for number in range(arguments.rounds):
            for name in sorted(times, reverse=bool(number % 2)):
                row = train(tables, "compact", settings, 1, SOURCE if name == "here" else other)
                times[name].append(float(row["cpu_seconds"]) / 300)
    for name, seconds in times.items():
        print(f"{name:8}{statistics.median(seconds) * 1e3:8.2f} ms a step, {[round(s * 1e3, 1) for s in seconds]}")
    return {"seconds": times}


def processes(table: CrystalTable, arguments: argparse.Namespace) -> dict[str, Any]:
    """The second epoch of a run on the same crystals, of as many in a step."""
    some = 12 * arguments.batch
    tables = {"train": table.select(np.arange(some) % len(table)), "val": table.select(np.arange(2))}
    settings = ["train.max_epochs=2", "train.accelerator=cpu", f"model.max_atoms={int(table.num_atoms.max())}"]
    whole, half = ([f"train.batch_size={size}"] for size in (arguments.batch, arguments.batch // 2))
    ways = {
        "1 process, 1 thread": (1, whole),
        "1 process, 2 threads": (2, whole),
        "2 processes, 1 thread": (1, [*half, "train.devices=2", "train.strategy=ddp"]),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, (threads, more) in ways.items():
            row = train(tables, arguments.preset, [*settings, *more], threads, SOURCE)
            found[name].append({key: float(row[key]) for key in ("seconds", "cpu_seconds")})
    for name, rows in found.items():
        wall = [row["seconds"] for row in rows]
        print(
            f"{name:24}{some / statistics.median(wall):7.1f} crystals/s, seconds {wall}, "
            f"CPU seconds of the first process {[row['cpu_seconds'] for row in rows]}"
        )
    return {"epochs": found}


def precision(table: CrystalTable, arguments: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of the same steps in float32 and bfloat16, of this checkout and another, which take turns.

    The base of the ratios is float32, of the other checkout where there is one.
    """
    with source_of(arguments.against or str(record.ROOT)) as other:
        sources = {"here": SOURCE} | ({"other": other} if arguments.against else {})
        asked = {f"{name}, {kind}": (source, kind) for name, source in sources.items() for kind in ("float32", "bf16")}
        workers = {name: _start(arguments, *way) for name, way in asked.items()}
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(arguments.rounds + 1):
            for name in sorted(workers, reverse=bool(number % 2)):
                taken = _ask(workers[name], number)
                if number:
                    seconds[name].append(taken)
        for worker in workers.values():
            worker.communicate()
    base = seconds["other, float32" if arguments.against else "here, float32"]
    for name, values in seconds.items():
        ratios = sorted(a / b for a, b in zip(base, values, strict=True))
        print(
            f"{name:16} {statistics.median(values):.3f} s a step, fastest {min(values):.3f}; base / this: "
            f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        )
    return {"seconds": seconds}


def _start(arguments: argparse.Namespace, source: Path, kind: str) -> subprocess.Popen[str]:
    options = ["--preset", arguments.preset, "--dataset", arguments.dataset, "--batch", str(arguments.batch)]
    command = [sys.executable, __file__, "answer", *options, "--precision", kind]
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(worker: subprocess.Popen[str], number: int) -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(f"{number}\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())
    except (BrokenPipeError, ValueError):
        raise InputError("a process that measures steps has ended: its message stands above") from None


def answer(table: CrystalTable, arguments: argparse.Namespace) -> None:
    """What the processes of :func:`precision` do: for each number on stdin a step with that batch, its CPU seconds."""
    trainee = Trainee(arguments.preset, table, arguments.batch)
    loader = iter(make_loader(table, arguments.batch, target="", seed=0))
    kept = [next(loader) for _ in range(8)]
    for line in sys.stdin:
        start = time.process_time()
        trainee.step(kept[int(line) % len(kept)], arguments.precision)
        print(time.process_time() - start, flush=True)


def train(
    tables: dict[str, CrystalTable], preset: str, settings: list[str], threads: int, source: Path
) -> dict[str, str]:
    """A run of the command line in a new process; the last row of its ``metrics.csv``."""
    with TemporaryDirectory() as folder:
        save_tables(f"{folder}/some.npz", tables, {"name": "some"})
        options = [part for setting in settings for part in ("--set", setting)]
        command = ["train", f"{folder}/some.npz", "--preset", preset, "--out", f"{folder}/run", *options]
        environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [sys.executable, "-m", "dpcdvae", *command], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise InputError(f"training ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
        with open(f"{folder}/run/metrics.csv", newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))[-1]


class Trainee:
    """A model with its optimiser, as the trainer builds them."""

    def __init__(self, preset: str, table: CrystalTable, batch: int) -> None:
        largest = int(table.num_atoms.max())
        self.config = load_config(preset, [f"model.max_atoms={largest}", f"train.batch_size={batch}"])
        torch.manual_seed(0)
        self.model: Any = build_model(self.config)
        prepare(self.model, table)
        self.encoder = next(part for part in self.model.modules() if hasattr(part, "spherical_basis"))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-6, fused=True)

    def step(self, batch: TrainingBatch, precision: str = "float32") -> None:
        generator = torch.Generator().manual_seed(0)
        with use_precision(precision, torch.device("cpu")):
            total = self.model.total(self.model.step_losses(batch.crystals, None, generator, 0), 0)
        self.optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_value_(self.model.parameters(), 0.5)
        self.optimizer.step()

    def encode(self, batch: TrainingBatch) -> None:
        self.encoder(batch.crystals).sum().backward()


def medians(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU seconds of each, taking turns, after a round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if number:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    run(main)
