"""Activated layers with gradients written by hand: the same as autograd's, with fewer reads and writes of memory.

On a CPU the elementwise arithmetic takes as long as the matrix products, in bfloat16 longer. So constant factors are
multiplied into the weights, which are few, and not into the activations.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SILU_SCALE = 1 / 0.6  # keeps the variance of a standard normal input near one (GemNet)

_linear, _silu, _silu_backward = torch.nn.functional.linear, torch.nn.functional.silu, torch.ops.aten.silu_backward


def activated_linear(x: Tensor, weight: Tensor, gain: float = 1.0) -> Tensor:
    """The layer ``gain`` SiLU(x Wᵀ) / 0.6 for x (..., F); under autocast in its type."""
    return _apply(_ActivatedLinear, *_cast(x, weight), gain * SILU_SCALE)


def activated_edges(x: Tensor, weight: Tensor, of_source: Tensor, of_target: Tensor, source: Tensor) -> Tensor:
    """That layer for x (N, K, F), with parts (N, G) of both atoms added before the activation; ``source`` is (N, K)."""
    return _apply(_ActivatedEdges, *_cast(x, weight, of_source, of_target), source)


def residual(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The block (x + f(x))/√2 for x (..., F), with f two activated linear layers; under autocast in its type."""
    return _apply(_Residual, *_cast(x, first, second))


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """What the function gives: torch does not say of which type that is."""
    result: Tensor = function.apply(*arguments)
    return result


def _cast(*tensors: Tensor) -> tuple[Tensor, ...]:
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor.to(dtype) for tensor in tensors)


class _ActivatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: float) -> Tensor:
        product = _linear(x, weight)
        ctx.save_for_backward(x, weight, product)
        ctx.scale = scale
        return _silu(product).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, product = ctx.saved_tensors
        gradient = _silu_backward(gradient, product)
        return gradient @ (weight * ctx.scale), _of_weight(gradient, x).mul_(ctx.scale), None


class _ActivatedEdges(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, of_source: Tensor, of_target: Tensor, source: Tensor) -> Tensor:
        product = _linear(x, weight)
        product.add_(of_source.index_select(0, source.flatten()).view_as(product)).add_(of_target[:, None])
        ctx.save_for_backward(x, weight, product, source)
        return _silu(product).mul_(SILU_SCALE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, weight, product, source = ctx.saved_tensors
        gradient = _silu_backward(gradient, product)
        of_target = gradient.sum(1).mul_(SILU_SCALE)
        of_source = torch.zeros_like(of_target).index_add_(0, source.flatten(), gradient.flatten(0, 1))
        of_weight = _of_weight(gradient, x).mul_(SILU_SCALE)
        return gradient @ (weight * SILU_SCALE), of_weight, of_source.mul_(SILU_SCALE), of_target, None


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        product = _linear(x, first)
        hidden = _silu(product)
        second = second * SILU_SCALE
        last = _linear(hidden, second)
        ctx.save_for_backward(x, first, second, product, hidden, last)
        out = _silu(last)
        return torch.add(x, out, alpha=SILU_SCALE, out=out).mul_(1 / math.sqrt(2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, first, second, product, hidden, last = ctx.saved_tensors
        gradient = gradient * (1 / math.sqrt(2))
        inner = _silu_backward(gradient, last)
        of_second = _of_weight(inner, hidden).mul_(SILU_SCALE**2)
        inner = _silu_backward(inner @ (second * SILU_SCALE), product)
        of_first = _of_weight(inner, x)
        of_x = gradient.flatten(0, -2).addmm_(inner.flatten(0, -2), first)
        return of_x.view_as(x), of_first, of_second


def _of_weight(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient of W in x Wᵀ."""
    return gradient.flatten(0, -2).mT @ x.flatten(0, -2)
