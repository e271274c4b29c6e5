"""One crystal: atomic numbers, fractional coordinates, lattice. What every layer takes and gives."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.structures.elements import ATOMIC_MASSES, ATOMIC_NUMBERS, MAX_ATOMIC_NUMBER, SYMBOLS
from dpcdvae.structures.formula import reduced_formula
from dpcdvae.structures.occupancy import atom_on_place
from dpcdvae.structures.properties import ID_KEYS, id_and_numbers, outside_names

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

LATENT_DISTANCE, CANDIDATES = "latent_distance", "candidates"
"""Properties of a crystal that was decoded from a latent (``dpcdvae.sampling.agreement``)."""

PREDICTED, EVALUATED = "predicted_", "evaluated_"
"""Before the name of a property: what the model's own head says of it, and what an independent model says."""

AMU_PER_CUBIC_ANGSTROM_IN_G_PER_CM3 = 1.66053906892


MAX_LENGTH = 1e6
"""Å of a component of a cell vector: beyond it products of lengths lose all digits, or are infinite."""


@dataclass(frozen=True, eq=False)
class Crystal:
    """An ordered crystal structure.

    Attributes:
        atomic_numbers: (n,) int64, 1..118.
        frac_coords: (n, 3) float64, not necessarily wrapped into [0, 1).
        lattice: (3, 3) float64, Å; the rows are the lattice vectors.
        id: a name, unique within its file.
        properties: scalar quantities by name, units as the data set defines them: floats, ints or bools.
        results: ``forces`` (n, 3) eV/Å and ``stress`` (6,) eV/Å^3 (xx yy zz yz xz xy, positive where it pulls) of a
            calculation on exactly these coordinates, written to extended XYZ; what is read has none.

    Raises:
        InputError: shapes that do not fit, an empty crystal, or an atomic number outside 1..118.
            Coordinates and lattice may be NaN or degenerate: ask :meth:`problem`.
    """

    atomic_numbers: npt.NDArray[np.int64]
    frac_coords: npt.NDArray[np.float64]
    lattice: npt.NDArray[np.float64]
    id: str = ""
    properties: Mapping[str, float] = field(default_factory=dict)
    results: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = np.asarray(self.atomic_numbers, dtype=np.int64)
        coords = np.asarray(self.frac_coords, dtype=np.float64)
        lattice = np.asarray(self.lattice, dtype=np.float64)
        if numbers.ndim != 1 or coords.shape != (len(numbers), 3) or lattice.shape != (3, 3):
            raise InputError(
                f"crystal '{self.id}': shapes {numbers.shape}, {coords.shape}, {lattice.shape} "
                "where (n,), (n, 3), (3, 3) are needed"
            )
        if len(numbers) == 0:
            raise InputError(f"crystal '{self.id}' has no atoms")
        if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
            raise InputError(f"crystal '{self.id}': atomic numbers must lie in 1..{MAX_ATOMIC_NUMBER}")
        object.__setattr__(self, "atomic_numbers", numbers)
        object.__setattr__(self, "frac_coords", coords)
        object.__setattr__(self, "lattice", lattice)

    @property
    def num_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def symbols(self) -> list[str]:
        return [SYMBOLS[z] for z in self.atomic_numbers]

    @cached_property
    def volume(self) -> float:
        """Å^3, never negative."""
        with np.errstate(invalid="ignore"):
            return float(abs(np.linalg.det(self.lattice)))

    @cached_property
    def lengths(self) -> npt.NDArray[np.float64]:
        """(3,) Å."""
        lengths: npt.NDArray[np.float64] = np.linalg.norm(self.lattice, axis=1)
        return lengths

    @cached_property
    def angles(self) -> npt.NDArray[np.float64]:
        """(3,) degrees: alpha between b and c, beta between a and c, gamma between a and b."""
        unit = self.lattice / self.lengths[:, None]
        cosines = np.array([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]])
        angles: npt.NDArray[np.float64] = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
        return angles

    @property
    def cart_coords(self) -> npt.NDArray[np.float64]:
        """(n, 3) Å."""
        return self.frac_coords @ self.lattice

    @cached_property
    def density(self) -> float:
        """g/cm^3."""
        mass = float(ATOMIC_MASSES[self.atomic_numbers].sum())
        return mass / self.volume * AMU_PER_CUBIC_ANGSTROM_IN_G_PER_CM3

    @property
    def composition(self) -> dict[str, int]:
        """Atoms of each element in the cell, in the order of atomic number."""
        return {SYMBOLS[z]: n for z, n in sorted(Counter(self.atomic_numbers.tolist()).items())}

    @cached_property
    def formula(self) -> str:
        """Reduced formula in pymatgen's order, e.g. ``SrTiO3``: the same for every cell of a crystal."""
        return reduced_formula(self.composition)

    def problem(self) -> str | None:
        """Why this cannot be a crystal at all (NaN, no volume), or None."""
        return self._problem

    @cached_property
    def _problem(self) -> str | None:
        if not np.isfinite(self.lattice).all():
            return "the lattice is not finite"
        if not np.isfinite(self.frac_coords).all():
            return "coordinates are not finite"
        if np.abs(self.frac_coords).max() > 1e6:
            return "a fractional coordinate lies more than a million cells away"
        if np.abs(self.lattice).max() > MAX_LENGTH:
            return f"a cell vector is longer than {MAX_LENGTH:g} Å"
        if self.volume < 1e-3 * float(self.lengths.max()) or self.lengths.min() < 1e-3:
            return "the cell is degenerate"
        return None

    def with_id(self, id: str) -> Crystal:
        return replace(self, id=id)

    @classmethod
    def from_parameters(
        cls,
        atomic_numbers: npt.ArrayLike,
        frac_coords: npt.ArrayLike,
        lengths: npt.ArrayLike,
        angles: npt.ArrayLike,
        id: str = "",
        properties: Mapping[str, float] | None = None,
    ) -> Crystal:
        """From lengths (Å) and angles (degrees); see :func:`lattice_from_parameters` for the orientation."""
        lattice = lattice_from_parameters(np.asarray(lengths, float), np.asarray(angles, float))
        return cls(np.asarray(atomic_numbers), np.asarray(frac_coords), lattice, id, properties or {})

    def to_pymatgen(self) -> Structure:
        """With properties and id (as ``material_id``) in ``Structure.properties``."""
        from pymatgen.core import Structure

        return Structure(self.lattice, self.atomic_numbers.tolist(), self.frac_coords, properties=self._info())

    def _info(self) -> dict[str, Any]:
        return {**outside_names(self.properties), **({ID_KEYS[0]: self.id} if self.id else {})}

    @classmethod
    def from_pymatgen(
        cls, structure: Structure, id: str = "", properties: Mapping[str, float] | None = None
    ) -> Crystal:
        """Id and properties are those of ``structure.properties`` where none are given.

        Raises:
            InputError: partial occupancy, isotopes' and dummy species, an empty structure.
        """
        known, values = id_and_numbers(structure.properties or {})
        id, properties = id or known, values if properties is None else properties
        numbers, coords = [], []
        for site in structure:
            amounts: defaultdict[int, float] = defaultdict(float)
            for species, amount in site.species.items():
                element = getattr(species, "element", species)  # Species -> Element
                number = getattr(element, "Z", 0)
                if type(species).__name__ == "DummySpecies" or not 1 <= number <= MAX_ATOMIC_NUMBER:
                    raise InputError(f"crystal '{id}': '{species}' is not an element")
                if getattr(element, "symbol", "") != SYMBOLS[number]:
                    raise InputError(f"crystal '{id}': isotope '{species}': write it as {SYMBOLS[number]}")
                amounts[number] += amount
            try:
                atom = atom_on_place(amounts)
            except InputError as error:
                raise InputError(f"crystal '{id}': {error}") from None
            if atom is not None:
                numbers.append(atom)
                coords.append(site.frac_coords)
        frac_coords = np.array(coords, np.float64).reshape(-1, 3)
        return cls(np.array(numbers, np.int64), frac_coords, structure.lattice.matrix, id, properties)

    def to_ase(self) -> Atoms:
        """With properties and id (as ``material_id``) in ``Atoms.info``; ``results`` and energy in a calculator."""
        from ase import Atoms

        atoms = Atoms(
            numbers=self.atomic_numbers,
            scaled_positions=self.frac_coords,
            cell=self.lattice,
            pbc=True,
            info=self._info(),
        )
        if self.results:
            from ase.calculators.singlepoint import SinglePointCalculator

            energy = {"energy": self.properties["energy"]} if "energy" in self.properties else {}
            atoms.calc = SinglePointCalculator(atoms, **energy, **self.results)
        return atoms

    @classmethod
    def from_ase(cls, atoms: Atoms, id: str = "") -> Crystal:
        """Scalar ``info`` entries and kept results (energy) become properties, ``material_id`` or ``id`` the id.

        Raises:
            InputError: no three-dimensional cell, not periodic along all of it, or partial occupancies (which ASE
                keeps in ``info``).
        """
        if atoms.cell.rank < 3 or not atoms.pbc.all():
            raise InputError(f"crystal '{id}' has no three-dimensional cell with periodic boundaries")
        occupancy = atoms.info.get("occupancy")
        for amounts in occupancy.values() if isinstance(occupancy, dict) else ():
            atom_on_place({ATOMIC_NUMBERS.get(symbol, 0): amount for symbol, amount in amounts.items()})
        known, properties = id_and_numbers({**_results_of(atoms), **atoms.info})
        return cls(
            atoms.numbers.copy(),
            atoms.get_scaled_positions(wrap=False),
            atoms.cell.array.copy(),  # atoms may change
            id or known,
            properties,
        )


