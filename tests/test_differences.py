"""Differences of ground states between systems: zero against itself, known values, pairs by id."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from quality.differences import rms_difference, table
from quality.records import Record

ENERGIES = {f"gen-{k}": float(value) for k, value in enumerate(np.random.default_rng(0).gamma(2.0, 100.0, 200))}


def test_a_system_does_not_differ_from_itself() -> None:
    same = rms_difference(ENERGIES, ENERGIES)
    assert (same.value, same.interval, same.n) == (0.0, (0.0, 0.0), 200)


def test_a_scaled_system_differs_by_the_scale_and_the_other_way_round() -> None:
    scaled = {id: 0.8 * value for id, value in ENERGIES.items()}
    rms = np.sqrt(np.mean(np.square(list(ENERGIES.values()))))
    found, back = rms_difference(scaled, ENERGIES), rms_difference(ENERGIES, scaled)
    assert found.value == pytest.approx(-0.2 * rms)
    assert back.value == pytest.approx(0.2 * rms)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1] < 0


def test_only_crystals_of_both_count() -> None:
    some = dict(list(ENERGIES.items())[:50])
    assert rms_difference(some, ENERGIES).n == 50
    assert rms_difference({}, ENERGIES).value is None


def record(system: str, factor: float, name: str = "a-row", dataset: str = "carbon_24") -> Record:
    row = {"name": name, "system": system, "model": "", "dataset": dataset, "task": "relax", "n": 200, "options": []}
    energies = {id: factor * value for id, value in ENERGIES.items()}
    rest: dict[str, Any] = {"commands": [], "sampling": {}, "crystals": 200, "metrics": [], "machine": {}}
    return Record(row=row, delta_energies=energies, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(("factor", "verdict"), [(0.7, "yes"), (1.3, "no"), (1.0, "cannot be told")])
def test_the_table_says_whether_a_system_lies_nearer(factor: float, verdict: str) -> None:
    lines = table([record("CDVAE", 1.0), record("DP-CDVAE", factor)]).splitlines()
    assert len(lines) == 3
    assert lines[2].endswith(f"{verdict} | `a-row` |")


def test_each_row_of_a_system_has_its_own_line() -> None:
    given = [record("CDVAE", 1.0), record("DP-CDVAE", 0.7, "one"), record("DP-CDVAE", 1.3, "other")]
    one, other = table(given).splitlines()[2:]
    assert one.endswith("yes | `one` |")
    assert other.endswith("no | `other` |")


def test_without_the_base_it_says_so() -> None:
    for given in ([record("DP-CDVAE", 1.0)], [record("DP-CDVAE", 1.0), record("CDVAE", 1.0, dataset="mp_20")]):
        assert table(given).startswith("No crystals of CDVAE")
