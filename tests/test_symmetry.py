"""Space groups of textbook structures, in any description, and the distance of their distributions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from disguises import DISGUISES
from dpcdvae.evaluation.distributions import total_variation, total_variation_interval
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.reference import as_reference
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.parallel import HERE
from dpcdvae.parallel.results import Results
from dpcdvae.prototypes import STRUCTURE_TYPES, build_prototypes
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.space_groups import CRYSTAL_SYSTEMS, SpaceGroups, by_crystal_system, find_space_groups, symbols


@pytest.fixture(scope="module")
def textbook() -> dict[str, Crystal]:
    """One member of every structure type."""
    return {crystal.id.rpartition("-")[0]: crystal for crystal in build_prototypes()}


def groups(crystals: list[Crystal]) -> SpaceGroups:
    return find_space_groups(crystals, Results(HERE, 60.0))


def sample_of(crystals: list[Crystal], reference: list[Crystal]) -> Sample:
    return Sample(crystals, [], as_reference(reference), False, Results(HERE, 60.0), 0)


def number(name: str, sample: Sample) -> Number:
    (found,) = METRICS[name].measure(sample)
    return found


def test_space_groups_are_those_of_the_textbook(textbook: dict[str, Crystal]) -> None:
    expected = {kind.name: kind.space_group for kind in STRUCTURE_TYPES}
    found = groups(list(textbook.values()))
    assert dict(zip(textbook, found.numbers.tolist(), strict=True)) == expected
    assert found.reasons == {}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_space_groups_do_not_depend_on_the_description(disguise: str, textbook: dict[str, Crystal]) -> None:
    """Not even near the tolerance, where spglib's answer changes with the order of the atoms."""
    rng = np.random.default_rng(0)
    exact = list(textbook.values())
    shaken = [
        Crystal(c.atomic_numbers, c.frac_coords + rng.normal(scale=0.04, size=(c.num_atoms, 3)) / c.lengths, c.lattice)
        for c in exact
    ]
    shaken = [crystal for crystal in shaken if crystal.num_atoms < 9]
    before = groups(exact[::3] + shaken).numbers
    others = [DISGUISES[disguise](crystal, rng) for crystal in exact[::3] + shaken]
    assert groups(others).numbers.tolist() == before.tolist()
    assert len(set(before[len(exact[::3]) :])) > 5


def test_small_displacements_keep_the_symmetry_large_ones_do_not(textbook: dict[str, Crystal]) -> None:
    rng = np.random.default_rng(1)
    perovskite = textbook["perovskite"]
    for shift, expected in ((0.01, 221), (0.4, 1)):
        moved = perovskite.frac_coords + rng.normal(size=(5, 3)) @ np.linalg.inv(perovskite.lattice) * shift
        assert groups([Crystal(perovskite.atomic_numbers, moved, perovskite.lattice)]).numbers[0] == expected


def test_what_has_no_space_group_is_reported() -> None:
    coincident = Crystal([6] * 4, np.zeros((4, 3)), np.eye(3) * 3, "coincident")
    no_crystal = Crystal([6], [[np.nan, 0, 0]], np.eye(3), "nan")
    fine = Crystal([84], [[0, 0, 0]], np.eye(3) * 3.2, "cube")
    found = groups([coincident, no_crystal, fine])
    assert found.numbers.tolist() == [0, 0, 221]
    assert list(found.reasons) == [0]
    assert found.reasons[0] == "atoms are 0.000 Å apart, which is within the tolerance of 0.1 Å"
    assert groups([]).numbers.shape == (0,)
    sample = sample_of([coincident, no_crystal, fine], [fine])
    distance = number("space_group_distance", sample)
    assert (distance.value, distance.n) == (0.0, 1)
    assert distance.undecided == 1
    assert sample.given_up == [{"what": "space group", "id": "coincident", "reason": found.reasons[0]}]


def test_symbols_and_systems() -> None:
    assert [symbols()[k] for k in (0, 1, 2, 62, 225, 230)] == ["", "P1", "P-1", "Pnma", "Fm-3m", "Ia-3d"]
    assert len(set(symbols())) == 231
    systems = {
        "P2_1/c": "monoclinic",
        "Pnma": "orthorhombic",
        "I-42d": "tetragonal",
        "R-3m": "trigonal",
        "P6_3/mmc": "hexagonal",
        "Pm-3m": "cubic",
        "P-1": "triclinic",
    }
    for symbol, system in systems.items():
        histogram = np.bincount([symbols().index(symbol)], minlength=231)[1:]
        assert by_crystal_system(histogram).tolist() == [int(name == system) for name in CRYSTAL_SYSTEMS]


def test_distances_are_total_variation(textbook: dict[str, Crystal]) -> None:
    """By a plain loop: the most by which any set of space groups can differ in its share."""
    everything = list(textbook.values())
    ours, reference = everything[:15:2] + everything[:3], everything[1:15]
    sample = sample_of(ours, reference)
    shares = [np.bincount(groups(some).numbers, minlength=231) / len(some) for some in (ours, reference)]
    excess = sum(max(a - b, 0.0) for a, b in zip(*shares, strict=True))
    assert number("space_group_distance", sample).value == pytest.approx(excess)
    assert 0.1 < excess < 0.9
    assert 0 < number("crystal_system_distance", sample).value < excess
    assert number("p1_share", sample).value == 0.0
    assert number("space_group_distance", sample_of(ours, ours)).value == 0.0


@pytest.mark.parametrize("shares", [[0.2, 0.3, 0.3, 0.2], [0.22, 0.31, 0.28, 0.19], [0.5, 0.3, 0.2, 0.0]])
def test_interval_of_a_distance_covers_it_in_most_samples(shares: list[float]) -> None:
    """Samples of the same distribution, of one that is near, and of one that is far."""
    rng = np.random.default_rng(2)
    reference = np.array([20, 30, 30, 20])
    truth = float(np.abs(np.array(shares) - reference / 100).sum() / 2)
    held = 0
    for seed in range(200):
        counts = rng.multinomial(300, shares)
        low, high = total_variation_interval(counts, reference, seed=seed)
        assert 0 <= low <= total_variation(counts, reference) * (1 + 1e-6) <= high * (1 + 2e-6) <= 1
        held += low <= truth <= high
    assert 180 <= held <= 197


def test_the_convention_of_pymatgen_is_that_of_its_analyzer() -> None:
    """Of crystals that miss their symmetry by about the tolerance, where both answers differ."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    rng = np.random.default_rng(7)
    some = [
        Crystal(c.atomic_numbers, c.frac_coords + rng.normal(scale=0.012, size=c.frac_coords.shape), c.lattice, c.id)
        for c in build_prototypes()[::60]
    ]
    analyzers = [SpacegroupAnalyzer(c.to_pymatgen(), symprec=0.1, angle_tolerance=5) for c in some]
    expected = [analyzer.get_space_group_number() for analyzer in analyzers]
    assert find_space_groups(some, Results(HERE, 60.0), "pymatgen").numbers.tolist() == expected
    assert len(set(expected)) > 3
    judged = replace(sample_of(some, some), symmetry="pymatgen")
    assert "angle tolerance 5°" in number("space_group_distance", judged).note
    assert "every description" in number("space_group_distance", sample_of(some, some)).note
