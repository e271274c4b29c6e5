"""Relaxation: signs of pressure and stress, minima known on paper, and ends that are no minima."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT as EMTCalculator

from crystal_files import message
from dpcdvae.relaxation.minimise import OPTIMIZERS, Settings, relax
from dpcdvae.relaxation.overlaps import APART, TOO_CLOSE, closest_contact, push_apart
from dpcdvae.relaxation.relaxed_crystal import GPA_A3_PER_EV, Relaxed
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import covalent_radii
from toy_calculators import STIFFNESS, VOLUME, Odd, Spring

EMT = "ase.calculators.emt:EMT"


def strained(symbol: str, seed: int, *, cubic: bool = False) -> Crystal:
    """An fcc crystal with a cell and atoms a little off."""
    rng = np.random.default_rng(seed)
    crystal = Crystal.from_ase(bulk(symbol, cubic=cubic), f"{symbol}-{seed}")
    strain = np.eye(3) + 0.02 * rng.normal(size=(3, 3))
    shifts = 0.02 * rng.normal(size=crystal.frac_coords.shape)
    return replace(crystal, lattice=crystal.lattice @ strain, frac_coords=crystal.frac_coords + shifts)


def emt() -> object:
    return EMTCalculator()


def emt_energy(crystal: Crystal, scale: float) -> float:
    """eV/atom of the crystal with its volume times ``scale``."""
    atoms = crystal.to_ase()
    atoms.set_cell(atoms.cell.array * np.cbrt(scale), scale_atoms=True)
    atoms.calc = emt()
    return float(atoms.get_potential_energy()) / len(atoms)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("pressure", [-3.0, 0.0, 10.0])
def test_pressure_compresses_to_the_volume_known_on_paper(optimizer: str, pressure: float) -> None:
    settings = Settings("toy", pressure=pressure, optimizer=optimizer, max_stress=0.01)
    result = relax(strained("Cu", 0), settings, Spring())
    assert result.converged
    assert result.reason == ""
    expected = VOLUME - pressure / GPA_A3_PER_EV / STIFFNESS
    assert result.volume == pytest.approx(expected, abs=0.01 / GPA_A3_PER_EV / STIFFNESS)
    # p v + ½ K (v - v0)² at the minimum
    p = pressure / GPA_A3_PER_EV
    assert result.enthalpy == pytest.approx(p * VOLUME - p**2 / 2 / STIFFNESS, abs=1e-6)
    assert result.stress[:3] == pytest.approx([-pressure] * 3, abs=0.01)


def test_at_rest_the_energy_falls_with_volume_as_the_pressure_says() -> None:
    volumes = []
    for pressure in (0.0, 10.0):
        settings = Settings(EMT, pressure=pressure, optimizer="lbfgs", max_stress=0.02)
        result = relax(strained("Cu", 1), settings, emt())
        assert result.converged
        assert result.enthalpy <= result.initial_enthalpy
        # An independent route: energies alone, by central differences.
        step = 1e-3
        rise = emt_energy(result.final, 1 + step) - emt_energy(result.final, 1 - step)
        assert -rise / (2 * step * result.volume) * GPA_A3_PER_EV == pytest.approx(pressure, abs=0.03)
        assert result.energy == pytest.approx(emt_energy(result.final, 1.0))
        assert result.initial_energy == pytest.approx(emt_energy(result.initial, 1.0))
        volumes.append(result.volume)
    assert volumes[1] < volumes[0]


def test_turned_shifted_and_repeated_crystals_relax_to_the_same() -> None:
    settings = Settings(EMT, optimizer="lbfgs")
    crystal = strained("Ni", 2)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = replace(crystal, lattice=crystal.lattice @ rotation, frac_coords=crystal.frac_coords + 0.3)
    doubled = Crystal(
        np.tile(crystal.atomic_numbers, 2), np.array([[0.0, 0, 0], [0.5, 0, 0]]), crystal.lattice * [[2], [1], [1]]
    )
    results = [relax(c, settings, emt()) for c in (crystal, turned, doubled)]
    for result in results:
        assert result.converged
        assert result.energy == pytest.approx(results[0].energy, abs=1e-4)
        assert result.initial_energy == pytest.approx(results[0].initial_energy, abs=1e-9)
        assert result.volume == pytest.approx(results[0].volume, rel=2e-3)


def test_unconverged_is_not_called_converged() -> None:
    result = relax(strained("Cu", 3), Settings(EMT, max_steps=2), emt())
    assert not result.converged
    assert result.steps == 2
    assert result.reason.startswith("not converged after 2 steps (force ")
    assert np.isfinite(result.energy)
    assert result.to_crystal().properties["converged"] == 0.0


def test_atoms_upon_one_another_do_not_explode() -> None:
    """Four copper atoms, two pairs of them 0.3 and 0 Å apart, find a dense packing."""
    frac_coords = np.array([[0, 0, 0], [0.3 / 3.6, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]])
    crystal = Crystal(np.full(4, 29), frac_coords, 3.6 * np.eye(3), "heap")
    result = relax(crystal, Settings(EMT, optimizer="lbfgs"), emt())
    assert result.pushed_apart
    assert result.converged
    assert result.energy < 0.1  # eV/atom, above fcc in EMT
    assert result.initial_energy > 100
    assert not relax(strained("Cu", 3), Settings(EMT, max_steps=1), emt()).pushed_apart


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("swell", "the volume went to 3"),
        ("shrink", "the volume went to 0."),
        ("merge", "atoms merged (Cu-Cu at "),
        ("nan", "energy, forces or stress are not finite at step 0"),
        ("burst", "the calculator failed: ValueError: array must not contain infs or NaNs"),
        ("raise", "the calculator failed: RuntimeError: the code crashed"),
    ],
)
def test_what_no_crystal_does_ends_with_a_reason(kind: str, reason: str) -> None:
    result = relax(strained("Cu", 4, cubic=True), Settings("toy"), Odd(kind=kind))
    assert not result.converged
    assert result.reason.startswith(reason)
    assert result.final.problem() is None


def test_where_the_calculator_fails_the_state_before_is_what_is_kept() -> None:
    class Tiring(EMTCalculator):
        done = 0

        def calculate(self, *arguments: object, **keywords: object) -> None:
            self.done += 1
            if self.done > 4:
                raise RuntimeError("tired")
            super().calculate(*arguments, **keywords)

    result = relax(strained("Cu", 4), Settings("toy"), Tiring())
    assert result.reason == "the calculator failed: RuntimeError: tired"
    assert result.steps == 3
    assert result.final.volume == pytest.approx(result.volume)
    assert emt_energy(result.final, 1.0) == pytest.approx(result.energy)


def test_atoms_without_a_neighbour_are_at_rest_but_no_crystal() -> None:
    """A gas lies still at no pressure: called converged, it would match itself and rank as a minimum."""
    gas = Crystal(np.array([29, 29]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), 40.0 * np.eye(3), "gas")
    result = relax(gas, Settings(EMT), emt())
    assert not result.converged
    assert result.reason == "an atom has no other within 6 Å (Cu), at step 0"
    dimer = replace(gas, frac_coords=np.array([[0, 0, 0], [0.05, 0, 0]]))
    assert relax(dimer, Settings(EMT), emt()).converged


def test_a_crystal_that_is_none_is_refused_before_any_calculation() -> None:
    crystal = Crystal(np.array([29]), np.zeros((1, 3)), np.full((3, 3), np.nan), "nan")
    result = relax(crystal, Settings("toy"), Odd(kind="raise"))
    assert (result.converged, result.reason) == (False, "the lattice is not finite")


def test_a_start_of_its_own_leaves_the_initial_energy_that_of_the_crystal() -> None:
    crystal, start = strained("Cu", 5), strained("Cu", 6)
    result = relax(crystal, Settings("toy", max_stress=1.0), Spring(), start=start)
    assert result.initial is crystal
    assert result.initial_volume == pytest.approx(crystal.volume)
    assert result.initial_energy == pytest.approx(STIFFNESS * (crystal.volume - VOLUME) ** 2 / 2)


@pytest.mark.parametrize("seed", range(5))
def test_pushed_apart_atoms_are_apart(seed: int) -> None:
    """Also where there is no room in the cell, or an atom is its own neighbour."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    crystal = Crystal(rng.choice([1, 6, 29, 55], n), rng.random((n, 3)), rng.uniform(0.5, 4) * np.eye(3))
    pushed = push_apart(crystal)
    assert closest_contact(pushed, APART) is None
    assert pushed.atomic_numbers.tolist() == crystal.atomic_numbers.tolist()
    assert np.allclose(np.cross(pushed.lattice[0], crystal.lattice[0]), 0)  # the cell keeps its shape


