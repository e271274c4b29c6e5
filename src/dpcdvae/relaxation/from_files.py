"""Relaxations that were done elsewhere: a file of crystals as generated, and one of the same crystals relaxed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from dpcdvae.errors import InputError
from dpcdvae.relaxation.relaxed_crystal import Relaxed, lost
from dpcdvae.structures.crystal import Crystal


def pair_relaxed(initial: Sequence[Crystal], relaxed: Sequence[Crystal], pressure: float) -> list[Relaxed]:
    """One result for each of ``initial``, paired by id, or by order where no id agrees.

    Energies are properties of the crystals, in this order: ``energy_eV_per_atom`` (what ``dpcdvae relax`` writes),
    ``energy_per_atom`` (eV/atom), ``energy`` (eV of the cell, as ASE writes it). That of the initial crystal is the
    relaxed one's ``initial_energy_eV_per_atom`` where it is there: by the same calculator as the final one, which its
    own may not be. Without energies their differences are left out.

    Raises:
        InputError: neither ids nor numbers agree, an id stands twice, two crystals of a pair are of different
            elements, or the relaxed ones were relaxed at another pressure.
    """
    results = []
    for crystal, other in _pairs(initial, relaxed):
        if other is None:
            results.append(lost(crystal, pressure, "there is no relaxed crystal of that id"))
            continue
        if sorted(crystal.atomic_numbers) != sorted(other.atomic_numbers) and crystal.formula != other.formula:
            raise InputError(f"crystal '{crystal.id}': {crystal.formula} was relaxed to {other.formula}: not a pair")
        applied = other.properties.get("pressure_GPa", pressure)
        if not math.isclose(applied, pressure, abs_tol=1e-9):
            raise InputError(f"crystal '{other.id}' was relaxed at {applied:g} GPa: give --pressure {applied:g}")
        results.append(_relaxed(crystal, other, pressure))
    return results


def _pairs(initial: Sequence[Crystal], relaxed: Sequence[Crystal]) -> list[tuple[Crystal, Crystal | None]]:
    place = {crystal.id: crystal for crystal in relaxed if crystal.id}
    names = {crystal.id for crystal in initial if crystal.id}
    if names & place.keys():
        for crystals, which in ((initial, "initial"), (relaxed, "relaxed")):
            id, count = Counter(crystal.id for crystal in crystals).most_common(1)[0]
            if count > 1:
                raise InputError(f"{count} of the {which} crystals have the id '{id}': give each one of its own")
        if strange := sorted(place.keys() - names):
            raise InputError(f"relaxed crystal '{strange[0]}' is none of the initial ones: pair them by id")
        return [(crystal, place.get(crystal.id)) for crystal in initial]
    if len(initial) != len(relaxed):
        raise InputError(
            f"cannot pair {len(initial)} initial with {len(relaxed)} relaxed crystals: no ids agree, "
            "and by order the numbers must"
        )
    return list(zip(initial, relaxed, strict=True))


def _relaxed(initial: Crystal, final: Crystal, pressure: float) -> Relaxed:
    properties = final.properties
    converged = bool(properties.get("converged", 1.0))
    # A crystal that this package relaxed says what was known of it before: without that energy, it was not to be had.
    of_ours = "initial_volume_A3_per_atom" in properties
    before = properties.get("initial_energy_eV_per_atom", math.nan if of_ours else _energy(initial))
    return Relaxed(
        initial=initial,
        final=final,
        pressure=pressure,
        converged=converged,
        reason="" if converged else "marked as not converged in its file",
        initial_energy=before,
        initial_reason="not in the file of the relaxed crystals" if math.isnan(before) and of_ours else "",
        energy=_energy(final),
        volume=final.volume / final.num_atoms,
        max_force=properties.get("max_force_eV_per_A", math.nan),
        max_stress=properties.get("max_stress_GPa", math.nan),
        steps=int(properties.get("steps", 0)),
        pushed_apart=bool(properties.get("pushed_apart", 0.0)),
        seconds=properties.get("seconds", math.nan),
    )


def _energy(crystal: Crystal) -> float:
    """eV/atom, NaN where the file has none."""
    for name, atoms in (("energy_eV_per_atom", 1), ("energy_per_atom", 1), ("energy", crystal.num_atoms)):
        if name in crystal.properties:
            return crystal.properties[name] / atoms
    return math.nan
