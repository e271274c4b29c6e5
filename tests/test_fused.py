"""Layers whose gradients are written by hand: their formulas, and gradients as autograd and differences have them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from dpcdvae.nn.fused import activated_edges, activated_linear, residual
from dpcdvae.tensors.graph import PeriodicGraph
from tensors import awkward_crystals, batch_of
from test_graph import graph_of


def plain_linear(x: Tensor, weight: Tensor) -> Tensor:
    return silu(x @ weight.mT) / 0.6


def plain_residual(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return (x + plain_linear(plain_linear(x, first), second)) / math.sqrt(2)


def half_activated(x: Tensor, weight: Tensor) -> Tensor:
    return activated_linear(x, weight, gain=0.5)


LAYERS = [
    (half_activated, lambda x, weight: plain_linear(x, weight) / 2, [(3, 5)]),
    (activated_linear, plain_linear, [(3, 5)]),
    (residual, plain_residual, [(7, 5), (5, 7)]),
]


def given(*weights: tuple[int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(4, 2, 5), *weights]
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("layer", "plain", "weights"), LAYERS)
class TestLayers:
    def test_fused_layers_have_the_values_and_gradients_of_plain_ones(
        self, layer: Callable[..., Tensor], plain: Callable[..., Tensor], weights: list[tuple[int, int]]
    ) -> None:
        tensors = given(*weights)
        torch.testing.assert_close(layer(*tensors), plain(*tensors), rtol=1e-13, atol=1e-14)
        assert torch.autograd.gradcheck(layer, tensors)

    def test_autocast_computes_in_its_type_and_gives_gradients_in_that_of_the_weights(
        self, layer: Callable[..., Tensor], plain: Callable[..., Tensor], weights: list[tuple[int, int]]
    ) -> None:
        tensors = given(*weights, dtype=torch.float32)
        expected = torch.autograd.grad(plain(*tensors).square().sum(), tensors)
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(*tensors)
        assert out.dtype == torch.bfloat16
        found = torch.autograd.grad(out.float().square().sum(), tensors)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.03 * float(theirs.abs().max()))


def test_edges_with_parts_of_both_atoms() -> None:
    graph = graph_of(batch_of(awkward_crystals()[:2]), 4.1, 6)
    torch.manual_seed(0)
    shapes = [(*graph.mask.shape, 5), (7, 5), (len(graph.mask), 7), (len(graph.mask), 7)]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, weight, of_source, of_target = tensors
    expected = silu(x @ weight.mT + of_source[graph.source] + of_target[:, None]) / 0.6
    torch.testing.assert_close(activated_edges(*tensors, graph.source), expected, rtol=1e-13, atol=1e-14)
    assert torch.autograd.gradcheck(lambda *given: activated_edges(*given, graph.source), tensors)


def test_opposite_edges_hand_their_gradients_over() -> None:
    graph = graph_of(batch_of(awkward_crystals()[:2]), 4.1, 6)
    assert not (graph.reverse[graph.mask] < graph.mask.numel()).all(), "all have one: nothing to tell apart"
    features = torch.randn(*graph.mask.shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(graph.swap, features)
    assert torch.equal(graph.swap(features), as_written(graph, features))


def as_written(graph: PeriodicGraph, features: Tensor) -> Tensor:
    flat = features.flatten(0, 1)
    return torch.cat([flat, flat.new_zeros(1, flat.shape[1])])[graph.reverse]


def test_features_of_the_source_and_their_gradients() -> None:
    graph = graph_of(batch_of(awkward_crystals()[:2]), 4.1, 6)
    atoms = torch.randn(len(graph.mask), 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(graph.of_source(atoms), atoms[graph.source])
    assert torch.autograd.gradcheck(graph.of_source, atoms)
