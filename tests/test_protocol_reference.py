"""The numbers of the published protocol, against a slow version of it that shares no code with the evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import published_protocol as published
from dpcdvae.evaluation import Reference, Report, evaluate
from dpcdvae.evaluation.metrics.validity import DRAWN_GATE
from dpcdvae.structures.crystal import Crystal
from published_protocol import Judged

CUTOFFS = (0.2, 4.0)  # of Perov-5
COUNT = 30


def odd_structures() -> list[Structure]:
    """What the gates are there for: atoms too near, and a good one of an element that has no fingerprint."""
    return [
        Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.1, 0, 0]]),
        Structure(Lattice.cubic(3.2), ["Cf", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ]


@pytest.fixture(scope="module")
def real(data_dir: Path) -> list[Judged]:
    return published.judge(published.real_structures(data_dir / "perov_5" / "test.csv.gz", COUNT))


@pytest.fixture(scope="module")
def generated(data_dir: Path) -> list[Judged]:
    file = data_dir / "generated" / "cdvae_replica_perov_gen.npz"
    return published.judge([*published.generated_structures(file, COUNT), *odd_structures()])


@pytest.fixture(scope="module")
def report(generated: list[Judged], real: list[Judged]) -> Report:
    return evaluate(crystals(generated), Reference("real", "", crystals=crystals(real)), workers=0, cutoffs=CUTOFFS)


def crystals(judged: list[Judged]) -> list[Crystal]:
    return [Crystal.from_pymatgen(j.structure, f"c{k}") for k, j in enumerate(judged)]


def value(report: Report, name: str, gate: str = "") -> float | None:
    (found,) = (number.value for key, number in report.numbers if key == name and number.gate in (gate, ""))
    return found


def test_validity_is_that_of_the_published_script(report: Report, generated: list[Judged]) -> None:
    assert [g.valid for g in generated[COUNT:]] == [False, False]
    assert generated[-1].structure_valid and generated[-1].composition_valid  # noqa: PT018
    expected = published.rates(generated)
    found = {name: value(report, name, "with fingerprint") for name in expected}
    assert found == expected
    assert expected["validity"] < min(expected["structural_validity"], expected["compositional_validity"])


def test_coverage_is_that_of_the_published_script(report: Report, generated: list[Judged], real: list[Judged]) -> None:
    expected = published.coverage(generated, real, CUTOFFS)
    found = {name: value(report, name) for name in expected}
    for name in ("coverage_recall", "coverage_precision"):
        assert found.pop(name) == expected.pop(name)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gate", ["none", "valid", DRAWN_GATE])
def test_distances_of_distributions_are_those_of_the_published_script(
    report: Report, generated: list[Judged], real: list[Judged], gate: str
) -> None:
    """Of all crystals, and of the valid; all of these are drawn where there are fewer than 1000."""
    chosen = [g.structure for g in generated if g.valid or gate == "none"]
    others = [r.structure for r in real]
    expected = published.distances(chosen, others)
    found = {name: value(report, name, gate) for name in expected}
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("gate", ["valid", DRAWN_GATE])
def test_diversity_is_that_of_the_published_script(report: Report, generated: list[Judged], gate: str) -> None:
    expected = published.diversity(generated)
    assert {name: value(report, name, gate) for name in expected} == pytest.approx(expected, abs=1e-6)


def test_matching_under_each_gate(real: list[Judged]) -> None:
    """Pairs perturbed a little to badly: some do not match, some of the matches are no possible crystals."""
    rng = np.random.default_rng(0)
    truths = crystals(real)[:20]
    predictions = [
        Crystal(t.atomic_numbers, t.frac_coords + rng.normal(scale=scale, size=(t.num_atoms, 3)), t.lattice, t.id)
        for t, scale in zip(truths, np.geomspace(0.01, 0.25, len(truths)), strict=True)
    ]
    pairs = published.judge([p.to_pymatgen() for p in predictions])
    expected = published.matches(pairs, real[: len(truths)])
    report = evaluate(predictions, truths, paired=True, workers=0)
    for gate, (rate, rms) in expected.items():
        assert value(report, "match_rate", gate) == rate, gate
        assert value(report, "match_rms", gate) == pytest.approx(rms, abs=1e-6), gate
    every, prediction_valid, both_valid = (rate for rate, _ in expected.values())
    assert 1 > every > prediction_valid >= both_valid > 0
