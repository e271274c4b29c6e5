"""Crystals as read -> crystals as trained on: standardised, checked, with their bonds; the bad ones named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.io import CrystalsLike, as_crystals
from dpcdvae.io.failures import Failure
from dpcdvae.parallel import HERE, TIME_LIMIT, Engine, Lost
from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import NUM_ELEMENTS, SYMBOLS
from dpcdvae.structures.standardise import standardise
from dpcdvae.structures.table import CrystalTable

PREPARATION = 1
"""Raised whenever the same crystal is prepared differently, so that older caches are built again."""

Prepared = tuple[Crystal, tuple[npt.NDArray[Any], npt.NDArray[Any]]]


@dataclass(frozen=True)
class Settings:
    """How crystals are prepared. Part of what decides whether a cache is still good.

    Attributes:
        max_atoms: larger cells are failures; counted in the cell that is kept.
        primitive: go to the primitive cell before the Niggli reduction.
        time_limit: seconds for one crystal (in worker processes only).
    """

    max_atoms: int
    primitive: bool = False
    time_limit: float = TIME_LIMIT

    def recorded(self) -> dict[str, Any]:
        """The settings as plain values, which a cache has to agree with."""
        settings = asdict(self) | {"preparation": PREPARATION}
        del settings["time_limit"]
        return settings


def prepare(
    crystals: Sequence[Crystal],
    places: Sequence[str],
    settings: Settings,
    *,
    engine: Engine = HERE,
    description: str = "preparing",
) -> tuple[CrystalTable, list[Failure]]:
    """Standardises every crystal and finds its bonds.

    Args:
        places: where each crystal stands (file and row), for the failures.

    Returns:
        The usable crystals in their order, and a failure with its reason for every other one.
    """
    jobs = [(crystal, settings) for crystal in crystals]
    results = engine.map(prepare_one, jobs, time_limit=settings.time_limit, description=description)
    good: list[Prepared] = []
    failures = []
    for crystal, place, result in zip(crystals, places, results, strict=True):
        if isinstance(result, (str, Lost)):
            failures.append(Failure(crystal.id, place, result if isinstance(result, str) else result.reason))
        else:
            good.append(result)
    return CrystalTable.from_crystals([c for c, _ in good], [b for _, b in good]), failures


def bonded_table(crystals: CrystalTable | CrystalsLike, *, engine: Engine = HERE) -> tuple[CrystalTable, list[Failure]]:
    """Crystals as a model reads them: standardised, with bonds. A table is taken as it is.

    Args:
        crystals: anything that :func:`~dpcdvae.io.as_crystals` takes, of any size.

    Returns:
        The usable crystals, and what could not be read or used, with the reason.
    """
    if isinstance(crystals, CrystalTable):
        return crystals, []
    found = as_crystals(crystals)
    named = [crystal if crystal.id else crystal.with_id(f"crystal-{k}") for k, crystal in enumerate(found)]
    settings = Settings(max_atoms=max((crystal.num_atoms for crystal in named), default=1))
    table, unusable = prepare(named, [f"crystal {c.id}" for c in named], settings, engine=engine)
    return table, [*found.failures, *unusable]


def prepare_one(job: tuple[Crystal, Settings]) -> Prepared | str:
    """One crystal and its bonds, or why it cannot be used."""
    crystal, settings = job
    try:
        problem = crystal.problem() or _unknown_element(crystal)
        # A cell far too large is refused before anything that takes long on it.
        too_large = crystal.num_atoms > settings.max_atoms and not settings.primitive
        if not problem and not too_large:
            crystal = standardise(crystal, primitive=settings.primitive)
            too_large = crystal.num_atoms > settings.max_atoms
        if too_large:
            problem = f"{crystal.num_atoms} atoms in the cell: more than {settings.max_atoms}"
        return problem or (crystal, crystal_nn_bonds(crystal))
    except InputError as error:
        return str(error).removeprefix(f"crystal '{crystal.id}': ")
    except Exception as error:
        # A set of ten thousands is not lost to one crystal on which a library stumbles.
        return f"{type(error).__name__}: {error}"


def _unknown_element(crystal: Crystal) -> str | None:
    highest = int(crystal.atomic_numbers.max())
    return f"element {SYMBOLS[highest]} is beyond number {NUM_ELEMENTS}" if highest > NUM_ELEMENTS else None


def summary(counts: dict[str, int], failures: Sequence[Failure]) -> str:
    """One line: crystals by split, and the failures by reason."""
    text = f"{sum(counts.values())} crystals (" + ", ".join(f"{s} {n}" for s, n in counts.items()) + ")"
    if not failures:
        return text
    reasons = "; ".join(f"{n} x {reason}" for reason, n in by_reason(failures)[:3])
    return f"{text}; {len(failures)} could not be used: {reasons}"


def by_reason(failures: Sequence[Failure]) -> list[tuple[str, int]]:
    """The number of times that each reason occurs, numbers in it aside, the most frequent first."""
    kinds: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for failure in failures:
        kind = re.sub(r"[\d.]+", "#", failure.reason.replace(f"'{failure.id}'", ""))
        kinds[kind] += 1
        examples.setdefault(kind, failure.reason)
    return [(examples[kind], count) for kind, count in kinds.most_common()]
