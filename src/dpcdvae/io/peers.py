"""Flat arrays of many crystals: the files of CDVAE, DP-CDVAE and DiffCSP (``eval_*.pt``), and ``.npz``.

The layout is the one those programs share: ``frac_coords`` (N, 3), ``atom_types`` (N,) atomic
numbers, ``num_atoms`` (n,), ``lengths`` (n, 3) Å, ``angles`` (n, 3) degrees, in ``.pt`` files with a
leading axis of repeated evaluations. In ``.npz`` this package adds ``ids`` and ``property/<name>``.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, listed, one_line
from dpcdvae.io.cif_writer import right_handed
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import check_claims, read_at_most
from dpcdvae.io.torch_files import load_arrays
from dpcdvae.structures.crystal import Crystal, lattice_from_parameters
from dpcdvae.structures.properties import outside_names

Array = npt.NDArray[Any]
KEYS = ("frac_coords", "num_atoms", "atom_types", "lengths", "angles")
_PROPERTY = "property/"


def parse_npz(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Runs no code from the file (``allow_pickle`` stays off) and allocates nothing that it does not hold."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_claims(archive, len(data))
            arrays = {e.filename.removesuffix(".npy"): _array(archive, e) for e in archive.infolist()}
    except InputError:
        raise
    except Exception as error:  # whatever zipfile, zlib and numpy meet in arbitrary bytes
        raise InputError(f"not an .npz file of plain arrays, or cut off ({one_line(error)[:200]})") from error
    if missing := [key for key in KEYS if key not in arrays]:
        raise InputError(f"no array {', '.join(missing)} (found {listed(list(arrays))})")
    ids = [str(id) for id in np.atleast_1d(arrays["ids"])] if "ids" in arrays else []
    _add_crystals(arrays, ids, where, stem, collector)


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    """An array whose header claims no more than the bytes behind it."""
    with archive.open(entry) as packed:
        stream = io.BytesIO(read_at_most(packed, entry.file_size))
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    held = len(stream.getbuffer()) - stream.tell()
    if math.prod(shape) * max(dtype.itemsize, 1) > held:  # of a width of 0 any number would fit
        raise InputError(f"array {entry.filename[:40]} claims the shape {shape} in {held} bytes")
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def parse_pt(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """The five tensors; objects of other classes beside them are passed over, and no code is run."""
    arrays = load_arrays(io.BytesIO(data), KEYS)
    if arrays["frac_coords"].ndim == 2:
        _add_crystals(arrays, [], where, stem, collector)
        return
    if any(value.ndim == 0 for value in arrays.values()) or len({len(value) for value in arrays.values()}) > 1:
        raise InputError("the tensors differ in the number of evaluations (first axis)")
    repeats = len(arrays["frac_coords"])
    for repeat in range(repeats):
        name = stem if repeats == 1 else f"{stem}-{repeat}"
        _add_crystals({key: value[repeat] for key, value in arrays.items()}, [], where, name, collector)


def _add_crystals(arrays: Mapping[str, Array], ids: Sequence[str], where: str, stem: str, collector: Collector) -> None:
    coords, num_atoms, numbers, lengths, angles = (np.asarray(arrays[key]) for key in KEYS)
    count, total = (len(v) if v.ndim == n else -1 for v, n in ((num_atoms, 1), (coords, 2)))
    shapes = {key: np.shape(arrays[key]) for key in KEYS}
    wanted = {
        "frac_coords": (total, 3),
        "num_atoms": (count,),
        "atom_types": (total,),
        "lengths": (count, 3),
        "angles": (count, 3),
    }
    kinds = dict.fromkeys(KEYS, "fiu") | dict.fromkeys(("num_atoms", "atom_types"), "iu")
    if shapes != wanted or any(np.asarray(arrays[key]).dtype.kind not in kind for key, kind in kinds.items()):
        raise InputError(f"shapes or types do not fit: {', '.join(f'{k} {v}' for k, v in shapes.items())}")
    num_atoms = num_atoms.astype(np.int64)
    if num_atoms.sum() != total or (count and num_atoms.min() < 0):
        raise InputError(f"num_atoms add up to {num_atoms.sum()}, but there are {total} atoms")
    properties = {k.removeprefix(_PROPERTY): v for k, v in arrays.items() if k.startswith(_PROPERTY)}
    if any(v.shape != (count,) or v.dtype.kind not in "fiu" for v in properties.values()):
        raise InputError(f"properties must be one number per crystal ({count})")
    if ids and len(ids) != count:
        raise InputError(f"there are {len(ids)} ids for {count} crystals")
    lattices = lattice_from_parameters(lengths.astype(np.float64), angles.astype(np.float64))
    ends = np.cumsum(num_atoms)
    digits = len(str(max(count - 1, 0)))
    for k, (start, end) in enumerate(zip(ends - num_atoms, ends, strict=True)):
        id = ids[k] if ids else f"{stem}-{k:0{digits}d}"
        with collector.item(id, f"{where} crystal {k + 1}"):
            own = {name: float(values[k]) for name, values in properties.items() if np.isfinite(values[k])}
            collector.add(Crystal(numbers[start:end], coords[start:end], lattices[k], id, own))


def render_npz(crystals: Sequence[Crystal]) -> bytes:
    """float64; a property that a crystal lacks is NaN."""
    crystals = [right_handed(crystal) for crystal in crystals]
    arrays: dict[str, Array] = {
        "frac_coords": np.concatenate([c.frac_coords for c in crystals]),
        "num_atoms": np.array([c.num_atoms for c in crystals], np.int32),
        "atom_types": np.concatenate([c.atomic_numbers for c in crystals]).astype(np.uint8),
        "lengths": np.stack([c.lengths for c in crystals]),
        "angles": np.stack([c.angles for c in crystals]),
        "ids": np.array([c.id for c in crystals]),
    }
    properties = [outside_names(crystal.properties) for crystal in crystals]
    for name in sorted({name for values in properties for name in values}):
        arrays[_PROPERTY + name] = np.array([values.get(name, np.nan) for values in properties])
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()
