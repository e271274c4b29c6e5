"""What happens to an item of a file that cannot be used: stop there, or note it and go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from dpcdvae.errors import InputError
from dpcdvae.progress import Progress
from dpcdvae.structures.crystal import Crystal


@dataclass(frozen=True)
class Failure:
    """An item that could not be read: its id if it has one, where it stands, and why in one line."""

    id: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class ReportedError(InputError):
    """An InputError whose message already says where."""


class Collector:
    """The crystals of one reading. Without a list of failures the first bad item raises InputError."""

    def __init__(self, failures: list[Failure] | None, progress: Progress) -> None:
        self.crystals: list[Crystal] = []
        self.failed = 0
        self._failures = failures
        self._progress = progress

    @property
    def count(self) -> int:
        return len(self.crystals) + self.failed

    def fail(self, id: str, where: str, reason: str) -> None:
        failure = Failure(id, where, " ".join(reason.split()))
        if self._failures is None:
            raise ReportedError(str(failure))
        self._failures.append(failure)
        self.failed += 1
        self._progress.advance()

    @contextlib.contextmanager
    def item(self, id: str, where: str) -> Iterator[None]:
        """An InputError inside is a failure of this item alone."""
        try:
            yield
        except ReportedError:
            raise
        except InputError as error:
            self.fail(id, where, str(error))

    def add(self, crystal: Crystal, where: str) -> None:
        """Keeps a crystal, unless it has NaN or no volume."""
        reason = crystal.problem()
        if reason is None:
            self.crystals.append(crystal)
            self._progress.advance()
        else:
            self.fail(crystal.id, where, reason)
