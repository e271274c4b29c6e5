"""The threshold of decoding by agreement: measured when a run ends, stored with the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dpcdvae.errors import InputError, printable

LARGEST = 1e12


@dataclass(frozen=True)
class Agreement:
    """The latent distance below which a decode is kept, measured on validation crystals.

    Attributes:
        threshold: a decode that lies as near to its z, or nearer, is kept without another try; 0: none is.
        crystals: validation crystals decoded to find it; matched: those that came back as themselves.
        accepted: those below the threshold; accepted_matched: those of them that came back as themselves.
        steps: solver steps of each decode.
    """

    threshold: float
    crystals: int
    matched: int
    accepted: int
    accepted_matched: int
    steps: int

    @classmethod
    def of_checkpoint(cls, facts: Mapping[str, Any], where: str) -> Agreement | None:
        """The threshold among a checkpoint's facts; None where it was not measured.

        Raises:
            InputError: one of the numbers is missing, or no number of 0 or more.
        """
        stored = facts.get("agreement")
        if stored is None:
            return None
        if not isinstance(stored, Mapping):
            raise InputError(f"{where}: its agreement is {stored!r}, no table: copy the checkpoint again")
        found: dict[str, Any] = {field.name: stored.get(field.name, "missing") for field in fields(cls)}
        for name, value in found.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST:
                given = printable(repr(value))[:40]
                raise InputError(
                    f"{where}: {name} of its agreement is {given}, no number of 0 or more: copy the checkpoint again"
                )
        return cls(**found)

    def to_facts(self) -> dict[str, Any]:
        return asdict(self)
