"""Results kept between runs, so that an interrupted evaluation goes on and the next one starts where it can.

A result belongs to the content of what it was computed from, not to its name or place. The different contents of one
call are stored in blocks of a fixed number, one file for each, named after their content. A file is written
whole under another name and renamed, so that several processes may write the same one; a file that
is damaged or of another layout counts as absent and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.datasets import home
from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output
from dpcdvae.parallel import Engine, Lost
from dpcdvae.progress import Progress

Result = npt.NDArray[np.float64] | str
"""A vector of numbers, or why there is none."""

Item = TypeVar("Item")

WORTH_KEEPING = 2.0
"""Seconds: of work that is done by then nothing is saved."""


@dataclass(frozen=True)
class Kind:
    """What is computed, with all that the numbers depend on beside the content.

    Attributes:
        name: of the folder, together with the version.
        version: of the algorithm: to be raised with every change of the numbers.
        settings: tolerances, versions of the tools: results of other settings are not looked at.
        block: results to a file: at most some ten seconds of work, which is what an interruption loses.
    """

    name: str
    version: str
    settings: Mapping[str, str | float] = field(default_factory=dict)
    block: int = 128


@dataclass(frozen=True)
class ResultCache:
    """How results are computed and where they are kept.

    Attributes:
        time_limit: seconds for one result.
        folder: None to keep nothing.
    """

    engine: Engine
    time_limit: float
    folder: Path | None = None

    def results(
        self,
        function: Callable[[Item], Result | Lost],
        items: Sequence[Item],
        keys: Sequence[str],
        kind: Kind,
        what: str,
    ) -> list[Result | Lost]:
        """``[function(item) for item in items]``, equal items computed once and known ones not at all.

        What was lost, in time or with its worker, is not kept: the next call tries it again.

        Args:
            keys: one for each item: hex digest of all of its content that the result depends on.
            what: for the progress bar.
        """
        first = {key: k for k, key in reversed(list(enumerate(keys)))}
        different = list(dict.fromkeys(keys))
        blocks = [different[start : start + kind.block] for start in range(0, len(different), kind.block)]
        known: dict[str, Result | Lost] = {}
        if self.folder is not None:
            for block in blocks:
                known |= load_block(self.folder, kind, block)
        missing = [key for key in different if key not in known]
        block_of = {key: block for block in range(len(blocks)) for key in blocks[block]}
        open_items = Counter(block_of[key] for key in missing)
        finished: list[int] = []
        began = time.monotonic()
        stream = self.engine.stream(function, [items[first[key]] for key in missing], time_limit=self.time_limit)
        with closing(stream), Progress(what, len(missing)) as bar:
            for index, result in stream:
                known[missing[index]] = result
                bar.advance()
                open_items[block_of[missing[index]]] -= 1
                if not open_items[block_of[missing[index]]]:
                    finished.append(block_of[missing[index]])
                if self.folder is not None and time.monotonic() - began >= WORTH_KEEPING:
                    while finished:
                        store_block(self.folder, kind, blocks[finished.pop()], known)
        return [known[key] for key in keys]


def load_block(folder: Path, kind: Kind, keys: Sequence[str]) -> dict[str, Result]:
    """What is known of a block."""
    try:
        with np.load(_file(folder, kind, keys), allow_pickle=False) as stored:
            values, lengths, reasons = stored["values"], stored["lengths"], stored["reasons"]
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return {}
    if values.dtype != np.float64 or lengths.dtype != np.int64 or not lengths.shape == reasons.shape == (len(keys),):
        return {}
    if lengths.min() < 0 or values.shape != (lengths.sum(),):
        return {}
    parts = np.split(values, np.cumsum(lengths)[:-1])
    return {
        key: str(reason) if reason else part
        for key, part, reason in zip(keys, parts, reasons, strict=True)
        if reason or len(part)
    }


def store_block(folder: Path, kind: Kind, keys: Sequence[str], known: Mapping[str, Result | Lost]) -> None:
    """Keeps what is known of a block. A folder that cannot be written is none of the user's concern here."""
    results = [known[key] for key in keys]
    vectors = [np.zeros(0) if isinstance(result, (str, Lost)) else result for result in results]
    reasons = np.array([result if isinstance(result, str) else "" for result in results], np.str_)
    lengths = np.array([len(vector) for vector in vectors], np.int64)
    try:
        with atomic_output(_file(folder, kind, keys)) as temporary:
            np.savez_compressed(temporary, values=np.concatenate(vectors), lengths=lengths, reasons=reasons)
    except (InputError, OSError):
        return


def default_cache() -> Path:
    """Where :func:`dpcdvae.evaluation.evaluate` keeps results; may be removed at any time."""
    return home() / "evaluation"


def content_hash(crystal: Crystal) -> str:
    """Hex digest of atoms, coordinates and lattice, to the last bit; id and properties do not count."""
    digest = hashlib.sha256(crystal.atomic_numbers.tobytes())
    digest.update(crystal.frac_coords.tobytes())
    digest.update(crystal.lattice.tobytes())
    return digest.hexdigest()


def joint_hash(hashes: Sequence[str]) -> str:
    """Hex digest of several contents, in their order."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


@cache
def pymatgen_version() -> str:
    """The version of the package that holds pymatgen's algorithms."""
    try:
        return version("pymatgen-core")
    except PackageNotFoundError:  # one package until 2026
        return version("pymatgen")


def _file(folder: Path, kind: Kind, keys: Sequence[str]) -> Path:
    settings = json.dumps(dict(kind.settings), sort_keys=True)
    return folder / f"{kind.name}-{kind.version}" / f"{joint_hash([settings, *keys])}.npz"
