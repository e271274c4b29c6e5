"""Reports of ``evaluate --json`` and tables of its ``--table`` in files, and the crystals that they are about."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.files import manifest_path, refuse_device, sha256

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


MOST_FILES, MOST_BYTES = 100_000, 4 * 2**30
"""Of what a manifest names: reading so much takes some ten seconds."""

NO_DATA = ("/", "/proc", "/sys", "/dev")
"""Folders in which reading may never end."""


def check_claimed(path: Path, report: Path) -> None:
    """Raises InputError where it would take long to read what the manifest of a report names.

    Whoever sends a report may name any folder in it, such as ``/``.
    """
    refuse_device(path)
    if _is_too_large(path):
        raise InputError(
            f"{manifest_path(report)} names {path}, which is larger than what is read because a manifest says so "
            f"({MOST_FILES} files, {MOST_BYTES >> 30} GiB): give the crystals and --reference instead"
        )


def _is_too_large(path: Path) -> bool:
    """Looks at no more than :data:`MOST_FILES` files."""
    resolved = path.resolve()
    if any(str(resolved) == place or (place != "/" and resolved.is_relative_to(place)) for place in NO_DATA):
        return True
    if not path.is_dir():
        return path.stat().st_size > MOST_BYTES
    inside, size = list(itertools.islice(path.rglob("*"), MOST_FILES + 1)), 0
    for file in inside:
        with contextlib.suppress(OSError):  # unreadable, or gone by now
            size += file.stat().st_size
    return len(inside) > MOST_FILES or size > MOST_BYTES


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
    """Raises InputError for crystals that are gone, too large to look at, or not those with the hash in a manifest."""
    if crystals.exists():
        check_claimed(crystals, report)
    if not crystals.exists() or sha256(crystals) != digest:
        raise InputError(f"{crystals} is not what {report} is about any more: evaluate it again")


def check_about(output: Path, crystals: Path) -> None:
    """Raises InputError where the manifest of what ``evaluate`` wrote says that it is about other crystals."""
    manifest = json_in(manifest_path(output))
    digest = manifest.get("crystals_sha256") if isinstance(manifest, dict) else None
    if digest is not None and digest != sha256(crystals):
        raise InputError(f"{output} is not about {crystals}, as its manifest says: evaluate these crystals")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
