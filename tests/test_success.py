"""Success rates of a search: goals, honest counts, and which model evaluates."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from dpcdvae.errors import InputError
from dpcdvae.evaluation.success import SearchReport, success_rates, thresholds
from dpcdvae.intervals import wilson


def test_success_rates_of_a_hand_made_search() -> None:
    """Six starting points, three saved points; goals 1, 2, 3."""
    nan, inf = np.nan, np.inf
    values = np.array(
        [
            [1.0, 5.0, 0.0, nan, 4.0, 2.5],
            [9.0, 2.0, 0.0, nan, nan, -inf],
            [9.0, 2.5, 9.0, 0.5, 2.8, 2.5],
        ]
    )
    valid = np.array(
        [
            [True, True, False, True, True, True],
            [True, True, False, True, True, True],
            [True, True, True, False, True, True],
        ]
    )
    # 0: 1.0 at the start, exactly the goal. 1: 2.0. 2: only invalid ones are good. 3: unknown, then invalid.
    # 4: 2.8 beside a NaN. 5: 2.5; what is not finite does not count.
    goals = {5: 1.0, 10: 2.0, 15: 3.0}
    rates = success_rates(values, valid, goals)
    assert [(rate.percent, rate.successes, rate.start_successes, rate.n) for rate in rates] == [
        (5, 1, 1, 6),
        (10, 2, 1, 6),
        (15, 4, 2, 6),
    ]
    assert rates[1].number.interval == wilson(2, 6)
    turned = success_rates(-values, valid, {p: -goal for p, goal in goals.items()}, maximize=True)
    assert [(r.successes, r.start_successes) for r in turned] == [(1, 1), (2, 1), (4, 2)]


def test_success_rates_never_fall_with_a_looser_goal_or_more_points() -> None:
    rng = np.random.default_rng(0)
    values, valid = rng.normal(size=(8, 50)), rng.random((8, 50)) < 0.7
    goals = {5: -1.6, 10: -1.3, 15: -1.0}
    all_points, few = success_rates(values, valid, goals), success_rates(values[:3], valid[:3], goals)
    assert all(a.successes >= b.successes >= a.start_successes for a, b in zip(all_points, few, strict=True))
    assert all_points[0].successes <= all_points[1].successes <= all_points[2].successes
    assert not any(rate.successes for rate in success_rates(values, np.zeros_like(valid), goals))


def test_goals_come_from_the_right_end() -> None:
    quantiles = {str(p): float(p) for p in (5, 10, 15, 50, 85, 90, 95)}
    assert thresholds(quantiles) == {5: 5.0, 10: 10.0, 15: 15.0}
    assert thresholds(quantiles, maximize=True) == {5: 95.0, 10: 90.0, 15: 85.0}
    with pytest.raises(InputError, match="no 95 % quantile"):
        thresholds({"5": 1.0}, maximize=True)


def report(evaluated_by: str = "") -> SearchReport:
    predicted = np.array([[1.0, 3.0], [0.0, 1.0]])
    evaluated = predicted if not evaluated_by else np.array([[2.0, np.nan], [np.nan, np.nan]])
    valid = np.array([[True, False], [False, False]])
    return SearchReport(
        "energy",
        "eV",
        evaluated_by,
        False,
        (0, 10),
        predicted,
        evaluated,
        valid,
        {5: 0.0, 10: 1.0, 15: 2.0},
        {"crystals that could not be built": 1},
    )


def test_a_report_says_which_model_evaluated_and_what_is_unknown() -> None:
    from rich.console import Console

    def shown(report: SearchReport) -> str:
        console = Console(width=120)
        with console.capture() as captured:
            console.print(report.table())
        return captured.get()

    own = shown(report())
    assert "own head: optimistic" in own
    assert "not evaluated, so no success: 1 crystals that could not be built" in own
    assert re.search(r"SR10 │ +≤ 1 │ +50.0%", own)
    other = shown(report("runs/energy"))
    assert "evaluated by runs/energy" in other
    assert "optimistic" not in other
    content = report("runs/energy").to_json()
    json.dumps(content, allow_nan=False)
    assert [point["evaluated_mean"] for point in content["points"]] == [2.0, None]
    assert [point["predicted_mean"] for point in content["points"]] == [2.0, 0.5]
    assert [rate["value"] for rate in content["success_rates"]] == [0.0, 0.0, 0.5]


def test_quantiles_of_the_training_set_are_the_published_goals(data_dir: Path) -> None:
    """CDVAE's ``Percentiles['perovskite']`` (scripts/compute_metrics.py), to the last digit that is printed."""
    energies = _column(data_dir / "perov_5" / "train.csv.gz", "heat_ref")
    assert len(energies) == 11356
    ours = [float(f"{np.percentile(energies, p):.7g}") for p in (5, 10, 15)]
    np.testing.assert_allclose(ours, [0.43924842, 0.61202443, 0.7364607], rtol=1e-7)


def _column(path: Path, name: str) -> list[float]:
    import gzip

    csv.field_size_limit(2**24)
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [float(row[name]) for row in csv.DictReader(stream)]
