"""Types chosen together: the best of all choices, and each atom's own where the composition says nothing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from dpcdvae.checkpoints.loading import load_model
from dpcdvae.config import override_config
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.decoding import decode
from dpcdvae.sampling.type_counts import MOST_ATOMS, types_with_counts
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.noise import CrystalRandom

ELEMENTS = torch.tensor([8, 22, 38])


def crystal(seed: int, atoms: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of an oxide, the atoms of each element that are expected, and the number of atoms."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.full((atoms, NUM_ELEMENTS), -30.0)
    logits[:, ELEMENTS - 1] = 2 * torch.randn(atoms, 3, generator=generator)
    shares = torch.rand(3, generator=generator)
    expected = torch.zeros(1, NUM_ELEMENTS)
    expected[0, ELEMENTS - 1] = atoms * shares / shares.sum()
    return logits, expected, torch.tensor([atoms])


def score(types: np.ndarray, logits: torch.Tensor, expected: torch.Tensor, weight: float) -> float:
    chances = logits.double().log_softmax(-1)[torch.arange(len(types)), torch.from_numpy(types) - 1].sum()
    counts = np.bincount(types - 1, minlength=NUM_ELEMENTS)
    return float(chances) - float(((counts - expected[0].numpy()) ** 2).sum()) * weight


@pytest.mark.parametrize("weight", [0.1, 2.0, 50.0])
@pytest.mark.parametrize("seed", range(6))
def test_no_other_types_are_likelier(seed: int, weight: float) -> None:
    logits, expected, num_atoms = crystal(seed)
    found = types_with_counts(logits, expected, num_atoms, weight).numpy()
    best = max(score(np.array(types), logits, expected, weight) for types in product(ELEMENTS.tolist(), repeat=5))
    assert score(found, logits, expected, weight) == pytest.approx(best)


def test_a_small_weight_leaves_each_atom_its_own_type() -> None:
    logits, expected, num_atoms = crystal(0)
    assert torch.equal(types_with_counts(logits, expected, num_atoms, 1e-6), logits.argmax(-1) + 1)


def test_a_large_weight_gives_the_composition() -> None:
    logits, expected, num_atoms = crystal(1)
    expected[0, ELEMENTS - 1] = torch.tensor([3.0, 1.0, 1.0])
    found = types_with_counts(logits, expected, num_atoms, 1e4)
    assert sorted(found.tolist()) == [8, 8, 8, 22, 38]


def test_crystals_do_not_depend_on_their_batch_nor_on_the_order_of_their_atoms() -> None:
    (a, wanted_a, size_a), (b, wanted_b, size_b) = crystal(2), crystal(3, atoms=4)
    logits, wanted, sizes = torch.cat([a, b]), torch.cat([wanted_a, wanted_b]), torch.cat([size_a, size_b])
    together = types_with_counts(logits, wanted, sizes, 3.0)
    assert torch.equal(together[:5], types_with_counts(a, wanted_a, size_a, 3.0))
    assert torch.equal(together[5:], types_with_counts(b, wanted_b, size_b, 3.0))
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.equal(types_with_counts(a[order], wanted_a, size_a, 3.0), together[:5][order])


def test_elements_that_are_not_allowed_are_not_taken_and_a_diverged_crystal_stops_no_other() -> None:
    logits, expected, num_atoms = crystal(4)
    logits[:, 7] = -torch.inf
    broken = logits.clone()
    broken[0] = torch.nan
    both = types_with_counts(torch.cat([broken, logits]), expected.repeat(2, 1), num_atoms.repeat(2), 50.0)
    assert 8 not in both[5:].tolist()
    assert torch.equal(both[5:], types_with_counts(logits, expected, num_atoms, 50.0))


def test_what_cannot_be_chosen_together_is_each_atoms_own() -> None:
    """A crystal that is too large to assign, and one whose composition is no number."""
    atoms = MOST_ATOMS + 1
    large = torch.randn(atoms, NUM_ELEMENTS, generator=torch.Generator().manual_seed(0))
    wanted = torch.full((1, NUM_ELEMENTS), atoms / NUM_ELEMENTS)
    assert torch.equal(types_with_counts(large, wanted, torch.tensor([atoms]), 1e4), large.argmax(-1) + 1)
    logits, expected, num_atoms = crystal(0)
    assert torch.equal(types_with_counts(logits, expected * torch.nan, num_atoms, 3.0), logits.argmax(-1) + 1)


@torch.inference_mode()
def test_decoded_crystals_have_the_numbers_that_their_composition_says() -> None:
    """Those nearest to N_a times the decoded probabilities, whatever the denoiser makes of single atoms."""
    model = load_model("perov-5-compact")
    assert isinstance(model, CDVAE)
    z = torch.randn(6, model.config.model.latent_dim, generator=torch.Generator().manual_seed(0))
    random = CrystalRandom(0, torch.arange(6))
    model.config = override_config(model.config, ["diffusion.type_count_weight=1e4"])
    crystals, _ = decode(model, z, random, 3)
    expected = model.stats(z).composition.softmax(-1) * crystals.num_atoms[:, None]
    counts = torch.nn.functional.one_hot(crystals.atomic_numbers - 1, NUM_ELEMENTS).double()
    counts = crystals.mean_over_atoms(counts) * crystals.num_atoms[:, None]
    best = torch.stack([_nearest(row, int(n)) for row, n in zip(expected, crystals.num_atoms, strict=True)])
    assert torch.equal(counts.round(), best)


def _nearest(expected: torch.Tensor, total: int) -> torch.Tensor:
    """Whole numbers of the given sum nearest to ``expected``: one atom after the other, where it is cheapest."""
    counts = torch.zeros_like(expected, dtype=torch.float64)
    for _ in range(total):
        counts[(counts - expected).argmin()] += 1
    return counts
