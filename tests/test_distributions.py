"""Distances between distributions: independent numbers, limits, and what statistics keep of a data set."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dpcdvae.errors import InputError
from dpcdvae.evaluation import evaluate
from dpcdvae.evaluation.distributions import wasserstein, wasserstein_interval
from dpcdvae.evaluation.energy import EnergyModel
from dpcdvae.intervals import bootstrap_mean, wilson
from dpcdvae.io import read
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.summary import ReferenceStatistics, element_counts


@functools.cache
def crystals_of(file: Path) -> list[Crystal]:
    """All crystals of a file. It is read once for all tests here."""
    return read(file, [])


def densities(crystals: list[Crystal]) -> np.ndarray:
    return np.array([crystal.density for crystal in crystals])


@pytest.mark.parametrize(
    ("generated", "test", "density", "elements"),
    [
        ("cdvae_replica_perov_gen", "perov_5", 0.0567, 0.1150),
        ("diffcsp_mp_20_gen", "mp_20", 0.5115, 0.3139),
        ("crysbfn_carbon_24_gen", "carbon_24", 0.0702, 0.0),
    ],
)
def test_distances_of_real_generated_crystals(
    data_dir: Path, generated: str, test: str, density: float, elements: float
) -> None:
    """Over all crystals against the official test sets; the numbers come from an independent script."""
    made, real = crystals_of(data_dir / "generated" / f"{generated}.npz"), crystals_of(data_dir / test / "test.csv.gz")
    assert round(wasserstein(densities(made), densities(real)), 4) == density
    assert round(wasserstein(element_counts(made), element_counts(real)), 4) == elements


def random_crystals(n: int, seed: int = 0) -> list[Crystal]:
    rng = np.random.default_rng(seed)
    return [
        Crystal(rng.integers(1, 50, k := int(rng.integers(1, 6))), rng.random((k, 3)), np.eye(3) * rng.uniform(3, 6))
        for _ in range(n)
    ]


@pytest.mark.parametrize("n", [1, 2, 500, 1001])
def test_statistics_of_up_to_1001_crystals_are_exact(n: int) -> None:
    crystals = random_crystals(n)
    statistics = ReferenceStatistics.from_crystals(crystals, source="some", sha256="")
    np.testing.assert_allclose(statistics.densities, np.sort(densities(crystals)), rtol=1e-6)
    np.testing.assert_array_equal(np.sort(statistics.element_counts), np.sort(element_counts(crystals)))


def test_statistics_of_more_crystals_are_near() -> None:
    """Within the stated bound as a distribution, and far nearer in what matters, the distance to another set."""
    crystals, others = random_crystals(5000), random_crystals(700, seed=1)
    statistics = ReferenceStatistics.from_crystals(crystals, source="some", sha256="")
    exact = densities(crystals)
    assert 0 < wasserstein(statistics.densities, exact) < np.ptp(exact) / 1000
    there, here = wasserstein(densities(others), exact), wasserstein(densities(others), statistics.densities)
    assert there == pytest.approx(here, rel=0.005)
    assert wasserstein(element_counts(others), element_counts(crystals)) == pytest.approx(
        wasserstein(element_counts(others), statistics.element_counts), abs=1e-12
    )


def test_statistics_of_a_real_data_set_are_near(data_dir: Path) -> None:
    real = crystals_of(data_dir / "carbon_24" / "test.csv.gz")
    made = densities(crystals_of(data_dir / "generated" / "crysbfn_carbon_24_gen.npz"))
    statistics = ReferenceStatistics.from_crystals(real, source="carbon_24:test", sha256="")
    assert wasserstein(made, statistics.densities) == pytest.approx(wasserstein(made, densities(real)), abs=1e-4)


def test_statistics_survive_json() -> None:
    statistics = ReferenceStatistics.from_crystals(random_crystals(30), source="some:train", sha256="12")
    text = json.dumps(statistics.to_json(), allow_nan=False)
    assert ReferenceStatistics.from_json(json.loads(text)) == statistics
    assert statistics.count == sum(statistics.num_atoms.values()) == 30


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: [],
        lambda value: "text",
        lambda value: {},
        lambda value: {**value, "count": 31},
        lambda value: {**value, "density_quantiles": value["density_quantiles"][1:]},
        lambda value: {**value, "density_quantiles": [float("nan")] * 30},
        lambda value: {**value, "num_elements": {"three": 30}},
        lambda value: {**value, "num_elements": None},
    ],
)
def test_damaged_statistics_are_refused(damage) -> None:
    value = ReferenceStatistics.from_crystals(random_crystals(30), source="some", sha256="").to_json()
    with pytest.raises(InputError, match="not statistics of a data set"):
        ReferenceStatistics.from_json(damage(value))


def test_no_statistics_of_nothing() -> None:
    flat = Crystal([6], [[0, 0, 0]], np.full((3, 3), np.nan))
    for crystals in ([], [flat]):
        with pytest.raises(InputError, match="no statistics of some"):
            ReferenceStatistics.from_crystals(crystals, source="some", sha256="")


def test_wilson_interval_against_scipy() -> None:
    from scipy.stats import binomtest

    for successes, n in [(0, 10), (10, 10), (3, 10), (986, 1000), (1, 1)]:
        expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
        assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_bootstrap_of_a_mean_has_the_width_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 2000)
    low, high = bootstrap_mean(values, seed=0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / np.sqrt(2000), rel=0.15)
    assert (low, high) == bootstrap_mean(values, seed=0)


def shapes(n: int, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Populations and references of n values: equal, a little and far apart, of another shape, integers."""
    reference = rng.normal(size=n)
    counts = rng.integers(1, 6, n).astype(float)
    return {
        "equal": (reference, reference),
        "near": (reference + 0.05, reference),
        "far": (1.2 * reference + 1.0, reference),
        "other shape": (rng.exponential(size=n), reference),
        "integers": (np.minimum(counts, rng.integers(3, 8, n)), counts),
    }


