"""Denoisers: the laws every one of them obeys, and GemNet-T against its published equations, edge by edge."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from dpcdvae.config import load_config
from dpcdvae.denoisers import DENOISERS
from dpcdvae.denoisers.gemnet import GemNetDenoiser
from dpcdvae.errors import InputError
from dpcdvae.interfaces import Denoiser
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.nn.layers import ScaleFactor, half_sum_
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import NUM_ELEMENTS
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
from test_encoders import assert_scales_fit

# What makes a denoiser small enough for a test, and blind to absolute positions.
SMALL: dict[str, dict[str, Any]] = {
    "gemnet-t": {
        "hidden": 16,
        "atom_width": 24,
        "blocks": 2,
        "num_radial": 12,
        "num_spherical": 5,
        "emb_trip": 8,
        "emb_rbf": 6,
        "emb_cbf": 5,
        "bil_trip": 7,
        "layers_atom": 1,
        "time_embedding": 8,
        "fourier": [],
    },
}
LATENT = 6
CRYSTALS = [random_crystal(11), random_crystal(12, num_atoms=1), cubic("diamond", 3.567), random_crystal(13, 8, 5.0)]


def make(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> Denoiser:
    torch.manual_seed(0)
    with default_dtype(dtype):
        denoiser = DENOISERS[name](LATENT, {**SMALL.get(name, {}), **options})
    shake(denoiser)
    return denoiser.requires_grad_(False)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=sorted(DENOISERS))
def denoiser(request: pytest.FixtureRequest, dtype: torch.dtype) -> Denoiser:
    return make(request.param, dtype)


@pytest.fixture
def fourier_denoiser(dtype: torch.dtype) -> Denoiser:
    return make("gemnet-t", dtype, fourier=[3, 8])


@pytest.fixture
def crystal(dtype: torch.dtype) -> CrystalBatch:
    return batch_of([random_crystal(11)], dtype)


def conditions(batch: CrystalBatch) -> tuple[Tensor, Tensor]:
    """z and time of every crystal; the same for the k-th crystal of any batch."""
    z = torch.randn(20, LATENT, generator=torch.Generator().manual_seed(3))
    time = torch.tensor([7.0, 900.0, 42.0, 1.0] * 5)
    return z[: len(batch)].to(batch.lattice), time[: len(batch)].to(batch.lattice)


def run(denoiser: Denoiser, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
    return denoiser(batch, *conditions(batch))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.abs().max() > 1e-3, "nothing to compare"
    tolerance = 5e-4 if theirs.dtype == torch.float32 else 1e-9
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def assert_same(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


def differ(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> bool:
    """Both outputs differ, by far more than rounding."""
    return all(float((a - b).abs().max() / b.abs().max()) > 0.01 for a, b in zip(ours, theirs, strict=True))


# laws of every denoiser without Fourier features


def test_shapes_are_those_of_the_contract(denoiser: Denoiser, dtype: torch.dtype) -> None:
    batch = batch_of(CRYSTALS, dtype)
    vectors, logits = run(denoiser, batch)
    assert vectors.shape == (len(batch.frac_coords), 3)
    assert logits.shape == (len(batch.frac_coords), NUM_ELEMENTS)
    assert vectors.dtype == logits.dtype == dtype


@pytest.mark.parametrize("mirror", [False, True])
def test_rotation_and_reflection_turn_the_vectors(denoiser: Denoiser, crystal: CrystalBatch, mirror: bool) -> None:
    matrix = torch.tensor(rotation(0, mirror=mirror)).to(crystal.lattice)
    vectors, logits = run(denoiser, crystal)
    assert_same(run(denoiser, crystal.replace(lattice=crystal.lattice @ matrix)), (vectors @ matrix, logits))


def test_translation_changes_nothing(denoiser: Denoiser, crystal: CrystalBatch) -> None:
    shift = torch.tensor([0.31, -0.77, 4.1]).to(crystal.frac_coords)
    assert_same(run(denoiser, crystal.replace(frac_coords=crystal.frac_coords + shift)), run(denoiser, crystal))


def test_permuting_atoms_permutes_the_output(denoiser: Denoiser, crystal: CrystalBatch) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    vectors, logits = run(denoiser, crystal)
    assert_same(run(denoiser, permuted(crystal, order)), (vectors[order], logits[order]))


def test_periodic_images_change_nothing(denoiser: Denoiser, crystal: CrystalBatch) -> None:
    cells = torch.randint(-3, 4, crystal.frac_coords.shape, generator=torch.Generator().manual_seed(1))
    assert_same(run(denoiser, crystal.replace(frac_coords=crystal.frac_coords + cells)), run(denoiser, crystal))


@pytest.mark.parametrize("basis", UNIMODULAR, ids=range(len(UNIMODULAR)))
def test_choice_of_lattice_vectors_changes_nothing(
    denoiser: Denoiser, crystal: CrystalBatch, basis: np.ndarray
) -> None:
    assert_same(run(denoiser, rebased(crystal, basis)), run(denoiser, crystal))


def test_a_supercell_repeats_the_output(denoiser: Denoiser, crystal: CrystalBatch) -> None:
    vectors, logits = run(denoiser, crystal)
    assert_same(run(denoiser, doubled(crystal, axis=2)), (vectors.repeat(2, 1), logits.repeat(2, 1)))


def test_a_crystal_in_a_batch_is_as_if_alone(denoiser: Denoiser, dtype: torch.dtype) -> None:
    """Every crystal as if it were alone, one atom in a cell of its own too."""
    batch = batch_of(CRYSTALS, dtype)
    z, time = conditions(batch)
    sizes = batch.num_atoms.tolist()
    together = zip(*(output.split(sizes) for output in denoiser(batch, z, time)), strict=True)
    scale = [output.abs().max() for output in denoiser(batch, z, time)]
    for k, (crystal, ours) in enumerate(zip(CRYSTALS, together, strict=True)):
        alone = denoiser(batch_of([crystal], dtype), z[k : k + 1], time[k : k + 1])
        for a, b, size in zip(ours, alone, scale, strict=True):
            torch.testing.assert_close(a / size, b / size, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-10)


def test_symmetric_sites_have_no_direction(denoiser: Denoiser, dtype: torch.dtype) -> None:
    """By symmetry the vectors vanish in diamond and in a simple cubic crystal."""
    vectors, logits = run(denoiser, batch_of([cubic("diamond", 3.567), cubic("sc", 2.0)], dtype))
    assert vectors.abs().max() < (1e-4 if dtype == torch.float32 else 1e-9)
    assert_close(logits[0], logits[1])


def test_the_output_depends_on_every_input(denoiser: Denoiser, crystal: CrystalBatch) -> None:
    z, time = conditions(crystal)
    here = denoiser(crystal, z, time)
    assert differ(denoiser(crystal, z + 0.5, time), here)
    assert differ(denoiser(crystal.replace(atomic_numbers=crystal.atomic_numbers % 80 + 1), z, time), here)
    vectors, logits = denoiser(crystal, z, time + 1)
    assert (vectors - here[0]).abs().max() > 1e-3
    assert (logits - here[1]).abs().max() > 1e-3


def test_every_parameter_has_a_finite_gradient(denoiser: Denoiser, dtype: torch.dtype) -> None:
    denoiser.requires_grad_(True)
    on_top = Crystal(np.array([6, 8]), np.zeros((2, 3)), 4 * np.eye(3))  # as noise may put them
    vectors, logits = run(denoiser, batch_of([*CRYSTALS, on_top], dtype))
    (vectors.square().sum() + logits.square().sum()).backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_atoms_without_neighbours_stay(denoiser: Denoiser, dtype: torch.dtype) -> None:
    vectors, logits = run(denoiser, batch_of([cubic("sc", 12.0)], dtype))
    assert vectors.eq(0).all()
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", sorted(DENOISERS))
def test_neighbours_come_and_go_smoothly(name: str) -> None:
    """An atom that crosses the cutoff changes nothing by its crossing (below the cap)."""
    denoiser = make(name)
    outputs = []
    for distance in (7 - 1e-7, 7 + 1e-7):
        coords = np.array([[0.0, 0, 0], [distance / 20, 0, 0], [2.1 / 20, 0.3 / 20, 0]])
        outputs.append(run(denoiser, batch_of([Crystal(np.array([6, 8, 22]), coords, 20 * np.eye(3))])))
    for inside, outside in zip(*outputs, strict=True):
        torch.testing.assert_close(inside, outside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(DENOISERS))
def test_precisions_agree(name: str) -> None:
    single = make(name, torch.float32)
    for ours, exact in zip(
        run(single, batch_of(CRYSTALS, torch.float32)),
        run(copy.deepcopy(single).double(), batch_of(CRYSTALS)),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


@pytest.mark.parametrize("name", sorted(DENOISERS))
def test_scale_factors_restore_the_variance(name: str) -> None:
    batch = batch_of(CRYSTALS)
    assert_scales_fit(make(name), batch, *conditions(batch))


# Fourier features of absolute positions break the laws about the choice of origin and cell, and no other


class TestFourier:
    def test_rotation_rotates_the_vectors_with_fourier_features(
        self, fourier_denoiser: Denoiser, crystal: CrystalBatch
    ) -> None:
        test_rotation_and_reflection_turn_the_vectors(fourier_denoiser, crystal, mirror=True)

    def test_permuting_atoms_permutes_the_output(self, fourier_denoiser: Denoiser, crystal: CrystalBatch) -> None:
        test_permuting_atoms_permutes_the_output(fourier_denoiser, crystal)

    def test_a_crystal_in_a_batch_is_as_if_alone(self, fourier_denoiser: Denoiser, dtype: torch.dtype) -> None:
        test_a_crystal_in_a_batch_is_as_if_alone(fourier_denoiser, dtype)

    def test_periodic_images_change_nothing(self) -> None:
        # In float64: float32 coordinates of far images no longer hold the digits the high frequencies look at.
        test_periodic_images_change_nothing(make("gemnet-t", fourier=[3, 8]), batch_of([random_crystal(11)]))

    def test_translation_by_an_eighth_of_the_cell(self) -> None:
        denoiser, crystal = make("gemnet-t", fourier=[3, 8]), batch_of([random_crystal(11)])
        moved = crystal.replace(frac_coords=crystal.frac_coords + torch.tensor([0.125, -0.5, 2.375]))
        assert_same(run(denoiser, moved), run(denoiser, crystal))

    def test_with_fourier_features_translation_changes_the_output(
        self, fourier_denoiser: Denoiser, crystal: CrystalBatch
    ) -> None:
        moved = crystal.replace(frac_coords=crystal.frac_coords + 0.1)
        assert differ(run(fourier_denoiser, moved), run(fourier_denoiser, crystal))

    def test_choice_of_lattice_vectors_breaks(self, fourier_denoiser: Denoiser, crystal: CrystalBatch) -> None:
        assert differ(run(fourier_denoiser, rebased(crystal, UNIMODULAR[0])), run(fourier_denoiser, crystal))

    def test_with_fourier_features_a_supercell_changes_the_output(
        self, fourier_denoiser: Denoiser, crystal: CrystalBatch
    ) -> None:
        vectors, logits = run(fourier_denoiser, crystal)
        twice = run(fourier_denoiser, doubled(crystal))
        assert differ(twice, (vectors.repeat(2, 1), logits.repeat(2, 1)))


# options


@pytest.mark.parametrize("name", sorted(DENOISERS))
def test_unknown_option_offers_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match=r"cutof.*did you mean 'cutoff'"):
        DENOISERS[name](LATENT, {"cutof": 5.0})


def test_unknown_denoiser_offers_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean 'gemnet-t'"):
        DENOISERS["gemnet"]


@pytest.mark.parametrize("value", ["64", 64.5, True, [64], -1, 0, None])
def test_wrong_values_are_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"hidden of gemnet-t must"):
        DENOISERS["gemnet-t"](LATENT, {"hidden": value})


WRONG: dict[str, list[object]] = {
    "fourier": [[3], [8, 3], ["a", "b"], [3.5, 8], [-1, 2], 3],
    "time_embedding": [7],
    "cutoff": [0.0, math.nan, math.inf, "7"],
    "max_neighbours": [0],
    "num_spherical": [0],
    "envelope_exponent": [0],
    "blocks": [-1],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in WRONG for value in WRONG[option]])
def test_each_wrong_value_is_named(option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"(gemnet-t: option {option}|option {option} of gemnet-t) must") as error:
        DENOISERS["gemnet-t"](LATENT, {option: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": 0},
        {"layers_before_skip": 0, "layers_after_skip": 0, "layers_concat": 0, "layers_atom": 0},
        {"time_embedding": 0},
        {"atom_width": 0},
        {"num_spherical": 1, "num_radial": 1},
        {"max_neighbours": 1, "fourier": [0, 0]},
    ],
)
def test_the_smallest_networks_work_too(options: dict[str, Any]) -> None:
    vectors, logits = run(make("gemnet-t", **options), batch_of(CRYSTALS))
    assert vectors.isfinite().all()
    assert logits.isfinite().all()


def test_the_published_size_has_the_published_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public implementation's 18.4 million parameters, less the energy heads whose results it throws away."""
    monkeypatch.setattr(torch.nn.init, "orthogonal_", lambda weight: weight)  # seconds that change no size
    model = CDVAE(load_config("paper/dp-cdvae-carbon_24"))
    hidden, width = 128, 128 + 256 + 128 + 36
    energy_head = 16 * hidden + hidden * width + 6 * width**2 + width
    count = sum(weight.numel() for weight in model.parameters())
    assert count + 4 * energy_head == pytest.approx(18.4e6, rel=0.003)


