"""Coverage: the published numbers, the laws of nearest distances, and what counts as not covered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dpcdvae.errors import InputError
from dpcdvae.evaluation import Reference, coverage, evaluate
from dpcdvae.evaluation.coverage import nearest
from dpcdvae.io import Failure, read
from dpcdvae.parallel import LocalEngine
from dpcdvae.parallel.results import Results
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints import Fingerprints, fingerprint_crystals
from dpcdvae.structures.fingerprints.magpie import composition_fingerprints, standardise_compositions
from dpcdvae.structures.summary import ReferenceStatistics

Floats = npt.NDArray[np.float64]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 3), (50, 80)])
def test_nearest_is_that_of_a_plain_loop(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 5)), rng.normal(size=(columns, 5))
    a[-1], b[0] = a[0], a[rows // 2]  # twins on one side and across
    table = np.array([[np.linalg.norm(x - y) for y in b] for x in a])
    monkeypatch.setattr(coverage, "_PAIRS", 100)  # several chunks
    of_rows, of_columns = nearest(a, b)
    assert np.allclose(of_rows, table.min(axis=1), atol=1e-12)
    assert np.allclose(of_columns, table.min(axis=0), atol=1e-12)


def test_a_distance_to_an_empty_set_is_infinite() -> None:
    of_rows, of_columns = nearest(np.zeros((3, 5)), np.zeros((0, 5)))
    assert of_rows.tolist() == [np.inf] * 3
    assert of_columns.shape == (0,)


def made(structure: list[float], elements: list[int]) -> Fingerprints:
    """Structures on a line at ``structure`` (NaN: none), compositions of one element each."""
    line = np.zeros((len(structure), 61))
    line[:, 0] = structure
    crystals = [Crystal([z], np.zeros((1, 3)), np.eye(3)) for z in elements]
    reasons = {k: "none" for k, x in enumerate(structure) if np.isnan(x)}
    return Fingerprints(line, composition_fingerprints(crystals), reasons)


def test_structure_and_composition_may_be_near_to_different_crystals() -> None:
    """The published definition: one has the structure, another the composition, and it is covered."""
    found = coverage.coverage(made([0.0, 1.0], [6, 79]), made([1.0], [6]))
    assert found.recall.structure.tolist() == [0.0]
    assert found.recall.composition.tolist() == [0.0]
    assert found.recall.covered((0.1, 0.1)).tolist() == [True]
    assert found.precision.structure.tolist() == [1.0, 0.0]
    assert found.precision.covered((0.1, 0.1)).tolist() == [False, False]
    assert found.precision.covered((1.0, 0.1)).tolist() == [True, False], "the cut-off itself is within"


def test_a_crystal_without_fingerprint_covers_nothing_and_is_not_covered() -> None:
    found = coverage.coverage(made([0.0, np.nan], [6, 79]), made([np.nan, 0.0, 0.1], [6, 79, 6]))
    assert found.recall.covered((9, 1e9)).tolist() == [False, True, True]
    assert found.precision.covered((9, 1e9)).tolist() == [True, False]
    # The gold crystal has no structure, so its composition does not count either.
    assert found.recall.composition[1] > 1
    nothing = coverage.coverage(made([np.nan], [6]), made([0.0], [6]))
    assert nothing.recall.covered((9, 1e9)).tolist() == [False]


def published(generated: Fingerprints, reference: Fingerprints, cutoffs: tuple[float, float]) -> tuple[float, float]:
    """COV-R and COV-P straight from the definition, with whole matrices of distances."""
    structure, composition = (
        np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2))
        for a, b in (
            (generated.structure, reference.structure),
            (standardise_compositions(generated.composition), standardise_compositions(reference.composition)),
        )
    )
    covered = [(structure.min(axis=k) <= cutoffs[0]) & (composition.min(axis=k) <= cutoffs[1]) for k in (0, 1)]
    return float(covered[0].mean()), float(covered[1].mean())


@pytest.mark.parametrize(
    ("generated", "name", "recall", "precision"),
    [
        ("cdvae_replica_perov_gen", "perov_5", 0.6845, 0.9860),
        pytest.param("crysbfn_carbon_24_gen", "carbon_24", 0.9867, 0.9940, marks=pytest.mark.slow),
    ],
)
def test_coverage_of_other_peoples_crystals(
    data_dir: Path, generated: str, name: str, recall: float, precision: float
) -> None:
    """The first 500 of each file; the numbers are those of an independent script with matminer."""
    crystals = read(data_dir / "generated" / f"{generated}.npz", [])[:500]
    real = read(data_dir / name / "test.csv.gz", [])
    ours, theirs = (fingerprint_crystals(part, Results(LocalEngine(2), 60)) for part in (crystals, real))
    found = coverage.coverage(ours, theirs)
    assert round(float(found.recall.covered((0.2, 4.0)).mean()), 4) == recall
    assert round(float(found.precision.covered((0.2, 4.0)).mean()), 4) == precision
    few = [Fingerprints(f.structure[:100], f.composition[:100], {}) for f in (ours, theirs)]
    small = coverage.coverage(*few)
    assert (small.recall.covered((0.2, 4.0)).mean(), small.precision.covered((0.2, 4.0)).mean()) == published(
        *few, (0.2, 4.0)
    )


def salts(count: int, shift: float = 0.0) -> list[Crystal]:
    return [
        Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5 + shift]], np.eye(3) * (3.3 + 0.05 * k), f"c{k}")
        for k in range(count)
    ]


def test_real_crystals_cover_themselves() -> None:
    report = evaluate(salts(6), salts(6), workers=0)
    assert report["coverage_recall"].value == report["coverage_precision"].value == 1.0
    for side in ("recall", "precision"):
        assert report[f"structure_distance_{side}"].value == report[f"composition_distance_{side}"].value == 0.0


def test_what_could_not_be_read_is_not_covered_and_is_reported() -> None:
    broken = Crystal([6], [[np.nan, 0, 0]], np.eye(3), "broken")
    failures = [Failure("f", "row 1", "no cell")]
    report = evaluate([*salts(6), broken], salts(6), failures=failures, workers=0)
    assert report["coverage_precision"].value == 6 / 8
    assert report["coverage_recall"].value == 1.0
    assert report["coverage_precision"].undecided == 1
    assert [g["id"] for g in report.given_up if g["what"] == "fingerprint"] == ["broken"]
    nothing = evaluate([broken], salts(6), workers=0)
    assert nothing["coverage_recall"].value == nothing["coverage_precision"].value == 0.0
    assert nothing["structure_distance_recall"].value is None


def test_cutoffs_are_those_given_or_of_the_data_set_and_named() -> None:
    near, far = salts(4), salts(4, shift=0.2)
    perov = Reference("perov_5:test", "", crystals=near, dataset="perov_5")
    for reference, cutoffs, words in (
        (perov, None, "cut-offs 0.2, 4 of perov_5"),
        (perov, (0.3, 5.0), "cut-offs 0.3, 5 as given"),
        (Reference("mine.csv", "", crystals=near), None, "cut-offs 0.4, 10 of mp_20, as the reference has none"),
    ):
        report = evaluate(far, reference, workers=0, cutoffs=cutoffs)
        assert report["coverage_precision"].note == words
    distance = report["structure_distance_recall"].value
    assert distance is not None
    assert distance > 0
    loose, tight = (evaluate(far, near, workers=0, cutoffs=(c * distance, 1.0)) for c in (10, 0.1))
    assert (loose["coverage_recall"].value, tight["coverage_recall"].value) == (1.0, 0.0)


@pytest.mark.parametrize("cutoffs", [(0.0, 4.0), (0.2, float("nan")), (-1.0, 1.0), (1.0, float("inf"))])
def test_cutoffs_that_are_none_are_refused(cutoffs: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="cutoffs"):
        evaluate(salts(2), salts(2), workers=0, cutoffs=cutoffs)


def test_statistics_alone_give_no_coverage() -> None:
    statistics = ReferenceStatistics.from_crystals(salts(4), source="salt:train", sha256="")
    report = evaluate(salts(4), statistics, workers=0)
    assert not {
        name
        for name, _ in report.numbers
        if name.startswith("coverage") or name.endswith(("distance_recall", "distance_precision"))
    }
