"""Crystals from files and into files: one table of formats, one ``read``, one ``write``."""

from __future__ import annotations

from dpcdvae.io.cif import crystal_from_cif
from dpcdvae.io.cif_writer import cif_text
from dpcdvae.io.conversion import CrystalsLike, as_crystals
from dpcdvae.io.crystal_list import CrystalList
from dpcdvae.io.failures import Failure
from dpcdvae.io.formats import FORMATS, Format
from dpcdvae.io.reading import columns_of, read, read_placed
from dpcdvae.io.writing import check_destination, write

__all__ = [
    "FORMATS",
    "CrystalList",
    "CrystalsLike",
    "Failure",
    "Format",
    "as_crystals",
    "check_destination",
    "cif_text",
    "columns_of",
    "crystal_from_cif",
    "read",
    "read_placed",
    "write",
]