def held(population: np.ndarray, reference: np.ndarray, n: int, seeds: range) -> float:
    """Share of samples of n whose interval holds the distance of the population."""
    truth = wasserstein(population, reference)
    hits = 0
    for seed in seeds:
        values = np.random.default_rng([seed, n]).choice(population, n)
        low, high = wasserstein_interval(values, reference, seed=seed)
        assert 0 <= low <= wasserstein(values, reference) * (1 + 1e-6)
        hits += low <= truth * (1 + 1e-9) and truth <= high * (1 + 1e-9)
    return hits / len(seeds)


@pytest.mark.parametrize("shape", ["equal", "near", "far"])
def test_the_interval_of_few_crystals_holds_the_distance_of_their_source(shape: str) -> None:
    population, reference = shapes(150, np.random.default_rng(3))[shape]
    assert 0.90 <= held(population, reference, 200, range(200)) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500, 1000])
@pytest.mark.parametrize("shape", ["equal", "near", "far", "other shape", "integers"])
def test_the_interval_holds_the_distance_whatever_the_distributions(shape: str, n: int) -> None:
    population, reference = shapes(1000, np.random.default_rng(4))[shape]
    assert 0.90 <= held(population, reference, n, range(200)) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize(
    ("generated", "test"), [("cdvae_replica_perov_gen", "perov_5"), ("diffcsp_mp_20_gen", "mp_20")]
)
def test_samples_of_real_generated_crystals_hold_the_distance_of_all(
    data_dir: Path, generated: str, test: str, n: int
) -> None:
    made = densities(crystals_of(data_dir / "generated" / f"{generated}.npz"))
    real = densities(crystals_of(data_dir / test / "test.csv.gz"))
    assert held(made, real, n, range(60)) >= 0.88


def test_the_interval_of_a_sample_equal_to_the_reference_begins_at_zero() -> None:
    values = np.random.default_rng(2).normal(size=500)
    low, high = wasserstein_interval(values, values, seed=0)
    assert low == 0.0
    assert 0.0 < high < 0.2
    assert wasserstein_interval(np.ones(5), np.ones(3), seed=0) == (0.0, 0.0)


def test_the_interval_scales_with_the_unit_and_depends_on_its_seed_alone() -> None:
    rng = np.random.default_rng(5)
    values, reference = rng.normal(0.4, 1, 300), rng.normal(size=200)
    first = wasserstein_interval(values, reference, seed=1)
    assert first == wasserstein_interval(values[::-1], rng.permutation(reference), seed=1)
    assert wasserstein_interval(1000 * values, 1000 * reference, seed=1) == pytest.approx(
        tuple(1000 * bound for bound in first), rel=1e-3
    )


def test_the_interval_of_very_many_values_is_that_of_a_thinner_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    values, reference = rng.normal(0.2, 1, 400), rng.normal(size=400)
    whole = wasserstein_interval(values, reference, seed=0)
    monkeypatch.setattr("dpcdvae.evaluation.distributions._CELLS", 150)
    assert wasserstein_interval(values, reference, seed=0) == pytest.approx(whole, rel=0.05)


def test_energies_of_the_reference_are_predicted_once_for_all_baselines() -> None:
    """By a model that counts: whatever is compared with the same reference shares what it says of it."""
    asked: list[int] = []

    def predict(crystals: Sequence[Crystal]) -> tuple[np.ndarray, dict[int, str]]:
        asked.append(len(crystals))
        return np.array([crystal.volume for crystal in crystals]), {}

    crystals = random_crystals(12)
    report = evaluate(
        crystals[:5], crystals, baselines=("reference",), workers=0, energy_model=EnergyModel("m", "volume", predict)
    )
    assert asked.count(12) == 1
    assert asked.count(5) == 2
    assert report["energy_wasserstein"].value is not None
    assert report.baselines["reference"]["energy_wasserstein", "none"].value is not None
