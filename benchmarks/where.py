"""Where the time goes: operators and modules of one pass of the denoiser, and of one training step.

    python benchmarks/where.py [compact | paper/dp-cdvae-carbon_24 ...] [--dataset perov_5] [--batch 64] [--rows 15]

Operators by torch.profiler, their own time without that of what they call. Modules by the clock, forward passes alone,
the blocks of a kind taken together (``interactions.*``); "itself" is what a module does outside of its parts. On a GPU
the clock waits for the device after every module, so their sum is more than a pass takes without it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from run import folders_of_data
from speed.cases import crystals
from speed.command import Parser, positive, run, usable_device
from speed.timing import PRECISIONS, now
from speed.workload import Workload

ROUNDS = 3  # profiled, after one that is not


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", default="compact")
    parser.add_argument("--dataset", default="perov_5")
    parser.add_argument("--data", type=Path, help="a folder of NAME/val.csv.gz or prepared NAME.npz")
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument("--rows", type=positive, default=15, help="operators and modules to show")
    parser.add_argument("--depth", type=positive, default=3, help="names in a path: denoiser.interactions.triplets")
    parser.add_argument("--threads", type=positive, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--device", type=usable_device, default="cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    source = crystals(arguments.dataset, arguments.batch, folders_of_data(arguments.data))
    work = Workload(arguments.preset, source.table, device, arguments.precision)
    print(f"{arguments.preset}, {source.name}, {arguments.batch} crystals, {len(work.batch.atomic_numbers)} atoms")
    for title, function, training in (
        ("a pass of the denoiser", work.sampling_pass, False),
        ("a training step", work.training_step, True),
    ):
        work.model.train(training)
        function()
        print(f"\n{title}: operators\n" + "\n".join(operators(function, device, arguments.rows)))
        times = modules(work.model, function, device, arguments.depth)
        print(f"\n{title}: modules, forward\n" + "\n".join(module_rows(times, arguments.rows)))


def operators(function: Callable[[], object], device: torch.device, rows: int) -> list[str]:
    """The operators that take the most time of their own, a row each: ms and share of all, calls."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for _ in range(ROUNDS):
            function()
        now(device)
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    found = [
        (getattr(event, own) / 1000 / ROUNDS, event.count / ROUNDS, event.key) for event in profiler.key_averages()
    ]
    return table([row for row in found if row[0] > 0], rows)


def modules(
    model: nn.Module, function: Callable[[], object], device: torch.device, depth: int
) -> dict[str, list[float]]:
    """Own seconds and calls in one run, of modules and of the package's functions that the denoiser calls.

    Blocks of a list count as one. A module's own time is that between its parts; what lies deeper than ``depth`` names
    is no part of its own.
    """
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    stack: list[str] = []
    last = now(device)

    def switch() -> None:
        """What went by since the last change belongs to whoever is on top."""
        nonlocal last
        moment = now(device)
        if stack:
            found[stack[-1]][0] += moment - last
        last = moment

    def enter(name: str) -> None:
        switch()
        stack.append(name)
        found[name][1] += 1

    def leave() -> None:
        switch()
        stack.pop()

    hooks = []
    for path, module in model.named_modules():
        name = re.sub(r"\.\d+(?=\.|$)", ".*", path) or "model"
        if len(name.replace(".*", "").split(".")) > depth:
            continue
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        hooks.append(module.register_forward_hook(lambda *_: leave()))
    try:
        with timed_functions(model, enter, leave):
            for _ in range(ROUNDS):
                function()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: [seconds / ROUNDS, calls / ROUNDS] for name, (seconds, calls) in found.items()}


@contextmanager
def timed_functions(model: Any, enter: Callable[[str], None], leave: Callable[[], None]) -> Iterator[None]:
    """Functions of the package that the denoiser's module calls, such as the neighbour search, timed like modules."""
    home = sys.modules[type(model.denoiser).__module__]
    kept = {
        name: value
        for name, value in vars(home).items()
        if isinstance(value, FunctionType) and value.__module__.startswith("dpcdvae.")
    }
    kept = {name: value for name, value in kept.items() if value.__module__ != home.__name__}

    def timed(name: str, function: FunctionType) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            enter(f"denoiser: {name}()")
            try:
                return function(*args, **kwargs)
            finally:
                leave()

        return wrapper

    for name, value in kept.items():
        setattr(home, name, timed(name, value))
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(home, name, value)


def module_rows(found: dict[str, list[float]], rows: int) -> list[str]:
    named = []
    for name, (seconds, calls) in found.items():
        parts = any(other.startswith(name + ".") for other in found)
        named.append((seconds * 1000, calls, f"{name} itself" if parts else name))
    return table(named, rows)


def table(found: list[tuple[float, float, str]], rows: int) -> list[str]:
    """(ms, calls, name), the longest first, with shares of the sum; the rest together."""
    found = sorted(found, reverse=True)
    total = sum(ms for ms, _, _ in found)
    rest = found[rows:]
    if rest:
        found = [*found[:rows], (sum(r[0] for r in rest), sum(r[1] for r in rest), f"{len(rest)} others")]
    lines = [f"{ms:9.2f} ms {ms / max(total, 1e-12):5.1%} {calls:7.0f} x  {name}" for ms, calls, name in found]
    return [*lines, f"{total:9.2f} ms in all"]


if __name__ == "__main__":
    run(main)
