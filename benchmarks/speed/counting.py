"""What a function computes and moves: FLOPs, operators, bytes, and the least time these need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

# In place it is the same product; the registry of torch has only the other.
flop_registry[torch.ops.aten.addmm_] = flop_registry[torch.ops.aten.addmm]


@dataclass
class Counts:
    """FLOPs as torch.utils.flop_counter has them (matrix products and convolutions, 2 for a multiply-add).

    ``operators`` holds (FLOPs, bytes read and written) of each operator that does more than to change a view.
    """

    flops: float = 0.0
    operators: list[tuple[float, float]] = field(default_factory=list)

    @property
    def bytes(self) -> float:
        return sum(moved for _, moved in self.operators)

    def roofline(self, flops_per_second: float, bytes_per_second: float) -> float:
        """Seconds that the operators need one by one, each at the machine's matrix rate or its memory bandwidth,
        whichever bounds it (Williams et al., Commun. ACM 52, 65 (2009)). Fusing operators goes below this."""
        return sum(max(flops / flops_per_second, moved / bytes_per_second) for flops, moved in self.operators)


def count(function: Callable[[], object]) -> Counts:
    """Runs ``function`` once, outside of inference mode (where composite operators hide what they are made of)."""
    counts = Counts()
    with FlopCounterMode(display=False) as counter, _Operators(counts):
        function()
    counts.flops = float(counter.get_total_flops())
    return counts


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        outputs = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        if outputs and not _is_view(func):
            flops = flop_registry.get(func._overloadpacket)
            self.counts.operators.append(
                (
                    float(flops(*args, **kwargs, out_val=out)) if flops else 0.0,
                    float(sum(x.numel() * x.element_size() for x in [*inputs, *outputs])),
                )
            )
        return out


def _is_view(func: Any) -> bool:
    """An operator whose result shares the memory of an argument that it does not write to; or makes no values."""
    aliases = [result.alias_info for result in func._schema.returns if result.alias_info is not None]
    return func._overloadpacket is torch.ops.aten.empty or any(not alias.is_write for alias in aliases)
