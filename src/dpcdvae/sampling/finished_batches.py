"""The finished batches of a run on disk, so that a process that is killed loses no more than those it was at."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output, lock, write_json, write_text
from dpcdvae.io import Failure
from dpcdvae.io.documents import parse_json, render_json
from dpcdvae.io.failures import Collector
from dpcdvae.progress import Progress
from dpcdvae.structures.crystal import Crystal


class Part(NamedTuple):
    """A finished batch; ``passes`` of the denoiser, each for one crystal."""

    crystals: list[Crystal]
    failures: list[Failure]
    passes: int


# Not with an ending of crystals: the folder may lie among finished shards, which are read together.
SETTINGS, WRITING, SUFFIX = "settings", "writing", ".part"


def work_folder(out: Path) -> Path:
    """Where the parts of ``out`` lie until it is complete: beside it."""
    return out.with_name(out.name + ".work")


def is_writing(out: Path) -> bool:
    """Whether a run was killed after it had begun to put its complete output in place."""
    return (work_folder(out) / WRITING).exists()


class Parts:
    """The batches of one run that are there, in a folder beside its output, locked while it is open.

    Args:
        out: the output of the run.
        settings: all that shapes its crystals, as plain values.

    Raises:
        InputError: another process is at it, it was begun with other settings, or it cannot be written.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.folder = work_folder(out)
        self._removed = False
        with self._one_line():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.folder, "wait for it, or give another --out")
        try:
            self._begin(json.loads(json.dumps(dict(settings))))
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, settings: dict[str, Any]) -> None:
        path = self.folder / SETTINGS
        if not path.exists():
            write_json(path, settings)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict):
            raise InputError(f"{path} is damaged: remove the folder, and begin anew")
        for name in sorted({*before, *settings}):
            if (old := before.get(name)) != (new := settings.get(name)):
                raise InputError(
                    f"{self.folder} holds a part of a run with {name} {old!r}, not {new!r}: give the command that "
                    "began it, remove it, or give another --out"
                )

    def done(self) -> set[int]:
        """Numbers (of their first crystals) of the batches that are there."""
        return {int(path.stem) for path in self.folder.glob(f"*{SUFFIX}") if re.fullmatch("[0-9]{9,}", path.stem)}

    def add(self, number: int, part: Part) -> None:
        """Keeps a batch, for good when this returns."""
        failures = [[failure.id, failure.where, failure.reason] for failure in part.failures]
        head = json.dumps({"failures": failures, "passes": part.passes})
        with atomic_output(self._path(number)) as temporary:
            temporary.write_bytes(head.encode() + b"\n" + render_json(part.crystals))

    def get(self, number: int) -> Part:
        """A batch as it was added, bit by bit; raises InputError if the disk spoilt it."""
        path = self._path(number)
        collector = Collector(None, Progress("reading"))
        with self._one_line():
            head, _, body = path.read_bytes().partition(b"\n")
        try:
            facts = json.loads(head)
            failures = [Failure(*entry) for entry in facts["failures"]]
            parse_json(body, str(path), "", collector)
            if not isinstance(passes := facts["passes"], int) or passes < 0:
                raise ValueError(f"{passes} passes")
            return Part(collector.crystals, failures, passes)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged: remove it, and give the command again ({error})") from None

    def begin_writing(self) -> None:
        """From here on a complete output may be there: a run that goes on from here may replace it."""
        write_text(self.folder / WRITING, "")

    def remove(self) -> None:
        """Once the output is complete; all of it at once, or not at all."""
        with self._one_line():
            self._removed = True
            gone = self.folder.rename(self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex[:8]}"))
        shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """Leaves the folder where there is something to go on from."""
        if not self._removed and not self.done():
            self.remove()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:09d}{SUFFIX}"

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"cannot use {self.folder}: {error.strerror or error}") from error
