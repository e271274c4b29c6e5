"""Crystals from files and into files."""

from __future__ import annotations

from dpcdvae.io.cif import crystal_from_cif
from dpcdvae.io.failures import Failure
from dpcdvae.io.tabular import read_csv

__all__ = ["Failure", "crystal_from_cif", "read_csv"]
