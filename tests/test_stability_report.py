"""Energy above hull in a report: single points, cached results, notes, and the command."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.cli import main
from dpcdvae.cli.energies import HullEnergies, energies_by, parse_options
from dpcdvae.errors import InputError
from dpcdvae.evaluation import evaluate
from dpcdvae.evaluation.crystal_columns import COLUMNS
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.metrics import stability as metrics
from dpcdvae.evaluation.phases import Phase, Phases
from dpcdvae.evaluation.reference import as_reference
from dpcdvae.evaluation.sample import Sample
from dpcdvae.evaluation.stability import EnergySource, Stability, energies_above_hull, property_energies
from dpcdvae.intervals import Number
from dpcdvae.io import Failure, write
from dpcdvae.parallel import HERE, LocalEngine, Lost
from dpcdvae.parallel import results as result_cache
from dpcdvae.parallel.results import Results
from dpcdvae.relaxation import calculators, single_point
from dpcdvae.relaxation.single_point import SinglePoint, single_points
from dpcdvae.structures.crystal import Crystal

EMT = "ase.calculators.emt:EMT"


def alloy(symbols: str, a: float = 3.9, id: str = "", **properties: float) -> Crystal:
    """Four atoms where those of a face-centred cubic cell are."""
    from ase import Atoms

    coords = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    atoms = Atoms(symbols, scaled_positions=coords, cell=np.eye(3) * a, pbc=True)
    return replace(Crystal.from_ase(atoms, id), properties=properties)


def emt_energy(crystal: Crystal) -> float:
    from ase.calculators.emt import EMT

    atoms = crystal.to_ase()
    atoms.calc = EMT()
    return float(atoms.get_potential_energy())


def alloy_phases() -> Phases:
    """EMT's energies of three elements at sensible volumes, and of one compound that is not stable."""
    found = [alloy("Cu4", 3.6), alloy("Au4", 4.06), alloy("Pd4", 3.88), alloy("Cu2Au2", 4.3)]
    return Phases("alloys", [Phase(c.composition, emt_energy(c) / 4, c.formula) for c in found], calculator=EMT)


def sample_of(
    crystals: Sequence[Crystal], stability: Stability | None, training: Sequence[Crystal] | None = None, **changes: Any
) -> Sample:
    known = None if training is None else as_reference(list(training))
    made = Sample(
        crystals, [], as_reference([alloy("Cu4")]), False, Results(HERE, 60.0), 0, training=known, stability=stability
    )
    return replace(made, **changes)


def numbers(sample: Sample, name: str) -> list[Number]:
    return METRICS[name].measure(sample)


def test_single_points_are_those_of_the_calculator_whatever_came_before() -> None:
    """EMT breaks on strontium halfway; what follows must not know."""
    energy = SinglePoint(EMT, "{}")
    crystals = [alloy("Cu3Au"), alloy("Sr4"), alloy("Cu4", 3.5), alloy("CuAu3"), alloy("Sr2Au2"), alloy("Cu3Au")]
    found = [energy(crystal) for crystal in crystals]
    for crystal, value in zip(crystals, found, strict=True):
        if "Sr" in crystal.composition:
            assert value == Lost(f"{EMT} failed: NotImplementedError: No EMT-potential for Sr")
        else:
            assert value == emt_energy(crystal)


def test_worker_processes_give_the_same(tmp_path: Path) -> None:
    crystals = [alloy("Cu3Au", id="a"), alloy("Sr4", id="b"), alloy("CuPdAu2", id="c")]
    source = energies_by(EMT, {})
    assert b"dpcdvae.cli" not in pickle.dumps(source.vector)  # a worker needs no command line
    judged = Stability(alloy_phases(), source)
    here = energies_above_hull(crystals, judged, Results(HERE, 60))
    with LocalEngine(1) as engine:
        there = energies_above_hull(crystals, judged, Results(engine, 60))
    np.testing.assert_array_equal(here.above, there.above)
    assert here.reasons == there.reasons == {1: "no elemental reference for Sr"}
    assert here.decompositions == there.decompositions


