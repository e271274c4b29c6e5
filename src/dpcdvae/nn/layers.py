"""Small layers: GemNet's bias-free dense layers and scale factors, plain multilayer perceptrons."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dpcdvae.nn.fused import activated_linear, residual
from dpcdvae.tensors.lattice import full_precision


def half_sum_(x: Tensor, y: Tensor) -> Tensor:
    """The sum (x + y)/√2, which keeps the variance. Overwrites ``y``, unless ``x`` is of a higher precision.

    Overwriting saves memory. Autograd allows it, as the gradient of a sum does not need ``y``; but ``y`` must not be a
    view, whose gradient would be copied several times.
    """
    total = y.add_(x) if torch.result_type(x, y) == y.dtype else x + y
    return total.mul_(1 / math.sqrt(2))


def he_orthogonal_(weight: Tensor) -> Tensor:
    """Makes weights orthogonal, then standardises them over the inputs to the variance 1/fan_in (GemNet)."""
    nn.init.orthogonal_(weight)
    fan_in = weight.shape[1:].numel()
    with torch.no_grad():
        if fan_in > 1:
            mean, var = weight.mean(1, keepdim=True), weight.var(1, keepdim=True, correction=0)
            weight.sub_(mean).div_((var + 1e-6).sqrt())
        weight.mul_(1 / math.sqrt(fan_in))
    return weight


class ExactLinear(nn.Linear):
    """A linear layer in the precision of its weights, also under autocast: for the last layer of a network.

    It takes little time, and in bfloat16 its result would be known to a part in 256 only.
    """

    @full_precision
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype))


class Dense(nn.Module):
    """A linear layer without bias, He-orthogonal, with an optional scaled SiLU."""

    def __init__(self, in_features: int, out_features: int, *, activation: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.activation = activation
        he_orthogonal_(self.linear.weight)

    def forward(self, x: Tensor, scale: Tensor | None = None, gain: float = 1.0) -> Tensor:
        """The layer's output. ``scale`` multiplies the weights, ``gain`` the result of the activation."""
        weight = self.linear.weight if scale is None else self.linear.weight * scale
        return activated_linear(x, weight, gain) if self.activation else nn.functional.linear(x, weight)


class Residual(nn.Module):
    """A residual block (x + f(x))/√2, with f two activated dense layers (GemNet)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Dense(width, width, activation=True), Dense(width, width, activation=True))

    def forward(self, x: Tensor) -> Tensor:
        first, second = (layer.get_parameter("linear.weight") for layer in self.layers)
        return residual(x, first, second)


def residual_mlp(in_features: int, width: int, num_residual: int) -> nn.Sequential:
    """An activated dense layer, then ``num_residual`` residual blocks."""
    return nn.Sequential(Dense(in_features, width, activation=True), *(Residual(width) for _ in range(num_residual)))


def mlp(in_features: int, hidden: int, out_features: int, hidden_layers: int = 1) -> nn.Sequential:
    """A multilayer perceptron: Linear-ReLU repeated ``hidden_layers`` times, then Linear."""
    layers: list[nn.Module] = []
    width = in_features
    for _ in range(hidden_layers):
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, out_features))


class ScaleFactor(nn.Module):
    """A constant that gives a layer's output the variance of its reference (GemNet, appendix on scaling).

    The constants are fitted once, before training, by :func:`fit_scale_factors`, and stored with the weights. A sum
    over neighbours or a product with a basis changes the variance by factors that depend on the data, which no
    initialisation rule knows. Where ``scale`` multiplies the weights of a layer instead, the module is called only
    while fitting.
    """

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.fitting = False

    def forward(
        self, x: Tensor, reference: Tensor, mask: Tensor | None = None, reference_mask: Tensor | None = None
    ) -> Tensor:
        """Scales ``x`` in place. While fitting, the scale is set first, from the entries that the masks choose."""
        if self.fitting:
            with torch.no_grad():
                chosen = slice(None) if mask is None else mask
                wanted = reference[chosen if reference_mask is None else reference_mask]
                ratio = wanted.double().var() / x[chosen].double().var()
                if bool(ratio.isfinite()) and float(ratio) > 0:
                    self.scale.copy_(ratio.sqrt())
        return x.mul_(self.scale)


@contextlib.contextmanager
def fit_scale_factors(network: nn.Module) -> Iterator[None]:
    """A context in which one forward pass of ``network`` on a typical batch sets every scale factor."""
    factors = [module for module in network.modules() if isinstance(module, ScaleFactor)]
    for factor in factors:
        factor.fitting = True
    try:
        yield
    finally:
        for factor in factors:
            factor.fitting = False
