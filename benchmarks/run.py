"""Speed and memory of this machine: preprocessing, training and sampling, beside its matrix rate.

    python benchmarks/run.py [--out benchmarks/results/NAME.json] [--threads 2] [--repeats 5]

Every figure stands beside what the same run's matrix rate would allow: FLOPs are counted, the rate is
measured, so ``of_floor`` means the same on every machine. Crystals come from the folder named by
DPCDVAE_DATA (or ../shared/data), else from the built-in prototypes. The public reference's times are
those measured on two such cores with its Carbon-24 configuration and random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = {  # seconds: (training step, sampling step) of github.com/trachote/dp-cdvae, 2 cores
    "paper/dp-cdvae-carbon_24": (2.2, 0.76),
    "paper/dp-cdvae-perov_5": (1.9, 0.52),
}
CASES = [  # preset, data, crystals in a batch
    ("compact", "perov_5", 64),
    ("compact", "perov_5", 128),
    ("paper/dp-cdvae-perov_5", "perov_5", 64),
    ("paper/dp-cdvae-carbon_24", "carbon_24", 32),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON here too")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)  # one case, in a process of its own
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(*CASES[arguments.case], arguments)))
        return
    figures: dict[str, Any] = {"machine": machine(arguments), "cases": []}
    print(f"{'preset':26} {'data':14} {'batch':>5} {'train/s':>8} {'of floor':>8} {'step ms':>8} {'of floor':>8} "
          f"{'prep/s':>7} {'MiB':>6}  against the reference (train, sample)")  # fmt: skip
    for number in range(len(CASES)):
        command = [sys.executable, __file__, "--case", str(number), "--threads", str(arguments.threads),
                   "--repeats", str(arguments.repeats), "--device", arguments.device]  # fmt: skip
        case = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        figures["cases"].append(case)
        print(line(case), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    cpu = next((row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")), "")
    device = cpu.split(":")[-1].strip() if arguments.device == "cpu" else torch.cuda.get_device_name()
    return {"device": device, "threads": arguments.threads, "torch": torch.__version__,
            "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}  # fmt: skip


def measure(preset: str, data: str, size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One preset on one batch: preprocessing, a training step (with the optimiser), a sampling step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from dpcdvae.batch import CrystalBatch
    from dpcdvae.config import load_config
    from dpcdvae.model.cdvae import CDVAE
    from dpcdvae.training.module import weighted_sum
    from dpcdvae.training.run import prepare

    torch.set_num_threads(arguments.threads)
    table, source, preparing = crystals(data, size)
    config = load_config(preset)
    torch.manual_seed(0)
    model = CDVAE(config)
    prepare(model, table)
    model.to(arguments.device)
    batch = CrystalBatch.from_table(table).to(arguments.device)
    optimizer = torch.optim.Adam(model.parameters())
    z = torch.randn(size, config.model.latent_dim, device=arguments.device)
    steps = torch.full((size,), 100.0, device=arguments.device)
    coords = torch.rand_like(batch.frac_coords)

    def training() -> None:
        losses = model.losses(batch, model.noise_like(batch), true_lattice=True)
        optimizer.zero_grad()
        weighted_sum(losses, config.loss, 0).backward()
        optimizer.step()

    def sampling() -> None:
        with torch.inference_mode():
            model.denoise(batch.replace(frac_coords=coords), z, steps)

    def flops(function: Callable[[], None]) -> float:
        with FlopCounterMode(display=False) as counter:
            function()
        return float(counter.get_total_flops())

    square = torch.randn(2048, 2048, device=arguments.device)
    rate = 2 * 2048**3 / seconds(lambda: square @ square, arguments)
    train, sample = seconds(training, arguments), seconds(sampling, arguments)
    if arguments.device == "cpu":
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    else:
        memory = torch.cuda.max_memory_allocated() / 2**20
    reference = REFERENCE.get(preset) if source != "prototypes" and arguments.device == "cpu" else None
    return {
        "preset": preset, "data": source, "batch": size, "atoms": int(batch.num_atoms.sum()),
        "parameters": sum(p.numel() for p in model.parameters()), "matrix_rate_gflops": rate / 1e9,
        "train_seconds": train, "train_crystals_per_second": size / train,
        "train_gflop": flops(training) / 1e9, "train_of_floor": flops(training) / rate / train,
        "sample_seconds": sample, "sample_gflop": flops(sampling) / 1e9,
        "sample_of_floor": flops(sampling) / rate / sample,
        "preparation_crystals_per_second": preparing, "peak_memory_mib": memory,
        "times_reference": [reference[0] / train, reference[1] / sample] if reference else None,
    }  # fmt: skip


def crystals(data: str, size: int) -> tuple[Any, str, float]:
    """A table of ``size`` prepared crystals, where they come from, and how many a second one core prepares."""
    from dpcdvae.bonds import crystal_nn_bonds
    from dpcdvae.io import read_csv
    from dpcdvae.prototypes import build_prototypes
    from dpcdvae.standardise import standardise
    from dpcdvae.table import CrystalTable

    folder = Path(os.environ.get("DPCDVAE_DATA", ROOT.parent / "shared" / "data"))
    file = folder / data / "val.csv.gz"
    source, found = (data, read_csv(file)) if file.exists() else ("prototypes", build_prototypes())
    crystal_nn_bonds(standardise(found[0]))  # imports are not counted
    start = time.perf_counter()
    ready = [standardise(crystal) for crystal in found[:size]]
    table = CrystalTable.from_crystals(ready, [crystal_nn_bonds(crystal) for crystal in ready])
    return table, source, size / (time.perf_counter() - start)


def seconds(function: Callable[[], Any], arguments: argparse.Namespace) -> float:
    """Median of ``repeats`` runs after two that are not counted."""
    import torch

    times = []
    for _ in range(arguments.repeats + 2):
        start = time.perf_counter()
        function()
        if arguments.device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def line(case: dict[str, Any]) -> str:
    ratios = case["times_reference"]
    against = f"{ratios[0]:.1f}x, {ratios[1]:.1f}x" if ratios else "-"
    return (
        f"{case['preset']:26} {case['data']:14} {case['batch']:5} {case['train_crystals_per_second']:8.1f} "
        f"{case['train_of_floor']:8.0%} {case['sample_seconds'] * 1000:8.1f} {case['sample_of_floor']:8.0%} "
        f"{case['preparation_crystals_per_second']:7.1f} {case['peak_memory_mib']:6.0f}  {against}"
    )


if __name__ == "__main__":
    main()
