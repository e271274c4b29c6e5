"""What every number would be for crystals that are real, or all too easily had.

The distance of a sample to the set it was drawn from is not zero, nor is every real crystal valid by the field's
rules. So the same metrics are taken from other crystals, as many as were generated if there are so many: those of the
reference itself (no generator does better; all of them are at a distance of zero), of the training set (a generator
that has learnt it by heart), and training crystals with their elements exchanged (chemistry without a generator).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.sample import Sample
from dpcdvae.registry import Registry
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import by_atomic_number

TRAINING = "the crystals of a training set"


@dataclass(frozen=True)
class Baseline:
    """An entry of the table.

    Attributes:
        title: head of its column.
        meaning: what its crystals are.
        needs: what it is made of, for who asks for it without.
        make: its sample for that of a generator; None where there is no such thing.
    """

    title: str
    meaning: str
    needs: str
    make: Callable[[Sample], Sample | None]


BASELINES: Registry[Baseline] = Registry("baseline")


def baseline(name: str, title: str, meaning: str, needs: str) -> Callable[[Callable[[Sample], Sample | None]], None]:
    """Decorator that files a function as the baseline ``name``."""

    def add(make: Callable[[Sample], Sample | None]) -> None:
        BASELINES.register(name)(Baseline(title, meaning, needs, make))

    return add


@baseline(
    "reference",
    "reference",
    "as many crystals of the reference itself: what chance alone leaves",
    "the crystals of the reference",
)
def _ground_truth(sample: Sample) -> Sample | None:
    """The ceiling: crystals of the reference, each its own reconstruction in a paired evaluation."""
    truths = sample.reference.crystals
    if truths is None:
        return None
    chosen = np.arange(len(truths)) if sample.paired else _draw(sample, len(truths))
    return _instead(sample, [truths[k] for k in chosen], paired=sample.paired)


@baseline("training", "training", "as many crystals of the training set: what learning by heart gives", TRAINING)
def _training(sample: Sample) -> Sample | None:
    """What a generator scores that gives back its training set."""
    crystals = _training_crystals(sample)
    return _instead(sample, [crystals[k] for k in _draw(sample, len(crystals))]) if crystals else None


@baseline(
    "substitution",
    "substituted",
    "training crystals with the elements of another one",
    f"{TRAINING}, of several compositions",
)
def _substitution(sample: Sample) -> Sample | None:
    """Training crystals with the elements and the volume per atom of another one of the same stoichiometry."""
    crystals = _training_crystals(sample)
    made = [] if not crystals else substitute(crystals, sample.generated, np.random.default_rng(sample.seed))
    return _instead(sample, made) if made else None


def substitute(crystals: Sequence[Crystal], count: int, rng: np.random.Generator) -> list[Crystal]:
    """Up to ``count`` crystals, each one of ``crystals`` with the composition of another.

    Only crystals count that have a partner: another composition with the same numbers of atoms. Elements that
    are equally many are exchanged in the order of electronegativity, and the cell is scaled to the
    volume per atom of the partner.
    """
    partners: dict[tuple[int, ...], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for k, crystal in enumerate(crystals):
        partners[_stoichiometry(crystal)][crystal.formula].append(k)
    usable = [k for k, crystal in enumerate(crystals) if len(partners[_stoichiometry(crystal)]) > 1]
    made = []
    for number, k in enumerate(rng.permutation(usable)[:count]):
        prototype = crystals[k]
        others = [
            j
            for formula, group in partners[_stoichiometry(prototype)].items()
            if formula != prototype.formula
            for j in group
        ]
        made.append(_with_elements_of(prototype, crystals[others[rng.integers(len(others))]], f"substituted-{number}"))
    return made


def _with_elements_of(prototype: Crystal, donor: Crystal, id: str) -> Crystal:
    exchange = dict(zip(_ranked(prototype), _ranked(donor), strict=True))
    scale = (donor.volume / donor.num_atoms * prototype.num_atoms / prototype.volume) ** (1 / 3)
    numbers = np.array([exchange[int(z)] for z in prototype.atomic_numbers])
    return Crystal(numbers, prototype.frac_coords, prototype.lattice * scale, id)


def _ranked(crystal: Crystal) -> list[int]:
    """The elements by number of atoms, equally many by electronegativity."""
    electronegativity = np.nan_to_num(by_atomic_number("crystal_nn", "electronegativity"))
    numbers, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    order = sorted(zip(counts.tolist(), electronegativity[numbers].tolist(), numbers.tolist(), strict=True))
    return [z for _, _, z in order]


def _stoichiometry(crystal: Crystal) -> tuple[int, ...]:
    """Reduced numbers of atoms, ascending: (1, 1, 3) for every ABX3."""
    counts = np.sort(np.unique(crystal.atomic_numbers, return_counts=True)[1])
    return tuple((counts // np.gcd.reduce(counts)).tolist())


def _training_crystals(sample: Sample) -> Sequence[Crystal]:
    return () if sample.training is None or sample.training.crystals is None else sample.training.crystals


def _draw(sample: Sample, available: int) -> npt.NDArray[np.int64]:
    """As many as were generated, or all there are; larger draws begin with the smaller ones, so that their
    fingerprints are found again."""
    return np.random.default_rng(sample.seed).permutation(available)[: sample.generated]


def _instead(sample: Sample, crystals: Sequence[Crystal], paired: bool = False) -> Sample:
    """Other crystals under the same evaluation, without energies above the hull, which would have to be computed."""
    others = replace(sample, crystals=crystals, failures=(), paired=paired, given_up=[], _derived={})
    return replace(others, stability=None, relaxed=None)
