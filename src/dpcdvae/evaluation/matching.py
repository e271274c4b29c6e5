"""Is this the same structure? pymatgen's StructureMatcher with the protocol's tolerances and a time limit."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.errors import InputError
from dpcdvae.parallel import Engine, Lost

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

# Of lengths (a fraction), of sites (of (V/N)^(1/3)), of angles (degrees): CDVAE, Xie et al. 2022.
TOLERANCES = {"ltol": 0.3, "stol": 0.5, "angle_tol": 10.0}


@dataclass(frozen=True)
class Pairs:
    """Which prediction belongs to which ground truth.

    Attributes:
        predictions: (p,) indices into the predictions.
        truths: (p,) indices into the ground truths.
        missing: ground truths without a prediction; they count as not matched.
        by: "id" or "order".
    """

    predictions: npt.NDArray[np.int64]
    truths: npt.NDArray[np.int64]
    missing: int
    by: str


def pair(predictions: Sequence[Crystal], truths: Sequence[Crystal], failed: Sequence[str] = ()) -> Pairs:
    """Pairs by id when every prediction bears the id of a ground truth, else by order.

    Args:
        failed: ids of predictions that could not be read; by order they would shift the rest.

    Raises:
        InputError: neither the ids nor the lengths agree, or two predictions bear the same id.
    """
    place = {crystal.id: k for k, crystal in enumerate(truths)}
    ids = [crystal.id for crystal in predictions]
    if len(place) == len(truths) and all(id in place for id in ids):
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise InputError(f"two predictions bear the id '{twice}': paired evaluation takes one for each truth")
        chosen = np.array([place[id] for id in ids], np.int64)
        return Pairs(np.arange(len(ids)), chosen, len(truths) - len(ids), "id")
    if len(ids) != len(truths) or failed:
        unknown = next((id for id in ids if id not in place), "")
        raise InputError(
            f"cannot pair {len(ids)} crystals{f' ({len(failed)} more could not be read)' if failed else ''} with "
            f"{len(truths)} of the reference: id '{unknown}' is not in the reference, and by order the numbers "
            "must agree; write the predictions with the reference's ids"
        )
    order = np.arange(len(truths))
    return Pairs(order, order, 0, "order")


@dataclass(frozen=True)
class Matches:
    """Result of :func:`match_pairs`.

    Attributes:
        rms: (p,) rms displacement over (V/N)^(1/3); NaN where the pair does not match.
        cut: pair -> why it was given up; such a pair does not match.
    """

    rms: npt.NDArray[np.float64]
    cut: dict[int, str]

    @property
    def matched(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.rms)


def match_pairs(
    predictions: Sequence[Crystal], truths: Sequence[Crystal], *, engine: Engine, time_limit: float
) -> Matches:
    """Compares ``predictions[k]`` with ``truths[k]`` for every k, each within ``time_limit`` seconds.

    Crystals of different reduced composition are not handed to the matcher: it would say no.
    """
    rms = np.full(len(predictions), np.nan)
    chosen = [
        k
        for k, (p, t) in enumerate(zip(predictions, truths, strict=True))
        if p.problem() is None and t.problem() is None and p.formula == t.formula
    ]
    results = engine.map(
        rms_distance,
        [(predictions[k], truths[k]) for k in chosen],
        time_limit=time_limit,
        description="matching",
    )
    cut: dict[int, str] = {}
    for k, result in zip(chosen, results, strict=True):
        if isinstance(result, Lost):
            cut[k] = result.reason
        elif result is not None:
            rms[k] = result
    return Matches(rms, cut)


@cache
def matcher() -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=TOLERANCES["ltol"], stol=TOLERANCES["stol"], angle_tol=TOLERANCES["angle_tol"])


def rms_distance(crystals: tuple[Crystal, Crystal]) -> float | Lost | None:
    """Normalised rms displacement between (prediction, truth), None where they do not match."""
    prediction, truth = crystals
    try:
        with quiet():
            found = matcher().get_rms_dist(prediction.to_pymatgen(), truth.to_pymatgen())
    except Exception as error:  # the matcher breaks in many ways on odd cells: counted, with the reason
        return lost(error)
    return None if found is None else float(found[0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without pymatgen's warnings, which would come once for each odd crystal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def lost(error: Exception) -> Lost:
    return Lost(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
