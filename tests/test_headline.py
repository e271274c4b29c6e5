"""The numbers to read first: V.U.N., validity by size, RMSD to relaxed crystals, and the verdicts in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from crystal_files import real_crystals
from dpcdvae.errors import InputError
from dpcdvae.evaluation import evaluate
from dpcdvae.evaluation.headline import CHOICES, MOST, headline, verdict
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.intervals import Number
from dpcdvae.io import CrystalList, Failure
from dpcdvae.structures.crystal import Crystal


@pytest.fixture(scope="module")
def real(data_dir: Path) -> list[Crystal]:
    return real_crystals(data_dir / "perov_5" / "test.csv.gz", 20)


def salts(edges: Sequence[float], anion: int = 17) -> list[Crystal]:
    """Alkali salts of the caesium chloride structure with these cell edges in Å, by turns of Na, K, Rb and Cs."""
    sites = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    cations = (11, 19, 37, 55)
    return [
        Crystal(np.array([cations[k % 4], anion]), sites, np.eye(3) * edge, f"salt-{k}") for k, edge in enumerate(edges)
    ]


def test_vun_counts_each_new_valid_structure_once_over_all_that_were_asked_for() -> None:
    four = salts([4.0] * 4)
    crushed = replace(salts([4.0], anion=35)[0], lattice=np.eye(3) * 0.4, id="crushed")
    made = [*four, four[0], crushed]
    lost = [Failure("lost", "file", "no cell"), Failure("lost too", "file", "no cell")]
    report = evaluate(made, four, training=four[1:2], failures=lost, workers=0, baselines=())
    # Of eight, Na, Rb and Cs salts are valid, different and new; one is known, one crushed, one a repetition.
    assert report["vun"].value == pytest.approx(3 / 8)
    assert report["vun"].n == 8
    assert report["vun"].value <= report["unique_and_novel"].value


def test_validity_by_size_adds_up_to_validity(real: list[Crystal]) -> None:
    report = evaluate(real, real, workers=0, baselines=())
    parts = [number for name, number in report.numbers if name == "validity_by_size"]
    assert sum(part.n for part in parts) == len(real)
    assert sum(part.value * part.n for part in parts) == pytest.approx(report["validity"].value * len(real))


def test_rmsd_to_the_relaxed_is_zero_for_crystals_at_rest_and_the_displacement_for_others() -> None:
    made = salts([4.0] * 4)
    moved = []
    for crystal in made:
        sites = crystal.frac_coords.copy()
        sites[1, 0] += 0.02  # 0.08 Å; without the common shift each of the two atoms moves by half of it
        moved.append(replace(crystal, frac_coords=sites))
    assert evaluate(made, made, relaxed=made, workers=0)["relaxed_rmsd"].value == pytest.approx(0, abs=1e-6)
    report = evaluate(made, made, relaxed=moved[:3], workers=0)
    assert report["relaxed_rmsd"].value == pytest.approx(0.04, rel=1e-3)
    assert report["relaxed_match_rate"].value == pytest.approx(3 / 4)
    assert "without a relaxed one: 1" in report["relaxed_match_rate"].note


def test_relaxed_crystals_of_other_ids_are_refused() -> None:
    others = [replace(crystal, id=f"x{crystal.id}") for crystal in salts([4.0] * 3)]
    with pytest.raises(InputError, match="cannot pair"):
        evaluate(salts([4.0] * 4), salts([4.0] * 4), relaxed=others, workers=0)
    with pytest.raises(InputError, match="protocol cdvae has no RMSD"):
        evaluate(salts([4.0] * 4), salts([4.0] * 4), relaxed=salts([4.0] * 4), protocol="cdvae", workers=0)


def test_relaxed_crystals_are_not_paired_by_order_where_one_is_missing_on_both_sides() -> None:
    made = salts([4.0] * 4)
    nameless = CrystalList([replace(crystal, id="") for crystal in made[1:]], [Failure("", "relaxed", "no energy")])
    lost = [Failure("salt-3", "file", "no cell")]
    with pytest.raises(InputError, match=r"cannot pair 3 relaxed crystals .1 more could not be read.*evaluated file"):
        evaluate(made[:3], made, relaxed=nameless, workers=0, baselines=())
    with pytest.raises(InputError, match="cannot pair 3 relaxed crystals"):
        evaluate(made[:3], made, relaxed=nameless[:], failures=lost, workers=0, baselines=())


@pytest.mark.parametrize(
    ("interval", "n", "real", "more", "says"),
    [
        ((0.9, 0.95), 500, (0.94, 0.99), True, "as good as real data"),
        ((0.9, 0.95), 50, (0.94, 0.99), True, "not told apart from real data (n = 50)"),
        ((0.5, 0.6), 500, (0.94, 0.99), True, "clearly worse than real data"),
        ((0.5, 0.6), 500, (0.1, 0.2), True, "better than real data"),
        ((0.5, 0.6), 500, (0.1, 0.2), False, "clearly worse than real data"),
        ((0.0, 0.6), 500, None, False, "as good as real data"),
        ((0.1, 0.6), 500, None, False, "differs from real data"),
        ((0.1, 0.6), 500, None, True, "no real crystals to compare with"),
    ],
)
def test_a_verdict_follows_from_the_intervals(
    interval: tuple[float, float], n: int, real: tuple[float, float] | None, more: bool, says: str
) -> None:
    beside = None if real is None else Number(sum(real) / 2, n, real)
    assert verdict(Number(sum(interval) / 2, n, interval), beside, more_is_better=more) == says


def test_the_headline_is_short_and_the_json_says_the_same(real: list[Crystal]) -> None:
    assert all(name in METRICS for choice in CHOICES for name, _ in choice.alternatives)
    report = evaluate(real, real, training=real, workers=0)
    lines = report.to_json()["headline"]
    assert {"validity", "vun", "coverage_recall", "coverage_precision", "density_wasserstein"} == {
        line["name"] for line in lines
    }
    assert len(lines) <= MOST
    console = Console(record=True, width=120)
    console.print(report.headline())
    text = console.export_text()
    assert all(line["verdict"] in text for line in lines)


def test_what_an_option_asks_for_is_in_the_headline_beside_the_validity() -> None:
    everything = [(name, Number(0.5, 10, (0.4, 0.6), gate)) for choice in CHOICES for name, gate in choice.alternatives]
    shown = [line.metric for line in headline(everything, {})]
    assert shown[:4] == ["match_rate", "match_rms", "relaxed_rmsd", "sun"]
    assert len(shown) == MOST
    made = salts([4.0] * 4)
    report = evaluate(made, made, paired=True, relaxed=made, training=made, workers=0)
    names = [line["name"] for line in report.to_json()["headline"]]
    assert {"match_rate", "match_rms", "relaxed_rmsd", "validity", "vun"} <= {*names}
