"""How many of the crystals are new among themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.evaluation.matching import lost, matcher, quiet
from dpcdvae.parallel import Engine, Lost


@dataclass(frozen=True)
class Duplicates:
    """Result of :func:`find_duplicates`.

    Attributes:
        duplicate: (n,) True where an earlier crystal has the same structure.
        cut: crystal -> why its comparison was given up; such a crystal counts as no duplicate.
    """

    duplicate: npt.NDArray[np.bool_]
    cut: dict[int, str]


def find_duplicates(crystals: Sequence[Crystal], *, engine: Engine, time_limit: float) -> Duplicates:
    """Compares each crystal with the earlier ones of its composition: a matcher's ``fit``, protocol tolerances.

    Crystals are reduced to primitive cells first, once; different compositions or numbers of atoms in
    the primitive cell need no comparison. ``time_limit`` seconds are for all comparisons of one crystal.
    """
    duplicate = np.zeros(len(crystals), bool)
    cut: dict[int, str] = {}
    sound = [k for k, crystal in enumerate(crystals) if crystal.problem() is None]
    several = [k for group in _groups(sound, [crystals[k].formula for k in sound]) for k in group if len(group) > 1]
    primitive: dict[int, Crystal] = {}
    for k, result in zip(
        several,
        engine.map(
            primitive_cell, [crystals[k] for k in several], time_limit=time_limit, description="primitive cells"
        ),
        strict=True,
    ):
        if isinstance(result, Lost):
            cut[k] = result.reason
        else:
            primitive[k] = result
    reduced = list(primitive)
    earlier = {
        k: group[:place]
        for group in _groups(reduced, [(primitive[k].formula, primitive[k].num_atoms) for k in reduced])
        for place, k in enumerate(group)
        if place > 0
    }
    results = engine.map(
        matches_any,
        [(primitive[k], [primitive[j] for j in others]) for k, others in earlier.items()],
        time_limit=time_limit,
        description="comparing",
    )
    for k, found in zip(earlier, results, strict=True):
        if isinstance(found, Lost):
            cut[k] = found.reason
        else:
            duplicate[k] = found
    return Duplicates(duplicate, cut)


def _groups(indices: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in zip(indices, keys, strict=True):
        groups[key].append(index)
    return list(groups.values())


def primitive_cell(crystal: Crystal) -> Crystal | Lost:
    """The cell in which the matcher compares."""
    try:
        with quiet():
            structure = crystal.to_pymatgen()
            reduced = structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
        return Crystal.from_pymatgen(reduced)
    except Exception as error:  # see rms_distance
        return lost(error)


def matches_any(task: tuple[Crystal, Sequence[Crystal]]) -> bool | Lost:
    """Whether a primitive crystal fits one of the earlier ones."""
    crystal, others = task
    try:
        with quiet():
            structure = crystal.to_pymatgen()
            return any(matcher().fit(other.to_pymatgen(), structure, skip_structure_reduction=True) for other in others)
    except Exception as error:  # see rms_distance
        return lost(error)
