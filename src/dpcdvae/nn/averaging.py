"""An exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def update_average(average: Sequence[Tensor], weights: Sequence[Tensor], decay: float, step: int) -> None:
    """Updates the average after step number ``step``; the decay is smaller in the first steps."""
    get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))(average, weights, step)
