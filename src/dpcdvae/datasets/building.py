"""Preparing data sets: from the public source, from a folder, from the user's own files, from nothing."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dpcdvae import files
from dpcdvae.datasets.catalogue import DATASETS, SPLITS, DatasetSpec
from dpcdvae.datasets.fetch import check_address, fetch, git_blob
from dpcdvae.datasets.origin import long_words, with_origin
from dpcdvae.datasets.preparation import Settings, prepare, summary
from dpcdvae.datasets.store import Dataset, dataset_file
from dpcdvae.errors import InputError, printable
from dpcdvae.io import Failure, read_placed
from dpcdvae.parallel import HERE, Engine
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import CrystalTable, load_tables, save_tables

MAX_ATOMS = 100
"""Largest cell of own data unless said otherwise: memory of the networks grows with it."""

FRACTIONS = (0.8, 0.1, 0.1)


def get_dataset(
    name: str,
    *,
    folder: Path | None = None,
    store_as: str | None = None,
    url: str | None = None,
    primitive: bool = False,
    engine: Engine = HERE,
) -> Dataset:
    """Prepares a published data set; one that is there already, from the same files, is loaded.

    Args:
        folder: with ``train.csv``, ``val.csv`` and ``test.csv``, plain or ``.gz``; fetched if None.
            What each is beside the published one is printed, and kept in the metadata.
        store_as: another name for it, for files that are not the published ones.
        url: folder to fetch from instead of the public source (else ``$DPCDVAE_DATA_URL/NAME``).

    Raises:
        InputError: unknown name, missing files, failed download.
    """
    spec = DATASETS[name]
    store_as = store_as or name
    if name == "prototypes":
        return get_prototypes()
    if store_as != name and store_as in DATASETS:
        raise InputError(f"'{store_as}' is the name of a published data set: choose another --name")
    found = _splits_in(folder) if folder else _fetch_splits(name, spec, url)
    source = {split: {"file": file.name, "git_blob": git_blob(_content(file))} for split, file in found.items()}
    settings = Settings(max_atoms=spec.max_atoms, primitive=primitive)
    dataset = _still_good(store_as, source, settings)
    if dataset is None:
        parts = {split: _read_placed(file, "csv") for split, file in found.items()}
        dataset = _prepare_and_save(store_as, spec, source, settings, parts, engine, published_name=name)
    for split, facts in dataset.metadata["source"].items():
        print(f"{name} {split}: {long_words(facts)}", file=sys.stderr)
    return dataset


def add_dataset(
    source: Path,
    name: str,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    max_atoms: int = MAX_ATOMS,
    primitive: bool = False,
    column: str | None = None,
    engine: Engine = HERE,
    overwrite: bool = False,
) -> Dataset:
    """Prepares the user's own crystals under a name.

    Args:
        source: any file that :func:`dpcdvae.io.read` reads, a folder of such files (split by seed), or a
            folder with ``train.csv``, ``val.csv`` and ``test.csv`` (split as it is).
        fractions: of train, val and test; the same seed gives the same split.
        column: of the crystals in tables, as of :func:`dpcdvae.io.read`.

    Raises:
        InputError: a name that is taken, nothing usable in ``source``, fractions that do not add up to 1.
    """
    path = dataset_file(name)
    if name in DATASETS:
        raise InputError(f"'{name}' is the name of a published data set: choose another --name")
    if path.exists() and not overwrite:
        raise InputError(f"data set '{name}' exists: choose another --name or add --overwrite")
    files.check_output(path, overwrite=True)
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6 and fractions[0] > 0):
        raise InputError(f"--split needs three fractions that add up to 1, train first, not {_commas(fractions)}")
    if not source.exists():
        raise InputError(f"no such file or folder: {source}")
    settings = Settings(max_atoms=max_atoms, primitive=primitive)
    spec = DatasetSpec(title=f"own data from {source.name}", max_atoms=max_atoms)
    hashes: dict[str, Any] = {"all": {"file": source.name, "sha256": files.sha256(source)}}
    if column is not None:
        hashes["all"]["column"] = column
    if source.is_dir() and all(_split_file(source, split) for split in SPLITS):
        parts = {split: _read_placed(file, "csv", column) for split, file in _splits_in(source).items()}
        return _prepare_and_save(name, spec, hashes, settings, parts, engine)
    hashes["all"] |= {"fractions": list(fractions), "seed": seed}
    parts = {"all": _read_placed(source, column=column)}

    def divide(tables: dict[str, CrystalTable]) -> dict[str, CrystalTable]:
        return split_by_seed(tables["all"], fractions, seed)

    return _prepare_and_save(name, spec, hashes, settings, parts, engine, divide)


def get_prototypes() -> Dataset:
    """The built-in data set, from the cache or built (seconds), split by seed 0."""
    from dpcdvae.prototypes import build_prototypes

    crystals = build_prototypes()
    digest = hashlib.sha256()
    for crystal in crystals:
        digest.update(crystal.id.encode())
        for array in (crystal.atomic_numbers, crystal.frac_coords, crystal.lattice):
            digest.update(array.tobytes())
    source = {"all": {"file": "built by this package", "sha256": digest.hexdigest()}}
    spec = DATASETS["prototypes"]
    settings = Settings(max_atoms=spec.max_atoms)
    known = _still_good("prototypes", source, settings)
    if known is not None:
        return known
    parts: _Parts = {"all": (crystals, [crystal.id for crystal in crystals], [])}
    return _prepare_and_save(
        "prototypes", spec, source, settings, parts, HERE, lambda t: split_by_seed(t["all"], FRACTIONS, seed=0)
    )


def split_by_seed(table: CrystalTable, fractions: Sequence[float], seed: int) -> dict[str, CrystalTable]:
    """Train, val and test by a random permutation; every fraction above zero gets a crystal.

    Raises:
        InputError: fewer crystals than splits.
    """
    wanted = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0]
    if len(table) < len(wanted):
        raise InputError(f"{len(table)} usable crystals cannot be split into {', '.join(wanted)}")
    sizes = {s: max(1, round(f * len(table))) if f > 0 else 0 for s, f in zip(SPLITS, fractions, strict=True)}
    sizes["train"] = len(table) - sizes["val"] - sizes["test"]
    if sizes["train"] < 1:
        raise InputError(f"--split {_commas(fractions)} leaves no crystal of {len(table)} to train on")
    order = np.random.default_rng(seed).permutation(len(table))
    ends = np.cumsum([0, *sizes.values()])
    # In the order of the file within a split, so that a table can be read beside its source.
    return {
        split: table.select(np.sort(order[a:b]))
        for split, a, b in zip(sizes, ends[:-1], ends[1:], strict=True)
        if b > a
    }


_Parts = dict[str, tuple[list[Crystal], list[str], list[Failure]]]


def _prepare_and_save(
    name: str,
    spec: DatasetSpec,
    source: Mapping[str, Any],
    settings: Settings,
    parts: _Parts,
    engine: Engine,
    divide: Callable[[dict[str, CrystalTable]], dict[str, CrystalTable]] = lambda tables: tables,
    published_name: str = "",
) -> Dataset:
    """Prepares each part, divides them into splits, writes the one file, says on stderr how it went."""
    path = dataset_file(name)
    files.check_output(path, overwrite=True)
    tables: dict[str, CrystalTable] = {}
    failures: list[tuple[str, Failure]] = []
    for part, (crystals, places, unread) in parts.items():
        table, bad = prepare(crystals, places, settings, engine=engine, description=f"preparing {name} {part}")
        failures += [(part, failure) for failure in unread + bad]
        if len(table) == 0:
            first = f", e.g. {failures[0][1]}" if failures else ""
            raise InputError(f"no usable crystal for '{name}' ({part}): {len(unread + bad)} failures{first}")
        tables[part] = table
    tables = divide(tables)
    metadata = {
        "name": name,
        "title": spec.title,
        "version": _version(),
        "source": source,
        "settings": settings.recorded(),
        "max_atoms": spec.max_atoms,
        "energy": spec.energy,
        "columns": dict(spec.columns),
        "licence": spec.licence,
        "citation": spec.citation,
        "failures": [{"part": part, **asdict(failure)} for part, failure in failures],
    }
    if published_name:
        metadata = with_origin({**metadata, "published_name": published_name}, tables)
    save_tables(path, tables, metadata)
    counts = {split: len(table) for split, table in tables.items()}
    print(f"{name}: {summary(counts, [f for _, f in failures])}", file=sys.stderr)
    for _, failure in failures[:5]:
        print(f"  left out: {failure}", file=sys.stderr)
    if len(failures) > 5:
        print(f"  ... all {len(failures)}: dpcdvae data info {name} --failures", file=sys.stderr)
    return Dataset(name, tables, metadata)


def _still_good(name: str, source: Mapping[str, Any], settings: Settings) -> Dataset | None:
    """The prepared data set if its source and settings are these."""
    path = dataset_file(name)
    if not path.is_file():
        return None
    try:
        tables, metadata = load_tables(path)
    except InputError:  # cut off or of another kind: build it again
        return None
    if _hashes(metadata.get("source", {})) != _hashes(source) or metadata.get("settings") != settings.recorded():
        return None
    return Dataset(name, tables, with_origin(metadata, tables))


def _hashes(source: Mapping[str, Any]) -> dict[str, Any]:
    """All by which files and their splitting differ: not their names, nor what they are beside published ones."""
    keys = ("git_blob", "sha256", "fractions", "seed")
    return {part: {key: facts.get(key) for key in keys} for part, facts in source.items()}


def _fetch_splits(name: str, spec: DatasetSpec, url: str | None) -> dict[str, Path]:
    mirror = os.environ.get("DPCDVAE_DATA_URL")
    base = (url or (f"{mirror.rstrip('/')}/{name}" if mirror else spec.url)).rstrip("/")
    check_address(base)
    found = {split: files.home() / "downloads" / name / f"{split}.csv" for split in SPLITS}
    for split, path in found.items():
        fetch(f"{base}/{split}.csv", path, spec.blobs[split])
    return found


def _splits_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        what = f"{folder} is no folder" if folder.exists() else f"no such folder: {folder}"
        raise InputError(f"{what}; give that of train, val, test .csv or .csv.gz")
    found = {split: _split_file(folder, split) for split in SPLITS}
    missing = [split for split, path in found.items() if path is None]
    if missing:
        raise InputError(f"{folder} has no {missing[0]}.csv or {missing[0]}.csv.gz")
    return {split: path for split, path in found.items() if path is not None}


def _split_file(folder: Path, split: str) -> Path | None:
    return next((p for p in (folder / f"{split}.csv", folder / f"{split}.csv.gz") if p.is_file()), None)


def _content(file: Path) -> bytes:
    """Content of a file, unpacked."""
    try:
        data = file.read_bytes()
        return gzip.decompress(data) if file.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _read_placed(
    path: Path, format: str | None = None, column: str | None = None
) -> tuple[list[Crystal], list[str], list[Failure]]:
    """Crystals, where each stands, and what could not be read."""
    print(f"reading {printable(str(path))}", file=sys.stderr)
    failures: list[Failure] = []
    crystals, places = read_placed(path, failures, format=format, column=column)
    return crystals, places, failures


def _commas(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _version() -> str:
    from dpcdvae import __version__

    return __version__
