"""Times of functions that take turns with matrix products: what the machine gives at that moment is measured beside."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch

PRECISIONS = ("float32", "tf32", "bf16")


class Product(NamedTuple):
    """A matrix product and its FLOPs; or a copy and its bytes."""

    run: Callable[[], object]
    amount: float


def use_precision(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """float32 as IEEE has it; "tf32": its products on the tensor cores; "bf16": products in bfloat16 by autocast.

    The context is for the forward pass; TF32 is a setting of the process.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def products(device: torch.device, precision: str, size: int) -> dict[str, Product]:
    """``square``: (size)^3, the matrix rate that all floors stand on; ``tall``: edges times a layer of 128 units,
    the shape of most of the work; ``copy``: memory bandwidth."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    square = torch.randn(size, size, device=device, dtype=dtype)
    rows = size * size // 128  # as many numbers as the square has
    tall, layer = (torch.randn(n, 128, device=device, dtype=dtype) for n in (rows, 128))
    source = torch.randn(4 * size * size, device=device)
    target = torch.empty_like(source)
    return {
        "square": Product(lambda: square @ square, 2.0 * size**3),
        "tall": Product(lambda: tall @ layer, 2.0 * rows * 128 * 128),
        "copy": Product(lambda: target.copy_(source), 2.0 * source.numel() * source.element_size()),
    }


def default_size(device: torch.device) -> int:
    """Of the square: long enough to be timed, and no longer."""
    return 2048 if device.type == "cpu" else 8192


def take_turns(
    functions: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of each function in each round, all of them once a round, in this order; without those of the warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warm_up + rounds):
        for name, function in functions.items():
            start = now(device)
            function()
            if number >= warm_up:
                times[name].append(now(device) - start)
            else:
                now(device)
    return times


def now(device: torch.device) -> float:
    """Seconds, when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def median(times: list[float]) -> float:
    return statistics.median(times)


def peak_mib(function: Callable[[], object], device: torch.device) -> float:
    """The most memory while ``function`` runs: what tensors hold on a GPU, what the whole process holds on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) / 2**20
    _reset_peak()
    function()
    return _peak_of_process()


def _reset_peak() -> None:
    """Linux forgets the highest resident size of a process that says so; elsewhere it stays that of the whole life."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_of_process() -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
