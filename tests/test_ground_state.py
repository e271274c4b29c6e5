"""Table 3 and the ranking against plain loops, and against crystals whose differences are known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystal_files import message
from dpcdvae.cli import main
from dpcdvae.intervals import Number
from dpcdvae.io import Failure, write
from dpcdvae.parallel.store import RECORDS
from dpcdvae.relaxation import ranking
from dpcdvae.relaxation.from_files import pair_relaxed
from dpcdvae.relaxation.ground_state import ground_state, reason_lines
from dpcdvae.relaxation.ranking import mean_neighbour_distances, rank
from dpcdvae.relaxation.relaxed_crystal import Relaxed, count_reasons, lost
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.pair_matching import Matches, match_pairs

PRESSURE = 10.0


def carbon(kind: str, a: float, id: str = "") -> Crystal:
    return Crystal.from_ase(bulk("C", kind, a), id or f"{kind}-{a}")


def relaxation(initial: Crystal, final: Crystal, before: float, after: float, **more: object) -> Relaxed:
    """A converged one, of known energies in eV/atom."""
    template = lost(initial, PRESSURE, "")
    known = {"initial_energy": before, "energy": after, "volume": final.volume / final.num_atoms}
    return replace(template, final=final, converged=True, **known, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def some() -> list[Relaxed]:
    """Four diamonds a little off, one crystal that became another structure, one that did not converge."""
    rng = np.random.default_rng(0)
    results = []
    for k in range(4):
        final = carbon("diamond", 3.54)
        coords = final.frac_coords + 0.02 * rng.normal(size=(2, 3))
        initial = replace(final, lattice=final.lattice * (1 + 0.03 * k), frac_coords=coords, id=f"c{k}")
        results.append(relaxation(initial, final, -9.0 + 0.1 * k, -9.05))
    results.append(relaxation(carbon("sc", 1.8, "other"), carbon("fcc", 3.0), -5.0, -4.9, pushed_apart=True))
    return [*results, lost(carbon("sc", 2.0, "late"), PRESSURE, "not converged after 9 steps (force 1 eV/Å)")]


def test_figures_are_those_of_a_plain_loop(some: list[Relaxed]) -> None:
    report = ground_state(some, failures=[Failure("bad", "x.cif", "cut off")])
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    rms, volume, energy, enthalpy = [], [], [], []
    for item in some[:5]:
        found = matcher.get_rms_dist(item.final.to_pymatgen(), item.initial.to_pymatgen())
        rms += [found[0]] if found else []
        v0, v1 = (c.volume / c.num_atoms for c in (item.initial, item.final))
        volume.append(v0 - v1)
        energy.append(1000 * (item.initial_energy - item.energy))
        enthalpy.append(energy[-1] + 1000 * PRESSURE * (v0 - v1) / 160.2176634)
    assert len(rms) == 4
    expected = {
        "match_rate": len(rms) / 7,
        "match_rms": sum(rms) / len(rms),
        "delta_volume_rms": math.sqrt(sum(v**2 for v in volume) / 5),
        "delta_energy_rms": math.sqrt(sum(e**2 for e in energy) / 5),
        "delta_enthalpy_rms": math.sqrt(sum(h**2 for h in enthalpy) / 5),
        "delta_energy_median": sorted(energy)[2],
        "delta_enthalpy_median": sorted(enthalpy)[2],
        "delta_volume_median": sorted(map(abs, volume))[2],
    }
    for name, value in expected.items():
        assert report[name].value == pytest.approx(value), name
        low, high = report[name].interval
        assert low <= report[name].value <= high
    assert {f.number.n for f in report.figures if f.name.startswith("delta")} == {5}
    assert report["match_rate"].n == 7
    # 50, 150, 250, 350 and -100 meV/atom
    assert report.below_zero == 1
    assert [item for item in report.histogram if item[2]] == [(32, 64, 1), (128, 256, 2), (256, 512, 1)]
    assert report.mode == (128, 256)
    assert report.pushed_apart == 1
    assert report.reasons == [("not converged after 9 steps", 1)]
    assert "did you mean 'match_rate'?" in message(lambda: report["match_rat"])
    late = report.rows[5]
    assert (late.converged, late.rms, late.delta_energy) == (False, None, None)


def test_relaxed_crystals_lie_at_their_ground_state() -> None:
    crystal = carbon("diamond", 3.54)
    report = ground_state([relaxation(crystal, crystal, -9.0, -9.0)] * 3)
    assert report["match_rate"].value == 1.0
    for figure in report.figures[1:]:
        assert figure.number.value == pytest.approx(0.0, abs=1e-9)


def test_nothing_relaxed_is_no_number() -> None:
    report = ground_state([lost(carbon("sc", 2.0), 0.0, "the calculator failed: x")])
    assert report["match_rate"].value == 0.0
    assert report["delta_energy_rms"] == Number(None, 0)
    assert report.mode is None
    json.dumps(report.to_json(), allow_nan=False)


def test_a_seed_fixes_the_intervals_and_more_crystals_narrow_them(some: list[Relaxed]) -> None:
    few, many = (ground_state(some[:4] * copies)["delta_energy_rms"] for copies in (1, 9))
    assert few == ground_state(some[:4])["delta_energy_rms"]
    assert many.value == pytest.approx(few.value)
    assert np.diff(many.interval) < np.diff(few.interval) / 2


def energies(crystal: Crystal, **properties: float) -> Crystal:
    return replace(crystal, properties=properties)


def test_files_from_elsewhere_pair_by_id_or_order_with_energies_of_either_kind() -> None:
    before = [energies(carbon("diamond", 3.7, f"c{k}"), energy=-16.0) for k in range(3)]
    after = [energies(carbon("diamond", 3.5, f"c{k}"), energy_per_atom=-9.0 - k) for k in (2, 0)]
    results = pair_relaxed(before, after, 0.0)
    assert [r.converged for r in results] == [True, False, True]
    assert [r.energy for r in results][::2] == [-9.0, -11.0]
    assert {r.initial_energy for r in results if r.converged} == {-8.0}
    assert results[1].reason == "there is no relaxed crystal of that id"
    nameless = [c.with_id(f"relaxed-{k}") for k, c in enumerate([*after, after[0]])]
    assert [r.energy for r in pair_relaxed(before, nameless, 0.0)] == [-11.0, -9.0, -11.0]
    without = [[c.with_id("") for c in some] for some in (before, nameless)]
    assert [r.energy for r in pair_relaxed(*without, 0.0)] == [-11.0, -9.0, -11.0]


def test_both_energies_are_of_the_calculator_that_relaxed() -> None:
    """What was relaxed with one potential and then with DFT brings an energy of the first, on another scale."""
    first = replace(carbon("diamond", 3.5, "c"), properties={"energy_eV_per_atom": -9.0})
    second = replace(first, properties={"energy_eV_per_atom": -160.5, "initial_energy_eV_per_atom": -160.0})
    (result,) = pair_relaxed([first], [second], 0.0)
    assert (result.initial_energy, result.energy) == (-160.0, -160.5)


def test_files_that_are_no_pairs_are_refused() -> None:
    before = [carbon("diamond", 3.7, "a"), carbon("diamond", 3.6, "b")]
    assert "no ids agree" in message(lambda: pair_relaxed(before, [carbon("diamond", 3.5, "x")], 0.0))
    odd = [carbon("diamond", 3.5, "a"), carbon("diamond", 3.5, "x")]
    assert "'x' is none of the initial" in message(lambda: pair_relaxed(before, odd, 0.0))
    twice = [carbon("diamond", a, "a") for a in (3.5, 3.4)]
    assert "2 of the relaxed crystals have the id 'a'" in message(lambda: pair_relaxed(before, twice, 0.0))
    assert "2 of the initial crystals have the id 'a'" in message(lambda: pair_relaxed(twice, before[:1], 0.0))
    silicon = [Crystal.from_ase(bulk("Si"), "a")]
    assert "C was relaxed to Si" in message(lambda: pair_relaxed(before, silicon, 0.0))
    pressed = [energies(carbon("diamond", 3.5, "a"), pressure_GPa=10.0)]
    assert "give --pressure 10" in message(lambda: pair_relaxed(before, pressed, 0.0))


def test_the_file_that_relax_writes_gives_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    given = [
        Crystal(np.array([6, 6]), rng.random((2, 3)), 2.8 * np.eye(3) + 0.1 * rng.normal(size=(3, 3)), f"c{k}")
        for k in range(4)
    ]
    paths = {name: str(tmp_path / name) for name in ("c.extxyz", "r.extxyz", "w", "a.json", "b.json")}
    write(given, paths["c.extxyz"])
    how = "--calculator toy_calculators:Spring --pressure 10 --optimizer lbfgs --workers 0".split()
    how += ["--work", paths["w"]]
    assert main(["relax", paths["c.extxyz"], "--out", paths["r.extxyz"], *how]) == 0
    assert main(["ground-state", paths["c.extxyz"], "--json", paths["a.json"], *how]) == 0
    from_file = ["--relaxed", paths["r.extxyz"], "--pressure", "10", "--workers", "0", "--json", paths["b.json"]]
    assert main(["ground-state", paths["c.extxyz"], *from_file]) == 0
    assert "4 crystals, 4 relaxed at 10 GPa" in capsys.readouterr().out
    a, b = (json.loads(Path(paths[name]).read_text()) for name in ("a.json", "b.json"))
    assert a["schema"] == "dpcdvae.ground_state/1"
    manifest = json.loads(Path(paths["b.json"] + ".manifest.json").read_text())
    assert "stages" not in manifest["arguments"]  # nothing was relaxed
    assert manifest["arguments"]["calculator"] is None
    assert manifest["arguments"]["pressure"] == 10.0
    for one, other in zip(a["figures"], b["figures"], strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-6, abs=1e-6)
    assert a["figures"][0]["n"] == 4
    assert main(["ground-state", paths["c.extxyz"], *from_file[:4], *how[:2], "--steps", "9"]) == 2
    assert "--relaxed relaxes nothing here: leave out --calculator, --steps" in capsys.readouterr().err


def test_without_a_folder_results_are_kept_beside_what_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    write([Crystal(np.array([6, 6]), rng.random((2, 3)), 2.8 * np.eye(3), "c")], tmp_path / "c.extxyz")
    command = ["ground-state", str(tmp_path / "c.extxyz"), "--calculator", "toy_calculators:Spring", "--workers", "0"]
    assert main(command) == 0
    assert main([*command, "--json", str(tmp_path / "t.json")]) == 0
    kept = sorted(path.parent.name for path in tmp_path.glob(f"*/{RECORDS}"))
    assert kept == ["c.extxyz.work", "t.json.work"]


def test_ranking_keeps_each_minimum_once_and_the_lowest_enthalpy_first() -> None:
    """Two diamonds in different cells, a simple cubic carbon, silicon apart, an unconverged one left out."""
    cubic = Crystal.from_ase(bulk("C", "diamond", 3.541, cubic=True), "big")
    found = [
        relaxation(c, c, 0.0, energy)
        for c, energy in (
            (carbon("sc", 1.8), -6.0),
            (cubic, -9.002),
            (carbon("diamond", 3.54), -9.0),
            (Crystal.from_ase(bulk("Si"), "si"), -5.4),
            (carbon("sc", 1.78), -9.01),
        )
    ]
    ranked = rank([*found, lost(carbon("fcc", 3.0), PRESSURE, "late")])
    assert [(r.relaxed.initial.id, r.rank, r.copies) for r in ranked] == [
        ("sc-1.78", 1, 1),
        ("big", 2, 2),
        ("sc-1.8", 3, 1),
        ("si", 1, 1),
    ]
    assert [r.above for r in ranked] == pytest.approx(
        [r.relaxed.enthalpy - s.relaxed.enthalpy for r, s in zip(ranked, [*ranked[:1] * 3, ranked[3]], strict=True)]
    )
    assert ranked[0].to_crystal().properties["rank"] == 1.0
    assert [r.relaxed.initial.id for r in rank(found[::-1])] == [r.relaxed.initial.id for r in ranked]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The ids of the pairs that a ranking compares."""
    pairs: list[tuple[str, str]] = []

    def counting(firsts: Sequence[Crystal], seconds: Sequence[Crystal], *more: Any) -> Matches:
        pairs.extend((a.id, b.id) for a, b in zip(firsts, seconds, strict=True))
        return match_pairs(firsts, seconds, *more)

    monkeypatch.setattr(ranking, "match_pairs", counting)
    return pairs


