"""Encoders: the laws every one of them obeys, and DimeNet++ against its published equations, edge by edge."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcdvae.batch import CrystalBatch
from dpcdvae.bonds import crystal_nn_bonds
from dpcdvae.encoders import ENCODERS
from dpcdvae.encoders.dimenet import DimeNetEncoder
from dpcdvae.errors import InputError
from dpcdvae.interfaces import Encoder
from dpcdvae.nn.basis import spherical_bessel_zeros
from dpcdvae.nn.layers import ScaleFactor, fit_scale_factors
from tensors import (
    UNIMODULAR,
    batch_of,
    cubic,
    default_dtype,
    doubled,
    permuted,
    random_crystal,
    rebased,
    rotation,
    shake,
)

# What makes an encoder small enough for a test; one that is not listed is tested as it is.
SMALL: dict[str, dict[str, Any]] = {
    "dimenet++": {"hidden": 16, "blocks": 2, "int_emb": 8, "basis_emb": 4, "out_emb": 12, "output_layers": 1},
}
WIDTH, MAX_ATOMS = 10, 12
CRYSTALS = [random_crystal(11), random_crystal(12, num_atoms=1), cubic("diamond", 3.567), random_crystal(13, 8, 5.0)]


def make(name: str, dtype: torch.dtype = torch.float64) -> Encoder:
    torch.manual_seed(0)
    with default_dtype(dtype):
        encoder = ENCODERS[name](WIDTH, MAX_ATOMS, SMALL.get(name, {}))
    shake(encoder)
    return encoder.requires_grad_(False)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=sorted(ENCODERS))
def encoder(request: pytest.FixtureRequest, dtype: torch.dtype) -> Encoder:
    return make(request.param, dtype)


@pytest.fixture
def crystal(dtype: torch.dtype) -> CrystalBatch:
    return batch_of([random_crystal(11)], dtype, bonded=True)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.abs().max() > 1e-3, "nothing to compare"
    tolerance = 2e-4 if theirs.dtype == torch.float32 else 1e-9
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


@pytest.mark.parametrize("mirror", [False, True])
def test_rotation_and_reflection(encoder: Encoder, crystal: CrystalBatch, mirror: bool) -> None:
    matrix = torch.tensor(rotation(0, mirror=mirror)).to(crystal.lattice)
    assert_close(encoder(crystal.replace(lattice=crystal.lattice @ matrix)), encoder(crystal))


def test_translation(encoder: Encoder, crystal: CrystalBatch) -> None:
    shift = torch.tensor([0.31, -0.77, 4.1]).to(crystal.frac_coords)
    assert_close(encoder(crystal.replace(frac_coords=crystal.frac_coords + shift)), encoder(crystal))


def test_permutation(encoder: Encoder, crystal: CrystalBatch) -> None:
    assert_close(encoder(permuted(crystal, torch.tensor([3, 0, 4, 1, 2]))), encoder(crystal))


def test_order_and_direction_of_bonds(encoder: Encoder, crystal: CrystalBatch) -> None:
    order = torch.randperm(len(crystal.bonds), generator=torch.Generator().manual_seed(0))
    turned = crystal.replace(bonds=crystal.bonds[order].flip(1), bond_images=-crystal.bond_images[order])
    assert_close(encoder(turned), encoder(crystal))


@pytest.mark.parametrize("basis", UNIMODULAR, ids=range(len(UNIMODULAR)))
def test_choice_of_lattice_vectors(encoder: Encoder, crystal: CrystalBatch, basis: np.ndarray) -> None:
    assert_close(encoder(rebased(crystal, basis)), encoder(crystal))


def test_images(encoder: Encoder, crystal: CrystalBatch) -> None:
    cells = torch.randint(-3, 4, crystal.frac_coords.shape, generator=torch.Generator().manual_seed(1))
    i, j = crystal.bonds.unbind(1)
    moved = crystal.replace(
        frac_coords=crystal.frac_coords + cells, bond_images=crystal.bond_images + cells[i] - cells[j]
    )
    assert_close(encoder(moved), encoder(crystal))


@pytest.mark.parametrize("axis", [0, 2])
def test_supercell(encoder: Encoder, crystal: CrystalBatch, axis: int) -> None:
    """The mean over the atoms knows the crystal, not how often its cell was copied."""
    assert_close(encoder(doubled(crystal, axis)), encoder(crystal))


def test_batch(encoder: Encoder, dtype: torch.dtype) -> None:
    together = encoder(batch_of(CRYSTALS, dtype, bonded=True))
    assert together.shape == (len(CRYSTALS), WIDTH)
    for crystal, features in zip(CRYSTALS, together, strict=True):
        assert_close(features, encoder(batch_of([crystal], dtype, bonded=True))[0])


def test_different_crystals_differ(encoder: Encoder, crystal: CrystalBatch) -> None:
    """An encoder that says the same of all crystals would pass every law above."""
    features = encoder(crystal)
    moved = crystal.frac_coords + 0.05 * torch.tensor([[1.0, 0, 0]] + [[0.0, 0, 0]] * 4).to(crystal.frac_coords)
    others = [
        crystal.replace(frac_coords=moved),
        crystal.replace(lattice=1.02 * crystal.lattice),
        crystal.replace(atomic_numbers=crystal.atomic_numbers % 80 + 1),
    ]
    for other in others:
        assert (encoder(other) - features).abs().max() > 1e-3


def test_every_parameter_has_a_finite_gradient(encoder: Encoder, dtype: torch.dtype) -> None:
    encoder.requires_grad_(True)
    encoder(batch_of(CRYSTALS, dtype, bonded=True)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_precisions_agree(name: str) -> None:
    encoder = make(name, torch.float32)
    features = encoder(batch_of(CRYSTALS, torch.float32, bonded=True))
    exact = copy.deepcopy(encoder).double()(batch_of(CRYSTALS, bonded=True))
    torch.testing.assert_close(features.double(), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_scale_factors_restore_the_variance(name: str) -> None:
    assert_scales_fit(make(name), batch_of(CRYSTALS, bonded=True))


def assert_scales_fit(network: nn.Module, *inputs: Tensor | CrystalBatch) -> None:
    """After one pass of fitting, every scaled output has the variance of its reference."""
    with fit_scale_factors(network):
        network(*inputs)
    ratios = []

    def compare(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        _, reference, mask, *rest = given
        wanted = reference[rest[0] if rest else mask].var()
        ratios.append(float(output[mask].var() / wanted))

    factors = [module for module in network.modules() if isinstance(module, ScaleFactor)]
    for factor in factors:
        assert not factor.fitting
        factor.register_forward_hook(compare)
    network(*inputs)
    assert len(ratios) == len(factors)
    assert ratios == pytest.approx([1.0] * len(factors), rel=1e-6)


# options


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_unknown_option_offers_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match=r"cutof.*did you mean 'cutoff'"):
        ENCODERS[name](WIDTH, MAX_ATOMS, {"cutof": 5.0})


def test_unknown_encoder_offers_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean 'dimenet\+\+'"):
        ENCODERS["dimenet"]


@pytest.mark.parametrize("value", ["64", 64.5, True, [64], -1, 0, None])
def test_wrong_values_are_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"hidden of dimenet\+\+ must"):
        ENCODERS["dimenet++"](WIDTH, MAX_ATOMS, {"hidden": value})


def test_no_blocks_and_layers_is_a_network_too() -> None:
    none = {"blocks": 0, "layers_before_skip": 0, "layers_after_skip": 0, "output_layers": 0}
    encoder = ENCODERS["dimenet++"](WIDTH, MAX_ATOMS, {**SMALL["dimenet++"], **none})
    assert encoder(batch_of(CRYSTALS, torch.float32, bonded=True)).shape == (len(CRYSTALS), WIDTH)


# against the published equations


def test_dimenet_is_its_published_equations() -> None:
    encoder = make("dimenet++")
    assert isinstance(encoder, DimeNetEncoder)
    for factor in encoder.modules():
        if isinstance(factor, ScaleFactor):
            factor.scale.fill_(1.7)
    for crystal in CRYSTALS:
        ours = encoder(batch_of([crystal], bonded=True))[0]
        torch.testing.assert_close(ours, slow_dimenet(encoder, crystal), rtol=1e-10, atol=1e-10)


def slow_dimenet(encoder: DimeNetEncoder, crystal: Any) -> Tensor:
    """DimeNet++ (Gasteiger et al. 2020), a loop over edges and triplets; bases by scipy; weights from ``encoder``."""
    from scipy.special import spherical_jn

    o = encoder.options
    edges = []  # messages j -> i as (j, i, vector from i to j)
    for (a, b), image in zip(*crystal_nn_bonds(crystal), strict=True):
        vector = torch.tensor((crystal.frac_coords[b] + image - crystal.frac_coords[a]) @ crystal.lattice)
        edges += [(int(b), int(a), vector), (int(a), int(b), -vector)]

    def envelope(x: float) -> float:
        p = o.envelope_exponent
        u = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
        return u / x if x < 1 else 0.0

    zeros = spherical_bessel_zeros(o.num_spherical, o.num_radial)

    def spherical(distance: float, cosine: float) -> Tensor:
        values = []
        for order in range(o.num_spherical):
            legendre = float(np.polynomial.legendre.Legendre.basis(order)(cosine))
            for zero in zeros[order]:
                norm = math.sqrt(2) / abs(spherical_jn(order + 1, zero))
                radial = norm * spherical_jn(order, zero * distance / o.cutoff) * envelope(distance / o.cutoff)
                values.append(radial * math.sqrt((2 * order + 1) / (4 * math.pi)) * legendre)
        return torch.tensor(values)

    h = encoder.atom_embedding(torch.tensor(crystal.atomic_numbers))
    rbf, messages = [], []
    for j, i, vector in edges:
        x = float(vector.norm()) / o.cutoff
        rbf.append(torch.sin(encoder.radial_basis.frequencies * x) * envelope(x))
        messages.append(encoder.edge_embedding(torch.cat([h[j], h[i], encoder.radial_embedding(rbf[-1])])))

    def output(block: Any) -> Tensor:
        atoms = []
        for atom in range(crystal.num_atoms):
            arriving = [block.radial(rbf[e]) * messages[e] for e, (_, i, _) in enumerate(edges) if i == atom]
            atoms.append(block.final(block.layers(block.up(torch.stack(arriving).sum(0)))))
        return torch.stack(atoms)

    total = output(encoder.outputs[0])
    for block, output_block in zip(encoder.interactions, encoder.outputs[1:], strict=True):
        updated = []
        for e, (j, _, to_j) in enumerate(edges):
            summed = torch.zeros(o.int_emb, dtype=torch.float64)
            for f, (_, end, to_k) in enumerate(edges):
                # k -> j -> i: an edge that arrives at j, other than the way back along the same bond
                if end != j or torch.allclose(to_k, -to_j):
                    continue
                incoming = block.down(block.incoming(messages[f]) * block.radial(rbf[f]))
                cosine = float(to_k @ -to_j / (to_k.norm() * to_j.norm()))
                basis = spherical(float(to_k.norm()), cosine)
                summed = summed + incoming * block.spherical_up(block.spherical(basis))
            x = block.own(messages[e]) + block.up(block.triplet_scale.scale * summed)
            updated.append(block.after_skip(block.final(block.before_skip(x)) + messages[e]))
        messages = updated
        total = total + output(output_block)
    return total.mean(0)