def test_a_calculator_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = single_point.build_calculator

    def counting(name: str, options: dict[str, Any]) -> Any:
        built.append(options)
        return original(name, options)

    monkeypatch.setattr(single_point, "build_calculator", counting)
    single_point._built.cache_clear()
    energy = single_points(EMT, {"asap_cutoff": True})
    for _ in range(3):
        energy(alloy("Cu4"))
    assert built == [{"asap_cutoff": True}]


def test_an_element_the_calculator_was_not_made_for_has_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A potential gives a number for radium too, though it has never seen it."""
    monkeypatch.setattr(calculators, "known_elements", lambda name, calculator: {29, 79})
    energy = SinglePoint(EMT, "{}")
    assert energy(alloy("CuAu3")) == emt_energy(alloy("CuAu3"))
    assert energy(alloy("CuPd3")) == Lost(f"{EMT} does not know Pd")


def test_costly_energies_are_kept_where_all_that_shapes_them_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_cache, "WORTH_KEEPING", 0.0)
    asked = []

    def energy(crystal: Crystal) -> float | Lost:
        asked.append(crystal.id)
        return Lost("no luck") if crystal.id == "c" else emt_energy(crystal)

    crystals = [alloy("Cu3Au", id="a"), alloy("CuAu3", id="b"), alloy("Au4", id="c")]
    results = []
    for settings in ({"version": "1"}, {"version": "1"}, {"version": "2"}, None, None):
        judged = Stability(alloy_phases(), EnergySource("toy", energy, settings=settings))
        results.append(energies_above_hull(crystals, judged, Results(HERE, 60, tmp_path)).above)
    assert asked == [*"abc", *"c", *"abc", *"abc", *"abc"]  # what was lost is tried again
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_energies_are_kept_only_where_nothing_unseen_shapes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A module may be the user's own, and change between two runs; so may a file of weights."""
    pytest.importorskip("chgnet")
    monkeypatch.setattr(single_point, "_built", lambda name, options: None)
    assert energies_by(EMT, {}).settings is None
    weights, kept = tmp_path / "weights.pth", []
    for content in ("a", "a", "b"):
        weights.write_text(content)
        kept.append(energies_by("chgnet", {"model_name": str(weights)}).settings)
    assert kept[0] == kept[1] != kept[2]
    settings = energies_by("chgnet", {"use_device": "cpu"}).settings
    assert settings is not None
    assert settings["options"] == '{"use_device": "cpu"}'
    assert settings["version"]


def test_rates_count_all_generated_and_the_note_names_every_source() -> None:
    """Of six: one on the hull, one above, one far above, one of a strange element, one without energy, one unread."""
    phases = Phases("phases.csv", [Phase({"Cu": 1}, -1.0), Phase({"Au": 1}, -2.0)], calculator="vasp")
    energies = {"Cu4": -1.0, "Cu3Au": -1.2, "CuAu3": 0.0, "SrAu3": -9.0}
    crystals = [alloy(formula, id=formula, energy_per_atom=energy) for formula, energy in energies.items()]
    crystals.append(alloy("Au4", id="bare"))
    source = property_energies("energy_per_atom", crystals, "chgnet")
    judged = sample_of(crystals, Stability(phases, source), failures=[Failure("f", "file", "cut off")])
    stable, metastable = numbers(judged, "stability")
    assert (stable.value, metastable.value) == (1 / 6, 2 / 6)
    assert (stable.n, stable.gate, metastable.gate) == (6, "<= 0 eV/atom", "<= 0.1 eV/atom")
    for told in (
        "2 phases of phases.csv",
        "property energy_per_atom (eV/atom)",
        "energies by chgnet, phases by vasp: not comparable",
        "2 without energy above hull",
        "no elemental reference for Sr (1)",
        "no property 'energy_per_atom' (1)",
    ):
        assert told in stable.note
    single = sample_of(crystals, Stability(phases, replace(source, costly=True)))
    assert "crystals as given" in numbers(single, "stability")[0].note
    (mean,), (median,) = numbers(judged, "energy_above_hull"), numbers(judged, "energy_above_hull_median")
    assert mean.value == pytest.approx(np.mean([0, 0.05, 1.75]))
    assert median.value == pytest.approx(0.05)
    assert mean.n == median.n == 3
    assert {(entry["id"], entry["reason"]) for entry in judged.given_up} == {
        ("SrAu3", "no elemental reference for Sr"),
        ("bare", "no property 'energy_per_atom'"),
    }


