"""The same program on every machine: what the workers of a cluster are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpcdvae.errors import InputError

SAME = ("dpcdvae", "numpy", "scipy", "pymatgen", "pymatgen-core", "spglib", "smact", "ase", "torch")
"""Packages that shape results, so that here and on the workers they must be the same."""

SAME_IF_HERE = ("chgnet", "sevenn", "gpaw")
"""Calculators: compared where they are installed here, as only who has them can be about to use them."""


def check_versions(versions: Mapping[str, Any]) -> None:
    """Raises InputError where a worker has another Python or other packages: what ``Client.get_versions`` found."""
    here = versions["client"]["packages"]
    names = ("python", *SAME, *(name for name in SAME_IF_HERE if here.get(name)))
    for address, facts in versions["workers"].items():
        there = facts["packages"]
        for name in names:
            ours, theirs = (_relevant(name, packages.get(name)) for packages in (here, there))
            if ours != theirs:
                raise InputError(
                    f"the dask worker {address} has {name} {theirs or 'not installed'}, here is {ours or 'none'}: "
                    "install the same versions on both"
                )


def _relevant(name: str, version: str | None) -> str | None:
    if version is not None and name == "python":
        return ".".join(version.split(".")[:2])
    if version is not None and name == "torch":
        return version.partition("+")[0]  # the rest says for which hardware it was built
    return version
