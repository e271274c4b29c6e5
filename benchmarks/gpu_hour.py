"""What an hour of a GPU would buy: epochs of the paper's presets, bounded by counts that were kept on a CPU.

    python benchmarks/gpu_hour.py [--results FILE] [--tflops 67] [--tbytes 4.8] [--start 5]

Of each training step in a result of run.py: FLOPs over the rate, bytes over the bandwidth, and operators times the time
to start one, in steps of the published batch. Least is the longest of the three, as if the others were hidden behind
it; most is their sum. The defaults are those of an NVIDIA H200 (data sheet: float32, memory).
"""

from __future__ import annotations

import json
from pathlib import Path

from dpcdvae.config import load_config
from quality.judging import markdown_table
from speed.command import Parser, run
from speed.record import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "speed" / "2026-11-23-b9aec53-amd-epyc-2t.json"
CRYSTALS = {"perov_5": 11356, "carbon_24": 6091, "mp_20": 27136}  # of the published training splits
HEADER = [
    "preset",
    "arithmetic, s",
    "memory, s",
    "starts, s",
    "epochs an hour",
    "published epochs",
    "CPU: epochs an hour",
]


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tflops", type=float, default=67.0)
    parser.add_argument("--tbytes", type=float, default=4.8, help="a second")
    parser.add_argument("--start", type=float, default=5.0, help="microseconds for each operator")
    arguments = parser.parse_args()
    rows = []
    for case in json.loads(arguments.results.read_text())["cases"]:
        if not case["preset"].startswith("paper"):
            continue
        step, train = case["step"], load_config(case["preset"]).train
        batches = CRYSTALS[case["data"]] / case["batch"]
        times = [
            step["gflop"] * batches / (1000 * arguments.tflops),
            step["gbytes"] * batches / (1000 * arguments.tbytes),
            step["operators"] * arguments.start * 1e-6 * -(-CRYSTALS[case["data"]] // train.batch_size),
        ]
        hour = f"{3600 / sum(times):.0f}-{3600 / max(times):.0f}"
        cpu = 3600 / (step["seconds"] * batches)
        rows.append([case["preset"], *(f"{time:.2f}" for time in times), hour, str(train.max_epochs), f"{cpu:.1f}"])
    print(markdown_table(HEADER, rows))


if __name__ == "__main__":
    run(main)
