"""Noise of the atom types: closed forms, limits, frequencies, and types that a composition asks for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dpcdvae.diffusion.atom_types import (
    MixedWithComposition,
    draw_types,
    noisy_type_probabilities,
    one_hot,
    type_sigmas,
    types_of_composition,
)
from dpcdvae.sampling.generation import generate
from dpcdvae.tensors.noise import CrystalRandom
from tensors import batch_of, random_crystal, tiny_model
from test_diffusion import SEED, normal, uniform


def test_type_levels_are_geometric() -> None:
    sigmas = type_sigmas(50, 0.01, 5.0)
    assert [float(sigmas[0]), float(sigmas[-1])] == pytest.approx([0.01, 5])
    torch.testing.assert_close(sigmas[1:] / sigmas[:-1], torch.full((49,), 500 ** (1 / 49)).double())


def random_compositions(count: int) -> Tensor:
    return torch.softmax(2 * normal(count, 100), -1)


def test_type_noise_closed_forms_and_limits() -> None:
    """Nearly none: A itself (or its soft-max). Much: the composition (or its likeliest element)."""
    numbers = torch.tensor([1, 8, 26, 100])
    types, composition = one_hot(numbers, torch.float64), random_compositions(4)
    assert types.argmax(-1).equal(numbers - 1)

    def probabilities(sigma: float, form: str) -> Tensor:
        return noisy_type_probabilities(types, composition, torch.full((4,), sigma).double(), form)

    for form in ("sum", "softmax"):
        for sigma in (1e-9, 0.3, 5.0, 1e9):
            torch.testing.assert_close(probabilities(sigma, form).sum(-1), torch.ones(4).double())
    torch.testing.assert_close(probabilities(1e-9, "sum"), types, rtol=0, atol=1e-8)
    torch.testing.assert_close(probabilities(1e9, "sum"), composition, rtol=0, atol=1e-8)
    torch.testing.assert_close(probabilities(0.3, "sum"), (types + 0.3 * composition) / 1.3)
    torch.testing.assert_close(probabilities(1e-9, "softmax"), types.softmax(-1))
    likeliest = one_hot(composition.argmax(-1) + 1, torch.float64)
    torch.testing.assert_close(probabilities(1e9, "softmax"), likeliest, rtol=0, atol=1e-6)


def chi_square(drawn: Tensor, probabilities: Tensor) -> float:
    """p-value that atomic numbers ``drawn`` come from (100,) probabilities."""
    from scipy.stats import chisquare

    counts = torch.bincount(drawn - 1, minlength=100).double()
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    expected = probabilities[possible] / probabilities[possible].sum() * len(drawn)
    return float(chisquare(counts[possible].numpy(), expected.numpy()).pvalue)


def test_types_are_drawn_as_often_as_they_should() -> None:
    probabilities = torch.zeros(100).double()
    probabilities[[0, 5, 7, 21, 99]] = torch.tensor([0.1, 0.2, 0.3, 0.35, 0.05]).double()
    drawn = draw_types(probabilities.expand(20_000, 100), uniform(20_000))
    assert chi_square(drawn, probabilities) > 1e-3
    # Weights need not be normalised.
    assert draw_types(7 * probabilities.expand(20_000, 100), uniform(20_000)).equal(drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_impossible_type_is_never_drawn(dtype: torch.dtype) -> None:
    """Not even by the largest number below one, which a product may round up."""
    one = torch.ones((), dtype=dtype)
    draws = torch.stack([torch.zeros((), dtype=dtype), torch.nextafter(one, 0 * one)])
    for scale in torch.linspace(0.5, 3, 200):
        weights = torch.zeros(2, 100, dtype=dtype)
        weights[:, [3, 30]] = scale.to(dtype) * torch.tensor([0.3, 0.7], dtype=dtype)
        assert draw_types(weights, draws).tolist() == [4, 31]
        assert draw_types(weights, torch.tensor([0, 1 - 2**-53], dtype=torch.float64)).tolist() == [4, 31]


class TestTypesOfComposition:
    def draw(self, composition: dict[int, float], num_atoms: int, crystals: int = 3000, width: int = 0) -> Tensor:
        """(crystals, num_atoms) atomic numbers."""
        probabilities = torch.zeros(crystals, 100).double()
        for number, probability in composition.items():
            probabilities[:, number - 1] = probability
        width = width or 2 * num_atoms
        random = CrystalRandom(SEED, torch.arange(crystals))
        draws = random.uniform("a", 60)[:, :width], random.uniform("b", 60)[:, :width]
        return types_of_composition(probabilities, torch.full((crystals,), num_atoms), *draws)[:, :num_atoms]

    @pytest.mark.parametrize("noise", [0.0, 1e-7])
    def test_whole_numbers_are_kept(self, noise: float) -> None:
        """Also if the soft-max misses them by its rounding."""
        types = self.draw({38: 0.2 + noise, 22: 0.2, 8: 0.6 - noise}, 5)
        assert types.sort(-1).values.eq(torch.tensor([8, 8, 8, 22, 38])).all()

    def test_order_is_shuffled(self) -> None:
        types = self.draw({38: 0.2, 22: 0.2, 8: 0.6}, 5)
        shares = torch.zeros(100).double()
        shares[torch.tensor([37, 21, 7])] = torch.tensor([0.2, 0.2, 0.6]).double()
        for place in range(5):
            assert chi_square(types[:, place], shares) > 1e-3

    def test_too_many_are_cut_at_random(self) -> None:
        """N p = 0.6, 0.6, 0.8 rounds to three atoms where two are wanted: any two of them."""
        types = self.draw({1: 0.3, 2: 0.3, 3: 0.4}, 2).sort(-1).values
        pairs, counts = types.unique(dim=0, return_counts=True)
        assert pairs.tolist() == [[1, 2], [1, 3], [2, 3]]
        assert (counts.double() / 3000 - 1 / 3).abs().max() < 0.03

    def test_too_few_are_filled_from_what_rounding_left(self) -> None:
        """N p = 2.4, 1.4, 1.2 rounds to 2, 1, 1; the fifth atom is drawn from 0.4 : 0.4 : 0.2."""
        types = self.draw({1: 0.48, 2: 0.28, 3: 0.24}, 5).sort(-1).values
        found, counts = types.unique(dim=0, return_counts=True)
        assert found.tolist() == [[1, 1, 1, 2, 3], [1, 1, 2, 2, 3], [1, 1, 2, 3, 3]]
        assert (counts.double() / 3000 - torch.tensor([0.4, 0.4, 0.2])).abs().max() < 0.03

    def test_one_atom_of_a_broad_composition(self) -> None:
        even = dict.fromkeys(range(1, 101), 0.01)
        assert chi_square(self.draw(even, 1)[:, 0], torch.full((100,), 0.01).double()) > 1e-3

    def test_mean_composition_is_the_decoded_one(self) -> None:
        types = self.draw({1: 0.48, 2: 0.28, 3: 0.24}, 5)
        share = torch.bincount(types.flatten())[1:].double() / types.numel()
        assert (share - torch.tensor([0.48, 0.28, 0.24])).abs().max() < 0.01

    @pytest.mark.parametrize("num_atoms", [1, 4, 7])
    def test_width_of_the_draws_does_not_matter(self, num_atoms: int) -> None:
        composition = dict.fromkeys(range(1, 16), 1 / 15)
        narrow = self.draw(composition, num_atoms, 200)
        for width in (2 * num_atoms + 1, 30, 60):
            assert self.draw(composition, num_atoms, 200, width).equal(narrow)

    def test_crystals_of_different_sizes(self) -> None:
        composition = random_compositions(50)
        sizes = torch.arange(50) % 7 + 1
        together = types_of_composition(composition, sizes, uniform(50, 14), uniform(50, 14).flip(0))
        for k, size in enumerate(sizes.tolist()):
            draws = uniform(50, 14)[k : k + 1, : 2 * size], uniform(50, 14).flip(0)[k : k + 1, : 2 * size]
            alone = types_of_composition(composition[k : k + 1], sizes[k : k + 1], *draws)
            assert alone[0, :size].equal(together[k, :size])


def test_the_reverse_loop_leaves_the_types_to_their_rule() -> None:
    """A rule of another kind, the type that the network finds second likeliest, needs its class alone."""
    seen: list[torch.Tensor] = []

    class SecondLikeliest(MixedWithComposition):
        def update(self, logits: torch.Tensor) -> torch.Tensor:
            seen.append(logits.topk(2, -1).indices[:, 1] + 1)
            return seen[-1]

    model = tiny_model()
    model.types = SecondLikeliest(20, 0.01, 5.0, "sum")
    crystals = generate(model, 3, steps=3).crystals
    assert len(seen) == 3
    assert [number for crystal in crystals for number in crystal.atomic_numbers.tolist()] == seen[-1].tolist()
    seen.clear()
    generate(model, 1, steps=3, formula="SrTiO3")
    assert not seen


def test_noisy_types_are_scaled_by_their_level() -> None:
    """At the smallest level nearly all types are kept; the loss is divided by σ'."""
    model = tiny_model()
    batch = batch_of([random_crystal(k) for k in range(40)])
    composition = random_compositions(40)
    for level, sigma in ((0.0, 0.01), (1 - 2**-53, 5.0)):
        noisy = model.types.corrupt(batch, composition, torch.full((40,), level).double(), uniform(200))
        assert noisy.scale.tolist() == pytest.approx([sigma] * 40)
        kept = float((noisy.atomic_numbers == batch.atomic_numbers).double().mean())
        assert kept == pytest.approx(1 / (1 + sigma), abs=0.12)
