"""Conditions that act in decoding: kept against the network's will, by the likeliest choice that keeps them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcdvae.errors import InputError
from dpcdvae.model.stats import Statistics
from dpcdvae.sampling.atom_conditions import AtomConditions
from dpcdvae.sampling.constraints import CHANGES, DecodingConstraints
from dpcdvae.sampling.generation import generate
from dpcdvae.structures.elements import ATOMIC_NUMBERS
from dpcdvae.structures.neutrality import compositionally_valid, imbalance
from dpcdvae.tensors.batch import CrystalBatch
from tensors import random_crystal, table_of, tiny_model

SR_TI_O = tuple(sorted(ATOMIC_NUMBERS[symbol] for symbol in ("Sr", "Ti", "O")))


def wants_carbon(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """A network that finds carbon likeliest, then titanium, whatever it is shown."""
    logits = torch.zeros(len(noisy.frac_coords), 100).to(z)
    logits[:, 5], logits[:, 21] = 9, 3
    return torch.zeros_like(noisy.frac_coords), logits


def scores(n: int, seed: int) -> Tensor:
    return 3 * torch.randn(n, 100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# what is chosen


def test_the_network_neither_gets_nor_is_shown_other_elements() -> None:
    model = tiny_model()
    shown: list[set[int]] = []

    def answer(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        shown.append(set(noisy.atomic_numbers.tolist()))
        return wants_carbon(noisy, z, time)

    model.denoise = answer  # type: ignore[method-assign]
    crystals = generate(model, 6, steps=3, elements="Sr,Ti,O").crystals
    assert len(crystals) == 6
    assert {z for crystal in crystals for z in crystal.atomic_numbers.tolist()} == {22}
    assert set().union(*shown) <= set(SR_TI_O)
    assert len(shown[0]) > 1, "the first types come from the composition, before the network is asked"


def test_every_element_of_a_system_occurs_against_the_will_of_the_network() -> None:
    model = tiny_model()
    model.denoise = wants_carbon  # type: ignore[method-assign]
    for crystal in generate(model, 6, steps=2, chemical_system="Sr-Ti-O").crystals:
        assert set(crystal.atomic_numbers.tolist()) == set(SR_TI_O)
        assert crystal.composition["Ti"] == crystal.num_atoms - 2, "no more is changed than has to be"


def test_the_composition_is_that_of_the_head_given_the_elements() -> None:
    logits = scores(4, 1)
    whole, given = logits.softmax(-1), DecodingConstraints(elements=SR_TI_O).masked(logits).softmax(-1)
    places = [z - 1 for z in SR_TI_O]
    torch.testing.assert_close(given[:, places], whole[:, places] / whole[:, places].sum(-1, keepdim=True))
    assert float(given.sum()) == pytest.approx(float(given[:, places].sum()))


@pytest.mark.parametrize("seed", range(8))
def test_types_with_every_element_are_the_likeliest(seed: int) -> None:
    """Against all assignments: 3 elements on 4 atoms."""
    allowed = DecodingConstraints(elements=SR_TI_O, every_element=True)
    logits = allowed.masked(scores(4, seed) + 5 * scores(1, seed))  # one element is liked by all atoms
    types = allowed.together(logits.argmax(-1) + 1, logits, torch.tensor([4]))
    possible = [t for t in itertools.product(SR_TI_O, repeat=4) if set(t) == set(SR_TI_O)]
    best = max(possible, key=lambda t: sum(float(logits[k, z - 1]) for k, z in enumerate(t)))
    assert types.tolist() == list(best)


@pytest.mark.parametrize("seed", range(6))
def test_neutral_types_are_the_likeliest_within_two_changes(seed: int) -> None:
    """Against all changes of one and of two atoms, with so few elements that all of them are looked at."""
    elements = tuple(sorted(ATOMIC_NUMBERS[symbol] for symbol in ("Na", "Ca", "Al", "F", "O")))
    allowed = DecodingConstraints(elements=elements, neutral=True)
    assert 5 * (len(elements) - 1) <= CHANGES
    logits = allowed.masked(scores(5, seed))
    likeliest = (logits.argmax(-1) + 1).tolist()
    types = allowed.together(torch.tensor(likeliest), logits, torch.tensor([5])).tolist()

    def score(numbers: Any) -> float:
        return sum(float(logits[k, z - 1]) for k, z in enumerate(numbers))

    possible = itertools.product(elements, repeat=5)
    near = [t for t in possible if sum(a != b for a, b in zip(t, likeliest, strict=True)) <= 2]
    neutral = [t for t in near if imbalance(t) is None]
    assert neutral
    assert score(types) == pytest.approx(max(map(score, neutral)))


def test_neutral_crystals_are_neutral_where_the_network_never_is() -> None:
    """It wants CaCl with an odd number of atoms more of either."""
    model = tiny_model()

    def answer(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.zeros(len(noisy.frac_coords), 100).to(z)
        logits[:, 19], logits[::3, 16] = 5, 7
        return torch.zeros_like(noisy.frac_coords), logits

    model.denoise = answer  # type: ignore[method-assign]
    free = generate(model, 5, steps=2, num_atoms=5).crystals
    kept = generate(model, 5, steps=2, num_atoms=5, neutral=True).crystals
    assert not compositionally_valid(free).any()
    assert compositionally_valid(kept).all()


def test_only_wanted_sizes_and_the_likelier_of_them() -> None:
    model = tiny_model()
    model.stats.num_atoms[-1].bias[4] += 50  # it would decode four atoms
    model.stats.num_atoms[-1].bias[6] += 20
    assert {crystal.num_atoms for crystal in generate(model, 5, steps=1).crystals} == {4}
    assert {crystal.num_atoms for crystal in generate(model, 5, steps=1, num_atoms="3,6,7").crystals} == {6}
    assert {crystal.num_atoms for crystal in generate(model, 5, steps=1, num_atoms=[2]).crystals} == {2}


def test_likelihood_of_wanted_elements_is_that_of_independent_atoms() -> None:
    """Counted out over all types of a cell of two atoms."""
    logits, sizes = scores(1, 3)[0], torch.tensor([-math.inf, 0.3, 1.2, -0.4]).double()
    decoded = Statistics(sizes, torch.zeros(6), logits)
    p, size = logits.softmax(-1), sizes.softmax(-1)
    pairs = itertools.product(SR_TI_O[:2], repeat=2)
    allowed = float(size[2]) * sum(float(p[a - 1] * p[b - 1]) for a, b in pairs)
    found = DecodingConstraints(sizes=(2,), elements=SR_TI_O[:2]).log_likelihood(decoded)
    assert float(found) == pytest.approx(math.log(allowed))
    both = DecodingConstraints(sizes=(2,), elements=SR_TI_O[:2], every_element=True).log_likelihood(decoded)
    assert float(both) < float(found)


def test_formulas_are_taken_in_turn_whatever_the_batch() -> None:
    model, formulas = tiny_model(), ["SrTiO3", "NaCl", "C"]
    wanted = [{"Sr": 1, "Ti": 1, "O": 3}, {"Na": 1, "Cl": 1}, {"C": 1}]
    for first, size in ((0, 7), (2, 3), (4, 1)):
        crystals = generate(model, 7, steps=1, formula=formulas, first=first, batch_size=size).crystals
        assert len(crystals) == 7
        for crystal in crystals:
            assert crystal.composition == dict(
                sorted(wanted[int(crystal.id[2:]) % 3].items(), key=lambda item: ATOMIC_NUMBERS[item[0]])
            )


# like a crystal


def test_spread_is_in_standard_deviations_of_the_posterior() -> None:
    model, seen = tiny_model(), []
    like = table_of([random_crystal(3)], bonded=True)
    mu, log_var = model.encode(CrystalBatch.from_table(like, np.arange(1), model.dtype))

    def answer(noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((z - mu) / torch.exp(0.5 * log_var))
        return torch.zeros_like(noisy.frac_coords), torch.zeros(len(noisy.frac_coords), 100).to(z)

    model.denoise = answer  # type: ignore[method-assign]
    for spread in (0.0, 1.0, 7.0):
        generate(model, 300, steps=1, like=like, spread=spread, batch_size=300)
        away = seen.pop()
        assert float(away.square().mean().sqrt()) == pytest.approx(spread, rel=0.06)
        assert len(away.unique(dim=0)) == (300 if spread else 1)


# what can be asked for


def test_files_of_formulas_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("# two\nSrTiO3\n\nNaCl  # salt\n")
    wanted = AtomConditions.of({"formula": [str(tmp_path / "some.txt"), "C"]}, 8)
    assert [Counter(cell) for cell in wanted.formulas] == [{38: 1, 22: 1, 8: 3}, {11: 1, 17: 1}, {6: 1}]
    assert AtomConditions.of({"formula": "NaCl", "num_atoms": "4,5,8"}, 8).all_sizes == (4, 8)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"elements": "Sr,Xx"}, "unknown element 'Xx'"),
        ({"elements": "Sr,Md"}, "models know the elements 1 to 100"),
        ({"elements": "Sr", "chemical_system": "Sr-O"}, "--elements and --chemical-system contradict"),
        ({"chemical_system": "Sr-Ti-O", "num_atoms": 2}, "O-Ti-Sr needs 3 atoms at least: the most is 2"),
        ({"formula": "NaCl", "elements": "Na,O"}, "formula NaCl contradicts the other conditions: other elements"),
        ({"formula": "NaCl", "chemical_system": "Na-Cl-O"}, "not every element of the chemical system"),
        ({"formula": "NaCl2", "neutral": True}, "formula NaCl2 contradicts the other conditions: not neutral"),
        ({"formula": "NaCl", "num_atoms": "3,5"}, "--num-atoms 3,5 is no multiple of the 2 atoms of NaCl"),
        ({"num_atoms": "5,x"}, "--num-atoms 5,x: write a number, or several like 5,10"),
        ({"num_atoms": "4,90"}, "--num-atoms 90: this model holds 1 to 8"),
        ({"num_atoms": 5.7}, "--num-atoms 5.7: write a number"),
        ({"num_atoms": True}, "--num-atoms True: write a number"),
        ({"num_atoms": float("inf")}, "--num-atoms inf: write a number"),
        ({"num_atoms": "1_0"}, "--num-atoms 1_0: write a number"),
        ({"elements": "Sr,,O"}, "an element is missing in 'Sr,,O': write them like Sr,Ti,O"),
        ({"elements": "Sr,O,"}, "an element is missing in 'Sr,O,'"),
        ({"chemical_system": "Sr--O"}, "an element is missing in 'Sr--O': write them like Sr-Ti-O"),
        ({"chemical_system": "-"}, "an element is missing in '-'"),
        ({"elements": []}, "no element is named"),
        ({"num_atoms": "\u0665"}, "--num-atoms .: write a number"),
        ({"formula": "SrO\u0663"}, "cannot read the formula"),
        ({"elements": [38, 22]}, "elements are named by symbols"),
        ({"elements": 5}, "elements are named by symbols"),
        ({"formula": ["SrTiO3", 7]}, "formulas are text"),
        ({"formula": {"Sr": 1}}, "formulas are text"),
        ({"formula": "some.txt"}, "or give a file of formulas"),
    ],
    ids=str,
)
def test_contradictions_are_refused_in_one_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        AtomConditions.of(asked, 8)
    assert "\n" not in str(error.value)
