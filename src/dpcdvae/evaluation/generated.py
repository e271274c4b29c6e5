"""The crystals under evaluation, with those that were never written because they could not be built."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from dpcdvae.errors import printable
from dpcdvae.evaluation.repeated_files import check_once
from dpcdvae.files import MANIFEST, NOT_SHAPING, complaint, manifest_path
from dpcdvae.io import Failure, read_placed
from dpcdvae.structures.crystal import Crystal

MAY_DIFFER = (*NOT_SHAPING, "device", "shard")
"""Arguments that may differ between the shards of one run."""


class _Failed(BaseModel):
    id: Any = ""
    where: str = ""
    reason: Any = ""


class Manifest(BaseModel):
    """What is read of a manifest. One whose fields are of other types is another kind of file."""

    model_config = ConfigDict(strict=True)

    crystals: int
    failures: list[_Failed]
    command: str = ""
    arguments: dict[str, Any] = {}
    model_sha256: str | None = None
    part: bool = False


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


def read_generated(path: str | Path, column: str | None = None) -> Generated:
    """Reads crystals in any format, and the manifests of ``generate``, ``reconstruct`` or ``relax`` that lie there.

    If a folder holds several files, a note on standard error lists them. Another note names the missing shards of a
    run: the numbers are then those of a part of the run.

    Args:
        column: as of :func:`dpcdvae.io.read`.

    Raises:
        InputError: as :func:`dpcdvae.io.read`; a folder that holds the same crystals in several files.
    """
    path = Path(path)
    failures: list[Failure] = []
    counts: dict[str, int] = {}
    crystals, places = read_placed(path, failures, counts, column=column)
    if path.is_dir():
        check_once(path, crystals, places, counts)
    manifests = _manifests(path, counts)
    for manifest in manifests:
        for item in manifest.failures:
            texts = (item.id, item.where or manifest.command, item.reason)
            failures.append(Failure(*(printable(str(text)) for text in texts)))
    missing = _missing_shards(manifests)
    if missing and path.is_dir():
        print(f"{path}: {missing}", file=sys.stderr)
    return Generated(crystals, failures, bool(missing) or any(map(_is_part, manifests)))


def _manifests(path: Path, counts: Mapping[str, int]) -> list[Manifest]:
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


def _manifest(path: Path, crystals: int) -> Manifest | None:
    """None where there is no manifest of so many crystals; others' files may have the name of one.

    One that seems meant but cannot be read is named on standard error: the failures that it lists are not counted.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())  # which refuses what is too deep, and numbers without an end
        if not isinstance(content, dict) or not {"crystals", "failures"} <= content.keys():
            return None
        manifest = Manifest.model_validate_json(json.dumps(content))
    except Exception as error:  # whatever is wrong with it
        print(
            f"{printable(str(path))}: no manifest that can be read, passed over ({complaint(error)})", file=sys.stderr
        )
        return None
    return manifest if manifest.crystals == crystals else None


def _is_part(manifest: Manifest) -> bool:
    return bool(manifest.part or manifest.arguments.get("limit"))


def _missing_shards(manifests: Iterable[Manifest]) -> str:
    """In words; empty where no run has shards or all of them are there."""
    runs: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for manifest in manifests:
        shard = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(manifest.arguments.get("shard")))
        if shard is not None:
            shaping = {name: value for name, value in manifest.arguments.items() if name not in MAY_DIFFER}
            run = repr((manifest.command, manifest.model_sha256, sorted(shaping.items())))
            runs[run, int(shard[2])].add(int(shard[1]))
    listed = [f"{_listed(there, count)} of {count}" for (_, count), there in runs.items() if len(there) < count]
    return f"not all shards are there: missing {'; '.join(listed)}" if listed else ""


def _listed(there: set[int], count: int) -> str:
    """The first shards of 1 to ``count`` that are not there. Looks at no more of them, as ``count`` is a claim."""
    gone = list(itertools.islice((number for number in range(1, count + 1) if number not in there), 10))
    more = count - len(there) - len(gone)
    return ", ".join(map(str, gone)) + (f" and {more} more" if more > 0 else "")
