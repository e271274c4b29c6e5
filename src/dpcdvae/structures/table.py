"""Many crystals, with their bonds, as a few flat arrays: what is cached and what training reads."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output
from dpcdvae.structures.crystal import Crystal

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class CrystalTable:
    """n crystals with N atoms and E bonds in all, concatenated in order.

    Attributes:
        ids: (n,) str.
        num_atoms: (n,) int64.
        atomic_numbers: (N,) int64.
        frac_coords: (N, 3) float64.
        lattices: (n, 3, 3) float64, Å, rows are the vectors.
        num_bonds: (n,) int64; zeros in a table whose bonds were never computed.
        bonds: (E, 2) int64, atoms (i, j) counted within their crystal; each bond once, both
            directions are meant: j in cell ``+image`` is bonded to i, i in cell ``-image`` to j.
        bond_images: (E, 3) int64.
        properties: (n,) float64 each, NaN where a crystal has none.
    """

    ids: Array
    num_atoms: Array
    atomic_numbers: Array
    frac_coords: Array
    lattices: Array
    num_bonds: Array
    bonds: Array
    bond_images: Array
    properties: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def from_crystals(
        cls, crystals: Sequence[Crystal], bonds: Sequence[tuple[Array, Array]] | None = None
    ) -> CrystalTable:
        """``bonds[k]`` is ((e, 2) atoms, (e, 3) images) of crystal k; without it the table has none."""
        bonds = bonds if bonds is not None else [(np.zeros((0, 2)), np.zeros((0, 3)))] * len(crystals)
        names = sorted({name for crystal in crystals for name in crystal.properties})
        return cls(
            ids=np.array([c.id for c in crystals], dtype=str),
            num_atoms=np.array([c.num_atoms for c in crystals], dtype=np.int64),
            atomic_numbers=_concatenate([c.atomic_numbers for c in crystals], (0,), np.int64),
            frac_coords=_concatenate([c.frac_coords for c in crystals], (0, 3), np.float64),
            lattices=np.array([c.lattice for c in crystals], dtype=np.float64).reshape(-1, 3, 3),
            num_bonds=np.array([len(b) for b, _ in bonds], dtype=np.int64),
            bonds=_concatenate([b for b, _ in bonds], (0, 2), np.int64),
            bond_images=_concatenate([i for _, i in bonds], (0, 3), np.int64),
            properties={
                name: np.array([c.properties.get(name, np.nan) for c in crystals], dtype=np.float64) for name in names
            },
        )

    def __len__(self) -> int:
        return len(self.num_atoms)

    def __getitem__(self, index: int) -> Crystal:
        index = range(len(self))[index]
        return self._crystal(index, int(self.num_atoms[:index].sum()))

    def __iter__(self) -> Iterator[Crystal]:
        start = 0
        for index, size in enumerate(self.num_atoms.tolist()):
            yield self._crystal(index, start)
            start += size

    def _crystal(self, index: int, start: int) -> Crystal:
        """Crystal ``index``, whose atoms begin at ``start``."""
        atoms = slice(start, start + int(self.num_atoms[index]))
        return Crystal(
            self.atomic_numbers[atoms],
            self.frac_coords[atoms],
            self.lattices[index],
            str(self.ids[index]),
            {k: float(v[index]) for k, v in self.properties.items() if not np.isnan(v[index])},
        )

    def select(self, indices: npt.ArrayLike) -> CrystalTable:
        """The crystals at ``indices`` (n',), in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        atoms = segment_indices(self.num_atoms, indices)
        edges = segment_indices(self.num_bonds, indices)
        return CrystalTable(
            ids=self.ids[indices],
            num_atoms=self.num_atoms[indices],
            atomic_numbers=self.atomic_numbers[atoms],
            frac_coords=self.frac_coords[atoms],
            lattices=self.lattices[indices],
            num_bonds=self.num_bonds[indices],
            bonds=self.bonds[edges],
            bond_images=self.bond_images[edges],
            properties={k: v[indices] for k, v in self.properties.items()},
        )


def segment_indices(lengths: Array, indices: Array) -> Array:
    """Positions of the chosen segments in the concatenation of segments of the given lengths."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(lengths) else np.zeros(0, np.int64)
    chosen = lengths[indices]
    offsets = np.repeat(starts[indices] - np.concatenate([[0], np.cumsum(chosen)[:-1]]), chosen)
    return np.arange(int(chosen.sum()), dtype=np.int64) + offsets.astype(np.int64)


def _concatenate(parts: Sequence[Any], empty: tuple[int, ...], dtype: Any) -> Array:
    return np.concatenate([np.asarray(p, dtype).reshape((-1, *empty[1:])) for p in parts] or [np.zeros(empty, dtype)])


# On disk the integers are as small as their range allows; Å and fractions keep float64.
_DISK_TYPES = {
    "num_atoms": np.int32,
    "atomic_numbers": np.uint8,
    "num_bonds": np.int32,
    "bonds": np.int16,
    "bond_images": np.int8,
}


def save_tables(path: str | Path, tables: Mapping[str, CrystalTable], metadata: Mapping[str, Any]) -> None:
    """Writes named tables (splits) and JSON metadata into one compressed ``.npz``, through a rename."""
    arrays: dict[str, Array] = {"metadata": np.array(json.dumps(dict(metadata)))}
    for split, table in tables.items():
        for item in fields(table):
            if item.name == "properties":
                arrays |= {f"{split}/properties/{k}": v for k, v in table.properties.items()}
            else:
                value = getattr(table, item.name)
                arrays[f"{split}/{item.name}"] = value.astype(_DISK_TYPES.get(item.name, value.dtype))
    with atomic_output(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # its keywords are array names


def load_tables(path: str | Path) -> tuple[dict[str, CrystalTable], dict[str, Any]]:
    """Reads what :func:`save_tables` wrote; runs no code from the file (``allow_pickle`` stays off).

    Raises:
        InputError: the file is missing, cut off, or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            metadata = json.loads(str(stored["metadata"]))
            if not isinstance(metadata, dict):
                raise ValueError("its metadata are no JSON object")
            parts: dict[str, dict[str, Any]] = {}
            for key in stored.files:
                if key == "metadata":
                    continue
                split, name = key.split("/", 1)
                parts.setdefault(split, {"properties": {}})
                if name.startswith("properties/"):
                    parts[split]["properties"][name.removeprefix("properties/")] = stored[key]
                else:
                    value = stored[key]
                    parts[split][name] = value.astype(np.int64) if value.dtype.kind in "iu" else value
            return {split: CrystalTable(**arrays) for split, arrays in parts.items()}, metadata
    except FileNotFoundError:
        raise InputError(f"no data set file {path}") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a data set cache or is cut off ({error}): build it again") from error