def test_a_copy_of_a_copy_alone_is_a_minimum_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """a, b, c and d in a row, each alike its neighbours: b is a copy of a, c of none that stays, d of c."""

    def near(firsts: Sequence[Crystal], seconds: Sequence[Crystal], *_: Any) -> Matches:
        gaps = [np.abs(a.frac_coords - b.frac_coords).max() for a, b in zip(firsts, seconds, strict=True)]
        return Matches(np.zeros((len(gaps), 1)), np.array(gaps) < 0.1, {})

    monkeypatch.setattr(ranking, "match_pairs", near)
    template = carbon("diamond", 3.54)
    row = [replace(template, frac_coords=template.frac_coords + 0.09 * k, id="abcd"[k]) for k in range(4)]
    ranked = rank([relaxation(c, c, 0.0, -9.0 + 1e-4 * k) for k, c in enumerate(row)][::-1])
    assert [(r.relaxed.initial.id, r.copies) for r in ranked] == [("a", 2), ("c", 2)]


def test_nothing_is_compared_with_a_copy(asked: list[tuple[str, str]]) -> None:
    """However often a minimum was found, each time is one comparison with it."""
    diamond = carbon("diamond", 3.54)
    found = [relaxation(diamond.with_id(f"c{k}"), diamond.with_id(f"c{k}"), 0.0, -9.0 + 1e-5 * k) for k in range(9)]
    (minimum,) = rank(found)
    assert minimum.copies == 9
    assert sorted(asked) == [("c0", f"c{k}") for k in range(1, 9)]


