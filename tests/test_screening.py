"""Stability in one step: what it says is what relaxation, hull and comparison say one after another."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import dpcdvae
from dpcdvae.cli import main
from dpcdvae.evaluation.phases import Phase, Phases
from dpcdvae.io import read, write
from dpcdvae.relaxation import relax
from dpcdvae.screening import RELAXATION, against_hull, stability
from dpcdvae.structures.crystal import Crystal
from test_stability_report import EMT, alloy

SETTINGS = {"max_force": 0.05, "max_stress": 0.5, "max_steps": 300, "workers": 0}


def generated() -> list[Crystal]:
    return [alloy("Cu4", 3.7, "copper"), alloy("Cu3Au", 3.9, "cu3au"), alloy("Cu3Au", 3.85, "again")]


def phases() -> Phases:
    """The minima of EMT for the elements: copper and gold at rest."""
    pure = relax([alloy("Cu4", 3.6), alloy("Au4", 4.06)], calculator=EMT, **SETTINGS)
    return Phases("elements", [Phase(item.final.composition, item.energy) for item in pure], calculator=EMT)


def test_a_phase_of_the_hull_relaxes_onto_it_and_a_copy_counts_once_as_new() -> None:
    result = stability(generated(), phases(), calculator=EMT, training=[alloy("Cu4", 3.6)], **SETTINGS)
    rows = result.crystals()
    above = dict(zip(rows["id"], rows["energy_above_hull"], strict=True))
    assert above["copper"] == pytest.approx(0, abs=1e-4)
    assert above["cu3au"] == pytest.approx(above["again"], abs=1e-4)
    assert above["cu3au"] == pytest.approx(
        result.relaxed[1].energy
        - sum(share * phase.energy for share, phase in zip((0.75, 0.25), phases().phases, strict=True)),
        abs=1e-4,
    )
    assert sum(map(bool, rows["msun"])) == 1  # copper is in the training set, the other two are one structure
    assert result["match_rate"].value == 1
    assert all(shift > 0 for shift in rows["delta_energy"])


def test_what_does_not_converge_is_not_stable_and_says_why() -> None:
    relaxed = relax(generated(), calculator=EMT, **{**SETTINGS, "max_steps": 1})
    whole = relax(generated(), calculator=EMT, **SETTINGS)
    result = against_hull([*whole[:2], relaxed[2]], phases(), EMT)
    assert result.report.generated == 3
    assert result["stability"].n == 3
    assert [(f.id, f.where) for f in result.report.failures] == [("again", RELAXATION)]
    assert result.crystals()["converged"] == [True, True, False]
    assert "not converged" in str(result.crystals()["failure"][-1])
    assert result["sun"].value is None  # without a training set nothing is known to be new


def test_a_chemical_system_without_phases_is_counted(tmp_path: Path) -> None:
    result = stability([*generated(), alloy("Pd4", 3.9, "palladium")], phases(), calculator=EMT, **SETTINGS)
    rows = result.crystals()
    assert rows["failure"][-1] == "no elemental reference for Pd"
    assert rows["energy_above_hull"][-1] is None
    assert result["stability"].n == 4


def test_phases_that_lack_an_element_of_every_crystal_are_refused_before_any_relaxation(tmp_path: Path) -> None:
    others = [alloy("Pd4", 3.9, "palladium"), alloy("Pd2Ni2", 3.7, "both")]
    with pytest.raises(dpcdvae.InputError, match=r"elements: no elemental reference for Ni, Pd, so none of the 2"):
        stability(others, phases(), calculator=EMT, work=tmp_path / "work", **SETTINGS)
    assert not (tmp_path / "work").exists()


def files(folder: Path) -> tuple[str, str]:
    write([*generated(), alloy("Sr4", 6.0, "strontium")], folder / "crystals.extxyz")
    entries = [{"composition": p.amounts, "energy_per_atom": p.energy, "calculator": EMT} for p in phases().phases]
    (folder / "phases.json").write_text(json.dumps(entries))
    return str(folder / "crystals.extxyz"), str(folder / "phases.json")


def test_the_command_goes_on_from_its_store_and_writes_a_row_for_each_crystal(tmp_path: Path) -> None:
    crystals, hull = files(tmp_path)
    rules = ["--calculator", EMT, "--fmax", "0.05", "--smax", "0.5", "--workers", "0"]
    call = ["stability", crystals, "--phases", hull, *rules]
    outputs = {name: tmp_path / name for name in ("table.csv", "numbers.json", "relaxed.extxyz")}
    more = [v for k, p in zip(("--table", "--json", "--out"), outputs.values(), strict=True) for v in (k, str(p))]
    assert main([*call, *more]) == 0
    rows = list(csv.DictReader(outputs["table.csv"].open()))
    assert [row["id"] for row in rows] == ["copper", "cu3au", "again", "strontium"]
    assert (rows[-1]["formula"], rows[-1]["converged"]) == ("Sr", "false")
    assert "calculator failed" in rows[-1]["failure"]  # EMT knows no strontium
    report = json.loads(outputs["numbers.json"].read_text())
    assert report["ground_state"]["crystals"]["given"] == report["stability"]["crystals"]["generated"] == 4
    assert len(read(outputs["relaxed.extxyz"])) == 3
    beside = json.loads((tmp_path / "relaxed.extxyz.manifest.json").read_text())
    assert (beside["converged"], [item["id"] for item in beside["failures"]]) == (3, ["strontium"])
    manifest = json.loads((tmp_path / "table.csv.manifest.json").read_text())
    assert manifest["arguments"]["calculator"] == EMT
    records = tmp_path / "crystals.extxyz.work" / "records.txt"
    before = records.read_text()
    assert main([*call, "--table", str(tmp_path / "again.csv")]) == 0
    assert (tmp_path / "again.csv").read_text() == outputs["table.csv"].read_text()
    assert records.read_text() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--phases", "none.json"], "none.json"),
        (["--table", "t.txt"], "written as .csv"),
        (["--calculator", "chgnt"], "did you mean 'chgnet'"),
    ],
)
def test_bad_input_is_refused_before_any_relaxation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], said: str
) -> None:
    crystals, hull = files(tmp_path)
    given = {"--phases": hull, "--calculator": EMT, **dict(zip(change[::2], change[1::2], strict=True))}
    assert main(["stability", crystals, *(word for pair in given.items() for word in pair)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "crystals.extxyz.work").exists()


def test_nothing_that_converges_is_an_error() -> None:
    with pytest.raises(dpcdvae.InputError, match=r"none of 1 crystals could be relaxed: .*not converged"):
        stability([alloy("Cu3Au", 4.4)], phases(), calculator=EMT, **{**SETTINGS, "max_steps": 1})


def test_a_fixed_space_group_is_kept_where_it_would_be_lost() -> None:
    """A symmetric crystal on a saddle point with rounding pushed into it; with the symmetry fixed it cannot leave."""
    from dpcdvae.relaxation.minimise import Settings
    from test_standardise import group_of

    crystal = alloy("Cu3Au", 3.5)
    plain, fixed = (relax([crystal], calculator=EMT, **SETTINGS, fix_symmetry=value)[0] for value in (False, True))
    assert group_of(fixed.final) == group_of(crystal)
    assert fixed.energy == pytest.approx(plain.energy, abs=1e-3)
    assert "fix_symmetry" not in Settings().to_json()  # folders of earlier versions are gone on with
    assert Settings.of(**Settings(fix_symmetry=True).to_json()).fix_symmetry
    with pytest.raises(dpcdvae.InputError, match="fix_symmetry"):
        Settings(fix_symmetry=1)


def test_a_cell_without_a_space_group_is_counted_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise TypeError("spglib found none")

    monkeypatch.setattr("ase.constraints.FixSymmetry", fails)
    lost = relax([alloy("Cu4", 3.6)], calculator=EMT, **SETTINGS, fix_symmetry=True)[0]
    assert lost.reason == "no space group to keep: TypeError: spglib found none"


def test_the_symmetry_that_a_calculator_breaks_is_kept() -> None:
    """A pull along one axis makes a cube a brick, unless its space group is fixed."""
    crystal = alloy("Cu4", 3.6)
    rules = {**SETTINGS, "calculator": "toy_calculators:Pulled", "max_steps": 100}
    plain, fixed = (relax([crystal], **rules, fix_symmetry=value)[0] for value in (False, True))
    lengths = [np.linalg.norm(item.final.lattice, axis=1) for item in (plain, fixed)]
    assert np.ptp(lengths[0]) > 0.01
    assert np.ptp(lengths[1]) < 1e-6
