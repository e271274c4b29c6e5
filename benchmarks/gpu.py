"""A GPU against its roofline, in calls that each end within some minutes and save what they have.

    python benchmarks/gpu.py passes   --data FOLDER   # passes and steps of batches of 64 to 4096 crystals, 3 precisions
    python benchmarks/gpu.py epoch    --data FOLDER   # seconds an epoch of Carbon-24 takes at the paper's size
    python benchmarks/gpu.py generate                 # 10 000 Perov-5 crystals from the bundled model

FOLDER holds prepared data sets, carbon_24.npz and perov_5.npz; without it they are those of DPCDVAE_HOME. Needs
torch, lightning and numpy alone. ``--device cpu --quick`` tries the same in seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dpcdvae.checkpoints.loading import load_crystal_vae
from dpcdvae.config import load_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.sampling.generation import generate
from dpcdvae.structures.table import CrystalTable, load_tables
from dpcdvae.training.train import train
from speed import record
from speed.cases import of_size
from speed.command import Parser, positive, run, usable_device
from speed.measure import measure
from speed.timing import PRECISIONS, now, use_precision
from speed.workload import passes as passes_of

PAPER = "paper/dp-cdvae-carbon_24", "carbon_24"
NETWORKS = (PAPER, ("compact", "perov_5"))
BATCHES = (64, 256, 1024, 4096)
TRAINER = {"float32": ("32-true", "highest"), "tf32": ("32-true", "high"), "bf16": ("bf16-mixed", "highest")}
GENERATED = 10_000
MODEL = "perov-5-compact"


class Calls:
    """What is measured one after the other until the time is up; saved after each."""

    def __init__(self, kind: str, arguments: argparse.Namespace) -> None:
        self.kind, self.file = kind, arguments.out
        self.facts = record.machine(arguments.device, arguments.threads)
        self.device = torch.device(arguments.device)
        self.end = time.monotonic() + 60 * arguments.minutes
        if self.file is None and not arguments.quick:
            self.file = record.history_file(self.facts, kind)
        self.found: list[dict[str, Any]] = []
        print("  ".join(f"{name} {value}" for name, value in self.facts.items()))

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def run(self, what: dict[str, Any], function: Callable[[], dict[str, Any]], least: float = 0.0) -> bool:
        """Whether there was time (``least`` seconds) and memory for it; what came out is saved, an error too."""
        if self.left() <= least:
            print(f"{_words(what)}: no time left")
            return False
        start = time.monotonic()
        try:
            result = function()
        except (RuntimeError, InputError) as error:  # out of memory, too large for a kernel, a loss that diverged
            torch.cuda.empty_cache()
            result = {"error": str(error).splitlines()[0]}
        self.found.append({**what, **result, "wall_seconds": time.monotonic() - start})
        if self.file:
            record.save(self.file, self.facts, **{self.kind: self.found})
        if "error" in result:
            print(f"{_words(what)}: {result['error']}", flush=True)
        return "error" not in result


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("passes", "epoch", "generate"))
    parser.add_argument("--data", type=Path, help="folder of prepared data sets (.npz)")
    parser.add_argument("--device", type=usable_device, default="cuda")
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batch", type=positive, nargs="+", help="crystals in a batch")
    parser.add_argument("--minutes", type=float, default=8.0, help="nothing new is begun that would not end by then")
    parser.add_argument("--threads", type=positive, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--quick", action="store_true", help="the smallest form, to try whether it works")
    parser.add_argument("--out", type=Path, help="JSON here instead of benchmarks/results/speed/")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    calls = Calls({"passes": "cases", "epoch": "epochs", "generate": "generations"}[arguments.what], arguments)
    {"passes": passes, "epoch": epochs, "generate": generations}[arguments.what](calls, arguments)
    if calls.file and calls.found:
        print(f"saved in {calls.file}")
    return int(all("error" in found for found in calls.found))


def passes(calls: Calls, arguments: argparse.Namespace) -> None:
    """Passes a second and training steps against the matrix rate and the bandwidth; ends a row of batches at the first
    that does not fit."""
    batches = arguments.batch or ([4] if arguments.quick else BATCHES)
    size, rounds = (256, 2) if arguments.quick else (0, 7)
    numbers = f"{'ms':>7} {'a second':>8} {'floor':>6} {'roofl.':>6} {'MiB':>6}"
    print(f"{'':39} | {'one pass of the denoiser':^37} | {'training step':^37} |")
    print(f"{'preset':24} {'':7} {'batch':>6} | {numbers} | {numbers} | TFLOP/s GB/s")
    for preset, data in NETWORKS[-1:] if arguments.quick else NETWORKS:
        table = tables(data, arguments)["train"]
        for precision in arguments.precision:
            last = 0.0
            for batch in batches:
                what = {"preset": preset, "data": data, "batch": batch, "precision": precision}
                some = of_size(table, batch)
                work = partial(
                    measure,
                    preset,
                    some,
                    device=arguments.device,
                    threads=arguments.threads,
                    precision=precision,
                    rounds=rounds,
                    parts=("pass", "step"),
                    size=size,
                )
                if not calls.run(what, work, least=4 * last):
                    break
                last = calls.found[-1]["wall_seconds"]
                print(_pass_line(calls.found[-1]), flush=True)


def _pass_line(case: dict[str, Any]) -> str:
    parts = [
        f"{part['seconds'] * 1000:7.2f} {1 / part['seconds']:8.1f} {part['of_floor']:6.0%} {part['of_roofline']:6.0%} "
        f"{part['peak_mib']:6.0f}"
        for part in (case["pass"], case["step"])
    ]
    machine = f"{case['pass']['square_gflops'] / 1000:7.1f} {case['pass']['copy_gbytes']:4.0f}"
    return " | ".join([f"{case['preset']:24.24} {case['precision']:7} {case['batch']:6}", *parts, machine])


def epochs(calls: Calls, arguments: argparse.Namespace) -> None:
    """Whole epochs of the trainer, with data loading, validation and checkpoints: the difference of two runs."""
    preset, data = NETWORKS[-1] if arguments.quick else PAPER
    given = tables(data, arguments)
    if arguments.quick:
        given = {split: of_size(table, 8) for split, table in given.items()}
    few, many = (1, 2) if arguments.quick else (2, 12)
    small = {split: of_size(table, 8) for split, table in given.items()}
    _train_seconds(preset, small, 8, "float32", 1, arguments)  # the first run finds out about the machine
    for precision in arguments.precision:
        for batch in arguments.batch or ([4] if arguments.quick else [256, 512, 1024]):
            what = {"preset": preset, "data": data, "batch": batch, "precision": precision}

            def work(batch: int = batch, precision: str = precision) -> dict[str, Any]:
                short = _train_seconds(preset, given, batch, precision, few, arguments)
                ahead = many if short * many / few < calls.left() else few + 1
                long = _train_seconds(preset, given, batch, precision, ahead, arguments)
                an_epoch = (long - short) / (ahead - few)
                crystals = len(given["train"])
                return {
                    "epochs": ahead,
                    "seconds_per_epoch": an_epoch,
                    "start_seconds": short - few * an_epoch,
                    "crystals_per_second": crystals / an_epoch,
                    "crystals": crystals,
                }

            if calls.run(what, work, least=calls.found[-1]["wall_seconds"] if calls.found else 0.0):
                found = calls.found[-1]
                print(
                    f"{preset} {precision:7} batch {batch:5}: {found['seconds_per_epoch']:.2f} s an epoch of "
                    f"{found['crystals']} crystals, 3000 epochs in {found['seconds_per_epoch'] * 50:.0f} min "
                    "(goal: 0.6 s, 30 min)",
                    flush=True,
                )


def _train_seconds(
    preset: str, given: dict[str, CrystalTable], batch: int, precision: str, count: int, arguments: argparse.Namespace
) -> float:
    lightning, products = TRAINER[precision]
    options = {
        "max_epochs": count,
        "batch_size": batch,
        "precision": lightning,
        "matmul_precision": products,
        "accelerator": torch.device(arguments.device).type,
    }
    config = load_config(preset, [f"train.{name}={value}" for name, value in options.items()])
    with TemporaryDirectory() as folder, _quiet():
        start = now(torch.device(arguments.device))
        train(given, {"name": "benchmark", "sha256": ""}, config, Path(folder) / "run", preset=preset)
        return now(torch.device(arguments.device)) - start


def generations(calls: Calls, arguments: argparse.Namespace) -> None:
    """Crystals from the bundled model with its default steps; where there is no time for all of them, a few steps of a
    batch tell how long it would take."""
    model = load_crystal_vae(MODEL, arguments.device)
    few = (2, 4) if arguments.quick else (5, 15)
    steps = few[1] if arguments.quick else None
    short_passes, long_passes, all_passes = (passes_of(model, n) for n in (*few, steps))
    count = 8 if arguments.quick else GENERATED
    for precision in arguments.precision:
        for batch in arguments.batch or ([8] if arguments.quick else [1000, 2500, 5000]):
            autocast = use_precision(precision, calls.device)

            def made(n: int, steps: int | None, batch: int = batch, autocast: Any = autocast) -> tuple[float, int]:
                start = now(calls.device)
                with autocast, _quiet():
                    result = generate(model, n, seed=1, steps=steps, batch_size=batch)
                return now(calls.device) - start, len(result.crystals)

            def work(batch: int = batch, made: Any = made) -> dict[str, Any]:
                made(batch, few[0])  # memory is allocated, kernels are chosen
                short, long = (made(batch, number)[0] for number in few)
                a_pass = (long - short) / (long_passes - short_passes)
                expected = -(-count // batch) * (short + (all_passes - short_passes) * a_pass)
                result = {"crystals": count, "passes": all_passes, "seconds_per_pass": a_pass, "extrapolated": True}
                if expected > calls.left():
                    return {**result, "seconds": expected}
                seconds, good = made(count, steps)
                return {**result, "good": good, "seconds": seconds, "extrapolated": False}

            what = {"model": MODEL, "batch": batch, "precision": precision}
            if calls.run(what, work):
                found = calls.found[-1]
                how = "would take" if found["extrapolated"] else f"({found['good']} of them fine) in"
                print(
                    f"{MODEL} {precision:7} batch {batch:5}: {count} crystals {how} {found['seconds']:.1f} s (goal: "
                    f"{GENERATED} within 60 s), {count / found['seconds']:.0f} a second, {all_passes} passes of "
                    f"{found['seconds_per_pass'] * 1000:.1f} ms",
                    flush=True,
                )


def tables(data: str, arguments: argparse.Namespace) -> dict[str, CrystalTable]:
    if arguments.data:
        return load_tables(arguments.data / f"{data}.npz")[0]
    return dict(load_dataset(data).tables)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of epochs and progress."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _words(what: dict[str, Any]) -> str:
    return ", ".join(str(value) for value in what.values())


if __name__ == "__main__":
    run(main)
