"""One case measured: a sampling pass, a training step and a short reverse process, beside the machine's own rates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from dpcdvae.structures.table import CrystalTable
from speed.cases import PUBLISHED_PASS, PUBLISHED_STEP, is_published
from speed.counting import Counts
from speed.timing import Product, default_size, median, peak_mib, products, take_turns
from speed.workload import Workload, passes

PARTS = ("pass", "step", "generation")
SHORT, LONG = 2, 8  # steps of the two reverse processes whose difference is the time of a pass within them


def measure(
    preset: str,
    table: CrystalTable,
    *,
    device: str = "cpu",
    threads: int = 1,
    precision: str = "float32",
    rounds: int = 5,
    parts: tuple[str, ...] = PARTS,
    size: int = 0,
) -> dict[str, Any]:
    """Figures of one network on the crystals of ``table`` as one batch.

    ``of_floor`` is the time that the counted FLOPs take at the matrix rate over the time measured: medians over
    ``rounds`` in which products and network take turns. Times in seconds, rates in G a second, memory in MiB.

    Args:
        parts: of :data:`PARTS`, what to measure.
        size: of the square matrices that the rate is measured with; 0 for the device's usual one.
    """
    torch.set_num_threads(threads)
    place = torch.device(device)
    work = Workload(preset, table, place, precision)
    result: dict[str, Any] = {
        "preset": preset,
        "batch": len(table),
        "atoms": int(table.num_atoms.sum()),
        "precision": precision,
        "parameters": sum(p.numel() for p in work.model.parameters()),
        "check": work.check(),
    }
    functions: dict[str, Callable[[], object]] = {"pass": work.sampling_pass, "step": work.training_step}
    counts = {"pass": work.count_pass, "step": work.count_step}
    published = {"pass": PUBLISHED_PASS, "step": PUBLISHED_STEP}
    wanted = [part for part in functions if part in parts]
    peaks: dict[str, float] = {}
    for part in wanted:
        work.model.train(part == "step")
        functions[part]()  # the optimiser's state is there from the first step on
        peaks[part] = peak_mib(functions[part], place)

    beside = products(place, precision, size or default_size(place))
    for part in wanted:
        work.model.train(part == "step")
        timed = take_turns({**{name: p.run for name, p in beside.items()}, part: functions[part]}, place, rounds)
        result[part] = _against_floor(
            timed, part, beside, counts[part](), published[part] * result["atoms"] if is_published(preset) else None
        ) | {"peak_mib": peaks[part]}
    if "generation" in parts:
        result["generation"] = _generation(work, place, rounds)
    return result


def _against_floor(
    timed: dict[str, list[float]], part: str, beside: dict[str, Product], counts: Counts, published: float | None
) -> dict[str, Any]:
    seconds = median(timed[part])
    rates = {name: product.amount / median(timed[name]) for name, product in beside.items()}
    return {
        "seconds": seconds,
        "fastest": min(timed[part]),
        "slowest": max(timed[part]),
        "square_gflops": rates["square"] / 1e9,
        "tall_gflops": rates["tall"] / 1e9,
        "copy_gbytes": rates["copy"] / 1e9,
        "gflop": counts.flops / 1e9,
        "gbytes": counts.bytes / 1e9,
        "operators": len(counts.operators),
        "of_floor": counts.flops / rates["square"] / seconds,
        "of_roofline": counts.roofline(rates["square"], rates["copy"]) / seconds,
        "of_published": published / rates["square"] / seconds if published else None,
    }


def _generation(work: Workload, device: torch.device, rounds: int) -> dict[str, Any]:
    """Two short reverse processes of the whole sampler tell the seconds of a pass in it and those of the rest."""
    most = work.model.diffusion.max_steps
    few, many = min(SHORT, most), min(LONG, most)
    timed = take_turns({str(n): partial(work.reconstruction, n) for n in (few, many)}, device, rounds, warm_up=1)
    short, long = (median(timed[str(n)]) for n in (few, many))
    a_pass = (long - short) / max(1, passes(work.model, many) - passes(work.model, few))
    rest = max(0.0, short - passes(work.model, few) * a_pass)
    default, crystals = passes(work.model), len(work.table)
    return {
        "seconds_per_pass": a_pass,
        "other_seconds": rest,
        "default_passes": default,
        "crystals_per_second": crystals / (rest + default * a_pass),
        "crystals_per_second_1000_passes": crystals / (rest + 1000 * a_pass),
    }