def test_distances_to_neighbours_are_those_of_the_crystal_whatever_its_cell() -> None:
    """And of a plain loop over atoms and images; a duplicate in another cell is within the window of ranking."""
    rng = np.random.default_rng(0)
    crystal = Crystal(np.full(3, 6), rng.random((3, 3)), 2.6 * np.eye(3) + rng.random((3, 3)), "any")
    images = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3), -1).reshape(-1, 3) @ crystal.lattice
    carts = crystal.cart_coords
    all_of = [np.sort(np.linalg.norm(carts[None] + images[:, None] - a, axis=-1).ravel())[1:13] for a in carts]
    reach = 2 * np.cbrt(crystal.volume / 3)
    expected = np.minimum(all_of, reach).mean(axis=0)
    assert mean_neighbour_distances(crystal) == pytest.approx(expected)
    atoms = crystal.to_ase().repeat((2, 1, 3))[::-1]
    atoms.rotate(50, (1, 2, 3), rotate_cell=True)
    other = Crystal.from_ase(atoms)
    assert mean_neighbour_distances(other) == pytest.approx(expected)
    gas = replace(crystal, frac_coords=np.zeros((3, 3)) + 0.001 * np.arange(3)[:, None], lattice=90 * np.eye(3))
    assert np.isfinite(mean_neighbour_distances(gas)).all()


