"""Averaged weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def update_average(average: Sequence[Tensor], weights: Sequence[Tensor], decay: float, step: int) -> None:
    """Exponential moving average after ``step`` steps, faster in the first ones, when there is little to average."""
    get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))(average, weights, step)