def test_what_lies_impossibly_low_is_pointed_at() -> None:
    phases = Phases("p", [Phase({"Cu": 1}, -1.0)])
    crystals = [alloy("Cu4", energy_per_atom=-1.5), alloy("Cu4", energy_per_atom=-40.0)]
    judged = sample_of(crystals, Stability(phases, property_energies("energy_per_atom", crystals)))
    assert "1 more than 1 eV/atom below the hull" in numbers(judged, "stability")[0].note


def test_nothing_known_gives_no_values_and_nothing_asked_no_numbers() -> None:
    crystals = [alloy("Sr4", energy_per_atom=-1.0)]
    judged = sample_of(crystals, Stability(alloy_phases(), property_energies("energy_per_atom", crystals)))
    names = ("stability", "energy_above_hull", "energy_above_hull_median")
    assert [[number.value for number in numbers(judged, name)] for name in names] == [[0.0, 0.0], [None], [None]]
    assert all(numbers(sample_of(crystals, None), name) == [] for name in (*names, "sun", "msun"))


def new_crystals() -> list[Crystal]:
    """Of copper and gold, whose elements lie at 0: two new structures and a known one, most of them several times."""
    return [
        alloy("Cu3Au", 3.8, "known", energy_per_atom=-0.5),
        alloy("CuAu3", 3.9, "high", energy_per_atom=0.09),
        alloy("CuAu3", 3.9, "low", energy_per_atom=-0.2),
        alloy("CuAu3", 4.0, "higher", energy_per_atom=0.5),
        alloy("Cu2Au2", 3.9, "once", energy_per_atom=0.05),
    ]


def new_sample(crystals: Sequence[Crystal], training: Sequence[Crystal] | None, **changes: Any) -> Sample:
    phases = Phases("p", [Phase({"Cu": 1}, 0.0), Phase({"Au": 1}, 0.0)])
    source = property_energies("energy_per_atom", crystals)
    return sample_of(crystals, Stability(phases, source), training, **changes)


def chosen(sample: Sample, name: str) -> list[str]:
    flags = COLUMNS[name].measure(sample)
    return sorted(crystal.id for crystal, flag in zip(sample.crystals, flags, strict=True) if flag)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_new_stable_structures_are_counted_once_whatever_the_order(order: list[int]) -> None:
    crystals = new_crystals()
    judged = new_sample([crystals[k] for k in order], [alloy("Cu3Au", 3.7)], failures=[Failure("f", "file", "cut off")])
    (sun,), (msun,) = numbers(judged, "sun"), numbers(judged, "msun")
    assert (sun.value, sun.n) == (1 / 6, 6)
    assert (msun.value, msun.n) == (2 / 6, 6)
    assert chosen(judged, "sun") == ["low"]
    assert chosen(judged, "msun") == ["low", "once"]
    assert "2 within, 1 of them novel" in sun.note
    assert "4 within, 3 of them novel" in msun.note


def test_what_training_holds_is_not_new_and_nothing_is_without_training() -> None:
    crystals = new_crystals()
    assert numbers(new_sample(crystals, crystals), "msun")[0].value == 0
    assert numbers(new_sample(crystals, [alloy("Pd4")]), "sun")[0].value == 2 / 5
    (unknown,) = numbers(new_sample(crystals, None), "sun")
    assert unknown.value is None
    assert "no training set" in unknown.note
    assert COLUMNS["sun"].measure(new_sample(crystals, None)) == []


def test_an_undecided_comparison_is_not_counted_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = new_crystals()
    original = metrics.match_training

    def cut(near: Sequence[Crystal], *arguments: Any, **options: Any) -> Any:
        found = original(near, *arguments, **options)
        return replace(found, reasons={n: "too long" for n, crystal in enumerate(near) if crystal.id == "once"})

    monkeypatch.setattr(metrics, "match_training", cut)
    judged = new_sample(crystals, [alloy("Cu3Au", 3.7)])
    (msun,) = numbers(judged, "msun")
    assert msun.value == 1 / 5
    assert msun.undecided == 1
    assert {"what": "stable, unique and novel", "id": "once", "reason": "too long"} in judged.given_up


