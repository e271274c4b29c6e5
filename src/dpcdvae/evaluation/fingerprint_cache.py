"""Fingerprints kept between runs: one file for each block of crystals, named after their content.

A file is written whole under another name and renamed, so that several processes may write the same
one; a file that is damaged or of another layout counts as absent and is written anew.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.datasets import home
from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output

ALGORITHM = "structure-1"
"""To be raised with every change of the numbers: files of other versions are not looked at."""

Result = npt.NDArray[np.float64] | str


def default_cache() -> Path:
    """Where :func:`dpcdvae.evaluation.evaluate` keeps fingerprints; may be removed at any time."""
    return home() / "fingerprints"


def load_block(cache: Path, keys: Sequence[str], width: int) -> dict[int, Result]:
    """What is known of a block: place in it -> fingerprint (width,), or why there is none."""
    try:
        with np.load(_file(cache, keys), allow_pickle=False) as stored:
            values, reasons = stored["values"], stored["reasons"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    if values.shape != (len(keys), width) or values.dtype != np.float64 or reasons.shape != (len(keys),):
        return {}
    known = np.isfinite(values).all(axis=1)
    return {k: values[k] if known[k] else str(reasons[k]) for k in range(len(keys)) if known[k] or reasons[k]}


def store_block(cache: Path, keys: Sequence[str], found: Mapping[int, Result], width: int) -> None:
    """Keeps what is known of a block. A folder that cannot be written is none of the user's concern here."""
    values = np.full((len(keys), width), np.nan)
    reasons = [""] * len(keys)
    for k, result in found.items():
        if isinstance(result, str):
            reasons[k] = result
        else:
            values[k] = result
    try:
        with atomic_output(_file(cache, keys)) as temporary:
            np.savez_compressed(temporary, values=values, reasons=np.array(reasons, dtype=np.str_))
    except (InputError, OSError):
        return


def _file(cache: Path, keys: Sequence[str]) -> Path:
    return cache / ALGORITHM / f"{hashlib.sha256(''.join(keys).encode()).hexdigest()}.npz"
