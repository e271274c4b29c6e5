"""Crystals from matrices, each invalid case with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpcdvae.ftcp.representation import AXES, Representation
from dpcdvae.io import Failure
from dpcdvae.structures.contacts import closest_contacts
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.lattice import lattice_from_parameters, wrap

OCCUPIED = 0.05  # a site, or an element's column, whose largest number is smaller is empty
NEAREST = 0.5  # Å; what lies closer is no crystal, in the published measure of validity too
HYDROGEN = 1
WHERE = "decoding"
"""Where a :class:`Failure` of this module happened."""

NO_SITE = "no site of the decoded matrix is occupied"
NO_ELEMENT = "an occupied site of the decoded matrix belongs to a column without an element"
NO_LENGTH = "a decoded cell vector has no positive length"
NO_CELL = "the decoded angles span no cell"
TOO_CLOSE = f"two decoded sites are closer than {NEAREST:g} Å"


def crystals_of(
    representation: Representation, matrices: Tensor, ids: Sequence[str], *, most_likely: bool, hydrogen: bool
) -> list[Crystal | Failure]:
    """The crystals that matrices (C, height, width) stand for, in their units, or why they stand for none.

    Args:
        most_likely: occupancies are probabilities: a site is empty where that is likelier than each of its elements.
            Without it, a site is occupied whose largest number is ``OCCUPIED`` or more, as in the public code.
        hydrogen: the public code's reading of an empty site before an occupied one.
    """
    rows = representation.rows
    real = slice(0, representation.real)
    share, column = matrices[:, rows["occupancy"], real].max(-1)  # (C, S)
    nothing = 1 - matrices[:, rows["occupancy"], real].sum(-1)
    occupied = share > nothing if most_likely else share >= OCCUPIED
    one_hot, number = matrices[:, rows["elements"], real].max(1)  # (C, real)
    numbers = number.gather(1, column) + 1
    blank = (one_hot.gather(1, column) < OCCUPIED) & occupied
    lengths, angles = matrices[:, rows["lengths"].start, :AXES], matrices[:, rows["angles"].start, :AXES]
    lattice = lattice_from_parameters(torch.cat([lengths, angles], -1).double())
    spans = lattice.flatten(1).isfinite().all(1) & ((angles > 0) & (angles < 180)).all(1)
    frac = _coordinates(representation, matrices[:, rows["coordinates"], :AXES].double())
    if hydrogen:
        numbers = torch.where(occupied, numbers, HYDROGEN)
        occupied = occupied.flip(1).cumsum(1).flip(1) > 0  # all up to the last
    reasons = _reasons(
        [
            (~occupied.any(1), NO_SITE),
            (blank.any(1), NO_ELEMENT),
            (~(lengths > 0).all(1), NO_LENGTH),
            (~spans, NO_CELL),
        ]
    )
    return _built(_Decoded(numbers.cpu(), frac.cpu(), lattice.cpu(), occupied.cpu()), reasons, ids)


class _Decoded(NamedTuple):
    """numbers: (C, S); frac: (C, S, 3); lattice: (C, 3, 3) Å; occupied: (C, S)."""

    numbers: Tensor
    frac: Tensor
    lattice: Tensor
    occupied: Tensor


def _coordinates(representation: Representation, block: Tensor) -> Tensor:
    """(C, S, 3) from 0 to 1, from the block of coordinates."""
    if not representation.periodic:
        return wrap(block)
    sine, cosine = block.unflatten(1, (2, -1)).unbind(1)
    return wrap(torch.atan2(sine, cosine) / (2 * math.pi))


def _reasons(cases: Sequence[tuple[Tensor, str]]) -> list[str]:
    """The first case that holds for each crystal, "" for none; each case is (C,) flags and its name."""
    names = ["", *(name for _, name in cases)]
    flags = torch.stack([torch.zeros_like(cases[0][0]), *(flag for flag, _ in cases)], 1).to(torch.int8).cpu().numpy()
    return [names[k] for k in np.argmax(flags, axis=1).tolist()]  # numpy's is the first of equals


def _built(decoded: _Decoded, reasons: Sequence[str], ids: Sequence[str]) -> list[Crystal | Failure]:
    results: list[Crystal | Failure] = []
    for k, (reason, id) in enumerate(zip(reasons, ids, strict=True)):
        if reason:
            results.append(Failure(id, WHERE, reason))
            continue
        sites = decoded.occupied[k]
        numbers, frac = decoded.numbers[k, sites].numpy(), decoded.frac[k, sites].numpy()
        crystal = Crystal(numbers, frac, decoded.lattice[k].numpy(), id)
        problem = crystal.problem()
        results.append(Failure(id, WHERE, problem) if problem else crystal)
    built = [k for k, result in enumerate(results) if isinstance(result, Crystal)]
    nearest = closest_contacts([result for result in results if isinstance(result, Crystal)]).distance
    for k, distance in zip(built, nearest.tolist(), strict=True):
        if distance < NEAREST:
            results[k] = Failure(ids[k], WHERE, TOO_CLOSE)
    return results
