"""Is the relaxed crystal still the same structure? Are two minima one? pymatgen's StructureMatcher, in an engine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import reason_of
from dpcdvae.parallel import Engine, Lost
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.tolerances import PUBLISHED, Tolerances

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

# After relaxation the same minimum is the same to a few hundredths.
DUPLICATES = Tolerances(ltol=0.05, stol=0.1, angle_tol=3.0)


NEIGHBOURS = 12
"""Of each atom, in :func:`mean_neighbour_distances`: the first shell of a close packing."""
REACH = 2.0
"""How far a neighbour is looked for, over (V/N)^(1/3): there are 33 of them in a structure of even density."""


def match_distances(
    pairs: Sequence[tuple[Crystal, Crystal]], *, engine: Engine, time_limit: float
) -> list[float | Lost | None]:
    """Normalised rms displacement of each (base, other); None where they do not match, Lost where given up."""
    return engine.map(_distance, pairs, time_limit=time_limit, description="comparing")


@cache
def _matcher(tolerances: Tolerances) -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(**asdict(tolerances))


def _distance(pair: tuple[Crystal, Crystal]) -> float | Lost | None:
    base, other = pair
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _matcher(PUBLISHED).get_rms_dist(base.to_pymatgen(), other.to_pymatgen())
    except Exception as error:  # the matcher breaks in many ways on odd cells: counted, with the reason
        return Lost(reason_of(error))
    return None if found is None else float(found[0])


def same_minimum(pair: tuple[Crystal, Crystal]) -> bool | Lost:
    """Whether two relaxed crystals are one structure within ``DUPLICATES``; Lost where that cannot be told."""
    first, second = pair
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(_matcher(DUPLICATES).fit(first.to_pymatgen(), second.to_pymatgen()))
    except Exception as error:  # see _distance
        return Lost(reason_of(error))


def mean_neighbour_distances(crystal: Crystal) -> npt.NDArray[np.float64]:
    """(``NEIGHBOURS``,) Å: the distance of the first, second ... neighbour, each the mean over the atoms.

    The same for every cell of a crystal, and hardly another where it is slightly distorted: the average minimum
    distances of Widdowson et al. (MATCH 87, 529, 2022), here up to ``REACH``, which stands for what lies beyond.
    """
    reach = REACH * float(np.cbrt(crystal.volume / crystal.num_atoms))
    centres, _, _, distances = crystal.to_pymatgen().get_neighbor_list(reach)
    nearest = np.full((crystal.num_atoms, NEIGHBOURS), reach)
    for atom in range(crystal.num_atoms):
        found = np.sort(distances[centres == atom])[:NEIGHBOURS]
        nearest[atom, : len(found)] = found
    return nearest.mean(axis=0)
