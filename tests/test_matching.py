"""Matching: pymatgen's own loop as the oracle, laws of crystals, pairs that hang or break."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator

from crystal_files import real_crystals
from dpcdvae.errors import InputError
from dpcdvae.evaluation.metrics.matching import SITE_TOLERANCES
from dpcdvae.evaluation.pairing import pair
from dpcdvae.parallel import HERE, LocalEngine
from dpcdvae.parallel import results as result_cache
from dpcdvae.parallel.results import Results
from dpcdvae.relaxation.ranking import SAME_MINIMUM
from dpcdvae.structures import pair_matching
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.pair_matching import match_pairs
from dpcdvae.structures.tolerances import PUBLISHED, Tolerances


def rattled(crystal: Crystal, rng: Generator, scale: float = 0.1) -> Crystal:
    moved = crystal.cart_coords + rng.normal(scale=scale, size=crystal.frac_coords.shape)
    return Crystal(crystal.atomic_numbers, moved @ np.linalg.inv(crystal.lattice), crystal.lattice, crystal.id)


@pytest.fixture(scope="module")
def perovskites(data_dir) -> list[Crystal]:
    return real_crystals(data_dir / "perov_5" / "test.csv.gz", 50)


def test_match_rate_and_rms_are_those_of_a_plain_loop(perovskites: list[Crystal]) -> None:
    """Strongly and weakly rattled crystals, and other crystals altogether."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    rng = np.random.default_rng(0)
    predictions = [rattled(c, rng, scale) for c, scale in zip(perovskites, np.linspace(0, 0.9, 50), strict=True)]
    predictions[1::7] = predictions[:-1:7]  # another crystal's prediction
    truths = perovskites
    found = match_pairs(predictions, truths, Results(LocalEngine(2), 60))
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    loop = [matcher.get_rms_dist(p.to_pymatgen(), t.to_pymatgen()) for p, t in zip(predictions, truths, strict=True)]
    expected = np.array([np.nan if result is None else result[0] for result in loop])
    np.testing.assert_allclose(found.rms, expected, rtol=1e-9, atol=1e-12)
    assert not found.reasons
    assert 5 < found.matched.sum() < 45


def other_descriptions(crystal: Crystal, rng: Generator) -> dict[str, Crystal]:
    """The same crystal, written down in other ways."""
    from scipy.spatial.transform import Rotation

    z, x, lattice = crystal.atomic_numbers, crystal.frac_coords, crystal.lattice
    order = rng.permutation(len(z))
    basis = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    doubled = np.concatenate([x, x + [1, 0, 0]]) / [2, 1, 1]
    return {
        "rotated": Crystal(z, x, lattice @ Rotation.random(random_state=1).as_matrix().T),
        "permuted": Crystal(z[order], x[order], lattice),
        "translated": Crystal(z, x + rng.random(3), lattice),
        "other cell": Crystal(z, x @ np.linalg.inv(basis), basis @ lattice),
        "supercell": Crystal(np.tile(z, 2), doubled, np.diag([2, 1, 1]) @ lattice),
        "unwrapped": Crystal(z, x + rng.integers(-3, 4, x.shape), lattice),
    }


def test_matching_does_not_depend_on_the_description(perovskites: list[Crystal]) -> None:
    """Both as prediction and as truth; the matcher tries finitely many mappings, hence not to the last digit."""
    rng = np.random.default_rng(1)
    for truth in perovskites[:3]:
        prediction = rattled(truth, rng)
        same = other_descriptions(prediction, rng)
        reference = match_pairs([prediction], [truth], Results(HERE, 60)).rms[0]
        as_prediction = match_pairs(list(same.values()), [truth] * len(same), Results(HERE, 60))
        np.testing.assert_allclose(as_prediction.rms, reference, rtol=1e-3, err_msg=str(list(same)))
        same = other_descriptions(truth, rng)
        as_truth = match_pairs([prediction] * len(same), list(same.values()), Results(HERE, 60))
        np.testing.assert_allclose(as_truth.rms, reference, rtol=1e-3, err_msg=str(list(same)))


