"""The finished batches of a run on disk, so that a process that is killed loses no more than those it was at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

from dpcdvae.files import work_folder, write_text
from dpcdvae.io import CrystalList, Failure
from dpcdvae.io.crystal_list import CrystalSequence
from dpcdvae.io.documents import parse_json, render_json
from dpcdvae.io.failures import Collector
from dpcdvae.parallel.store import Store
from dpcdvae.progress import Progress
from dpcdvae.structures.crystal import Crystal


@dataclass(frozen=True, repr=False)
class GenerationResult(CrystalSequence, Sequence[Crystal]):
    """Crystals from a model, of which it is a sequence, and those that could not be built, with the reason.

    ``passes`` counts evaluations of the denoiser, one per crystal and step (``heun``: two).

    Example:
        >>> result = dpcdvae.generate(model, 64)
        >>> result[0].formula, len(result), result.to_pandas()
    """

    crystals: list[Crystal]
    failures: list[Failure]
    passes: int = 0

    @classmethod
    def of(cls, results: Sequence[Crystal | Failure], passes: int) -> GenerationResult:
        """The crystals and the failures among ``results``, each in their order."""
        crystals = [result for result in results if isinstance(result, Crystal)]
        return GenerationResult(crystals, [result for result in results if isinstance(result, Failure)], passes)

    def to_crystals(self) -> list[Crystal]:
        return self.crystals

    def __len__(self) -> int:
        return len(self.crystals)

    @overload
    def __getitem__(self, index: int) -> Crystal: ...
    @overload
    def __getitem__(self, index: slice) -> CrystalList: ...
    def __getitem__(self, index: int | slice) -> Crystal | CrystalList:
        return CrystalList(self.crystals[index]) if isinstance(index, slice) else self.crystals[index]

    def __iter__(self) -> Iterator[Crystal]:
        return iter(self.crystals)


def generated_id(seed: int, number: int) -> str:
    """The id of crystal ``number`` of a seed: ``0-17``."""
    return f"{seed}-{number}"


def number_of(id: str) -> int:
    """The number in a :func:`generated_id`."""
    return int(id.rpartition("-")[2])


WRITING = "writing"
"""A file that is there from when a complete output is put in place until the folder is removed."""


def is_writing(out: Path) -> bool:
    """Whether a run was killed after it had begun to put its complete output in place."""
    return (work_folder(out) / WRITING).exists()


class Parts:
    """The batches of one run that are there, in a folder beside its output, locked while it is open.

    Args:
        out: the output of the run.
        settings: all that shapes its crystals, as plain values.

    Raises:
        InputError: as :class:`dpcdvae.parallel.store.Store`.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.folder = work_folder(out)
        self._removed = False
        self._store = Store(self.folder, settings, instead=f"remove {self.folder}, or give another --out")

    def done(self) -> set[int]:
        """Numbers (of their first crystals) of the batches that are there."""
        return {int(key) for key in self._store}

    def add(self, number: int, part: GenerationResult) -> None:
        """Keeps a batch, for good when this returns."""
        failures = [[failure.id, failure.where, failure.reason] for failure in part.failures]
        crystals = render_json(part.crystals).decode()
        self._store.add(str(number), {"failures": failures, "passes": part.passes, "crystals": crystals})

    def get(self, number: int) -> GenerationResult:
        """A batch as it was added, bit by bit; raises InputError if it was damaged on the disk."""
        record = self._store.get(str(number))
        collector = Collector(None, Progress("reading"))
        parse_json(record["crystals"].encode(), str(self.folder), "", collector)
        return GenerationResult(collector.crystals, [Failure(*entry) for entry in record["failures"]], record["passes"])

    def joined(self, numbers: Iterable[int]) -> GenerationResult:
        """All that came of several batches, in their order."""
        parts = [self.get(number) for number in numbers]
        return GenerationResult(
            [crystal for part in parts for crystal in part.crystals],
            [failure for part in parts for failure in part.failures],
            sum(part.passes for part in parts),
        )

    def begin_writing(self) -> None:
        """Marks that a complete output may be there from now on, so that a run that goes on may replace it."""
        write_text(self.folder / WRITING, "")

    def remove(self) -> None:
        """Removes the folder once the output is complete: all of it at once, or nothing."""
        self._removed = True
        self._store.remove()

    def close(self) -> None:
        """Leaves the folder where there is something to go on from."""
        if not self._removed and not self.done():
            self.remove()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
