"""What stands beside a number: the same number of real crystals, and of crystals that are easily had."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.evaluation import Report, evaluate
from dpcdvae.evaluation.baselines import substitute
from dpcdvae.structures.crystal import Crystal

Numbers = dict[tuple[str, str], float | None]


@pytest.fixture(scope="module")
def train() -> list[Crystal]:
    return list(load_dataset("prototypes")["train"])[:40]


@pytest.fixture(scope="module")
def test() -> list[Crystal]:
    return list(load_dataset("prototypes")["test"])[:12]


@pytest.fixture(scope="module")
def report(train: list[Crystal], test: list[Crystal]) -> Report:
    names = ("reference", "training", "substitution")
    return evaluate(train[:12], test, training=train, baselines=names, workers=0)


def beside(report: Report, name: str) -> Numbers:
    return {key: number.value for key, number in report.baselines[name].items()}


def own(report: Report) -> Numbers:
    return {(name, number.gate): number.value for name, number in report.numbers}


def test_as_many_crystals_of_the_reference_score_what_the_reference_scores(
    report: Report, train: list[Crystal], test: list[Crystal]
) -> None:
    itself = own(evaluate(test, test, training=train, baselines=(), workers=0))
    ceiling = beside(report, "reference")
    assert ceiling == pytest.approx(itself, nan_ok=False)
    assert ceiling["density_wasserstein", "none"] == 0
    assert ceiling["coverage_recall", ""] == ceiling["coverage_precision", ""] == 1


def test_the_training_baseline_is_a_generator_that_repeats_the_training_set(
    train: list[Crystal], test: list[Crystal]
) -> None:
    by_heart = evaluate(train, test, training=train, baselines=["training"], workers=0)
    assert beside(by_heart, "training") == pytest.approx(own(by_heart), rel=1e-9)
    assert own(by_heart)["novelty", ""] == 0


def test_baselines_are_as_large_as_what_was_generated(report: Report) -> None:
    assert set(report.baselines) == {"reference", "training", "substitution"}
    for name, numbers in report.baselines.items():
        assert numbers["structural_validity", ""].n == 12, name


def test_the_seed_decides_what_is_drawn(train: list[Crystal], test: list[Crystal]) -> None:
    drawn = [
        beside(evaluate(train[:4], test, training=train, baselines=["training"], workers=0, seed=seed), "training")
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_paired_evaluation_sets_the_truths_beside_their_reconstructions(test: list[Crystal]) -> None:
    report = evaluate(test, test, paired=True, workers=0)
    assert report.baselines["reference"]["match_rate", "none"].value == 1
    assert list(report.baselines) == ["reference"]  # a training set pairs with nothing, and here is none


def test_a_baseline_without_its_data_gets_a_note_if_it_was_requested(test: list[Crystal]) -> None:
    with pytest.raises(InputError, match="'training' needs the crystals of a training set"):
        evaluate(test, test, baselines=["training"], workers=0)
    with pytest.raises(InputError, match=r"'substitution' needs .* of several compositions"):
        evaluate(test, test, training=[test[0]] * 3, baselines=["substitution"], workers=0)


def test_unknown_names_are_refused_with_the_choices(test: list[Crystal]) -> None:
    with pytest.raises(InputError, match="did you mean 'training'"):
        evaluate(test, test, baselines=["trainig"], workers=0)
    with pytest.raises(InputError, match="did you mean 'cdvae'"):
        evaluate(test, test, protocol="cdave", workers=0)


def test_substituted_crystals_have_the_sites_of_one_and_the_chemistry_of_another(train: list[Crystal]) -> None:
    volumes = {(c.formula, round(c.volume / c.num_atoms, 6)) for c in train}
    made = substitute(train, 1000, np.random.default_rng(0))
    assert len(made) > len(train) / 2
    for crystal in made:
        assert (crystal.formula, round(crystal.volume / crystal.num_atoms, 6)) in volumes
        parents = [
            c for c in train if c.num_atoms == crystal.num_atoms and np.array_equal(c.frac_coords, crystal.frac_coords)
        ]
        assert parents
        assert crystal.formula not in {parent.formula for parent in parents} or len(parents) > 1
        patterns = [Counter(Counter(c.atomic_numbers.tolist()).values()) for c in (crystal, parents[0])]
        assert patterns[0] == patterns[1]


def test_nothing_can_be_substituted_in_one_composition(train: list[Crystal]) -> None:
    assert substitute([train[0]] * 5, 3, np.random.default_rng(0)) == []