# against the published equations


@pytest.mark.parametrize("options", [{}, {"fourier": [3, 5], "atom_width": 0, "time_embedding": 4}])
@pytest.mark.parametrize("crystal", [random_crystal(11, 3), random_crystal(12, 1, 2.5), cubic("diamond", 3.567)])
def test_gemnet_is_its_published_equations(crystal: Crystal, options: dict[str, Any]) -> None:
    denoiser = make("gemnet-t", **options, cutoff=3.1, max_neighbours=200)
    assert isinstance(denoiser, GemNetDenoiser)
    for k, factor in enumerate(module for module in denoiser.modules() if isinstance(module, ScaleFactor)):
        factor.scale.fill_(0.7 + 0.1 * k)
    batch = batch_of([crystal])
    z, time = conditions(batch)
    vectors, logits = slow_gemnet(denoiser, crystal, z[0], float(time[0]))
    ours = denoiser(batch, z, time)
    torch.testing.assert_close(ours[0], vectors, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours[1], logits, rtol=1e-10, atol=1e-10)


def slow_gemnet(net: GemNetDenoiser, crystal: Crystal, z: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """GemNet-dT (Gasteiger et al. 2021), a loop over edges and triplets; neighbours by vesin; weights from ``net``."""
    import vesin

    o = net.options
    search = vesin.NeighborList(cutoff=o.cutoff, full_list=True)
    target, source, to_source, shift = search.compute(crystal.cart_coords, crystal.lattice, True, "ijDS")
    edges = list(zip(source.tolist(), target.tolist(), torch.tensor(to_source), shift.tolist(), strict=True))
    assert edges
    # The edge a -> c of every edge c -> a.
    place = {(c, a, *image): e for e, (c, a, _, image) in enumerate(edges)}
    opposite = [place[(a, c, *(-n for n in image))] for c, a, _, image in edges]

    def act(x: Tensor) -> Tensor:
        return silu(x) / 0.6

    def residual(layers: Any, x: Tensor) -> Tensor:
        for layer in layers:
            x = (x + layer.layers(x)) / math.sqrt(2)
        return x

    def radial(distance: float) -> Tensor:
        x, p = distance / o.cutoff, o.envelope_exponent
        u = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
        centres = np.linspace(0, o.cutoff, o.num_radial)
        width = centres[1] - centres[0]
        return torch.tensor(u * np.exp(-0.5 * (distance - centres) ** 2 / width**2))

    def harmonics(cosine: float) -> Tensor:
        legendre = np.polynomial.legendre.legvander(np.array([cosine]), o.num_spherical - 1)[0]
        return torch.tensor(np.sqrt((2 * np.arange(o.num_spherical) + 1) / (4 * np.pi)) * legendre)

    rbf = [radial(float(vector.norm())) for _, _, vector, _ in edges]
    unit = [vector / vector.norm() for _, _, vector, _ in edges]

    half = o.time_embedding // 2
    angles = [time * 10_000 ** (-n / max(half - 1, 1)) for n in range(half)]
    embedding = torch.tensor(np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles]))
    atoms = []
    for number, position in zip(crystal.atomic_numbers, crystal.frac_coords, strict=True):
        features = [net.type_embedding.weight[number], z, net.time_mlp(embedding)]
        if o.fourier:
            waves = [2 * math.pi * 2**n * x for x in position for n in range(o.fourier[0], o.fourier[1] + 1)]
            features += [torch.tensor(np.sin(waves)), torch.tensor(np.cos(waves))]
        atoms.append(net.atom_features(torch.cat(features)))
    h = torch.stack(atoms)
    m = [act(net.edge_embedding.dense.linear(torch.cat([h[c], h[a], rbf[e]]))) for e, (c, a, _, _) in enumerate(edges)]

    def triplets(block: Any) -> list[Tensor]:
        incoming = [
            block.down(block.incoming(m[e]) * block.radial(net.radial_triplet(rbf[e])) * block.radial_scale.scale)
            for e in range(len(edges))
        ]
        mixed = []
        for e, (_, a, _, _) in enumerate(edges):
            circular = net.radial_circular(rbf[e]).reshape(o.emb_cbf, o.num_spherical)
            total = torch.zeros(o.emb_cbf, o.emb_trip, dtype=torch.float64)
            for f, (_, other, _, _) in enumerate(edges):
                if other == a and f != e:  # b -> a <- c
                    total += torch.outer(circular @ harmonics(float(unit[e] @ unit[f])), incoming[f])
            mixed.append(block.bilinear(total.flatten()) * block.sum_scale.scale)
        return [(block.up(x) + block.up_opposite(mixed[opposite[e]])) / math.sqrt(2) for e, x in enumerate(mixed)]

    def forces(block: Any) -> Tensor:
        total = torch.zeros(crystal.num_atoms, 3, dtype=torch.float64)
        for e, (_, a, _, _) in enumerate(edges):
            x = residual(block.layers[1:], block.layers[0](m[e])) * block.radial(net.radial_out(rbf[e]))
            total[a] += block.out(x * block.scale.scale) * unit[e]
        return total

    vectors = forces(net.outputs[0])
    for block, output in zip(net.interactions, net.outputs[1:], strict=True):
        x = [(block.skip(m[e]) + t) / math.sqrt(2) for e, t in enumerate(triplets(block.triplets))]
        x = [residual(block.before_skip, value) for value in x]
        m = [residual(block.after_skip, (m[e] + value) / math.sqrt(2)) for e, value in enumerate(x)]
        update, summed = block.atom_update, torch.zeros(crystal.num_atoms, o.hidden, dtype=torch.float64)
        for e, (_, a, _, _) in enumerate(edges):
            summed[a] += m[e] * update.radial(net.radial_atom(rbf[e]))
        summed = summed * update.scale.scale
        h = (h + residual(update.layers[1:], update.layers[0](summed))) / math.sqrt(2)
        joined = [act(block.concat.dense.linear(torch.cat([h[c], h[a], m[e]]))) for e, (c, a, _, _) in enumerate(edges)]
        m = [(m[e] + residual(block.after_concat, value)) / math.sqrt(2) for e, value in enumerate(joined)]
        vectors = vectors + forces(output)
    return vectors, net.type_head(h)


@pytest.mark.parametrize("other", [torch.float32, torch.bfloat16])
def test_sums_keep_the_higher_precision(other: torch.dtype) -> None:
    x, y = torch.tensor([1 + 2**-20]), torch.zeros(1, dtype=other)
    assert half_sum_(x, y).dtype == torch.float32
    torch.testing.assert_close(half_sum_(x, y.zero_()), x / math.sqrt(2), atol=0, rtol=2**-22)
