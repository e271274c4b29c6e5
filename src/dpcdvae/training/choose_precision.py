"""Which arithmetic a run uses where ``train.precision`` is "auto"."""

from __future__ import annotations

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator

from dpcdvae.config import TrainConfig


def resolve_precision(train: TrainConfig) -> str:
    """``train.precision``; for "auto" bf16-mixed on a processor that multiplies bfloat16 in hardware, else 32-true.

    The processor is asked what it has, not how fast it is, so that the same machine always gives the same answer.
    """
    if train.precision != "auto":
        return train.precision
    return "bf16-mixed" if runs_on_cpu(train.accelerator) and multiplies_bfloat16() else "32-true"


def runs_on_cpu(accelerator: str) -> bool:
    """Whether Lightning's ``accelerator`` means the processor here; "auto" does where there is nothing else."""
    if accelerator != "auto":
        return accelerator == "cpu"
    return not any(other.is_available() for other in (CUDAAccelerator, MPSAccelerator, XLAAccelerator))


def multiplies_bfloat16() -> bool:
    """Whether the processor has AMX: tiles in which products of bfloat16 take a fraction of the time of float32.

    Vector instructions for bfloat16 alone (AVX512_BF16) do not count.
    """
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    # Older versions of torch can only say this; every processor with AMX tiles multiplies bfloat16 in them.
    return bool(torch.cpu._is_amx_tile_supported())
