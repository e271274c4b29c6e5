"""Folders that hold the same crystals more than once: in several formats, or as the ends of their trajectories."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np

from dpcdvae.errors import InputError, listed, printable
from dpcdvae.structures.crystal import Crystal

REPEATED = 0.8
"""Share of the crystals of a file that stand in other files too, from which on they are taken for the same."""

Key = tuple[str, int, tuple[str, ...]]


def check_once(folder: Path, crystals: Sequence[Crystal], places: Sequence[str], counts: Mapping[str, int]) -> None:
    """Says on standard error what a folder holds, where it is of several kinds of files.

    Files of one crystal each are one set where they have one ending and lie in one folder or archive, or one name in
    folders beside each other; a file of several is a set of its own.

    Args:
        folder: what was read; crystals: all of it; places: file, and row or block, of each.
        counts: crystals of each file, those that could not be read included.

    Raises:
        InputError: the crystals of one set stand in others too, and would be counted twice.
    """
    sets = {file: _set_of(file, count) for file, count in counts.items()}
    sizes: dict[str, int] = defaultdict(int)
    for file, count in counts.items():
        sizes[sets[file]] += count
    if len(sizes) < 2:
        return
    each = listed([f"{name} ({count})" for name, count in sizes.items()])
    holds = f"{folder} holds {sum(sizes.values())} crystals: {each}"
    members: dict[str, list[Key]] = defaultdict(list)
    homes: dict[Key, set[str]] = defaultdict(set)
    files = iter(counts)
    file = next(files)
    for crystal, place in zip(crystals, places, strict=True):
        while place != printable(file) and not place.startswith(f"{printable(file)} "):  # both in the order of reading
            file = next(files)
        key = _key(crystal)
        members[sets[file]].append(key)
        homes[key].add(sets[file])
    for name, keys in members.items():
        again = sum(len(homes[key]) > 1 for key in keys)
        if again >= REPEATED * len(keys):
            raise InputError(
                f"{holds}; {again} of the {len(keys)} of {name} stand in another of these too: name the one to count"
            )
    print(f"note: {printable(holds)}", file=sys.stderr)


def _set_of(file: str, count: int) -> str:
    archive, inside, _ = file.partition(".zip:")
    if inside:
        return f"{archive}.zip"
    path = PurePath(file)
    if count > 1:
        return file
    return f"{path.parent}/*{path.suffix}" if path.suffix else f"{path.parent.parent}/*/{path.name}"  # as VASP's


def _key(crystal: Crystal) -> Key:
    """Equal for a crystal in several formats, which may turn it in space and round its digits."""
    lengths = np.sort(np.linalg.norm(crystal.lattice, axis=1))
    return crystal.formula, crystal.num_atoms, tuple(f"{value:.4g}" for value in (*lengths, crystal.volume))
