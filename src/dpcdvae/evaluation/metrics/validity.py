"""Which crystals are possible at all, and which of them the published protocol counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.geometry import contacts
from dpcdvae.evaluation.sample import Sample
from dpcdvae.evaluation.sample_fingerprints import fingerprints
from dpcdvae.intervals import Number
from dpcdvae.structures.neutrality import compositional_problem, compositionally_valid
from dpcdvae.structures.validity import MIN_VOLUME, structurally_valid

Flags = npt.NDArray[np.bool_]

DRAWN = 1000
"""Valid crystals, drawn at random, whose distributions the published protocol compares."""

DRAWS = 20
"""Times that they are drawn: one draw alone may be far from the next."""

DRAWN_GATE = "valid, drawn"
"""As published; where there are no more than :data:`DRAWN` valid ones, the number is that of all of them."""

SIZES = (5, 10, 20, 50)
"""Largest numbers of atoms of the ranges in which validity is counted."""

FINGERPRINT_GATE = "with fingerprint"


@column("structurally_valid", kind=bool)
def structure_valid(sample: Sample) -> Flags:
    return structurally_valid(sample.crystals, sample.once(contacts))


@column("compositionally_valid", kind=bool)
def composition_valid(sample: Sample) -> Flags:
    return compositionally_valid(sample.crystals)


def valid(sample: Sample) -> Flags:
    """(crystals,) valid in structure and composition."""
    return sample.once(structure_valid) & sample.once(composition_valid)


def counted(sample: Sample) -> Flags:
    """(crystals,) valid, and with a fingerprint: only those does the published protocol call valid."""
    return sample.once(valid) & sample.once(fingerprints).known


def without_fingerprint(sample: Sample) -> int:
    """Number of crystals that do not count only because their fingerprint is undecided."""
    return int((sample.once(valid) & ~sample.once(counted)).sum())


def draws(sample: Sample) -> list[npt.NDArray[np.int64]]:
    """Indices of :data:`DRAWN` crystals that stand for all valid ones in the published protocol, :data:`DRAWS` times.

    All valid ones, once, where there are no more.
    """
    there = np.flatnonzero(sample.once(counted))
    if len(there) <= DRAWN:
        return [there]
    rng = np.random.default_rng(sample.seed)
    return [np.sort(rng.choice(there, DRAWN, replace=False)) for _ in range(DRAWS)]


def over_draws(values: Sequence[float], n: int) -> Number:
    """Mean of a number over the draws; their least and greatest value stand in place of its interval."""
    if not values:
        return Number(None, 0)
    note = f"mean and range over {len(values)} draws of {DRAWN} of the valid; a published number is of one such draw"
    return Number(float(np.mean(values)), n, (min(values), max(values)), note=note)


@metric("structural_validity", "structural validity")
def _structural_validity(sample: Sample) -> list[Number]:
    return [Number.rate(sample.once(structure_valid), sample.generated)]


@metric("compositional_validity", "compositional validity, smact14")
def _compositional_validity(sample: Sample) -> list[Number]:
    return [Number.rate(sample.once(composition_valid), sample.generated)]


@metric("compositional_validity_icsd24", "compositional validity, icsd24")
def _compositional_validity_icsd24(sample: Sample) -> list[Number]:
    """Beside the number of the published table, what a newer table says."""
    return [Number.rate(compositionally_valid(sample.crystals, "icsd24"), sample.generated)]


@metric("validity", "validity, both")
def _validity(sample: Sample) -> list[Number]:
    """Of structure and composition; and as published, where a crystal without fingerprint is not valid either."""
    return [
        Number.rate(sample.once(valid), sample.generated, gate="none", note="SMACT smact14"),
        Number.rate(
            sample.once(counted),
            sample.generated,
            gate=FINGERPRINT_GATE,
            note="SMACT smact14",
            undecided=without_fingerprint(sample),
        ),
    ]


@metric("validity_by_size", "validity by number of atoms")
def _validity_by_size(sample: Sample) -> list[Number]:
    """Of structure and composition, for each range of sizes that there is; what could not be read has no size."""
    sizes = np.array([crystal.num_atoms for crystal in sample.crystals], int)
    place = np.searchsorted(SIZES, sizes)
    names = [f"{low + 1}-{high} atoms" for low, high in zip((0, *SIZES), SIZES, strict=False)]
    names.append(f"over {SIZES[-1]} atoms")
    return [
        Number.rate(sample.once(valid)[place == k], int((place == k).sum()), gate=name)
        for k, name in enumerate(names)
        if (place == k).any()
    ]


@column("invalid_reason", kind=str)
def _invalid_reason(sample: Sample) -> list[str | None]:
    """Of structure and composition, None for a valid crystal; atoms are counted from 1."""
    return [
        "; ".join(filter(None, (structure, composition))) or None
        for structure, composition in zip(_structural_problems(sample), _compositional_problems(sample), strict=True)
    ]


def _compositional_problems(sample: Sample) -> list[str | None]:
    return [compositional_problem(crystal) for crystal in sample.crystals]


def _structural_problems(sample: Sample) -> list[str | None]:
    problems: list[str | None] = []
    found = sample.once(contacts)
    for k, crystal in enumerate(sample.crystals):
        first, second = found.pair[k] + 1
        if sample.once(structure_valid)[k]:
            problems.append(None)
        elif (problem := crystal.problem()) is not None:
            problems.append(problem)
        elif crystal.volume <= MIN_VOLUME:
            problems.append(f"the volume is {crystal.volume:.3g} Å^3")
        elif first == second:
            problems.append(f"an atom is {found.distance[k]:.2f} Å from its own image")
        else:
            problems.append(f"atoms {first} and {second} are {found.distance[k]:.2f} Å apart")
    return problems
