"""The crystals of a reading, and the items that could not be used: stop at the first, or list them and go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dpcdvae.errors import InputError, printable, reason_of
from dpcdvae.progress import Progress
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import own_name


@dataclass(frozen=True)
class Failure:
    """A crystal that could not be read or made: its id if it has one, where it stands, and why in one line."""

    id: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class ReportedError(InputError):
    """An InputError whose message already says where."""


class Collector:
    """The crystals of one reading, and what was left out. Without a list of failures the first bad item raises.

    Attributes:
        column: the name of the column of crystals in tables; None where it is to be found.
        places: where each crystal stands. failed: how many items could not be used.
    """

    def __init__(self, failures: list[Failure] | None, progress: Progress, column: str | None = None) -> None:
        self.column = column
        self.crystals: list[Crystal] = []
        self.places: list[str] = []
        self.failed = 0
        self._notes: dict[str, tuple[int, str]] = {}  # text -> how often, and where first
        self._where = ""  # the place of the item that is being read
        self._failures = failures
        self._progress = progress

    @property
    def count(self) -> int:
        return len(self.crystals) + self.failed

    @contextlib.contextmanager
    def item(self, id: str, where: str) -> Iterator[None]:
        """Around the reading of one item: whatever a parser raises inside is a failure of this item alone."""
        outer, self._where = self._where, where
        try:
            yield
        except ReportedError:
            raise
        except Exception as error:
            self._fail(id, parser_reason(error))
        finally:
            self._where = outer

    def add(self, crystal: Crystal) -> None:
        """Keeps the crystal of the present item, properties under their own names, unless it has NaN or no volume."""
        if (reason := crystal.problem()) is not None:
            self._fail(crystal.id, reason)
            return
        properties = {own_name(name): value for name, value in crystal.properties.items()}
        self.crystals.append(crystal if properties == crystal.properties else replace(crystal, properties=properties))
        self.places.append(self._where)
        self._progress.advance()

    def _fail(self, id: str, reason: str) -> None:
        failure = Failure(printable(id), self._where, printable(reason))
        if self._failures is None:
            raise ReportedError(str(failure))
        self._failures.append(failure)
        self.failed += 1
        self._progress.advance()

    def note(self, text: str, where: str = "") -> None:
        """Counts something that was left out of the present item, or at ``where``; each text becomes one line."""
        times, first = self._notes.get(text, (0, where or self._where))
        self._notes[text] = times + 1, first

    def note_lines(self) -> list[str]:
        """Each note once, with the first place and how often it came."""
        notes = self._notes.items()
        return [f"{first}: {text}" + (f" ({times} times)" if times > 1 else "") for text, (times, first) in notes]


def parser_reason(error: Exception) -> str:
    """Why something could not be read: the line of an InputError, kind and text of any other exception."""
    return str(error) if isinstance(error, InputError) else f"cannot be read ({reason_of(error)})"