@pytest.mark.parametrize("tolerances", [PUBLISHED, SAME_MINIMUM])
def test_crystals_fit_where_the_matcher_of_pymatgen_says_so(perovskites: list[Crystal], tolerances: Tolerances) -> None:
    """Also described otherwise, as duplicates of a relaxation and decoded crystals are."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    rng = np.random.default_rng(5)
    truths = [crystal for crystal in perovskites[:4] for _ in range(6)]
    scales = np.tile(np.linspace(0.01, 3.0, 6) * tolerances.stol, 4)
    firsts = [rattled(c, rng, scale) for c, scale in zip(truths, scales, strict=True)]
    firsts[::5] = [list(other_descriptions(c, rng).values())[k % 6] for k, c in enumerate(firsts[::5])]
    found = match_pairs(firsts, truths, Results(HERE, 60), [tolerances])
    matcher = StructureMatcher(**asdict(tolerances))
    expected = [matcher.fit(a.to_pymatgen(), b.to_pymatgen()) for a, b in zip(firsts, truths, strict=True)]
    assert found.fits.tolist() == expected
    assert 3 < sum(expected) < len(expected) - 3
    assert (found.matched >= found.fits).all()


def test_every_tolerance_is_a_matcher_of_its_own(perovskites: list[Crystal]) -> None:
    """A pair may have an rms displacement below a tolerance and yet not match under it: atoms are paired up first."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    rng = np.random.default_rng(3)
    truths = perovskites[:24]
    predictions = [rattled(c, rng, scale) for c, scale in zip(truths, np.linspace(0.05, 0.9, 24), strict=True)]
    tolerances = [replace(PUBLISHED, stol=stol) for stol in SITE_TOLERANCES]
    matches = match_pairs(predictions, truths, Results(HERE, 60), tolerances)
    assert SITE_TOLERANCES[-1] == PUBLISHED.stol
    for stol, rms in list(zip(SITE_TOLERANCES, matches.by_tolerance.T, strict=True))[1:4]:
        matcher = StructureMatcher(stol=stol, angle_tol=10, ltol=0.3)
        loop = [
            matcher.get_rms_dist(p.to_pymatgen(), t.to_pymatgen()) for p, t in zip(predictions, truths, strict=True)
        ]
        expected = np.array([np.nan if result is None else result[0] for result in loop])
        np.testing.assert_allclose(rms, expected, rtol=1e-6, atol=1e-9)
    counts = np.isfinite(matches.by_tolerance).sum(axis=0)
    assert (np.diff(counts) >= 0).all()
    assert counts[-1] > counts[0]


def test_matches_are_kept_and_their_numbers_stay(
    perovskites: list[Crystal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_cache, "WORTH_KEEPING", 0.0)
    rng = np.random.default_rng(4)
    truths = perovskites[:6]
    predictions = [rattled(c, rng) for c in truths]
    first, again = (match_pairs(predictions, truths, Results(HERE, 60, tmp_path)) for _ in range(2))
    np.testing.assert_array_equal(first.by_tolerance, again.by_tolerance)
    monkeypatch.setattr(pair_matching, "compare", None)
    monkeypatch.setattr(Crystal, "to_pymatgen", None)
    kept = match_pairs(predictions, truths, Results(HERE, 60, tmp_path))
    np.testing.assert_array_equal(first.by_tolerance, kept.by_tolerance)


def test_a_pair_that_would_never_end_is_given_up_and_the_others_are_not() -> None:
    """A sliver of 1 x 1 x 400 Å: there are millions of lattices to try."""
    rng = np.random.default_rng(2)
    sliver = Crystal([6] * 8, rng.random((8, 3)), np.diag([1.0, 1.0, 400.0]))
    other = Crystal([6] * 8, rng.random((8, 3)), np.diag([1.0, 1.05, 430.0]))
    easy = Crystal([6, 6], [[0, 0, 0], [0.25, 0.25, 0.25]], [[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]])
    found = match_pairs([easy, sliver, easy], [easy, other, easy], Results(HERE, 15))
    np.testing.assert_array_equal(found.matched, [True, False, True])
    assert list(found.reasons) == [1]
    assert "too flat" in found.reasons[1]


def test_odd_crystals_do_not_match_and_raise_nothing() -> None:
    easy = Crystal([6], [[0, 0, 0]], np.eye(3) * 3)
    odd = [
        Crystal([6], [[np.nan, 0, 0]], np.eye(3)),
        Crystal([6], [[0, 0, 0]], np.full((3, 3), np.nan)),
        Crystal([6], [[0, 0, 0]], np.zeros((3, 3))),
        Crystal([7], [[0, 0, 0]], np.eye(3) * 3),
    ]
    found = match_pairs([*odd, *[easy] * 4, easy], [*[easy] * 4, *odd, easy], Results(HERE, 60))
    np.testing.assert_array_equal(found.matched, [False] * 8 + [True])


def crystal(id: str) -> Crystal:
    return Crystal([6], [[0, 0, 0]], np.eye(3) * 3, id)


def test_pairs_go_by_id_where_the_ids_agree() -> None:
    truths = [crystal(id) for id in "abcd"]
    pairs = pair([crystal("d"), crystal("b")], truths)
    assert (pairs.by, pairs.missing) == ("id", 2)
    np.testing.assert_array_equal(pairs.predictions, [0, 1])
    np.testing.assert_array_equal(pairs.truths, [3, 1])


def test_pairs_go_by_order_where_they_do_not() -> None:
    pairs = pair([crystal("x"), crystal("y")], [crystal("a"), crystal("b")])
    assert (pairs.by, pairs.missing) == ("order", 0)
    np.testing.assert_array_equal(pairs.truths, [0, 1])


@pytest.mark.parametrize(
    ("predictions", "failed", "says"),
    [
        (["x"], [], "cannot pair 1 predictions with 2"),
        (["x"], ["y"], r"1 more could not be read"),
        (["x", "y"], ["z"], r"1 more could not be read"),
        (["a", "a"], [], "two predictions bear the id 'a'"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(predictions: list[str], failed: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        pair([crystal(id) for id in predictions], [crystal("a"), crystal("b")], failed)
