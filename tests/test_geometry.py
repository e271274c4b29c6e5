"""Closest contacts against neighbour lists and plain loops; windows against counting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from disguises import DISGUISES
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.metrics.geometry import CLOSE, WINDOW
from dpcdvae.evaluation.reference import as_reference
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import median_interval
from dpcdvae.parallel import HERE
from dpcdvae.parallel.results import Results
from dpcdvae.structures import contacts as g
from dpcdvae.structures.contacts import closest_contacts
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import covalent_radii
from dpcdvae.structures.reduction import minkowski_reduced
from dpcdvae.structures.summary import ReferenceStatistics
from test_validity import skewed


@pytest.fixture(scope="module")
def odd() -> list[Crystal]:
    """Skewed, tiny and roomy cells of one to four atoms."""
    rng = np.random.default_rng(0)
    crystals = [skewed(rng, scale) for scale in (0.5, 1.0, 2.0, 4.0, 10.0) for _ in range(30)]
    return [crystal for crystal in crystals if crystal.problem() is None]


def test_contacts_are_those_of_a_neighbour_list(odd: list[Crystal]) -> None:
    vesin = pytest.importorskip("vesin")
    found = closest_contacts(odd)
    radii = covalent_radii()
    for k, crystal in enumerate(odd):
        atoms = crystal.to_pymatgen().get_reduced_structure("LLL").to_ase_atoms()
        reach = max(found.distance[k], found.ratio[k] * 2 * np.nanmax(radii)) * 1.01
        i, j, distances = vesin.ase_neighbor_list("ijd", atoms, reach)
        ratios = distances / (radii[atoms.numbers[i]] + radii[atoms.numbers[j]])
        assert found.distance[k] == pytest.approx(distances.min(), abs=1e-9)
        assert found.ratio[k] == pytest.approx(ratios.min(), abs=1e-9)


def test_the_pair_is_at_its_distance(odd: list[Crystal]) -> None:
    found = closest_contacts(odd)
    own = found.pair[:, 0] == found.pair[:, 1]
    assert 0 < own.sum() < len(odd)
    for crystal, (first, second), distance in zip(odd, found.pair.tolist(), found.distance, strict=True):
        structure = crystal.to_pymatgen().get_reduced_structure("niggli")
        shortest = min(structure.lattice.abc) if first == second else crystal.to_pymatgen().get_distance(first, second)
        assert shortest == pytest.approx(distance)


def test_twenty_seven_translations_are_enough() -> None:
    """Of wrapped differences in reduced cells, among them the most symmetric ones, whose nearest images are many."""
    rng = np.random.default_rng(1)
    special = [
        np.eye(3),
        np.ones((3, 3)) - np.eye(3),
        np.ones((3, 3)) - 2 * np.eye(3),
        np.diag([1.0, 1.0, 50.0]),
        [[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 1.1]],
        [[1, 0, 0], [0.5, 0.75**0.5, 0], [0.5, 0.3, 0.82]],
    ]
    lattices, _ = minkowski_reduced(np.array([*special, *rng.normal(size=(40, 3, 3))]))
    far = np.array(list(itertools.product(range(-3, 4), repeat=3)), float)
    near = np.abs(far).max(axis=1) <= 1
    for lattice in lattices:
        differences = np.concatenate([rng.random((50, 3)) - 0.5, rng.choice([-0.5, 0.0, 0.5], (20, 3))])
        distances = np.linalg.norm((differences[:, None] + far) @ lattice, axis=-1)
        np.testing.assert_allclose(distances[:, near].min(axis=1), distances.min(axis=1), atol=1e-12)


def test_reduced_bases_are_of_the_same_lattice_and_as_short_as_any(odd: list[Crystal]) -> None:
    lattices = np.array([crystal.lattice for crystal in odd])
    reduced, transforms = minkowski_reduced(lattices)
    np.testing.assert_array_equal(transforms, np.round(transforms))
    np.testing.assert_allclose(np.abs(np.linalg.det(transforms)), 1.0, atol=1e-6)
    np.testing.assert_allclose(transforms @ reduced, lattices, rtol=1e-9, atol=1e-7)
    lengths = np.linalg.norm(reduced, axis=2)
    assert (np.diff(lengths, axis=1) >= -1e-9).all()
    for crystal, found in zip(odd, lengths, strict=True):
        niggli = crystal.to_pymatgen().lattice.get_niggli_reduced_lattice()
        np.testing.assert_allclose(found, sorted(niggli.abc), rtol=1e-5)


@pytest.mark.parametrize("disguise", DISGUISES)
def test_contacts_do_not_depend_on_the_description(disguise: str, odd: list[Crystal]) -> None:
    rng = np.random.default_rng(2)
    some = odd[::4]
    before = closest_contacts(some)
    after = closest_contacts([DISGUISES[disguise](crystal, rng) for crystal in some])
    np.testing.assert_allclose(after.distance, before.distance, rtol=1e-7)
    np.testing.assert_allclose(after.ratio, before.ratio, rtol=1e-7)


def test_contacts_do_not_depend_on_the_company_or_the_blocks(
    odd: list[Crystal], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    some = [*odd[::10], Crystal(rng.integers(1, 90, 60), rng.random((60, 3)), np.eye(3) * 9.0)]
    together = closest_contacts(some)
    monkeypatch.setattr(g, "_PAIRS", 100)
    for k, crystal in enumerate(some):
        alone = closest_contacts([crystal])
        assert (alone.distance[0], alone.ratio[0]) == (together.distance[k], together.ratio[k])
        assert alone.pair[0].tolist() == together.pair[k].tolist()


def test_neighbours_alone_give_the_contacts_of_all_pairs(odd: list[Crystal], monkeypatch: pytest.MonkeyPatch) -> None:
    """In cells of every shape, with atoms in one place, and where no other atom is as near as an image."""
    rng = np.random.default_rng(6)
    twice = Crystal([1, 55, 8, 8], [[0.1, 0.2, 0.3], [0.7, 0.5, 0.5], [0.6, 0.1, 0.2], [0.6, 0.1, 0.2]], np.eye(3) * 5)
    cells = [rng.normal(size=(3, 3)) * rng.uniform(0.5, 9, 3)[:, None] for _ in range(30)]
    some = [*odd, twice, *(Crystal(rng.integers(1, 96, 9), rng.normal(size=(9, 3)) * 3, cell) for cell in cells)]
    plain = closest_contacts(some)
    monkeypatch.setattr(g, "_MANY", 0)
    found = closest_contacts(some)
    for name in ("distance", "ratio"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-9, atol=1e-12)


def test_what_is_no_crystal_has_no_contacts() -> None:
    flat = Crystal([6], [[0, 0, 0]], np.zeros((3, 3)))
    lost = Crystal([6], [[np.nan, 0, 0]], np.eye(3))
    berkelium = Crystal([97, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 3)
    found = closest_contacts([flat, lost, berkelium])
    np.testing.assert_allclose(found.distance, [np.nan, np.nan, 3 * 0.75**0.5])
    assert np.isnan(found.ratio).all()
    assert len(closest_contacts([]).distance) == 0


def test_known_contacts() -> None:
    """Diamond and rock salt, whose bond lengths are textbook; the ratio need not be that of the closest atoms."""
    diamond = Crystal([6, 6], [[0, 0, 0], [0.25, 0.25, 0.25]], 3.567 / 2 * (np.ones((3, 3)) - np.eye(3)))
    salt = Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 5.64 / 2 * (np.ones((3, 3)) - np.eye(3)))
    # H-H 0.8 Å apart is 1.29 of its radii's sum, the farther Cs-Cs pair 0.41 of its own.
    mixed = Crystal([1, 1, 55, 55], [[0, 0, 0], [0.08, 0, 0], [0.5, 0, 0], [0.5, 0.2, 0]], np.eye(3) * 10)
    found = closest_contacts([diamond, salt, mixed])
    np.testing.assert_allclose(found.distance, [3.567 * 3**0.5 / 4, 5.64 / 2, 0.8])
    np.testing.assert_allclose(found.ratio, [1.5446 / 1.46, 2.82 / (1.66 + 1.02), 2.0 / 4.88], atol=1e-3)
    assert found.pair[2].tolist() == [0, 1]


def sample_of(crystals: list[Crystal], reference: list[Crystal] | ReferenceStatistics) -> Sample:
    return Sample(crystals, [], as_reference(reference), False, Results(HERE, 60.0), 0)


def cubes(edges: np.ndarray) -> list[Crystal]:
    return [Crystal([26], [[0, 0, 0]], np.eye(3) * edge, f"c{k}") for k, edge in enumerate(edges)]


def test_windows_count_what_lies_between_the_quantiles() -> None:
    rng = np.random.default_rng(4)
    ours, reference = cubes(rng.uniform(2.0, 4.0, 50)), cubes(rng.uniform(2.3, 3.5, 60))
    sample = sample_of(ours, reference)
    for name, quantity in (("density_window", lambda c: c.density), ("volume_window", lambda c: c.volume)):
        (number,) = METRICS[name].measure(sample)
        low, high = np.quantile([quantity(c) for c in reference], WINDOW)
        assert number.value == np.mean([low <= quantity(c) <= high for c in ours])
        assert number.n == 50
        assert 0.1 < number.value < 0.9
    statistics = sample_of(ours, ReferenceStatistics.from_crystals(reference, source="x", sha256=""))
    (density,) = METRICS["density_window"].measure(statistics)
    assert density.value == METRICS["density_window"].measure(sample)[0].value
    assert METRICS["volume_window"].measure(statistics) == []


def test_share_without_close_contact_and_median_ratio() -> None:
    edges = np.linspace(1.2, 3.0, 21)
    broken = Crystal([26], [[np.nan, 0, 0]], np.eye(3))
    sample = sample_of([*cubes(edges), broken], cubes(edges[-5:]))
    radius = covalent_radii()[26]
    (share,) = METRICS["no_close_contact"].measure(sample)
    assert share.value == (edges / (2 * radius) > CLOSE).sum() / 22
    (ratio,) = METRICS["shortest_distance_ratio"].measure(sample)
    assert ratio.value == pytest.approx(np.median(edges) / (2 * radius))
    assert ratio.n == 21


def test_median_interval_holds_the_median_as_often_as_it_says() -> None:
    """By its ranks: the median is below the j-th smallest of n with the probability of fewer than j heads."""
    for n in (6, 30, 1001):
        low, high = median_interval(np.arange(n, dtype=float))
        assert 1 - 2 * binom.cdf(low, n, 0.5) >= 0.95
        assert 1 - 2 * binom.cdf(low + 1, n, 0.5) < 0.95
        assert low + high == n - 1
    assert median_interval(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)