def test_what_has_other_neighbours_is_not_compared_at_all(asked: list[tuple[str, str]]) -> None:
    """As dense and as low as each other, thousands of minima need but a comparison with each that is like them."""
    diamond = Crystal.from_ase(bulk("C", "diamond", 3.54), "diamond")
    sc = Crystal.from_ase(bulk("C", "sc", np.cbrt(3.54**3 / 8)), "sc")
    fcc = Crystal.from_ase(bulk("C", "fcc", np.cbrt(3.54**3 / 2)), "fcc")
    found = [relaxation(c, c, 0.0, -9.0) for c in (diamond, sc, fcc, diamond.with_id("again"))]
    assert sorted(minimum.copies for minimum in rank(found)) == [1, 1, 2]
    assert asked == [("diamond", "again")]


def test_reasons_are_counted_without_their_figures_but_with_all_a_calculator_says() -> None:
    said = "the calculator failed: ValueError: no basis (for Xe), at step 3"
    reasons = [
        "not converged after 9 steps (force 1 eV/Å)",
        "not converged after 9 steps (force 2 eV/Å)",
        said,
        "the volume went to 3.1 times what it was, at step 4",
    ]
    assert count_reasons(reasons)[:2] == [("not converged after 9 steps", 2), (said, 1)]
    lines = reason_lines("not relaxed", [(f"reason {k}", 1) for k in range(25)])
    assert lines[0] == "not relaxed: 1 × reason 0"
    assert lines[-1] == "not relaxed: 15 × 15 other reasons"