def test_a_cell_that_is_short_in_one_direction_is_stretched_in_that_one() -> None:
    """Whatever its vectors are called; grown alike in all directions it would be a gas."""
    thin = Crystal(np.full(2, 6), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.diag([0.3, 5.0, 6.0]))
    skew = replace(thin, lattice=np.array([[1, 0, 0], [7, 1, 0], [0, 0, 1]]) @ thin.lattice)
    for crystal in (thin, skew):
        pushed = push_apart(crystal)
        assert closest_contact(pushed, APART) is None
        assert pushed.volume == pytest.approx(5 * 6 * 1.01 * 0.75 * 2 * 0.73)


def test_closest_contact_is_that_of_all_pairs() -> None:
    radii = covalent_radii()
    rng = np.random.default_rng(7)
    crystal = Crystal(np.array([6, 6, 8, 29]), rng.random((4, 3)), 4.0 * np.eye(3))
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)
    frac, radius = crystal.frac_coords, radii[crystal.atomic_numbers]

    def ratio(i: int, j: int, shift: np.ndarray) -> float:
        return float(np.linalg.norm((frac[j] - frac[i] + shift) @ crystal.lattice)) / (radius[i] + radius[j])

    pairs = itertools.product(range(4), range(4))
    best = min((ratio(i, j, shift), i, j) for i, j in pairs for shift in shifts if i != j or shift.any())
    symbols, distance = closest_contact(crystal, best[0] * 1.001)
    assert sorted(symbols.split("-")) == sorted(crystal.symbols[k] for k in best[1:])
    numbers = crystal.atomic_numbers[list(best[1:])]
    assert distance == pytest.approx(best[0] * radii[numbers].sum())
    assert closest_contact(crystal, best[0] * 0.999) is None


