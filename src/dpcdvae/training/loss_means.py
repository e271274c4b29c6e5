"""The losses of an epoch, read when they have arrived, so that no step waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# Names of losses that are not finite -> the exception that says so.
Complaint = Callable[[list[str]], Exception]


class _Figures(NamedTuple):
    names: list[str]
    values: Tensor  # (losses + 1,) on the host, the last the number of crystals
    arrived: torch.cuda.Event | None
    complaint: Complaint


class LossMeter:
    """Means of the losses over the crystals of an epoch; complains of one that is not finite.

    What a step on CUDA found is copied to the host beside the device's further work and read one step later;
    elsewhere it is read at once.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0.0
        self._pending: _Figures | None = None

    @torch.no_grad()
    def add(self, losses: Mapping[str, Tensor], count: int | Tensor, complaint: Complaint) -> None:
        """Losses () of a batch, averaged over ``count`` crystals.

        Raises:
            What ``complaint`` makes of the names of losses that are not finite: on CUDA that of the batch before.
        """
        self.read()
        first = next(iter(losses.values()))
        dtype = torch.promote_types(first.dtype, torch.float32)
        crystals = count if isinstance(count, Tensor) else torch.full((), count, device=first.device)
        values = torch.stack([value.to(dtype) for value in (*losses.values(), crystals)])
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._pending = _Figures([*losses], host, arrived, complaint)
        else:
            self._pending = _Figures([*losses], values, None, complaint)
            self.read()

    def read(self) -> None:
        """Takes in what is still on its way; raises as :meth:`add` does."""
        if self._pending is None:
            return
        (names, values, arrived, complaint), self._pending = self._pending, None
        if arrived is not None:
            arrived.synchronize()
        *losses, count = values.tolist()
        if bad := [name for name, value in zip(names, losses, strict=True) if not math.isfinite(value)]:
            raise complaint(bad)
        for name, value in zip(names, losses, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value * count
        self._count += count

    def finish(self, add_up: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The means, where ``add_up`` gives the sum of a tensor over all processes; then everything begins anew."""
        self.read()
        *sums, count = add_up(torch.tensor([*self._sums.values(), self._count], dtype=torch.float64)).tolist()
        means = {name: value / max(count, 1.0) for name, value in zip(self._sums, sums, strict=True)}
        self._sums, self._count = {}, 0.0
        return means
