"""Campaigns: one result for each crystal, whatever happens to the process."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crystal_files import message
from dpcdvae.cli import main
from dpcdvae.evaluation import read_generated
from dpcdvae.files import write_manifest
from dpcdvae.io import Failure, read, write
from dpcdvae.parallel import Engine, LocalEngine, Lost
from dpcdvae.parallel.store import RECORDS, scan
from dpcdvae.parallel.store import SETTINGS as SETTINGS_KEY
from dpcdvae.relaxation import relax
from dpcdvae.relaxation.campaign import relax_all
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal

SPRING = "toy_calculators:Spring"
SETTINGS = Settings(SPRING, pressure=2.0, optimizer="lbfgs")


def crystals(count: int) -> list[Crystal]:
    rng = np.random.default_rng(0)
    return [
        Crystal(np.full(2, 29), rng.random((2, 3)), 2.8 * np.eye(3) + 0.1 * rng.normal(size=(3, 3)), f"c{k}")
        for k in range(count)
    ]


@pytest.fixture(autouse=True)
def workers_find_the_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def rows(work: Path) -> dict[str, dict[str, object]]:
    """id -> record, without the time it took."""
    found = [json.loads(record.value) for record in scan(work / RECORDS) if record.key != SETTINGS_KEY]
    assert len(found) == len({record["id"] for record in found})
    return {record["id"]: {k: v for k, v in record.items() if k != "seconds"} for record in found}


def test_killed_three_times_it_ends_as_if_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(crystals(12), tmp_path / "c.extxyz")
    relax = "relax c.extxyz --calculator toy_calculators:Mortal --pressure 2 --optimizer lbfgs --workers 0"
    command = [sys.executable, "-m", "dpcdvae", *relax.split()]
    counts = [0]
    for _ in range(3):
        environment = {**os.environ, "TOY_CALCULATIONS": "13"}  # in the midst of a crystal
        done = subprocess.run([*command, "--out", "killed.extxyz"], cwd=tmp_path, env=environment, check=False)
        assert done.returncode == -signal.SIGKILL
        counts.append(len(rows(tmp_path / "killed.extxyz.work")))
    assert 0 < counts[1] < counts[2] < counts[3] < 12
    assert not (tmp_path / "killed.extxyz").exists()
    monkeypatch.chdir(tmp_path)
    for out in ("killed.extxyz", "whole.extxyz"):
        assert main([*command[3:], "--out", out]) == 0
    assert rows(tmp_path / "killed.extxyz.work") == rows(tmp_path / "whole.extxyz.work")
    killed, whole = (read(tmp_path / name) for name in ("killed.extxyz", "whole.extxyz"))
    assert [c.id for c in killed] == [c.id for c in whole] == [f"c{k}" for k in range(12)]
    for a, b in zip(killed, whole, strict=True):
        assert np.array_equal(a.lattice, b.lattice)
        assert {**a.properties, "seconds": 0} == {**b.properties, "seconds": 0}


def test_processes_and_this_process_agree_and_nothing_is_done_twice(tmp_path: Path) -> None:
    some = crystals(5)
    again = [*some, some[2].with_id("twin")]
    here = relax_all(some, SETTINGS, work=tmp_path / "a")
    with LocalEngine(2) as engine:
        there = relax_all(again, SETTINGS, work=tmp_path / "b", engine=engine)
    assert [r.initial.id for r in there] == [*(c.id for c in some), "twin"]
    assert len(rows(tmp_path / "b")) == 5
    for a, b in zip(here, there, strict=False):
        assert np.array_equal(a.final.lattice, b.final.lattice)
    assert there[5].seconds == there[2].seconds
    # What lies there is not computed again, and needs not be computable.
    assert [r.seconds for r in relax_all(some, SETTINGS, work=tmp_path / "a")] == [r.seconds for r in here]


class Losing(Engine):
    """Loses the second item, as an engine does whose worker hangs."""

    def stream(self, function: Callable, items: Sequence, *, time_limit: float) -> Generator:
        for k, item in enumerate(items):
            yield k, Lost("no result after 5 s") if k == 1 else function(item)

    def close(self) -> None:
        return


def test_a_crystal_that_is_lost_costs_only_itself_and_can_be_retried(tmp_path: Path) -> None:
    some = crystals(3)
    results = relax_all(some, SETTINGS, work=tmp_path, engine=Losing())
    assert [r.converged for r in results] == [True, False, True]
    assert results[1].reason == "no result after 5 s"
    assert np.isnan(results[1].energy)
    assert set(rows(tmp_path)) == {"c0", "c2"}
    again = relax_all(some, SETTINGS, work=tmp_path)  # of what was lost nothing is known: it is tried again
    assert [r.converged for r in again] == [True, True, True]
    assert [again[k].seconds for k in (0, 2)] == [results[k].seconds for k in (0, 2)]


def test_what_did_not_converge_is_kept_until_it_is_to_be_tried_again(tmp_path: Path) -> None:
    some, settings = crystals(2), replace(SETTINGS, max_steps=1)
    results = [relax_all(some, settings, work=tmp_path, retry=retry) for retry in (False, False, True)]
    assert not any(r.converged for r in results[0])
    assert [r.seconds for r in results[1]] == [r.seconds for r in results[0]]
    assert not {r.seconds for r in results[2]} & {r.seconds for r in results[0]}


def test_what_did_not_converge_may_be_tried_again_with_more_steps_and_the_rest_stays(tmp_path: Path) -> None:
    some, few, many = crystals(4), replace(SETTINGS, max_steps=3), replace(SETTINGS, max_steps=50)
    before = relax_all([*some, replace(some[0], lattice=2.9 * np.eye(3))], few, work=tmp_path)
    assert {r.converged for r in before} == {True, False}
    again = [*some, replace(some[0], lattice=2.9 * np.eye(3))]
    assert "go on with the same settings, add --retry" in message(lambda: relax_all(again, many, work=tmp_path))
    after = relax_all(again, many, work=tmp_path, retry=True)
    assert all(r.converged for r in after)
    assert [a.seconds == b.seconds for a, b in zip(before, after, strict=True)] == [r.converged for r in before]
    assert [r.seconds for r in relax_all(again, many, work=tmp_path)] == [r.seconds for r in after]
    for retry in (False, True):
        text = message(lambda retry=retry: relax_all(again, few, work=tmp_path, retry=retry))
        assert "was begun with max_steps 50, not 3: go on with the same settings, or" in text


def test_the_public_relax_takes_an_engine_and_leaves_it_open() -> None:
    some = crystals(2)
    results = relax(some, calculator=SPRING, pressure=2.0, optimizer="lbfgs", engine=Losing())
    assert [r.reason for r in results] == ["", "no result after 5 s"]
    assert "leave out workers" in message(lambda: relax(some, calculator=SPRING, engine=Losing(), workers=1))
    assert "did you mean 'pressure'?" in message(lambda: relax(some, calculator=SPRING, presure=2.0))
    assert "must be above 0 s, not -1" in message(lambda: relax(some, calculator=SPRING, workers=0, time_limit=-1))
    for option in (float("nan"), object()):
        assert "options must be plain values" in message(
            lambda option=option: relax(some, calculator=SPRING, options={"delay": option})
        )


def test_a_crystal_that_is_none_costs_only_itself(tmp_path: Path) -> None:
    good = crystals(2)
    bad = [replace(good[0], lattice=np.full((3, 3), np.nan)), replace(good[1], frac_coords=np.full((2, 3), np.inf))]
    results = relax_all([*good, *bad], SETTINGS, work=tmp_path)
    assert [r.converged for r in results] == [True, True, False, False]
    assert [r.reason for r in results[2:]] == ["the lattice is not finite", "coordinates are not finite"]
    (moved,) = relax_all(good[:1], SETTINGS, starts=bad[:1])
    assert moved.reason == "the lattice is not finite"
    assert [r.reason for r in relax_all(bad, SETTINGS)] == [r.reason for r in results[2:]]


def test_an_element_that_the_calculator_does_not_know_costs_only_its_crystal(monkeypatch: pytest.MonkeyPatch) -> None:
    some = crystals(2)
    strange = replace(some[0], atomic_numbers=np.full(some[0].num_atoms, 118), id="og")

    def unknown(name: str, calculator: object, crystal: Crystal) -> str | None:
        return f"{name} does not know Og" if 118 in crystal.atomic_numbers else None

    monkeypatch.setattr("dpcdvae.relaxation.campaign.unknown_elements", unknown)
    results = relax_all([strange, *some], SETTINGS)
    assert [result.converged for result in results] == [False, True, True]
    assert results[0].reason == f"{SPRING} does not know Og"


def test_a_skewed_cell_is_relaxed_in_short_vectors() -> None:
    (good,) = crystals(1)
    shear = np.array([[1, 0, 0], [10, 1, 0], [-19, 8, 1]])
    skewed = replace(
        good, lattice=shear @ good.lattice, frac_coords=good.frac_coords @ np.linalg.inv(shear), id="skewed"
    )
    plain, reduced = relax_all([good, skewed], SETTINGS)
    assert reduced.initial is skewed
    assert reduced.final.lengths.max() < 2 * plain.final.lengths.max()
    assert (reduced.initial_energy, reduced.energy) == pytest.approx((plain.initial_energy, plain.energy))


def test_other_settings_in_a_folder_are_refused(tmp_path: Path) -> None:
    relax_all(crystals(1), SETTINGS, work=tmp_path)
    for other, text in (
        (replace(SETTINGS, pressure=3.0), "was begun with pressure 2.0, not 3.0"),
        (replace(SETTINGS, options={"delay": 0.1}), "was begun with options.delay unset, not 0.1"),
    ):
        assert text in message(lambda other=other: relax_all(crystals(1), other, work=tmp_path))
    assert len(rows(tmp_path)) == 1


def test_another_file_of_weights_under_the_same_name_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("a")
    settings = replace(SETTINGS, calculator="toy_calculators:Weighted", options={"weights": str(weights)})
    for _ in range(2):
        relax_all(crystals(1), settings, work=tmp_path / "w")
    weights.write_text("b")
    assert "was begun with calculator_files" in message(lambda: relax_all(crystals(1), settings, work=tmp_path / "w"))


def test_evaluation_of_relaxed_crystals_counts_all_that_were_generated(tmp_path: Path) -> None:
    """One never built, one that cannot be read, one whose relaxation gives nothing, two relaxed."""
    source, out = tmp_path / "c.cif", tmp_path / "r.extxyz"
    write([*crystals(2), replace(crystals(3)[2], atomic_numbers=np.array([29, 79]))], source)
    source.write_text(source.read_text() + "\ndata_cut\n_cell_length_a 3.0\n")
    unread: list[Failure] = []
    assert len(read(source, unread)) == 3
    failures = [{"id": "unbuilt", "reason": "the lattice closes no cell"}]
    write_manifest(source, "generate", {"limit": 5}, crystals=3 + len(unread), failures=failures)
    before = read_generated(source)
    assert [f.where for f in before.failures][-1] == "generate"
    how = "--calculator toy_calculators:Coward --optimizer lbfgs --workers 0"
    assert main(f"relax {source} --out {out} {how}".split()) == 0
    after = read_generated(out)
    assert (len(after.crystals), len(after.failures)) == (2, len(unread) + 2)
    assert after.ids == before.ids
    assert after.part
    wheres = {f.id: f.where for f in after.failures}
    assert (wheres["unbuilt"], wheres["c2"]) == ("generate", "relax")


def test_the_key_is_the_content() -> None:
    crystal = crystals(1)[0]
    assert content_hash(crystal) == content_hash(crystal.with_id("other"))
    keys = {
        content_hash(crystal),
        content_hash(replace(crystal, frac_coords=crystal.frac_coords + 1e-12)),
        content_hash(replace(crystal, lattice=crystal.lattice * (1 + 1e-12))),
        content_hash(replace(crystal, atomic_numbers=np.array([29, 28]))),
        content_hash(crystal, crystal.with_id("start")),
    }
    assert len(keys) == 5


def test_stored_relaxations_are_found_again() -> None:
    """The hash under which campaigns have always kept their results."""
    crystal = Crystal(np.array([6, 8]), np.array([[0, 0, 0], [0.5, 0.5, 0.25]]), np.diag([2.0, 3.0, 4.0]))
    digest = hashlib.sha256()
    for part in (crystal, crystal):
        for array in (part.atomic_numbers, part.lattice, part.frac_coords):
            digest.update(array.tobytes())
    assert content_hash(crystal, crystal) == digest.hexdigest()


def test_the_command_line_in_two_stages_keeps_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(crystals(3), tmp_path / "c.extxyz")
    how = f"--calculator {SPRING},{SPRING} --workers 0 --pressure 10 --optimizer lbfgs"
    where = f"--out {tmp_path}/r.extxyz --ranked {tmp_path}/m.extxyz --work {tmp_path}/w"
    assert main(f"relax {tmp_path}/c.extxyz {how} {where}".split()) == 0
    assert "3 of 3 crystals converged" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "w").iterdir())
    assert names == ["1-toy_calculators.Spring", "2-toy_calculators.Spring"]
    first, second = (rows(tmp_path / "w" / name) for name in names)
    assert all(record["steps"] == 0 for record in second.values())  # it began where the first had ended
    for id, record in first.items():
        assert record["initial_energy"] == pytest.approx(second[id]["initial_energy"])
    manifest = json.loads((tmp_path / "r.extxyz.manifest.json").read_text())
    assert [stage["pressure"] for stage in manifest["arguments"]["stages"]] == [10.0, 10.0]
    assert (manifest["crystals"], manifest["converged"], manifest["failures"]) == (3, 3, [])


def test_where_nothing_can_be_ranked_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(crystals(2), tmp_path / "c.extxyz")
    how = f"--calculator {SPRING} --workers 0 --steps 1 --fmax 1e-8"
    where = f"--out {tmp_path}/r.extxyz --ranked {tmp_path}/m.extxyz --work {tmp_path}/w"
    assert main(f"relax {tmp_path}/c.extxyz {how} {where}".split()) == 2
    assert "none of 2 crystals converged: leave out --ranked" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.extxyz", "w"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--calculator", "chgnett"], "unknown calculator 'chgnett': did you mean 'chgnet'?"),
        (["--calculator", "toy_calculators:NoStress"], "gives no stress"),
        (["--calculator", SPRING, "--settings", "screening"], "--settings is for a DFT code"),
        (["--calculator", SPRING, "--calculator-option", "dely=1"], "did you mean 'delay'?"),
        (["--calculator", SPRING, "--pressure", "nan"], "--pressure: a finite number is needed, not nan"),
        (["--calculator", "toy_calculators:Odd", "--calculator-option", "kind=raise"], "none of 2 crystals could be"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(crystals(2), tmp_path / "c.extxyz")
    out = tmp_path / "r.extxyz"
    assert main(["relax", str(tmp_path / "c.extxyz"), "--out", str(out), "--workers", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_campaign_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_bytes(b"SQLite format 3")
    text = message(lambda: relax_all(crystals(1), SETTINGS, work=tmp_path))
    assert text == f"{tmp_path} holds other files, or work of an earlier version: use another --work"
    assert [path.name for path in tmp_path.iterdir()] == ["results.sqlite"]