def _results_of(atoms: Atoms) -> Mapping[str, Any]:
    """What was calculated for just these atoms and is kept with them; nothing is calculated here."""
    results = getattr(atoms.calc, "results", None)
    return results if isinstance(results, dict) and not atoms.calc.check_state(atoms) else {}


def lattice_from_parameters(
    lengths: npt.NDArray[np.float64], angles: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Lattice in the standard orientation of pymatgen: c along z, a in the xz plane.

    Args:
        lengths: (..., 3) Å. angles: (..., 3) degrees.

    Returns:
        (..., 3, 3), rows are the vectors. Angles that close no cell give NaN.
    """
    radians = np.radians(angles)
    cosines, sines = np.cos(radians), np.sin(radians)
    (cos_alpha, cos_beta, cos_gamma), (sin_alpha, sin_beta, _) = (
        [values[..., axis] for axis in range(3)] for values in (cosines, sines)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        cos_gamma_star = (cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)
        sin_gamma_star = np.sqrt(1.0 - cos_gamma_star**2)
    a, b, c = (lengths[..., axis] for axis in range(3))
    lattice = np.zeros((*np.broadcast_shapes(lengths.shape, angles.shape), 3))
    lattice[..., 0, 0], lattice[..., 0, 2] = a * sin_beta, a * cos_beta
    lattice[..., 1, 0], lattice[..., 1, 1] = -b * sin_alpha * cos_gamma_star, b * sin_alpha * sin_gamma_star
    lattice[..., 1, 2], lattice[..., 2, 2] = b * cos_alpha, c
    return lattice
