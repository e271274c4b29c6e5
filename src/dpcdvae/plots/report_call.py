"""The evaluation behind a report: what its manifest says it was made of, so that its distributions can be plotted."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpcdvae.drawing.page.report_section import is_report
from dpcdvae.errors import InputError
from dpcdvae.evaluation.reference import Reference
from dpcdvae.files import manifest_path, sha256
from dpcdvae.structures.space_groups import REDUCED


@dataclass(frozen=True)
class ReportCall:
    """What ``dpcdvae evaluate --json`` was called with, as far as it shapes a plot.

    Attributes:
        crystals: the file or folder. reference, training, energy_model: as ``evaluate`` takes them.
        column: of the crystals in a table.
        reference_sha256: of the reference as it was then, "" where that is not known.
    """

    crystals: Path
    reference: str
    paired: bool = False
    training: str | None = None
    energy_model: str | None = None
    seed: int = 0
    symmetry: str = REDUCED
    column: str | None = None
    reference_sha256: str = ""

    def check(self, reference: Reference) -> None:
        """Raises InputError where the reference is another one by now."""
        if self.reference_sha256 and reference.sha256 != self.reference_sha256:
            raise InputError(f"{self.reference} is not what the report was compared with any more: evaluate again")


def json_in(path: Path) -> Any:
    """The content of a JSON file; None for another file, or for what cannot be read."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except Exception:  # also what is too deep: who reads crystals of it says what is wrong
        return None


def report_in(path: Path) -> ReportCall | None:
    """The call behind a report; None for another file. Raises InputError as :func:`call_of_report`."""
    return call_of_report(path) if is_report(json_in(path)) else None


def call_of_report(report: Path) -> ReportCall:
    """The call in the manifest beside a report.

    Raises:
        InputError: there is no such manifest, or its crystals are gone or others by now.
    """
    path = manifest_path(report)
    try:
        manifest = json.loads(path.read_bytes())
        given: dict[str, Any] = manifest["arguments"]
        wanted, digest = Path(given["crystals"]), str(manifest["crystals_sha256"])
        call = ReportCall(
            wanted,
            str(given["reference"]),
            bool(given["paired"]),
            given["training"],
            given["energy_model"],
            int(given["seed"]),
            str(given["symmetry"]),
            given.get("column"),
            str(manifest.get("reference_sha256", "")),
        )
    except Exception:  # whatever is wrong with it, the way out is the same
        raise InputError(
            f"{report}: numbers alone hold no distributions, and no manifest beside them ({path.name}) says which "
            "crystals they are of: give the crystals and --reference instead"
        ) from None
    found = next((place for place in (wanted, report.parent / wanted.name) if place.exists()), None)
    if found is None:
        raise InputError(f"{report} is about {wanted}, which is not there: give the crystals and --reference instead")
    if sha256(found) != digest:
        raise InputError(f"{found} is not what {report} is about any more: evaluate it again")
    return replace(call, crystals=found)
