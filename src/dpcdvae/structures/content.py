"""What a result about a crystal depends on: its content, and the version of pymatgen."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from dpcdvae.structures.crystal import Crystal


def content_hash(crystal: Crystal) -> str:
    """Hex digest of atoms, coordinates and lattice, to the last bit; id and properties do not count."""
    digest = hashlib.sha256(crystal.atomic_numbers.tobytes())
    digest.update(crystal.frac_coords.tobytes())
    digest.update(crystal.lattice.tobytes())
    return digest.hexdigest()


@cache
def pymatgen_version() -> str:
    """The version of the package that holds pymatgen's algorithms."""
    try:
        return version("pymatgen-core")
    except PackageNotFoundError:  # one package until 2026
        return version("pymatgen")
