"""spglib without what it writes and warns of."""

from __future__ import annotations

import os
import warnings
from typing import Any

from dpcdvae.errors import one_line


def ask_spglib(function: str, subject: Any, **options: Any) -> tuple[Any, str]:
    """``spglib.FUNCTION(subject, **options)``, and why there is no result.

    Args:
        subject: mostly a cell: lattice (3, 3) with vectors as rows, Å; fractional coordinates (n, 3); atomic numbers
            (n,).

    Returns:
        The result and "", or None and the reason.
    """
    import spglib

    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # or it writes to standard error where it is at a loss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its two ways to report errors, once for every crystal
        try:
            found = getattr(spglib, function)(subject, **options)
        except spglib.SpglibError as error:  # newer versions raise, older ones give None
            return None, f"spglib: {one_line(error)}"
    return found, "" if found is not None else "spglib found no symmetry"
