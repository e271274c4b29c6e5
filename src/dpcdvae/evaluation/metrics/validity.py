"""Which crystals are possible at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.columns import column
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.geometry import contacts
from dpcdvae.evaluation.sample import FINGERPRINT_GATE, Number, Sample
from dpcdvae.evaluation.validity import MIN_VOLUME, compositional_problem, compositionally_valid


@metric("structural_validity", "structural validity")
def _structural_validity(sample: Sample) -> list[Number]:
    return [sample.rate(sample.structure_valid, sample.generated)]


@metric("compositional_validity", "compositional validity, smact14")
def _compositional_validity(sample: Sample) -> list[Number]:
    return [sample.rate(sample.composition_valid, sample.generated)]


@metric("compositional_validity_icsd24", "compositional validity, icsd24")
def _compositional_validity_icsd24(sample: Sample) -> list[Number]:
    """Beside the number of the published table, what a newer table says."""
    good = compositionally_valid(sample.crystals, "icsd24")
    return [sample.rate(good, sample.generated)]


@metric("validity", "validity, both")
def _validity(sample: Sample) -> list[Number]:
    """Of structure and composition; and as published, where a crystal without fingerprint is not valid either."""
    return [
        sample.rate(sample.valid, sample.generated, gate="none", note="SMACT smact14"),
        sample.rate(sample.counted, sample.generated, gate=FINGERPRINT_GATE, note="SMACT smact14"),
    ]


@column("structurally_valid", kind=bool)
def _structurally_valid(sample: Sample) -> npt.NDArray[np.bool_]:
    return sample.structure_valid


@column("compositionally_valid", kind=bool)
def _compositionally_valid(sample: Sample) -> npt.NDArray[np.bool_]:
    return sample.composition_valid


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
        if sample.structure_valid[k]:
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
