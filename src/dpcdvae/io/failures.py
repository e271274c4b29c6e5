"""What happens to an item of a file that cannot be used: stop there, or note it and go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from dpcdvae.errors import InputError, printable, reason_of
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
        self.places: list[str] = []
        """Where each crystal stands."""
        self.failed = 0
        self.notes: dict[str, tuple[int, str]] = {}
        """What was left out of crystals that were kept: how often, and where first."""
        self._failures = failures
        self._progress = progress

    @property
    def count(self) -> int:
        return len(self.crystals) + self.failed

    def fail(self, id: str, where: str, reason: str) -> None:
        failure = Failure(printable(id), where, printable(reason))
        if self._failures is None:
            raise ReportedError(str(failure))
        self._failures.append(failure)
        self.failed += 1
        self._progress.advance()

    @contextlib.contextmanager
    def item(self, id: str, where: str) -> Iterator[None]:
        """Whatever a parser raises inside is a failure of this item alone."""
        try:
            yield
        except ReportedError:
            raise
        except Exception as error:
            self.fail(id, where, parser_reason(error))

    def add(self, crystal: Crystal, where: str) -> None:
        """Keeps a crystal, unless it has NaN or no volume."""
        reason = crystal.problem()
        if reason is None:
            self.crystals.append(crystal)
            self.places.append(where)
            self._progress.advance()
        else:
            self.fail(crystal.id, where, reason)

    def note(self, text: str, where: str, count: int = 1) -> None:
        """Something that was left out of a crystal: told once for each text, with a count and the first place."""
        before, first = self.notes.get(text, (0, where))
        self.notes[text] = before + count, first

    def told(self) -> list[str]:
        """The notes, a line each."""
        return [f"{first}: {text}" + (f" ({count} times)" if count > 1 else "")
                for text, (count, first) in self.notes.items()]  # fmt: skip


def parser_reason(error: Exception) -> str:
    """Why something could not be read: the line of an InputError, kind and text of any other exception."""
    return str(error) if isinstance(error, InputError) else f"cannot be read ({reason_of(error)})"
