"""Reports of ``evaluate --json`` in files, and the crystals that they are about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.files import manifest_path, sha256

SCHEMA = "dpcdvae.evaluation/"


def is_report(content: Any) -> bool:
    """Whether JSON is what ``dpcdvae evaluate --json`` wrote."""
    return isinstance(content, dict) and str(content.get("schema", "")).startswith(SCHEMA)


def json_in(path: Path) -> Any:
    """The content of a JSON file; None for another file, or for what cannot be read."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes(), parse_constant=_no_number)
    except Exception:  # also what is too deep: who reads crystals of it says what is wrong
        return None


def call_behind(report: Path) -> Mapping[str, Any]:
    """The manifest beside a report; raises InputError where there is none, or one of another command."""
    path = manifest_path(report)
    manifest = json_in(path)
    try:
        given = manifest["arguments"]
        texts = given["crystals"], given["reference"], manifest["crystals_sha256"]
        known = all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError):
        known = False
    if not known:
        raise InputError(
            f"{report}: numbers alone hold no distributions, and no manifest beside them ({path.name}) says which "
            "crystals they are of: give the crystals and --reference instead"
        )
    found: Mapping[str, Any] = manifest
    return found


def crystals_behind(report: Path) -> Path:
    """The crystals that a report is about, where its manifest says, or beside the report.

    Raises:
        InputError: as :func:`call_behind`; they are gone, or others by now.
    """
    manifest = call_behind(report)
    wanted = Path(manifest["arguments"]["crystals"])
    found = next((place for place in (wanted, report.parent / wanted.name) if place.exists()), None)
    if found is None:
        raise InputError(f"{report} is about {wanted}, which is not there: give the crystals and --reference instead")
    check_unchanged(found, report, manifest["crystals_sha256"])
    return found


def check_unchanged(crystals: Path, report: Path, digest: str) -> None:
    """Raises InputError for crystals that are gone, or are not those with the hash in a report's manifest."""
    if not crystals.exists() or sha256(crystals) != digest:
        raise InputError(f"{crystals} is not what {report} is about any more: evaluate it again")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
