"""Which generated crystals are kept: filters for every kind of model, and the choice of the first n. Needs no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpcdvae.errors import InputError, unknown_name
from dpcdvae.io import Failure
from dpcdvae.parallel.results import Results
from dpcdvae.sampling.atom_conditions import NO_CONDITIONS, AtomConditions
from dpcdvae.sampling.finished_batches import GenerationResult, number_of
from dpcdvae.sampling.target import Target
from dpcdvae.structures.crystal import LATENT_DISTANCE, Crystal
from dpcdvae.structures.duplicates import first_of_each
from dpcdvae.structures.match_sets import match_training
from dpcdvae.structures.properties import is_whole
from dpcdvae.structures.space_groups import NUM_SPACE_GROUPS, find_space_groups, symbols

TRIES = 20
"""Times n crystals are tried at most, by default."""

MOST_TRIES = 10**9  # batches are listed
MOST_COMPARED = 1000  # crystals that are compared with one another where nobody asks for it


@dataclass(frozen=True)
class Filters:
    """What a crystal must be to be kept; what is None, False or empty is not asked for.

    Attributes:
        atoms: conditions on its atoms that decoding does not keep by itself.
        space_group: its number.
        unique: no crystal that was kept before has the same structure.
        training: no crystal of these has the same structure.
        target: its predicted property.
        max_latent_distance: most standard deviations of its encoding from its z.
    """

    atoms: AtomConditions = NO_CONDITIONS
    space_group: int | None = None
    unique: bool = False
    training: Sequence[Crystal] | None = field(default=None, repr=False)
    target: Target | None = None
    max_latent_distance: float | None = None

    def __bool__(self) -> bool:
        return self != Filters()

    def reasons(self, crystals: Sequence[Crystal], results: Results) -> list[str | None]:
        """Why each crystal is not kept, None where it is: each by itself, so without ``unique``."""
        reasons = [self._alone(crystal) for crystal in crystals]
        if self.space_group is not None:
            left = [k for k, reason in enumerate(reasons) if reason is None]
            numbers = find_space_groups([crystals[k] for k in left], results).numbers.tolist()
            for k, number in zip(left, numbers, strict=True):
                if number != self.space_group:
                    reasons[k] = "another space group"
        if self.training is not None:
            left = [k for k, reason in enumerate(reasons) if reason is None]
            found = match_training([crystals[k] for k in left], self.training, results)
            for n, k in enumerate(left):
                if n in found.reasons or found.match[n] is not None:
                    reasons[k] = "undecided whether novel" if n in found.reasons else "in the training set"
        return reasons

    def _alone(self, crystal: Crystal) -> str | None:
        reason = self.atoms.problem(crystal.atomic_numbers.tolist())
        if reason is None and self.target is not None:
            reason = self.target.problem(crystal)
        if reason is None and self.max_latent_distance is not None:
            far = not crystal.properties.get(LATENT_DISTANCE, math.inf) <= self.max_latent_distance
            reason = "latent distance too large" if far else None
        return reason


@dataclass(frozen=True, kw_only=True)
class Selected(GenerationResult):
    """The first crystals that the filters keep.

    Attributes:
        asked: how many were asked for.
        tried: crystals that were made until then, those that could not be built included.
        rejected: why the others were not kept -> how many.
    """

    asked: int
    tried: int
    rejected: Mapping[str, int]

    def words(self) -> str:
        """``kept 37 of 400 tried (not kept: 363 another space group)``."""
        why = ", ".join(f"{count} {reason}" for reason, count in self.rejected.items())
        return f"kept {len(self.crystals)} of {self.tried} tried" + (f" (not kept: {why})" if why else "")

    def facts(self) -> dict[str, Any]:
        """For a manifest."""
        return {"asked": self.asked, "tried": self.tried, "rejected": dict(self.rejected)}

    def shortfall(self) -> str:
        """For standard error, where there are fewer than were asked for."""
        return f"fewer than the {self.asked} asked for: {self.words()}; more --max-tries may find more"


class Selection:
    """Takes finished batches in the order of their numbers, until the first n crystals that are kept are known.

    What is kept depends on the crystals alone, not on the batches, on the workers or on where a run was taken up again.
    """

    def __init__(self, filters: Filters, n: int, results: Results) -> None:
        self._filters, self._n, self._results = filters, n, results
        self._crystals: list[tuple[int, Crystal]] = []  # passed each filter; with the number of tries until then
        self._reasons: list[str] = []  # of each try, "" for one that passed
        self._kept: list[tuple[int, Crystal]] = []
        self._passes = 0

    @property
    def done(self) -> bool:
        return len(self._kept) >= self._n

    def batches_to_go(self, made: int, size: int) -> int:
        """How many batches of ``size`` are likely needed, by the yield of the ``made`` ones; at most as many again."""
        missing, tried = self._n - len(self._kept), len(self._reasons)
        tries = missing * tried / max(1, len(self._kept)) if tried else missing
        return max(1, min(math.ceil(tries / size), made or math.ceil(missing / size)))

    def add(self, parts: Iterable[GenerationResult]) -> None:
        """Takes further batches. The crystals' ids end in their numbers."""
        found: list[tuple[int, Crystal | Failure]] = []
        for part in parts:
            entries: list[Crystal | Failure] = [*part.crystals, *part.failures]
            found += sorted(((number_of(entry.id), entry) for entry in entries), key=lambda pair: pair[0])
            self._passes += part.passes
        crystals = [entry for _, entry in found if isinstance(entry, Crystal)]
        why = iter(self._filters.reasons(crystals, self._results))
        for _, entry in found:
            reason = "not built" if isinstance(entry, Failure) else next(why)
            self._reasons.append(reason or "")
            if reason is None and isinstance(entry, Crystal):
                self._crystals.append((len(self._reasons), entry))
        self._kept = self._crystals
        if self._filters.unique:
            stay, undecided = first_of_each([crystal for _, crystal in self._crystals], self._results)
            self._kept = [self._crystals[k] for k in stay]
            for k in set(range(len(self._crystals))).difference(stay):
                self._reasons[self._crystals[k][0] - 1] = (
                    "undecided whether unique" if k in undecided else "made before"
                )

    def result(self) -> Selected:
        """What is kept. Tries after the n-th crystal that is kept do not count."""
        kept = self._kept[: self._n]
        tried = kept[-1][0] if self.done and kept else len(self._reasons)
        rejected = Counter(reason for reason in self._reasons[:tried] if reason)
        return Selected(
            [crystal for _, crystal in kept],
            [],
            self._passes,
            asked=self._n,
            tried=tried,
            rejected=dict(rejected.most_common()),
        )


