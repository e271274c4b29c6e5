"""The crystals under evaluation, with those that were never written because they could not be built."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcdvae.evaluation.repeated_files import check_once
from dpcdvae.files import manifest_path
from dpcdvae.io import Failure, read_placed
from dpcdvae.structures.crystal import Crystal

MANIFEST = ".manifest.json"
SHAPELESS = ("model", "shard", "workers", "scheduler")
"""Arguments that may differ between the shards of one run; the model is identified by its hash."""


@dataclass(frozen=True)
class Generated:
    """Crystals of a file, or of all files of a folder.

    Attributes:
        crystals: those that could be read.
        failures: those that could not be read, or, as the manifests beside them say, not be built.
        part: whether the manifests say that they come of a part of a data set, as one was reconstructed.
    """

    crystals: list[Crystal]
    failures: list[Failure]
    part: bool

    @property
    def ids(self) -> set[str]:
        return {crystal.id for crystal in self.crystals} | {failure.id for failure in self.failures}


def read_generated(path: str | Path) -> Generated:
    """Reads crystals in any format, and the manifests of ``generate``, ``reconstruct`` or ``relax`` that lie there.

    A folder may hold several files, which are told on standard error. Shards of a run that are missing are named there:
    the numbers are then about a part of the run.

    Raises:
        InputError: as :func:`dpcdvae.io.read`; a folder that holds the same crystals in several files.
    """
    path = Path(path)
    failures: list[Failure] = []
    counts: dict[str, int] = {}
    crystals, places = read_placed(path, failures, counts=counts)
    if path.is_dir():
        check_once(path, crystals, places, counts)
    manifests = _manifests(path, counts)
    for manifest in manifests:
        for item in manifest["failures"]:
            where = item.get("where") or manifest.get("command", "")
            failures.append(Failure(str(item.get("id", "")), str(where), str(item.get("reason", ""))))
    missing = _missing_shards(manifests)
    if missing and path.is_dir():
        print(f"{path}: {missing}", file=sys.stderr)
    return Generated(crystals, failures, bool(missing) or any(map(_is_part, manifests)))


def _manifests(path: Path, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Those of ``path`` or of what lies in it, if they count as many crystals as were found.

    One that counts others belongs to an earlier file of that name. One without any crystal may lie there alone.
    """
    whole = _manifest(manifest_path(path), sum(counts.values()))
    if whole is not None or not path.is_dir():
        return [] if whole is None else [whole]
    inside = Counter(counts)
    for file, count in counts.items():
        for folder in Path(file).parents:
            if folder == path:
                break
            inside[str(folder)] += count
    found = {file: str(file).removesuffix(MANIFEST) for file in sorted(path.rglob(f"*{MANIFEST}"))}
    found |= {file: str(file.parent) for file in sorted(path.rglob("manifest.json"))}
    return [manifest for file, output in found.items() if (manifest := _manifest(file, inside[output])) is not None]


def _manifest(path: Path, crystals: int) -> dict[str, Any] | None:
    """None where there is no manifest of so many crystals; others' files may have the name of one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("crystals") != crystals:
        return None
    return content if isinstance(content.get("failures"), list) else None


def _is_part(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest.get("part") or manifest.get("arguments", {}).get("limit"))


def _missing_shards(manifests: Iterable[Mapping[str, Any]]) -> str:
    """In words; empty where no run has shards or all of them are there."""
    runs: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for manifest in manifests:
        arguments = manifest.get("arguments", {})
        number, slash, count = str(arguments.get("shard")).partition("/")
        if slash and number.isdecimal() and count.isdecimal():
            shaping = {name: value for name, value in arguments.items() if name not in SHAPELESS}
            run = json.dumps([manifest.get("command"), manifest.get("model_sha256"), shaping], sort_keys=True)
            runs[run, int(count)].add(int(number))
    missing = {run: sorted(set(range(1, run[1] + 1)) - there) for run, there in runs.items()}
    listed = [f"{_listed(gone)} of {count}" for (_, count), gone in missing.items() if gone]
    return f"not all shards are there: missing {'; '.join(listed)}" if listed else ""


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