def test_a_protocol_without_it_refuses_it() -> None:
    crystals = [alloy("Cu4", energy_per_atom=-1.0)]
    judged = Stability(alloy_phases(), property_energies("energy_per_atom", crystals))
    with pytest.raises(InputError, match="no effect"):
        evaluate(crystals, crystals, workers=0, protocol="cdvae", stability=judged)


def test_options_of_a_calculator_are_values_or_text() -> None:
    found = parse_options(["a=1", "b=0.5", "c=true", "d=cpu", "e=[1, 2]", "f=x=y", "g="])
    assert found == {"a": 1, "b": 0.5, "c": True, "d": "cpu", "e": [1, 2], "f": "x=y", "g": ""}
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="KEY=VALUE"):
            parse_options(bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy_property": "energy"}, "--energy-property is for energies above hull.*--phases"),
        ({"calculator": EMT}, "--calculator is for energies above hull"),
        ({"phases": True}, "give --energy-property NAME or --calculator NAME"),
        ({"phases": True, "energy_property": "energy", "calculator": EMT}, "give one of them"),
        ({"phases": True, "energy_property": "energy", "calculator_option": ["a=1"]}, "without --calculator"),
        ({"phases": True, "calculator": "chgnett"}, "did you mean 'chgnet'"),
        ({"phases": True, "calculator": EMT, "calculator_option": ["mood=good"]}, "option of calculator"),
        ({"phases": True, "energy_property": "energi"}, "energi:total or energi:per_atom"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    phases = tmp_path / "phases.csv"
    phases.write_text("composition,energy_per_atom\nCu,-1\n")
    given: dict[str, Any] = dict.fromkeys(("phases", "energy_property", "calculator", "calculator_option")) | options
    given["phases"] = phases if given["phases"] else None
    with pytest.raises(InputError, match=message):
        HullEnergies(**given).load([alloy("Cu4", energy=-4.0)], tmp_path / "crystals.extxyz")


def test_the_command_reports_energies_above_hull(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phases = tmp_path / "phases.csv"
    with phases.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "composition", "energy_per_atom"])
        writer.writerows([p.id, next(iter(p.amounts)), p.energy] for p in alloy_phases().phases[:3])
    crystals = [alloy("Cu3Au", id="a"), alloy("PdAu3", id="b"), alloy("Sr4", id="c")]
    file = write(crystals, tmp_path / "crystals.extxyz")
    what = f"evaluate {file} --reference {file} --phases {phases}"
    how = f"--calculator {EMT} --baselines none --workers 0"
    assert main(f"{what} {how} --all --json {tmp_path}/n.json --table {tmp_path}/t.csv".split()) == 0
    document = json.loads((tmp_path / "n.json").read_text())
    settings = document["settings"]["stability"]
    assert settings["phases"] == str(phases)
    assert settings["energies_calculator"] == EMT
    (mean,) = (entry for entry in document["metrics"] if entry["name"] == "energy_above_hull")
    with (tmp_path / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    reference = {next(iter(p.amounts)): p.energy for p in alloy_phases().phases[:3]}
    for row, crystal in zip(rows[:2], crystals, strict=False):
        mixed = sum(n * reference[element] for element, n in crystal.composition.items())
        assert float(row["energy_above_hull"]) == pytest.approx((emt_energy(crystal) - mixed) / 4)
    assert mean["value"] == pytest.approx(np.mean([float(row["energy_above_hull"]) for row in rows[:2]]))
    assert rows[1]["decomposition"] == "0.75 Au + 0.25 Pd"
    assert rows[2]["energy_above_hull"] == ""
    assert "no elemental reference for Sr" in rows[2]["given_up"]
    assert "no elemental reference for Sr" in " ".join(capsys.readouterr().out.split())
    assert main([*what.split(), "--energy-property", "energy"]) == 2
    assert "carry no properties" in capsys.readouterr().err
