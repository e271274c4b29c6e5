"""Encoders: the laws that each of them and their combinations obey, and their published equations, edge by edge."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from disguises import DISGUISES
from dpcdvae.config import Config, EncoderConfig
from dpcdvae.encoders import ENCODERS, build_encoder
from dpcdvae.encoders.composed import Concatenation
from dpcdvae.encoders.dimenet import DimeNetEncoder
from dpcdvae.encoders.gine import GINEEncoder
from dpcdvae.encoders.num_atoms import NumAtomsEncoder
from dpcdvae.errors import InputError
from dpcdvae.interfaces import Encoder
from dpcdvae.nn.basis import spherical_bessel_zeros
from dpcdvae.nn.layers import ScaleFactor, fit_scale_factors
from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.standardise import standardise
from dpcdvae.tensors.batch import CrystalBatch
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
    "gine": {"hidden": 16},
    "num_atoms": {"features": 5},
    "lattice": {"hidden": 12},
    "composition": {"features": 7},
}
PAPER = [("dimenet++", "num_atoms"), ("dimenet++", "gine"), ("dimenet++", "num_atoms", "gine")]
CELL = ("dimenet++", "num_atoms", "lattice")
ALL = [*((name,) for name in sorted(ENCODERS)), *PAPER, CELL, (*CELL, "composition")]
WIDTH, MAX_ATOMS = 10, 12
CRYSTALS = [random_crystal(11), random_crystal(12, num_atoms=1), cubic("diamond", 3.567), random_crystal(13, 8, 5.0)]


def make(*names: str, dtype: torch.dtype = torch.float64, mixer_layers: int = 2, mixer_width: int = 0) -> Encoder:
    options = {name: SMALL[name] for name in names if name in SMALL}
    config = EncoderConfig(names=list(names), options=options, mixer_layers=mixer_layers, mixer_width=mixer_width)
    torch.manual_seed(0)
    with default_dtype(dtype):
        encoder = build_encoder(config, WIDTH, MAX_ATOMS)
    shake(encoder)
    return encoder.requires_grad_(False)


def joined(names: tuple[str, ...]) -> str:
    return "+".join(names)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=ALL, ids=joined)
def names(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.fixture
def encoder(names: tuple[str, ...], dtype: torch.dtype) -> Encoder:
    return make(*names, dtype=dtype)


@pytest.fixture
def crystal(dtype: torch.dtype) -> CrystalBatch:
    return batch_of([random_crystal(11)], dtype, bonded=True)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.abs().max() > 1e-3, "nothing to compare"
    tolerance = 2e-4 if theirs.dtype == torch.float32 else 1e-9
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


@pytest.mark.parametrize("mirror", [False, True])
def test_rotation_and_reflection_change_nothing(encoder: Encoder, crystal: CrystalBatch, mirror: bool) -> None:
    matrix = torch.tensor(rotation(0, mirror=mirror)).to(crystal.lattice)
    assert_close(encoder(crystal.replace(lattice=crystal.lattice @ matrix)), encoder(crystal))


def test_translation_changes_nothing(encoder: Encoder, crystal: CrystalBatch) -> None:
    shift = torch.tensor([0.31, -0.77, 4.1]).to(crystal.frac_coords)
    assert_close(encoder(crystal.replace(frac_coords=crystal.frac_coords + shift)), encoder(crystal))


def test_permuting_atoms_changes_nothing(encoder: Encoder, crystal: CrystalBatch) -> None:
    assert_close(encoder(permuted(crystal, torch.tensor([3, 0, 4, 1, 2]))), encoder(crystal))


def test_order_and_direction_of_bonds(encoder: Encoder, crystal: CrystalBatch) -> None:
    order = torch.randperm(len(crystal.bonds), generator=torch.Generator().manual_seed(0))
    turned = crystal.replace(bonds=crystal.bonds[order].flip(1), bond_images=-crystal.bond_images[order])
    assert_close(encoder(turned), encoder(crystal))


@pytest.mark.parametrize("basis", UNIMODULAR, ids=range(len(UNIMODULAR)))
def test_choice_of_lattice_vectors_changes_nothing(
    encoder: Encoder, names: tuple[str, ...], crystal: CrystalBatch, basis: np.ndarray
) -> None:
    """Only the encoder of the cell parameters depends on the choice of vectors."""
    if "lattice" in names:
        assert (encoder(rebased(crystal, basis)) - encoder(crystal)).abs().max() > 1e-3
    else:
        assert_close(encoder(rebased(crystal, basis)), encoder(crystal))


@pytest.mark.parametrize("names", [names for names in ALL if "lattice" in names], ids=joined, indirect=True)
@pytest.mark.parametrize("disguise", [name for name in DISGUISES if name != "doubled"])
def test_every_description_of_a_crystal_that_standardises_to_one_cell(
    encoder: Encoder, dtype: torch.dtype, disguise: str
) -> None:
    """What the other encoders need not, as they are the same for every choice of the cell."""
    crystal = standardise(random_crystal(11))
    other = standardise(DISGUISES[disguise](crystal, np.random.default_rng(0)))
    np.testing.assert_allclose([*other.lengths, *other.angles], [*crystal.lengths, *crystal.angles], rtol=1e-8)
    assert_close(encoder(batch_of([other], dtype, bonded=True)), encoder(batch_of([crystal], dtype, bonded=True)))


def test_periodic_images_change_nothing(encoder: Encoder, crystal: CrystalBatch) -> None:
    cells = torch.randint(-3, 4, crystal.frac_coords.shape, generator=torch.Generator().manual_seed(1))
    i, j = crystal.bonds.unbind(1)
    moved = crystal.replace(
        frac_coords=crystal.frac_coords + cells, bond_images=crystal.bond_images + cells[i] - cells[j]
    )
    assert_close(encoder(moved), encoder(crystal))


@pytest.mark.parametrize("axis", [0, 2])
def test_a_supercell_changes_only_encoders_of_its_size(
    encoder: Encoder, names: tuple[str, ...], crystal: CrystalBatch, axis: int
) -> None:
    """Mean and maximum over the atoms do not depend on copies of the cell; the encoders of N_a and of the cell do."""
    if {"num_atoms", "lattice"} & {*names}:
        assert (encoder(doubled(crystal, axis)) - encoder(crystal)).abs().max() > 1e-3
    else:
        assert_close(encoder(doubled(crystal, axis)), encoder(crystal))


def test_a_crystal_in_a_batch_is_as_if_alone(encoder: Encoder, dtype: torch.dtype) -> None:
    together = encoder(batch_of(CRYSTALS, dtype, bonded=True))
    assert together.shape == (len(CRYSTALS), WIDTH)
    for crystal, features in zip(CRYSTALS, together, strict=True):
        assert_close(features, encoder(batch_of([crystal], dtype, bonded=True))[0])


def test_different_crystals_differ(encoder: Encoder, names: tuple[str, ...], crystal: CrystalBatch) -> None:
    """An encoder that says the same of all crystals would pass every law above. Some see little alone."""
    features = encoder(crystal)
    moved = crystal.frac_coords + 0.2 * torch.tensor([[1.0, 0, 0]] + [[0.0, 0, 0]] * 4).to(crystal.frac_coords)
    others = [
        crystal.replace(frac_coords=moved),
        crystal.replace(lattice=1.02 * crystal.lattice),
        crystal.replace(atomic_numbers=crystal.atomic_numbers % 80 + 1),
    ]
    blind = {
        ("num_atoms",): (True, True, True),
        ("lattice",): (True, False, True),
        ("composition",): (True, True, False),
    }.get(names, (False, False, False))
    for other, sees_nothing in zip(others, blind, strict=True):
        difference = (encoder(other) - features).abs().max()
        assert difference == 0 if sees_nothing else difference > 1e-3 * features.abs().max()


def test_every_parameter_has_a_finite_gradient(encoder: Encoder, dtype: torch.dtype) -> None:
    encoder.requires_grad_(True)
    encoder(batch_of(CRYSTALS, dtype, bonded=True)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", ["dimenet++", "gine"])
def test_latents_of_an_untrained_encoder_are_small(name: str) -> None:
    """Before training, whatever the crystal: the log variance that follows is exponentiated."""
    crystals = [cubic("fcc", 4.0), cubic("bcc", 3.3), random_crystal(1, 20, 8.0, range(1, 90))]
    encoder = ENCODERS[name](64, 20, {})
    assert encoder(batch_of(crystals, torch.float32, bonded=True)).abs().max() < 0.5


def test_precisions_agree(names: tuple[str, ...]) -> None:
    encoder = make(*names, dtype=torch.float32)
    features = encoder(batch_of(CRYSTALS, torch.float32, bonded=True))
    exact = copy.deepcopy(encoder).double()(batch_of(CRYSTALS, bonded=True))
    torch.testing.assert_close(features.double(), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))


def test_scale_factors_restore_the_variance(names: tuple[str, ...]) -> None:
    assert_scales_fit(make(*names), batch_of(CRYSTALS, bonded=True))


def assert_scales_fit(network: nn.Module, *inputs: Tensor | CrystalBatch) -> None:
    """After one pass of fitting, every scaled output has the variance of its reference; later passes use the scales."""
    with fit_scale_factors(network):
        network(*inputs)
    before = network(*inputs)
    ratios = []

    def compare(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        _, reference, mask, reference_mask = (*given, None, None)[:4]
        chosen = slice(None) if mask is None else mask
        wanted = reference[chosen if reference_mask is None else reference_mask].var()
        ratios.append(float(output[chosen].var() / wanted))

    factors = [module for module in network.modules() if isinstance(module, ScaleFactor)]
    for factor in factors:
        assert not factor.fitting
        factor.register_forward_hook(compare)
    with fit_scale_factors(network):  # again, when every factor is asked and gives the same
        torch.testing.assert_close(network(*inputs), before, rtol=1e-9, atol=1e-12)
    assert len(ratios) == len(factors)
    assert ratios == pytest.approx([1.0] * len(factors), rel=1e-6)


# options


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("dimenet++", "cutof", "cutoff"),
        ("gine", "hiden", "hidden"),
        ("num_atoms", "feature", "features"),
        ("lattice", "layer", "layers"),
    ],
)
def test_unknown_option_offers_the_nearest(name: str, wrong: str, right: str) -> None:
    with pytest.raises(InputError, match=rf"{wrong}.*did you mean '{right}'"):
        ENCODERS[name](WIDTH, MAX_ATOMS, {wrong: 5})


def test_unknown_encoder_offers_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean 'dimenet\+\+'"):
        ENCODERS["dimenet"]


@pytest.mark.parametrize("value", ["64", 64.5, True, [64], -1, None])
@pytest.mark.parametrize(
    ("name", "option"),
    [("dimenet++", "hidden"), ("gine", "hidden"), ("gine", "convolutions"), ("num_atoms", "features")],
)
def test_wrong_values_are_refused(name: str, option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"{option} of {re.escape(name)} must"):
        ENCODERS[name](WIDTH, MAX_ATOMS, {option: value})


def test_a_network_without_width_is_refused() -> None:
    for name in ("dimenet++", "gine"):
        with pytest.raises(InputError, match="a whole number from 1 to 4096, not 0"):
            ENCODERS[name](WIDTH, MAX_ATOMS, {"hidden": 0})


def test_no_blocks_and_layers_is_a_network_too() -> None:
    none = {"blocks": 0, "layers_before_skip": 0, "layers_after_skip": 0, "output_layers": 0}
    encoder = ENCODERS["dimenet++"](WIDTH, MAX_ATOMS, {**SMALL["dimenet++"], **none})
    assert encoder(batch_of(CRYSTALS, torch.float32, bonded=True)).shape == (len(CRYSTALS), WIDTH)


# several encoders


@pytest.mark.parametrize("names", PAPER, ids=joined)
def test_concatenation_is_its_parts_put_together(names: tuple[str, ...]) -> None:
    encoder = make(*names, mixer_width=7)
    assert isinstance(encoder, Concatenation)
    batch = batch_of(CRYSTALS, bonded=True)
    x = torch.cat([encoder.parts[name](batch) for name in names], 1)
    assert x.shape == (len(CRYSTALS), sum(5 if name == "num_atoms" else WIDTH for name in names))
    weights = [parameter for name, parameter in encoder.named_parameters() if name.startswith("mixer")]
    assert [tuple(weight.shape) for weight in weights[::2]] == [(7, x.shape[1]), (7, 7), (WIDTH, 7)]
    for weight, bias in zip(weights[:4:2], weights[1:4:2], strict=True):
        x = (x @ weight.T + bias).relu()
    assert_close(encoder(batch), x @ weights[4].T + weights[5])


def test_order_of_names_is_the_order_of_columns_and_nothing_else() -> None:
    one, other = make("dimenet++", "num_atoms", "gine"), make("gine", "dimenet++", "num_atoms")
    weights = one.state_dict()
    dimenet, number, gine = weights["mixer.0.weight"].split([WIDTH, 5, WIDTH], 1)
    other.load_state_dict({**weights, "mixer.0.weight": torch.cat([gine, dimenet, number], 1)})
    batch = batch_of(CRYSTALS, bonded=True)
    assert_close(other(batch), one(batch))


@pytest.mark.parametrize(("width", "expected"), [(0, WIDTH + 5), (9, 9)])
@pytest.mark.parametrize("layers", [1, 3])
def test_width_and_layers_of_the_mixer(layers: int, width: int, expected: int) -> None:
    mixer = make("dimenet++", "num_atoms", mixer_layers=layers, mixer_width=width).mixer
    linear = [(layer.in_features, layer.out_features) for layer in mixer if isinstance(layer, nn.Linear)]
    assert linear == [(WIDTH + 5, expected), *[(expected, expected)] * (layers - 1), (expected, WIDTH)]


def test_one_encoder_is_itself_unless_its_width_is_another() -> None:
    assert type(make("dimenet++")) is DimeNetEncoder
    assert type(make("gine")) is GINEEncoder
    as_wide = build_encoder(EncoderConfig(names=["num_atoms"]), WIDTH, MAX_ATOMS)
    assert type(as_wide) is NumAtomsEncoder
    assert as_wide.out_features == WIDTH
    assert isinstance(make("num_atoms"), Concatenation)


def test_widths_are_what_they_say(names: tuple[str, ...]) -> None:
    encoder = make(*names)
    assert encoder.out_features == WIDTH
    batch = batch_of(CRYSTALS, bonded=True)
    for part in encoder.parts.values() if isinstance(encoder, Concatenation) else [encoder]:
        assert part(batch).shape == (len(CRYSTALS), part.out_features)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"names": []}, r"encoder.names is empty: .*dimenet\+\+, gine, lattice, num_atoms"),
        ({"names": ["gine", "dimenet++", "gine"]}, r"\[gine, dimenet\+\+, gine\]: 'gine' stands there twice"),
        ({"names": ["dimenet++", "gin"]}, "unknown encoder 'gin': did you mean 'gine'"),
        ({"names": ["dimenet++", "concat"]}, r"\[dimenet\+\+, concat\]: the list itself is the concatenation"),
        ({"names": ["dimenet++"], "options": {"gine": {"hidden": 8}}}, r"encoder.options.gine: .*\[dimenet\+\+\]"),
        ({"names": ["gine"], "options": {"hidden": {}}}, r"such as encoder.options.gine"),
        ({"names": ["dimenet++", "gine"], "options": {"gine": {"blocks": 8}}}, "unknown option of gine 'blocks'"),
    ],
)
def test_wrong_lists_are_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        build_encoder(EncoderConfig(**values), WIDTH, MAX_ATOMS)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("names", [["dimenet++", ["gine", "num_atoms"]], "dimenet++", [1], None])
def test_a_list_of_anything_but_names_is_refused(names: object) -> None:
    with pytest.raises(InputError, match=r"option encoder\.names must be a list of strings, not "):
        Config.from_dict({"encoder": {"names": names}})


# the number of atoms


def test_num_atoms_distinguishes_sizes_and_nothing_else() -> None:
    encoder = make("num_atoms")
    batch = batch_of([random_crystal(seed, size) for seed, size in enumerate([1, 2, MAX_ATOMS, 2])], bonded=True)
    features = encoder(batch)
    assert torch.cdist(features, features).gt(1e-3).sum() == 10  # all pairs but those of two 2 and of each with itself
    assert torch.equal(features[1], features[3])


def test_num_atoms_counts_larger_crystals_as_the_largest() -> None:
    encoder = make("num_atoms")
    sizes = [MAX_ATOMS - 1, MAX_ATOMS, MAX_ATOMS + 1]
    smaller, largest, larger = encoder(batch_of([random_crystal(1, size, 8.0) for size in sizes], bonded=True))
    assert torch.equal(largest, larger)
    assert not torch.equal(smaller, largest)


# against the published equations


@pytest.mark.parametrize("same_atom_triplets", [True, False])
def test_dimenet_is_its_published_equations(same_atom_triplets: bool) -> None:
    encoder = make("dimenet++")
    assert isinstance(encoder, DimeNetEncoder)
    encoder.options = encoder.options.model_copy(update={"same_atom_triplets": same_atom_triplets})
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
        p = o.envelope_exponent + 1
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
        for e, (j, i, to_j) in enumerate(edges):
            summed = torch.zeros(o.int_emb, dtype=torch.float64)
            for f, (k, end, to_k) in enumerate(edges):
                # k -> j -> i: an edge that arrives at j, other than the way back along the same bond
                if end != j or torch.allclose(to_k, -to_j):
                    continue
                if k == i and not o.same_atom_triplets:
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


def test_gine_is_its_published_equations() -> None:
    encoder = make("gine")
    assert isinstance(encoder, GINEEncoder)
    batch = batch_of(CRYSTALS, bonded=True)
    slow = torch.stack([slow_gine(encoder, crystal) for crystal in CRYSTALS])
    torch.testing.assert_close(encoder(batch), slow, rtol=1e-10, atol=1e-10)


def slow_gine(encoder: GINEEncoder, crystal: Crystal) -> Tensor:
    """GINE (Hu et al. 2020), a loop over atoms and bonds; weights from ``encoder``."""
    weights = iter(encoder.parameters())

    def two_layers(inputs: list[Tensor]) -> list[Tensor]:
        first, first_bias, second, second_bias = (next(weights) for _ in range(4))
        return [second @ (first @ x + first_bias).clamp(min=0) + second_bias for x in inputs]

    edges = []  # (j, i, length)
    for (a, b), image in zip(*crystal_nn_bonds(crystal), strict=True):
        length = np.linalg.norm((crystal.frac_coords[b] + image - crystal.frac_coords[a]) @ crystal.lattice)
        edges += [(int(b), int(a), length), (int(a), int(b), length)]

    embedding = next(weights)
    x = [embedding[number] for number in crystal.atomic_numbers]
    e = two_layers([torch.tensor([length], dtype=torch.float64) for _, _, length in edges])
    for convolution in range(3):
        sums = []
        for i in range(crystal.num_atoms):
            messages = [(x[j] + e_ij).clamp(min=0) for (j, end, _), e_ij in zip(edges, e, strict=True) if end == i]
            sums.append(x[i] + torch.stack(messages).sum(0))
        update = two_layers(sums)
        if convolution < 2:
            update = [u.clamp(min=0) for u in update]
        x = [before + u for before, u in zip(x, update, strict=True)]
    features = two_layers([torch.stack(x).max(0).values])[0]
    assert next(weights, None) is None, "a weight the equations do not use"
    return features
