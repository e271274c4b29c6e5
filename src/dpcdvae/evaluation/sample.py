"""The crystals under judgement, and a value of a metric with what is needed to trust it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dpcdvae.datasets import DATASETS
from dpcdvae.errors import InputError
from dpcdvae.evaluation.coverage import DEFAULT_CUTOFFS, Coverage, Cutoffs, coverage
from dpcdvae.evaluation.energy import EnergyModel
from dpcdvae.evaluation.pairing import Pairs, pair
from dpcdvae.evaluation.reference import Reference
from dpcdvae.evaluation.stability import Stability
from dpcdvae.evaluation.validity import compositionally_valid, structurally_valid
from dpcdvae.intervals import Interval, wilson
from dpcdvae.io import Failure
from dpcdvae.parallel import Engine
from dpcdvae.parallel.results import default_cache
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints import Fingerprints, fingerprint_crystals
from dpcdvae.structures.matching import Matches, match_pairs

Derived = TypeVar("Derived")
Value = TypeVar("Value")

DRAWN = 1000
"""Valid crystals, drawn at random, whose distributions the published protocol compares."""

DRAWN_GATE = f"{DRAWN} valid"
"""As published; where there are fewer valid ones, the number is that of all of them."""

FINGERPRINT_GATE = "with fingerprint"
PREDICTION_GATE = "prediction valid"


@dataclass(frozen=True)
class Number:
    """One value of a metric, with what is needed to trust it.

    Attributes:
        value: None where there is nothing to take it from (no crystal, no match).
        n: crystals (or pairs) behind it.
        interval: 95 %, where one makes sense.
        gate: which crystals count, for metrics that exist under several conditions.
        note: what a reader must know to compare it.
    """

    value: float | None
    n: int
    interval: Interval | None = None
    gate: str = ""
    note: str = ""


@dataclass
class Sample:
    """The crystals under judgement, with what several metrics need, computed once and on demand.

    Attributes:
        crystals: those that could be read; they may hold NaN or have no volume.
        failures: those that could not; every rate counts them as not fulfilling it.
        given_up: filled by the metrics: which comparison was cut off, and why.
        energy_model: where energies are asked for; the reference needs crystals then.
        cutoffs: of the coverage, where they are not to be those of the data set.
        cache: folder of results kept between runs, by the content of the crystals.
        training: what a generator has learnt from, for novelty; None where it is not known.
        stability: where energies above hull are asked for.
    """

    crystals: Sequence[Crystal]
    failures: Sequence[Failure]
    reference: Reference
    paired: bool
    engine: Engine
    seed: int
    time_limit: float
    given_up: list[dict[str, str]] = field(default_factory=list)
    cutoffs: Cutoffs | None = None
    energy_model: EnergyModel | None = None
    cache: Path = field(default_factory=default_cache)
    training: Reference | None = None
    stability: Stability | None = None
    _derived: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)
    _of_reference: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    def once(self, derive: Callable[[Sample], Derived]) -> Derived:
        """``derive(self)``, kept: how metrics share what is dear to compute."""
        if derive not in self._derived:
            self._derived[derive] = derive(self)
        return self._derived[derive]

    def once_for_all(self, derive: Callable[[Sample], Derived]) -> Derived:
        """The same for what depends on the reference alone: the samples of the baselines share it."""
        if derive not in self._of_reference:
            self._of_reference[derive] = derive(self)
        return self._of_reference[derive]

    @property
    def generated(self) -> int:
        return len(self.crystals) + len(self.failures)

    @cached_property
    def measurable(self) -> list[Crystal]:
        """Crystals with finite coordinates and a volume: only those have a density."""
        return [crystal for crystal in self.crystals if crystal.problem() is None]

    @cached_property
    def structure_valid(self) -> npt.NDArray[np.bool_]:
        return structurally_valid(self.crystals)

    @cached_property
    def composition_valid(self) -> npt.NDArray[np.bool_]:
        return compositionally_valid(self.crystals)

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        return self.structure_valid & self.composition_valid

    @cached_property
    def counted(self) -> npt.NDArray[np.bool_]:
        """(crystals,) valid, and with a fingerprint: only those does the published protocol call valid."""
        return self.valid & self.fingerprints.known

    @cached_property
    def drawn(self) -> npt.NDArray[np.int64]:
        """Indices of the :data:`DRAWN` crystals that stand for all valid ones in the published protocol."""
        counted = np.flatnonzero(self.counted)
        if len(counted) <= DRAWN:
            return counted
        return np.sort(np.random.default_rng(self.seed).choice(counted, DRAWN, replace=False))

    @cached_property
    def truths(self) -> Sequence[Crystal]:
        if self.reference.crystals is None:
            raise InputError(
                f"paired evaluation needs the crystals of the reference, and {self.reference.source} "
                "has statistics only: give a data set or a file"
            )
        return self.reference.crystals

    @cached_property
    def pairs(self) -> Pairs:
        return pair(self.crystals, self.truths, [failure.id for failure in self.failures])

    @cached_property
    def truth_valid(self) -> npt.NDArray[np.bool_]:
        """Validity of the ground truth of each pair, with a fingerprint as in :attr:`counted`."""
        truths = [self.truths[k] for k in self.pairs.truths]
        known = self.reference_fingerprints.known[self.pairs.truths]
        return structurally_valid(truths) & compositionally_valid(truths) & known

    @cached_property
    def matches(self) -> Matches:
        """Of the pairs."""
        predictions = [self.crystals[k] for k in self.pairs.predictions]
        truths = [self.truths[k] for k in self.pairs.truths]
        found = match_pairs(predictions, truths, engine=self.engine, time_limit=self.time_limit, cache=self.cache)
        self.give_up("matching", predictions, found.cut)
        return found

    @property
    def rms(self) -> npt.NDArray[np.float64]:
        """(pairs,) normalised rms distance, NaN where prediction and ground truth do not match."""
        return self.matches.rms

    @cached_property
    def gates(self) -> dict[str, npt.NDArray[np.bool_]]:
        """(pairs,) which pairs may count: all (recent papers), prediction valid (CDVAE), both valid (DiffCSP)."""
        prediction = self.counted[self.pairs.predictions]
        return {
            "none": np.ones(len(prediction), bool),
            PREDICTION_GATE: prediction,
            "both valid": prediction & self.truth_valid,
        }

    @cached_property
    def coverage_cutoffs(self) -> tuple[Cutoffs, str]:
        """The cut-offs, and whose they are."""
        if self.cutoffs is not None:
            return self.cutoffs, "as given"
        name = self.reference.dataset
        known = DATASETS[name].coverage_cutoffs if name in DATASETS else None
        return (DEFAULT_CUTOFFS, "of mp_20, as the reference has none") if known is None else (known, f"of {name}")

    @cached_property
    def coverage(self) -> Coverage | None:
        """None where the reference has no crystals."""
        if self.reference.crystals is None:
            return None
        return coverage(self.fingerprints, self.reference_fingerprints)

    @cached_property
    def fingerprints(self) -> Fingerprints:
        return self.find_fingerprints("fingerprint", self.crystals)

    @property
    def reference_fingerprints(self) -> Fingerprints:
        """Of the crystals of the reference, none where it has no crystals."""
        return self.once_for_all(_reference_fingerprints)

    def find_fingerprints(self, what: str, crystals: Sequence[Crystal]) -> Fingerprints:
        found = fingerprint_crystals(crystals, engine=self.engine, time_limit=self.time_limit, cache=self.cache)
        self.give_up(what, crystals, found.reasons)
        return found

    def give_up(self, what: str, crystals: Sequence[Crystal], reasons: Mapping[int, str]) -> None:
        """Notes for the report why some of ``crystals`` have no result."""
        self.given_up += [{"what": what, "id": crystals[k].id, "reason": reason} for k, reason in reasons.items()]

    def spread(self, values: Sequence[Value]) -> list[Value | None]:
        """One value for each of ``crystals`` from those of the first of ``measurable``, None for all others."""
        known = iter(values)
        return [next(known, None) if crystal.problem() is None else None for crystal in self.crystals]

    def rate(self, good: npt.NDArray[np.bool_], total: int, *, gate: str = "", note: str = "") -> Number:
        successes = int(good.sum())
        value, interval = (successes / total, wilson(successes, total)) if total else (None, None)
        return Number(value, total, interval, gate, note)


def _reference_fingerprints(sample: Sample) -> Fingerprints:
    return sample.find_fingerprints("fingerprint of the reference", sample.reference.crystals or ())
