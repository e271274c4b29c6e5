"""The results of a relaxation campaign on disk, one for each crystal, and the key they are kept by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpcdvae.parallel.store import Store
from dpcdvae.structures.crystal import Crystal

GROWING = "max_steps"
"""The setting that may be larger where what did not converge is tried again: what did had no need of it."""


def open_results(folder: str | Path, settings: Mapping[str, Any], *, retry: bool = False) -> Store:
    """The store of a campaign, opened.

    Args:
        settings: all that shapes the results, as plain values.
        retry: forget what did not converge, so that it is tried again, be it with a larger ``max_steps``.

    Raises:
        InputError: as :class:`dpcdvae.parallel.store.Store`.
    """
    forget = (lambda record: not record["converged"]) if retry else None
    return Store(folder, settings, instead="use another --work", forget=forget, growing=GROWING)


def crystal_key(crystal: Crystal, start: Crystal | None = None) -> str:
    """Content hash of a crystal, and of where its relaxation starts if that is elsewhere. The id does not matter."""
    digest = hashlib.sha256()
    for part in (crystal, start):
        if part is not None:
            for array in (part.atomic_numbers, part.lattice, part.frac_coords):
                digest.update(array.tobytes())
    return digest.hexdigest()
