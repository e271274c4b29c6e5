"""What an hour of a GPU would buy: epochs of the paper's presets, bounded by counts that were kept on a CPU.

    python benchmarks/gpu_hour.py [--results FILE] [--tflops 67] [--tbytes 4.8] [--start 5]

Of each training step in a result of run.py: FLOPs over the rate, bytes over the bandwidth, and operators times the time
to start one, in steps of the published batch. Least is the longest of the three, as if the others were hidden behind
it; most is their sum. The defaults are those of an NVIDIA H200 (data sheet: float32, memory).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from dpcdvae.config import load_config
from dpcdvae.datasets import DATASETS
from quality.checked import Checked, PaperData, checked_json
from quality.judging import markdown_table
from speed.command import Parser, above_zero, run
from speed.record import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "speed" / "2026-11-23-b9aec53-amd-epyc-2t.json"
HEADER = [
    "preset",
    "arithmetic, s",
    "memory, s",
    "starts, s",
    "epochs an hour",
    "published epochs",
    "CPU: epochs an hour",
]


class Step(Checked, extra="ignore"):
    """Counts and seconds of a training step."""

    gflop: PositiveFloat
    gbytes: PositiveFloat
    operators: PositiveInt
    seconds: PositiveFloat


class Case(Checked, extra="ignore"):
    """A preset, the data of its step, and the crystals of a batch."""

    preset: str
    data: PaperData
    batch: PositiveInt
    step: Step


class Counts(Checked, extra="ignore"):
    """What is read of a result of run.py."""

    cases: list[Case]


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tflops", type=above_zero, default=67.0)
    parser.add_argument("--tbytes", type=above_zero, default=4.8, help="a second")
    parser.add_argument("--start", type=above_zero, default=5.0, help="microseconds for each operator")
    arguments = parser.parse_args()
    rows = []
    for case in checked_json(arguments.results, Counts, "give a result of run.py").cases:
        if not case.preset.startswith("paper"):
            continue
        crystals, train = DATASETS[case.data].rows["train"], load_config(case.preset).train
        batches = crystals / case.batch
        times = [
            case.step.gflop * batches / (1000 * arguments.tflops),
            case.step.gbytes * batches / (1000 * arguments.tbytes),
            case.step.operators * arguments.start * 1e-6 * -(-crystals // train.batch_size),
        ]
        hour = f"{3600 / sum(times):.0f}-{3600 / max(times):.0f}"
        cpu = 3600 / (case.step.seconds * batches)
        rows.append([case.preset, *(f"{time:.2f}" for time in times), hour, str(train.max_epochs), f"{cpu:.1f}"])
    print(markdown_table(HEADER, rows))


if __name__ == "__main__":
    run(main)
