"""Energy above hull: laws of convex hulls, two independent ways to find one, and what happens without an energy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from dpcdvae.errors import InputError
from dpcdvae.evaluation import stability as module
from dpcdvae.evaluation.phases import Phase, Phases
from dpcdvae.evaluation.stability import (
    EnergySource,
    HullEnergies,
    Stability,
    energies_above_hull,
    property_energies,
)
from dpcdvae.parallel import HERE, Lost
from dpcdvae.parallel.results import Results
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import ATOMIC_NUMBERS

ELEMENTS = ("Sr", "Ti", "O")


def random_phases(seed: int, elements: Sequence[str] = ELEMENTS, count: int = 30) -> list[Phase]:
    """The elements, and compounds of all of them or of some, most of them not on the hull."""
    rng = np.random.default_rng(seed)
    phases = [Phase({element: 1}, float(rng.normal(-3, 2)), element) for element in elements]
    for k in range(count):
        amounts = rng.integers(0, 5, len(elements))
        if np.count_nonzero(amounts) > 1:
            mixed = float(amounts @ [phase.energy for phase in phases[: len(elements)]]) / amounts.sum()
            chosen = {element: int(n) for element, n in zip(elements, amounts, strict=True) if n}
            phases.append(Phase(chosen, mixed + float(rng.normal(-0.5, 0.6)), f"phase-{k}"))
    return phases


def crystal(amounts: Mapping[str, int], energy: float, id: str = "") -> Crystal:
    """With its energy per atom; where its atoms are plays no part."""
    numbers = [ATOMIC_NUMBERS[element] for element, n in amounts.items() for _ in range(n)]
    coords = np.linspace(0, 0.95, len(numbers))[:, None] * [1, 1, 1]
    return Crystal(numbers, coords, np.eye(3) * 9, id, {"energy_per_atom": energy})


def random_crystals(seed: int, elements: Sequence[str] = ELEMENTS, count: int = 40) -> list[Crystal]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        amounts = rng.multinomial(rng.integers(1, 12), np.ones(len(elements)) / len(elements))
        chosen = {element: int(n) for element, n in zip(elements, amounts, strict=True) if n}
        found.append(crystal(chosen, float(rng.normal(-4, 1)), f"c-{k}"))
    return found


def hull_of(crystals: Sequence[Crystal], phases: Sequence[Phase]) -> HullEnergies:
    judged = Stability(Phases("test", tuple(phases)), property_energies("energy_per_atom", crystals))
    return energies_above_hull(crystals, judged, Results(HERE, 60))


def as_crystals(phases: Sequence[Phase]) -> list[Crystal]:
    return [crystal({e: int(n) for e, n in phase.amounts.items()}, phase.energy, phase.id) for phase in phases]


@pytest.mark.parametrize("seed", range(3))
def test_no_phase_lies_below_its_own_hull_and_the_elements_lie_on_it(seed: int) -> None:
    phases = random_phases(seed)
    above = hull_of(as_crystals(phases), phases).above
    assert above.min() > -1e-9
    np.testing.assert_allclose(above[: len(ELEMENTS)], 0, atol=1e-9)
    assert np.count_nonzero(above < 1e-9) > len(ELEMENTS)  # some compound is stable
    assert np.count_nonzero(above > 1e-3) > 5  # and not all are


@pytest.mark.parametrize("seed", range(3))
def test_binary_agrees_with_a_convex_hull_of_points(seed: int) -> None:
    """Lower hull of (fraction, energy), and straight lines between its corners."""
    from scipy.spatial import ConvexHull

    elements = ("Ti", "O")
    phases, crystals = random_phases(seed, elements, 20), random_crystals(seed, elements)
    fraction = np.array([phase.fractions.get("O", 0.0) for phase in phases])
    energy = np.array([phase.energy for phase in phases])
    points = np.column_stack([fraction, energy])
    hull = ConvexHull(points)
    corners = {
        k for simplex, plane in zip(hull.simplices, hull.equations, strict=True) if plane[1] < 0 for k in simplex
    }
    lower = points[sorted(corners, key=lambda k: fraction[k])]
    expected = [
        c.properties["energy_per_atom"] - np.interp(c.composition.get("O", 0) / c.num_atoms, lower[:, 0], lower[:, 1])
        for c in crystals
    ]
    np.testing.assert_allclose(hull_of(crystals, phases).above, expected, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_ternary_agrees_with_linear_programming(seed: int) -> None:
    """The hull is the cheapest mixture of phases that has the composition."""
    from scipy.optimize import linprog

    phases, crystals = random_phases(seed), random_crystals(seed)
    shares = np.array([[phase.fractions.get(element, 0.0) for element in ELEMENTS] for phase in phases])
    expected = []
    for c in crystals:
        wanted = [c.composition.get(element, 0) / c.num_atoms for element in ELEMENTS]
        mixture = linprog([phase.energy for phase in phases], A_eq=shares.T, b_eq=wanted, method="highs")
        expected.append(c.properties["energy_per_atom"] - mixture.fun)
    found = hull_of(crystals, phases)
    np.testing.assert_allclose(found.above, expected, atol=1e-6)
    assert found.above.min() < -0.01 < 0.01 < found.above.max()
    assert not found.reasons


def test_decomposition_has_the_composition_and_the_energy_of_the_hull() -> None:
    phases = [
        Phase({"Sr": 1}, -1.5),
        Phase({"Ti": 1}, -7.75),
        Phase({"O": 2}, -4.9),
        Phase({"Sr": 1, "O": 1}, -5.9, "s-1"),
        Phase({"Ti": 1, "O": 2}, -8.8),
    ]
    found = hull_of([crystal({"Sr": 1, "Ti": 1, "O": 3}, -7.9)], phases)
    assert found.decompositions == ["0.6 TiO2 + 0.4 SrO (s-1)"]
    assert found.above[0] == pytest.approx(-7.9 - (0.6 * -8.8 + 0.4 * -5.9))


def test_supercells_lie_where_their_cells_lie() -> None:
    phases, crystals = random_phases(5), random_crystals(5)
    tripled = [crystal({e: 3 * n for e, n in c.composition.items()}, c.properties["energy_per_atom"]) for c in crystals]
    np.testing.assert_allclose(hull_of(tripled, phases).above, hull_of(crystals, phases).above, atol=1e-12)


def test_total_energies_and_energies_per_atom_say_the_same() -> None:
    phases, crystals = random_phases(5), random_crystals(5)
    totals = [
        Crystal(
            c.atomic_numbers, c.frac_coords, c.lattice, c.id, {"energy": c.properties["energy_per_atom"] * c.num_atoms}
        )
        for c in crystals
    ]
    judged = Stability(Phases("test", phases), property_energies("energy", totals))
    found = energies_above_hull(totals, judged, Results(HERE, 60))
    np.testing.assert_allclose(found.above, hull_of(crystals, phases).above, atol=1e-9)


def test_an_unstable_phase_and_phases_of_other_elements_change_nothing() -> None:
    phases, crystals = random_phases(6), random_crystals(6)
    others = [Phase({"Sr": 2, "O": 2}, 5.0), Phase({"Cs": 1}, -9.0), Phase({"Cs": 1, "O": 1}, -20.0)]
    np.testing.assert_array_equal(hull_of(crystals, [*others, *phases]).above, hull_of(crystals, phases).above)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("constant", [1.0, -1e5])
def test_another_zero_of_an_element_changes_nothing(element: str, constant: float) -> None:
    """A constant for each atom of one element, in the phases and in the crystals (-1e5 eV: all electrons count)."""
    phases, crystals = random_phases(7), random_crystals(7)
    moved_phases = [Phase(p.amounts, p.energy + constant * p.fractions.get(element, 0), p.id) for p in phases]
    moved = [
        crystal(c.composition, c.properties["energy_per_atom"] + constant * c.composition.get(element, 0) / c.num_atoms)
        for c in crystals
    ]
    np.testing.assert_allclose(hull_of(moved, moved_phases).above, hull_of(crystals, phases).above, atol=1e-9)


def test_a_lower_phase_moves_crystals_up_and_itself_onto_the_hull() -> None:
    phases, crystals = random_phases(8), random_crystals(8)
    found = hull_of(crystals, phases)
    deepest = int(np.argmin(found.above))
    added = Phase(crystals[deepest].composition, crystals[deepest].properties["energy_per_atom"])
    after = hull_of(crystals, [*phases, added]).above
    assert (after >= found.above - 1e-9).all()
    assert after[deepest] == pytest.approx(0, abs=1e-9)
    assert found.above[deepest] < -0.1


def test_order_of_phases_and_crystals_changes_nothing() -> None:
    phases, crystals = random_phases(9), random_crystals(9)
    np.testing.assert_allclose(
        hull_of(crystals[::-1], phases[::-1]).above[::-1], hull_of(crystals, phases).above, atol=1e-12
    )


def test_a_hull_is_built_once_for_each_set_of_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = module.hull_points

    def counting(task: tuple[Sequence[Phase], Sequence[Mapping[str, float]]]) -> list[module.HullPoint | Lost] | Lost:
        built.append(frozenset(itertools.chain.from_iterable(phase.amounts for phase in task[0])))
        return original(task)

    monkeypatch.setattr(module, "hull_points", counting)
    crystals = random_crystals(10)
    hull_of(crystals, random_phases(10))
    assert len(built) == len(set(built)) == len({frozenset(c.composition) for c in crystals})


def test_thresholds_include_round_off_and_leave_out_the_unknown() -> None:
    above = np.array([-2.0, 0.0, 1e-9, 1e-4, 0.1, 0.1 + 1e-9, 0.101, np.nan])
    found = HullEnergies(above, above, [None] * 8, {})
    np.testing.assert_array_equal(found.within(0.0), [1, 1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.within(0.1), [1, 1, 1, 1, 1, 1, 0, 0])


def test_what_has_no_hull_energy_is_reported_with_the_reason() -> None:
    phases = random_phases(11)
    sound = crystal({"Sr": 1, "O": 1}, -5.0)
    without = Crystal(sound.atomic_numbers, sound.frac_coords, sound.lattice, "b")
    endless = Crystal(sound.atomic_numbers, sound.frac_coords, sound.lattice, "c", {"energy_per_atom": np.inf})
    broken = Crystal(sound.atomic_numbers, sound.frac_coords * np.nan, sound.lattice, "d", {"energy_per_atom": -5.0})
    strange = crystal({"Cs": 1, "O": 1, "Xe": 1}, -5.0)
    found = hull_of([sound, without, endless, broken, strange], phases)
    np.testing.assert_array_equal(np.isfinite(found.above), [True, False, False, False, False])
    assert found.reasons == {
        1: "no property 'energy_per_atom'",
        2: "the energy is not finite",
        3: "coordinates are not finite",
        4: "no elemental reference for Cs, Xe",
    }
    assert [text is None for text in found.decompositions] == [False, True, True, True, True]


def test_what_cannot_have_a_hull_energy_costs_no_calculation() -> None:
    asked = []

    def energy(c: Crystal) -> float | Lost:
        asked.append(c.id)
        return Lost("too long") if c.id == "b" else -5.0

    crystals = [crystal({"Sr": 1}, 0, "a"), crystal({"O": 1}, 0, "b"), crystal({"Cs": 1}, 0, "c")]
    judged = Stability(Phases("test", random_phases(12)), EnergySource("toy", energy))
    found = energies_above_hull(crystals, judged, Results(HERE, 60))
    assert asked == ["a", "b"]
    assert found.reasons == {1: "too long", 2: "no elemental reference for Cs"}
    assert found.above[0] == pytest.approx(-5.0 - judged.phases.phases[0].energy)


def test_noble_gases_have_hulls_and_no_warnings(recwarn: pytest.WarningsRecorder) -> None:
    phases = [Phase({"Xe": 1}, 0.0), Phase({"He": 1}, 0.0), Phase({"Xe": 1, "He": 2}, -0.3, "a")]
    found = hull_of([crystal({"Xe": 2, "He": 2}, 0.0)], phases)
    assert found.decompositions == ["0.75 XeHe2 (a) + 0.25 Xe"]
    assert found.above[0] == pytest.approx(0.225)
    assert not recwarn.list


def test_a_hull_that_fails_is_a_reason_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymatgen.analysis import phase_diagram

    def fail(*_: object) -> None:
        raise RuntimeError("QH6154 initial simplex is flat")

    monkeypatch.setattr(phase_diagram, "get_facets", fail)
    found = hull_of([crystal({"Sr": 1, "O": 1}, -5.0), crystal({"Sr": 1}, -5.0)], random_phases(13))
    assert found.reasons == {0: "RuntimeError: QH6154 initial simplex is flat"}
    assert np.isfinite(found.above[1])  # a single element has no facets


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("e_dft", "e_dft:total or e_dft:per_atom"),
        ("energy:cell", "energy:total"),
        ("energy_per_atm:per_atom", "did you mean 'energy_per_atom'"),
        ("energy", "did you mean"),
    ],
)
def test_a_property_that_is_unclear_or_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        property_energies(name, [crystal({"Sr": 1}, -1.0)])


def test_crystals_without_properties_are_refused() -> None:
    bare = Crystal([38], [[0, 0, 0]], np.eye(3) * 6)
    with pytest.raises(InputError, match="carry no properties"):
        property_energies("energy", [bare])
    assert property_energies("energy", []).name == "property energy (eV)"  # nothing could be read: told elsewhere


def test_the_unit_of_an_energy_can_be_stated() -> None:
    crystals = [Crystal([38, 8], [[0, 0, 0], [0.5] * 3], np.eye(3) * 4, "", {"e_dft": -8.0})]
    assert property_energies("e_dft:total", crystals).energy(crystals[0]) == -8.0
    assert property_energies("e_dft:per_atom", crystals).energy(crystals[0]) == -16.0
    assert "eV/atom" in property_energies("e_dft:per_atom", crystals).name
