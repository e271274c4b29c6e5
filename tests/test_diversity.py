"""Diversity: the mean over all pairs, against scipy's pdist, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from dpcdvae.evaluation import diversity, evaluate
from dpcdvae.evaluation.diversity import mean_distances
from dpcdvae.evaluation.report import Report
from dpcdvae.intervals import Number, bootstrap_mean
from dpcdvae.parallel import HERE
from dpcdvae.parallel.results import Results
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints import fingerprint_crystals
from dpcdvae.structures.fingerprints.magpie import standardise_compositions


@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_mean_distances_are_those_of_all_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal rows among them, and whatever the size of the blocks."""
    monkeypatch.setattr(diversity, "_PAIRS", block)
    rows = np.random.default_rng(0).normal(size=(40, 7))
    rows[30:] = rows[:10]
    expected = np.linalg.norm(rows[:, None] - rows, axis=-1).sum(axis=1) / 39
    np.testing.assert_allclose(mean_distances(rows), expected, rtol=1e-12)
    assert mean_distances(rows).mean() == pytest.approx(pdist(rows).mean(), rel=1e-12)


def test_diversity_is_that_of_the_published_script() -> None:
    """Its ``get_fp_pdist``: the mean of scipy's ``pdist`` over the fingerprints of the valid crystals."""
    crystals = build_prototypes()[::60]
    invalid = Crystal([6, 6], np.zeros((2, 3)), np.eye(3) * 4)
    report = evaluate([*crystals, invalid], crystals, workers=0)
    found = fingerprint_crystals(crystals, Results(HERE, 60.0))
    valid = evaluate(crystals, crystals, workers=0)["validity"].value
    assert valid == 1.0
    for name, rows in (
        ("composition_diversity", standardise_compositions(found.composition)),
        ("structure_diversity", found.structure),
    ):
        for key, number in report.numbers:
            if key == name:
                assert number.value == pytest.approx(pdist(rows).mean())
                assert number.n == len(crystals)
                assert number.interval[0] < number.value < number.interval[1]
    alone = evaluate(crystals[:1], crystals, workers=0)["structure_diversity"]
    assert (alone.value, alone.interval) == (None, None)


def of_all_valid(report: Report) -> Number:
    (number,) = (n for name, n in report.numbers if (name, n.gate) == ("structure_diversity", "valid"))
    return number


def test_of_very_many_only_some_are_compared_and_the_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = build_prototypes()[::40]
    whole = of_all_valid(evaluate(crystals, crystals, workers=0))
    assert (whole.n, whole.note) == (len(crystals), "")
    monkeypatch.setattr(diversity, "MOST", 5)
    some = [of_all_valid(evaluate(crystals, crystals, workers=0, seed=seed)) for seed in (0, 0, 1)]
    assert {number.n for number in some} == {5}
    assert {number.note for number in some} == {f"5 of {len(crystals)} drawn"}
    assert some[0] == some[1]
    assert some[0].value != some[2].value
    chosen = diversity.compared(20, seed=3)
    assert len(set(chosen.tolist())) == 5
    assert 0 <= chosen.min() < chosen.max() < 20
    assert diversity.compared(5, seed=3).tolist() == list(range(5))


def test_interval_is_as_wide_as_other_samples_differ() -> None:
    """The spread of the diversity of fresh samples, against the width of the interval of one."""
    rng = np.random.default_rng(1)
    values, widths = [], []
    for seed in range(60):
        rows = rng.normal(size=(80, 3)) * rng.choice([0.3, 1.0, 3.0], size=(80, 1))
        distances = mean_distances(rows)
        values.append(distances.mean())
        low, high = bootstrap_mean(distances.mean() + 2 * (distances - distances.mean()), seed=seed)
        widths.append(high - low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values, ddof=1), rel=0.25)
