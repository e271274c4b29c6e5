"""Which networks are measured on which crystals, and what is known of the published ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dpcdvae.structures.table import CrystalTable, load_tables


class Case(NamedTuple):
    preset: str
    data: str
    batch: int


CASES = (
    Case("compact", "perov_5", 64),
    Case("compact", "perov_5", 256),
    Case("compact/dp-cdvae-carbon_24", "carbon_24", 64),
    Case("paper/dp-cdvae-perov_5", "perov_5", 64),
    Case("paper/dp-cdvae-carbon_24", "carbon_24", 32),
    Case("paper/cdvae-carbon_24", "carbon_24", 32),
    Case("paper/dp-cdvae-na-gine-mp_20", "mp_20", 32),
)
QUICK = (Case("compact", "perov_5", 8),)

# The public DP-CDVAE network, counted on 278 atoms of Carbon-24 with 20 neighbours each: 29.4 GFLOP in the denoiser,
# 2.3 in the encoder. A backward pass is two forward passes. Nothing is known of the other systems' networks.
PUBLISHED_PASS = 29.4e9 / 278  # FLOPs an atom
PUBLISHED_STEP = 3 * (29.4e9 + 2.3e9) / 278
# Its seconds on two cores of an AMD EPYC with random weights: (training step, sampling step).
PUBLISHED_SECONDS = {
    Case("paper/dp-cdvae-carbon_24", "carbon_24", 32): (2.2, 0.76),
    Case("paper/dp-cdvae-perov_5", "perov_5", 64): (1.9, 0.52),
}


def is_published(preset: str) -> bool:
    """Whether the denoiser of a preset does what the public one does."""
    return preset.startswith("paper/dp-cdvae")


class Source(NamedTuple):
    """Crystals, where they come from, and how many a second one core prepares (None where they were prepared)."""

    table: CrystalTable
    name: str
    prepared_per_second: float | None


def crystals(data: str, size: int, folders: list[Path]) -> Source:
    """``size`` crystals of a data set, from the first of the ``folders`` that has it as a CSV file (prepared here) or
    as a prepared ``.npz``, else from the built-in prototypes.

    The first of the validation split, again from the start where there are too few.
    """
    for folder in folders:
        if (file := folder / data / "val.csv.gz").is_file():
            return _prepare(file, data, size)
        if (file := folder / f"{data}.npz").is_file():
            return Source(of_size(load_tables(file)[0]["val"], size), data, None)
    return _prepare(None, "prototypes", size)


def of_size(table: CrystalTable, size: int) -> CrystalTable:
    return table.select(np.resize(np.arange(len(table)), size))


def _prepare(file: Path | None, name: str, size: int) -> Source:
    from dpcdvae.io import read
    from dpcdvae.prototypes import build_prototypes
    from dpcdvae.structures.bonds import crystal_nn_bonds
    from dpcdvae.structures.standardise import standardise

    found = read(file) if file else build_prototypes()
    found = found[:size]
    crystal_nn_bonds(standardise(found[0]))  # imports are not counted
    start = time.perf_counter()
    ready = [standardise(crystal) for crystal in found]
    bonds = [crystal_nn_bonds(crystal) for crystal in ready]
    seconds = time.perf_counter() - start
    return Source(of_size(CrystalTable.from_crystals(ready, bonds), size), name, len(found) / seconds)
