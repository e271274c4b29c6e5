"""Epochs in a budget of CPU time, measured on the real batches; and the machine."""

from __future__ import annotations

import platform
import time
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import torch

from dpcdvae.checkpoints.loading import build_model
from dpcdvae.config import AnyConfig
from dpcdvae.structures.table import CrystalTable
from dpcdvae.training.loader import make_loader
from dpcdvae.training.train import prepare

WARM_UP, MEASURED = 1, 4  # training steps; the first allocates memory


def epoch_cpu_seconds(config: AnyConfig, tables: dict[str, CrystalTable]) -> float:
    """CPU seconds, over all threads, of one epoch with its validation. Leaves nothing behind."""
    torch.manual_seed(config.train.seed)
    model = build_model(config)
    prepare(model, tables["train"])
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr, fused=True)
    generator = torch.Generator().manual_seed(config.train.seed)
    size, atoms = config.train.batch_size, config.train.batch_atoms
    loaders = {
        split: make_loader(table, size, batch_atoms=atoms, target=model.target, seed=0)
        for split, table in tables.items()
    }

    def losses(batch: Any) -> torch.Tensor:
        batch = batch.to(model.device, model.dtype)
        return model.total(model.step_losses(batch.crystals, batch.targets, generator, 0), 0)

    start = 0.0
    for number, batch in enumerate(islice(chain.from_iterable(cycle([loaders["train"]])), WARM_UP + MEASURED)):
        if number == WARM_UP:
            start = time.process_time()
        optimizer.zero_grad()
        losses(batch).backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), config.train.grad_clip_value or float("inf"))
        optimizer.step()
    step = (time.process_time() - start) / MEASURED

    model.eval()
    with torch.no_grad():
        checked = list(islice(loaders["val"], 2))
        start = time.process_time()
        for batch in checked:
            losses(batch)
        validation = (time.process_time() - start) / len(checked)
    return len(loaders["train"]) * step + len(loaders["val"]) * validation


def epochs_within(cpu_minutes: float, epoch: float) -> int:
    """Whole epochs of ``epoch`` CPU seconds; at least one."""
    return max(1, int(60 * cpu_minutes / epoch))


def machine() -> dict[str, Any]:
    """The machine and software that times depend on."""
    return {
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []  # not Linux
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