def select(
    filters: Filters,
    n: int,
    batches: Sequence[range],
    size: int,
    make: Callable[[Sequence[range]], Iterable[GenerationResult]],
    results: Results,
) -> Selected:
    """The first n crystals that the filters keep, of ``batches`` of ``size`` crystals, made as they are needed.

    Args:
        make: the crystals of some batches, in their order; the yield of those before decides how many at a time.
    """
    selection, made = Selection(filters, n, results), 0
    while made < len(batches) and not selection.done:
        wave = batches[made : made + selection.batches_to_go(made, size)]
        selection.add(make(wave))
        made += len(wave)
    return selection.result()


def check_kept(result: Selected) -> None:
    """Raises InputError where nothing was kept."""
    if not result.crystals:
        raise InputError(f"nothing to write: {result.words()}; loosen what is asked for, or try more (--max-tries)")


def tries_of(n: int, max_tries: int | None) -> int:
    """The most tries for n crystals; raises InputError for fewer than n."""
    if max_tries is not None and max_tries < n:
        raise InputError(f"--max-tries {max_tries} is less than the {n} crystals asked for")
    return min(TRIES * n, max(n, MOST_TRIES)) if max_tries is None else max_tries


def space_group_number(value: Any) -> int:
    """221 for ``221``, ``"221"`` or ``"Pm-3m"``; raises InputError for what is no space group."""
    text = str(value).strip()
    if is_whole(text.lstrip("-")):
        if not 1 <= int(text) <= NUM_SPACE_GROUPS:
            raise InputError(f"--space-group {text}: numbers are 1 to {NUM_SPACE_GROUPS}")
        return int(text)
    if text not in symbols()[1:]:
        raise unknown_name("space group", text, symbols()[1:])
    return symbols().index(text)


def distinct(crystals: Sequence[Crystal], results: Results) -> int | None:
    """Different structures among crystals; None for more than ``MOST_COMPARED``, which would take long."""
    if len(crystals) > MOST_COMPARED:
        return None
    return len(first_of_each(crystals, results)[0])
