"""Batches: each crystal ends as if it had been alone, whatever happens to those beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from crystal_files import message
from dpcdvae.cli import main
from dpcdvae.io import read, write
from dpcdvae.parallel import Lost
from dpcdvae.parallel.store import RECORDS, scan
from dpcdvae.parallel.store import SETTINGS as SETTINGS_KEY
from dpcdvae.relaxation import relax as relax_crystals
from dpcdvae.relaxation.batching import relax_in_batches
from dpcdvae.relaxation.calculators import batch_evaluator, build_calculator
from dpcdvae.relaxation.campaign import relax_all
from dpcdvae.relaxation.minimise import Settings, relax
from dpcdvae.relaxation.overlaps import closest_contact
from dpcdvae.relaxation.relaxed_crystal import Relaxed
from dpcdvae.structures.crystal import Crystal
from toy_calculators import Together

TOGETHER = "toy_calculators:Together"
SETTINGS = Settings(TOGETHER, pressure=2.0, optimizer="lbfgs", max_force=0.1, max_stress=2.0, max_steps=30)


def crystals(count: int) -> list[Crystal]:
    """fcc metals of 1 and 4 atoms, off their minima by different amounts, so that they end at different steps."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(count):
        crystal = Crystal.from_ase(bulk(("Cu", "Ag", "Pt")[k % 3], cubic=k % 2 == 1), f"c{k}")
        lattice = crystal.lattice @ (np.eye(3) + 0.02 * k / count * rng.normal(size=(3, 3)))
        coords = crystal.frac_coords + 0.01 * rng.normal(size=crystal.frac_coords.shape)
        found.append(replace(crystal, lattice=lattice, frac_coords=coords))
    return found


def same(a: Relaxed, b: Relaxed, tolerance: float) -> bool:
    quantities = [(r.initial_energy, r.energy, r.volume, *r.stress, *r.final.lattice.ravel()) for r in (a, b)]
    return (
        (a.converged, a.reason, a.steps) == (b.converged, b.reason, b.steps)
        and np.array_equal(a.initial.lattice, b.initial.lattice)
        and np.allclose(*quantities, rtol=0, atol=tolerance)
    )


@pytest.fixture(scope="module")
def alone() -> list[Relaxed]:
    return [relax(crystal, SETTINGS, Together()) for crystal in crystals(5)]


@pytest.mark.parametrize(("batch", "order"), [(2, [4, 2, 0, 3, 1]), (9, [0, 1, 2, 3, 4])])
def test_a_batch_gives_what_each_crystal_gives_alone_in_any_order(
    batch: int, order: list[int], alone: list[Relaxed]
) -> None:
    some = crystals(5)
    assert len({result.steps for result in alone}) > 2
    calculator = Together()
    stream = relax_in_batches(
        [(some[k], None) for k in order], SETTINGS, calculator.calculate_batch, batch=batch, time_limit=60
    )
    results = {order[place]: result for place, result in stream}
    assert sorted(results) == [0, 1, 2, 3, 4]
    for k, result in results.items():
        assert isinstance(result, Relaxed)
        assert same(result, alone[k], 1e-8)
    # Full as long as there are crystals: none waits for the longest of a first lot.
    assert max(calculator.sizes) == min(batch, 5)
    assert calculator.sizes == sorted(calculator.sizes, reverse=True)


def test_it_starts_from_elsewhere_and_compares_with_the_crystal_as_generated() -> None:
    first, second, start = crystals(3)
    start = replace(first, lattice=1.01 * first.lattice)
    stream = relax_in_batches(
        [(first, start), (second, None)], SETTINGS, Together().calculate_batch, batch=2, time_limit=60
    )
    result = dict(stream)[0]
    assert isinstance(result, Relaxed)
    assert same(result, relax(first, SETTINGS, Together(), start=start), 1e-8)


