"""The evaluation behind a report: what its manifest says it was made of, so that its distributions can be plotted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpcdvae.errors import InputError
from dpcdvae.evaluation.reference import Reference, file_behind
from dpcdvae.files import manifest_path, sha256
from dpcdvae.report_files import call_behind, check_claimed, crystals_behind, is_report, json_in
from dpcdvae.structures.space_groups import CONVENTIONS, REDUCED


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


def report_in(path: Path) -> ReportCall | None:
    """The call behind a report; None for another file.

    Raises:
        InputError: its manifest is missing or none; its crystals, or what they were compared with, are gone or others
            by now.
    """
    if not is_report(json_in(path)):
        return None
    manifest = call_behind(path)
    given = manifest["arguments"]
    texts = [given.get(name) for name in ("training", "energy_model", "column")]
    seed, symmetry, paired = given.get("seed", 0), given.get("symmetry", REDUCED), given.get("paired", False)
    if not all(text is None or isinstance(text, str) for text in texts) or not (
        isinstance(seed, int) and 0 <= seed < 2**64 and symmetry in CONVENTIONS and isinstance(paired, bool)
    ):
        raise InputError(f"{manifest_path(path)} is not what evaluate wrote: evaluate again")
    training, energy_model, column = texts
    for name, text in (("reference", given["reference"]), ("training", training)):
        if text is not None and (file := file_behind(text)) is not None:
            check_claimed(file, path)
            if sha256(file) != manifest.get(f"{name}_sha256"):
                raise InputError(f"{file} is not what the report was compared with any more: evaluate again")
    return ReportCall(
        crystals_behind(path),
        given["reference"],
        paired,
        training,
        energy_model,
        seed,
        symmetry,
        column,
        str(manifest.get("reference_sha256", "")),
    )
