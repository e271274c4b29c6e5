"""Which prediction belongs to which ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal


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


def pair(
    predictions: Sequence[Crystal],
    truths: Sequence[Crystal],
    failed: Sequence[str] = (),
    *,
    what: str = "predictions",
    of: str = "the reference",
) -> Pairs:
    """Pairs by id when every prediction bears the id of a ground truth, else by order.

    Args:
        failed: ids of predictions that could not be read; by order they would shift the rest.
        what, of: the predictions and the set of the ground truths in words, for errors.

    Raises:
        InputError: neither the ids nor the lengths agree, or two predictions bear the same id.
    """
    place = {crystal.id: k for k, crystal in enumerate(truths)}
    ids = [crystal.id for crystal in predictions]
    if len(place) == len(truths) and all(id in place for id in ids):
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise InputError(f"two {what} bear the id '{twice}': there may be one for each crystal of {of}")
        chosen = np.array([place[id] for id in ids], np.int64)
        return Pairs(np.arange(len(ids)), chosen, len(truths) - len(ids), "id")
    if len(ids) != len(truths) or failed:
        unknown = next((id for id in ids if id not in place), "")
        raise InputError(
            f"cannot pair {len(ids)} {what}{f' ({len(failed)} more could not be read)' if failed else ''} with "
            f"{len(truths)} crystals of {of}: id '{unknown}' is not among them, and by order the numbers must "
            f"agree; write the {what} with the ids of {of}"
        )
    order = np.arange(len(truths))
    return Pairs(order, order, 0, "order")