def test_a_failing_crystal_does_not_affect_the_others(tmp_path: Path, alone: list[Relaxed]) -> None:
    some = crystals(5)
    gold = replace(some[1], atomic_numbers=np.full(some[1].num_atoms, 79))
    results = relax_all([*some[:2], gold, *some[2:]], SETTINGS, work=tmp_path, batch=6)
    assert results[2].reason == "the calculator failed: RuntimeError: no gold"
    assert np.isnan(results[2].energy)
    assert all(same(a, b, 1e-8) for a, b in zip(results[:2] + results[3:], alone, strict=True))


def test_a_batch_too_large_for_the_memory_is_halved(alone: list[Relaxed]) -> None:
    def small(atoms: Sequence[Atoms]) -> list[dict[str, object]]:
        if len(atoms) > 2:
            raise MemoryError
        return Together().calculate_batch(atoms)

    results = dict(relax_in_batches([(c, None) for c in crystals(5)], SETTINGS, small, batch=5, time_limit=60))
    assert all(same(results[k], result, 1e-8) for k, result in enumerate(alone))  # type: ignore[arg-type]


def test_a_crystal_that_hangs_or_takes_too_long_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for one that hangs, but that is not their time."""
    some = [*crystals(3), crystals(4)[3].with_id("hangs")]
    enough = threading.Event()

    def hangs(crystal: Crystal, within: float) -> object:
        return enough.wait(60) if crystal.id == "hangs" else closest_contact(crystal, within)

    def evaluate(atoms: Sequence[Atoms]) -> list[dict[str, object]]:
        # One drifts for ever, two are at rest where they are.
        return [
            {"energy": 0.0, "forces": np.full((len(one), 3), 0.1 * (one.symbols[0] == "Ag")), "stress": np.zeros(6)}
            for one in atoms
        ]

    monkeypatch.setattr("dpcdvae.relaxation.minimise.closest_contact", hangs)
    before = list(warnings.filters)
    settings = Settings(TOGETHER, max_steps=10**6)
    results = dict(relax_in_batches([(c, None) for c in some], settings, evaluate, batch=4, time_limit=1.0))
    enough.set()
    assert {k for k, result in results.items() if isinstance(result, Lost)} == {1, 3}
    assert {results[k].reason for k in (1, 3)} == {"no result after 1 s"}
    assert {results[k].converged for k in (0, 2)} == {True}  # type: ignore[union-attr]
    assert warnings.filters == before


def test_closing_it_ends_its_threads() -> None:
    before = set(threading.enumerate())
    stream = relax_in_batches(
        [(c, None) for c in crystals(6)], SETTINGS, Together().calculate_batch, batch=4, time_limit=60
    )
    next(stream)
    assert len(set(threading.enumerate()) - before) == 3
    stream.close()
    assert set(threading.enumerate()) <= before


def test_a_bug_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("dpcdvae.relaxation.minimise.closest_contact", broken)
    with pytest.raises(ZeroDivisionError):
        list(relax_in_batches([(crystals(1)[0], None)], SETTINGS, Together().calculate_batch, batch=2, time_limit=60))


def rows(work: Path) -> dict[str, dict[str, object]]:
    """id -> record, without the time it took."""
    found = [json.loads(record.value) for record in scan(work / RECORDS) if record.key != SETTINGS_KEY]
    return {record["id"]: {k: v for k, v in record.items() if k != "seconds"} for record in found}


def test_stopped_and_killed_it_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    write(crystals(9), tmp_path / "c.extxyz")
    how = f"--calculator {TOGETHER} --calculator-option delay=0.05 --optimizer lbfgs --fmax 0.1 --smax 2 --pressure 2"
    command = [sys.executable, "-m", "dpcdvae", "relax", "c.extxyz", *how.split(), "--batch", "3"]
    kept = 0
    work = tmp_path / "a.extxyz.work"
    for stop, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen([*command, "--out", "a.extxyz"], cwd=tmp_path, stderr=subprocess.DEVNULL)
        while len(rows(work)) <= kept:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(stop)
        assert process.wait(60) == code
        kept = len(rows(work))
    assert kept < 9
    monkeypatch.chdir(tmp_path)
    assert main([*command[3:], "--out", "a.extxyz"]) == 0
    assert f"{kept} of 9 are there already" in capsys.readouterr().err
    assert main([*command[3:-2], "--out", "b.extxyz", "--workers", "0"]) == 0
    assert [c.id for c in read("a.extxyz")] == [f"c{k}" for k in range(9)]
    batched, alone = (rows(tmp_path / f"{name}.extxyz.work") for name in "ab")
    assert batched.keys() == alone.keys()
    for id, record in batched.items():
        assert record["energy"] == pytest.approx(alone[id]["energy"], abs=1e-8)
        assert record["steps"] == alone[id]["steps"]


@pytest.mark.parametrize("command", ["relax", "ground-state"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--calculator", "ase.calculators.emt:EMT"], "takes one crystal at a time: leave out --batch, or"),
        (["--calculator", f"{TOGETHER},ase.calculators.emt:EMT"], "takes one crystal at a time"),
        (["--calculator", TOGETHER, "--workers", "2"], "leave out --workers and --scheduler"),
        (["--calculator", TOGETHER, "--scheduler", "local:2"], "leave out --workers and --scheduler"),
    ],
)
def test_what_cannot_take_a_batch_is_refused_in_one_line(
    command: str, arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(crystals(2), tmp_path / "c.extxyz")
    out = ["--out", str(tmp_path / "r.extxyz")] if command == "relax" else []
    assert main([command, str(tmp_path / "c.extxyz"), *out, "--batch", "2", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.extxyz"]


def test_a_batch_of_none_is_refused() -> None:
    assert message(lambda: relax_crystals(crystals(1), batch=0)) == "a batch holds at least 1 crystal, not 0"


def test_chgnet_in_a_batch_and_alone_is_chgnet_as_published() -> None:
    """Also where a crystal has no angles or no bonds: alone it skips the layers for them, beside others it does not."""
    pytest.importorskip("chgnet")
    from chgnet.model.dynamics import CHGNetCalculator

    calculator = build_calculator("chgnet", {"use_device": "cpu"})
    published = CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")
    rng = np.random.default_rng(0)
    cells = (bulk("C", "diamond", 3.6), bulk("NaCl", "rocksalt", 5.6), bulk("Xe", "fcc", 6.4), bulk("Xe", "fcc", 15.0))
    some = [
        replace(crystal, frac_coords=crystal.frac_coords + 0.01 * rng.normal(size=crystal.frac_coords.shape))
        for crystal in map(Crystal.from_ase, cells)
    ]
    evaluate = batch_evaluator("chgnet", calculator)
    together = evaluate([crystal.to_ase() for crystal in some])
    for crystal, values in zip(some, together, strict=True):
        (alone,) = evaluate([crystal.to_ase()])
        atoms = crystal.to_ase()
        atoms.calc = published
        for found in (values, alone):
            assert found["energy"] / len(atoms) == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=1e-5)
            assert np.allclose(found["forces"], atoms.get_forces(), atol=1e-4)
            assert np.allclose(found["stress"], atoms.get_stress(voigt=False), atol=1e-5)
    atoms.calc = calculator
    assert np.array_equal(atoms.get_stress(voigt=False), alone["stress"])
    assert atoms.get_magnetic_moments() == pytest.approx(published.get_magnetic_moments(atoms), abs=1e-5)
    settings = Settings("chgnet", {"use_device": "cpu"}, pressure=1.0, max_steps=3)
    results = dict(relax_in_batches([(c, None) for c in some[:3]], settings, evaluate, batch=3, time_limit=60))
    for k, crystal in enumerate(some[:3]):
        single, result = relax(crystal, settings, calculator), results[k]
        assert isinstance(result, Relaxed)
        assert result.steps == single.steps
        assert result.energy == pytest.approx(single.energy, abs=1e-4)
        assert np.allclose(result.final.lattice, single.final.lattice, atol=1e-3)