def test_no_contact_in_crystals_as_they_are() -> None:
    for crystal in (strained("Cu", 8), Crystal.from_ase(bulk("C")), Crystal.from_ase(bulk("NaCl", "rocksalt", a=5.64))):
        assert closest_contact(crystal, TOO_CLOSE) is None


def test_records_keep_every_digit_and_properties_name_their_units() -> None:
    crystal = replace(strained("Cu", 9), properties={"band_gap": 1.5, "energy": 7.0, "copies": 2.0, "steps": 99.0})
    result = relax(crystal, Settings(EMT, pressure=5, max_steps=3), emt())
    again = Relaxed.from_record(result.to_record(), crystal)
    for name in ("energy", "enthalpy", "initial_enthalpy", "volume", "max_force", "steps", "reason", "seconds"):
        assert getattr(again, name) == getattr(result, name)
    assert np.array_equal(again.final.frac_coords, result.final.frac_coords)
    assert np.array_equal(again.stress, result.stress)
    assert np.array_equal(again.forces, result.forces)
    properties = again.to_crystal().properties
    assert (properties["band_gap"], properties["steps"]) == (1.5, result.steps)
    assert "copies" not in properties  # of the crystal that it was
    assert properties["energy"] == pytest.approx(crystal.num_atoms * properties["energy_eV_per_atom"])
    assert properties["enthalpy_eV_per_atom"] == pytest.approx(
        properties["energy_eV_per_atom"] + 5 * properties["volume_A3_per_atom"] / 160.21766
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"optimizer": "fre"}, "unknown optimizer 'fre': did you mean 'fire'?"),
        ({"max_force": 0.0}, "max_force must be above 0 eV/Å"),
        ({"max_stress": float("nan")}, "max_stress: a number is needed, not nan"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"pressure": float("inf")}, "a pressure of inf GPa is none"),
        ({"pressure": -1e300}, "give one within ±100000 GPa"),
        ({"pressure": "10"}, "pressure: a number is needed, not '10'"),
        ({"options": ["x"]}, "options: a mapping of names to values is needed, not ['x']"),
        ({"max_steps": 1.5}, "max_steps: a whole number is needed, not 1.5"),
        ({"optimizer": None}, "optimizer: text is needed, not None"),
        ({"presure": 1}, "unknown setting of a relaxation 'presure': did you mean 'pressure'?"),
    ],
)
def test_settings_that_are_none(values: dict[str, object], text: str) -> None:
    assert text in message(lambda: Settings.of(calculator=EMT, **values))


def test_an_element_that_a_calculator_does_not_know_is_named_by_it() -> None:
    """A second question to a calculator that has failed may end in another error, which says nothing."""
    result = relax(Crystal([26], [[0, 0, 0]], 2.8 * np.eye(3)), Settings(EMT), emt())
    assert result.reason == result.initial_reason
    assert "No EMT-potential for Fe" in result.reason
