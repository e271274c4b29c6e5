"""The crystals under judgement, with those that were never written because they could not be built."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcdvae.crystal import Crystal
from dpcdvae.files import manifest_path
from dpcdvae.io import Failure, read


@dataclass(frozen=True)
class Generated:
    """Crystals of a file.

    Attributes:
        crystals: those that could be read.
        failures: those that could not be read, or, as the manifest beside them tells, not be built.
        part: whether the manifest tells that they come of a part of a data set, as one was reconstructed.
    """

    crystals: list[Crystal]
    failures: list[Failure]
    part: bool

    @property
    def ids(self) -> set[str]:
        return {crystal.id for crystal in self.crystals} | {failure.id for failure in self.failures}


def read_generated(path: str | Path) -> Generated:
    """Reads crystals in any format, and the manifest of ``generate``, ``reconstruct`` or ``relax`` if it lies there.

    Raises:
        InputError: as :func:`dpcdvae.io.read`.
    """
    failures: list[Failure] = []
    crystals = read(path, failures)
    manifest = _manifest(manifest_path(path))
    # A manifest that counts other crystals belongs to an earlier file of that name.
    if manifest.get("crystals") != len(crystals) + len(failures) or not isinstance(manifest.get("failures"), list):
        return Generated(crystals, failures, part=False)
    for item in manifest["failures"]:
        where = item.get("where") or manifest.get("command", "")
        failures.append(Failure(str(item.get("id", "")), str(where), str(item.get("reason", ""))))
    return Generated(crystals, failures, part=bool(manifest.get("part") or manifest.get("arguments", {}).get("limit")))


def _manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # crystals of others have no manifest, or another kind of file of that name
    return content if isinstance(content, dict) else {}
