"""Results kept between runs, so that an interrupted evaluation goes on and the next one starts where it can.

A result belongs to the content of what it was computed from, not to its name, its place or what else was computed
with it. The results of a kind and its settings lie in 16 files of records (:mod:`dpcdvae.parallel.store`), by the first
digit of their keys. Nothing is locked: several processes may append to a file, and where two machines write over each
other the damaged lines count as absent and are computed again. A file that has outgrown :data:`LARGEST` is replaced by
its newer half, so that a kind stays below 16 times that; results of older versions and other settings stay until the
folder is removed, which may be done at any time.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output, home
from dpcdvae.parallel.engine import Engine, Lost
from dpcdvae.parallel.store import append, scan
from dpcdvae.progress import Progress

Vector = npt.NDArray[np.float64]
Result = Vector | str
"""A vector of numbers, or the reason why there is none."""

Item = TypeVar("Item")

WORTH_KEEPING = 2.0
"""Seconds of work that are saved at a time, which is what a kill loses; shorter work is not saved."""

LARGEST = 16 * 2**20
"""Bytes of a file: 16 of them hold half a million fingerprints."""


@dataclass(frozen=True)
class Kind:
    """A kind of results, with all that its numbers depend on beside the content.

    Attributes:
        name: of the folder, together with the version.
        version: of the algorithm (a module's ``ALGORITHM``): to be raised with every change of the numbers.
        settings: tolerances, versions of the tools: results of other settings are not looked at.
    """

    name: str
    version: str
    settings: Mapping[str, str | float] = field(default_factory=dict)


class Chosen(Sequence[Item]):
    """Some items of a sequence, looked up when they are asked for: a sequence may make them then."""

    def __init__(self, items: Sequence[Item], places: Sequence[int]) -> None:
        self._items, self._places = items, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        return self._items[self._places[index]]


@dataclass(frozen=True)
class Results:
    """Computed results and the engine that computes more: one object for all questions about a set of crystals.

    What was computed once is known for as long as the object lives, and in the next run where there is a folder.

    Attributes:
        engine: where to compute.
        time_limit: seconds of CPU time for one result.
        folder: where results are kept between runs; None to keep nothing.
    """

    engine: Engine
    time_limit: float
    folder: Path | None = None
    _known: dict[str, dict[str, Result | Lost]] = field(default_factory=dict, repr=False)

    def compute(
        self,
        function: Callable[[Item], Result | Lost],
        items: Sequence[Item],
        keys: Sequence[str],
        kind: Kind,
        what: str,
    ) -> tuple[list[Vector | None], dict[int, str]]:
        """``function(item)`` for each item, equal items computed once and known ones not at all.

        What was lost, in time or with its worker, is not kept between runs: the next one tries it again.

        Args:
            keys: one for each item: hex digest of all of its content that the result depends on.
            what: for the progress bar.

        Returns:
            One vector for each item, None where there is none, and the reasons for these by index.
        """
        known = self._known.setdefault(json.dumps(asdict(kind), sort_keys=True), {})
        first = {key: k for k, key in reversed(list(enumerate(keys))) if key not in known}
        if self.folder is not None and first:
            known.update(load(self.folder, kind, first))
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if missing:
            chosen = Chosen(items, [first[key] for key in missing])
            known.update(self._computed(function, chosen, missing, kind, what))
        values: list[Vector | None] = [None] * len(keys)
        reasons: dict[int, str] = {}
        for k, key in enumerate(keys):
            result = known[key]
            if isinstance(result, str | Lost):
                reasons[k] = result if isinstance(result, str) else result.reason
            else:
                values[k] = result
        return values, reasons

    def _computed(
        self,
        function: Callable[[Item], Result | Lost],
        items: Sequence[Item],
        keys: Sequence[str],
        kind: Kind,
        what: str,
    ) -> dict[str, Result | Lost]:
        """The results by key; what is not lost is kept in the folder as it comes."""
        found: dict[str, Result | Lost] = {}
        unsaved: dict[str, Result] = {}
        began = saved = time.monotonic()
        stream = self.engine.stream(function, items, time_limit=self.time_limit, cpu=True)
        with contextlib.closing(stream), Progress(what, len(keys)) as bar:
            try:
                for index, result in stream:
                    bar.advance()
                    found[keys[index]] = result
                    if not isinstance(result, Lost):
                        unsaved[keys[index]] = result
                    if self.folder is not None and time.monotonic() - saved >= WORTH_KEEPING:
                        store(self.folder, kind, unsaved)
                        unsaved, saved = {}, time.monotonic()
            finally:
                if self.folder is not None and time.monotonic() - began >= WORTH_KEEPING:
                    store(self.folder, kind, unsaved)
        return found


def load(folder: Path, kind: Kind, keys: Collection[str]) -> dict[str, Result]:
    """The kept results of these keys."""
    wanted = set(keys)
    found: dict[str, Result] = {}
    for digit in {key[0] for key in wanted}:
        with contextlib.suppress(OSError):
            found.update((key, _decoded(value)) for key, value, _ in scan(_file(folder, kind, digit)) if key in wanted)
    return found


def store(folder: Path, kind: Kind, results: Mapping[str, Result]) -> None:
    """Adds results. A folder that cannot be written is none of the user's concern here."""
    by_digit: dict[str, dict[str, bytes]] = {}
    for key, result in results.items():
        by_digit.setdefault(key[0], {})[key] = _encoded(result)
    with contextlib.suppress(InputError, OSError):
        for digit, some in by_digit.items():
            file = _file(folder, kind, digit)
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileIO(file, "a") as stream:
                append(stream, some)
                size = stream.tell()
            if size > LARGEST:
                _halve(file)


def _halve(file: Path) -> None:
    """Keeps the newer half; what another process appends meanwhile is lost, and computed again."""
    newer = file.read_bytes()[-(LARGEST // 2) :]
    with atomic_output(file) as temporary:
        temporary.write_bytes(newer)


def _encoded(result: Result) -> bytes:
    """A letter for text or vector, then its bytes in base64."""
    if isinstance(result, str):
        return b"t" + binascii.b2a_base64(result.encode(), newline=False)
    return b"v" + binascii.b2a_base64(np.ascontiguousarray(result, "<f8").tobytes(), newline=False)


def _decoded(value: bytes) -> Result:
    plain = binascii.a2b_base64(value[1:])
    return plain.decode() if value[:1] == b"t" else np.frombuffer(plain, "<f8").astype(np.float64)


def default_cache() -> Path:
    """The folder of results kept between runs; may be removed at any time."""
    return home() / "evaluation"


def joint_hash(hashes: Sequence[str]) -> str:
    """Hex digest of several contents, in their order."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _file(folder: Path, kind: Kind, digit: str) -> Path:
    settings = json.dumps(dict(kind.settings), sort_keys=True)
    return folder / f"{kind.name}-{kind.version}" / joint_hash([settings])[:16] / f"{digit}.txt"
