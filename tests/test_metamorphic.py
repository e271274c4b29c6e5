"""Laws over the whole report: how crystals are written down changes no number, and what is done twice counts twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from disguises import DISGUISES
from dpcdvae.evaluation import Report, evaluate
from dpcdvae.io import Failure
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal

Values = dict[tuple[str, str], float | None]


@pytest.fixture(autouse=True)
def _no_results_of_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def truths() -> list[Crystal]:
    """One of every third structure type of few atoms."""
    types = {crystal.id.rpartition("-")[0]: crystal for crystal in build_prototypes()}
    return [crystal for crystal in types.values() if crystal.num_atoms <= 5][::3]


@pytest.fixture(scope="module")
def made(truths: list[Crystal]) -> list[Crystal]:
    """As a good generator makes them: displaced by a little less than the tolerance of symmetry, and strained."""
    rng = np.random.default_rng(0)
    return [
        Crystal(
            c.atomic_numbers,
            c.frac_coords + rng.normal(scale=0.04, size=(c.num_atoms, 3)) @ np.linalg.inv(c.lattice),
            c.lattice @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3))),
            c.id,
        )
        for c in truths
    ]


def report(crystals: Sequence[Crystal], reference: Sequence[Crystal], paired: bool = False) -> Report:
    return evaluate(crystals, list(reference), paired=paired, training=list(reference)[::2], baselines=[], workers=0)


def values(report: Report) -> Values:
    """All numbers but the validity by size, which is by the atoms of the cell as it is given."""
    numbers = [(name, number) for name, number in report.numbers if name != "validity_by_size"]
    return {(name, number.gate): number.value for name, number in numbers}


def changed(first: Values, second: Values) -> set[str]:
    assert first.keys() == second.keys()
    return {
        name for (name, gate), value in first.items() if second[name, gate] != pytest.approx(value, rel=1e-6, abs=1e-9)
    }


@pytest.fixture(scope="module")
def plain(made: list[Crystal], truths: list[Crystal]) -> Values:
    return values(report(made, truths, paired=True))


@pytest.mark.parametrize("disguise", DISGUISES)
def test_no_number_depends_on_how_a_crystal_is_written_down(
    disguise: str, made: list[Crystal], truths: list[Crystal], plain: Values
) -> None:
    rng = np.random.default_rng(1)
    others = [DISGUISES[disguise](crystal, rng) for crystal in made]
    assert changed(plain, values(report(others, truths, paired=True))) == set()


def test_nor_on_how_the_reference_is(made: list[Crystal], truths: list[Crystal], plain: Values) -> None:
    rng = np.random.default_rng(2)
    disguises = list(DISGUISES.values())
    others = [disguises[k % len(disguises)](crystal, rng) for k, crystal in enumerate(truths)]
    assert changed(plain, values(report(made, others, paired=True))) == set()


def test_nor_on_the_order_of_the_crystals(made: list[Crystal], truths: list[Crystal], plain: Values) -> None:
    assert changed(plain, values(report(made[::-1], truths, paired=True))) == set()


def test_every_crystal_twice_changes_uniqueness_and_diversity_alone(made: list[Crystal], truths: list[Crystal]) -> None:
    """Diversity is a mean over pairs, as published: the pairs of a crystal with its double count, with distance 0."""
    once = values(report(made, truths))
    twice = values(report([*made, *(crystal.with_id(f"{crystal.id}, again") for crystal in made)], truths))
    by_pairs = {"composition_diversity", "structure_diversity"}
    uniqueness = {"uniqueness", "unique_and_novel", "vun"}
    assert changed(once, twice) == uniqueness | by_pairs
    n = dict(report(made, truths).numbers)["structure_diversity"].n
    for (name, gate), value in once.items():
        if name in uniqueness:
            assert twice[name, gate] == value / 2
        elif name in by_pairs:
            assert twice[name, gate] == pytest.approx(value * 2 * (n - 1) / (2 * n - 1))


def test_what_could_not_be_built_counts_in_the_rates_over_all_generated(
    made: list[Crystal], truths: list[Crystal]
) -> None:
    failures = [Failure(f"f{k}", "sampling", "no cell") for k in range(len(made))]
    before = report(made, truths)
    after = evaluate(made, truths, failures=failures, training=truths[::2], baselines=[], workers=0)
    for (name, number), (_, other) in zip(before.numbers, after.numbers, strict=True):
        if other.n == number.n:
            assert other.value == number.value, name
        else:
            assert other.n == 2 * number.n == 2 * len(made), name
            assert other.value == pytest.approx(number.value / 2), name


def test_a_set_against_itself(truths: list[Crystal]) -> None:
    numbers = report(truths, truths, paired=True).numbers
    n = len(truths)
    whole = "structural_validity no_close_contact match_rate coverage_recall coverage_precision uniqueness".split()
    none = "space_group_distance crystal_system_distance p1_share match_rms".split()
    none += ["density_wasserstein", "num_elements_wasserstein"]
    none += [f"{what}_distance_{of}" for what in ("structure", "composition") for of in ("recall", "precision")]
    gated = {"valid", "valid, drawn", "prediction valid", "both valid"}
    seen = set()
    for name, number in numbers:
        if name in whole and number.gate not in gated:
            assert number.value == 1.0, name
        elif name in none and number.gate not in gated:
            assert number.value == pytest.approx(0.0, abs=1e-6), name
        elif name in ("density_window", "volume_window"):  # the quantiles lie between the two outermost
            assert number.value == (n - 2) / n
        else:
            continue
        seen.add(name)
    assert {*whole, *none} < seen
