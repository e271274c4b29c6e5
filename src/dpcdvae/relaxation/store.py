"""The results of a relaxation campaign on disk, one for each crystal, and the key they are kept by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpcdvae.parallel.store import Store

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
