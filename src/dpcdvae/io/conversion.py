"""Crystals from whatever a user has: paths, pymatgen's Structures, ASE's Atoms, our own results, lists of these."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from dpcdvae.errors import InputError
from dpcdvae.io.crystal_list import CrystalList
from dpcdvae.io.failures import Failure
from dpcdvae.io.reading import read
from dpcdvae.structures.crystal import Crystal

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    OneCrystal: TypeAlias = Crystal | Structure | Atoms | str | Path | "HasCrystal"


class HasCrystal(Protocol):
    """A result for one crystal, such as of a relaxation."""

    def to_crystal(self) -> Crystal: ...


CrystalsLike: TypeAlias = "OneCrystal | Iterable[OneCrystal]"
"""What every function takes that takes crystals. A path may hold any number of them."""


def as_crystals(source: CrystalsLike) -> CrystalList:
    """Crystals, with their ids and scalar properties, from any of :data:`CrystalsLike`.

    Items that have a ``to_crystal`` (results of a relaxation) or a ``structure`` (entries and documents of pymatgen
    and the Materials Project) are taken too. What ``source`` counts as failures stays beside the list.

    Example:
        >>> as_crystals(["a.cif", Structure.from_file("POSCAR"), bulk("Cu")])

    Raises:
        InputError: an item that is no crystal, with its number; a path as :func:`dpcdvae.read`.
    """
    failures: list[Failure] = []
    if isinstance(source, str | Path):
        return CrystalList(read(source, failures), failures)
    crystals = _converted(source)
    if crystals is None:
        if not isinstance(source, Iterable) or isinstance(source, bytes | dict):
            raise _no_crystal(source, "")
        crystals = (crystal for k, item in enumerate(source) for crystal in _one(item, f"item {k}: ", failures))
    found = list(crystals)
    return CrystalList(found, [*getattr(source, "failures", ()), *failures])


def _one(item: Any, where: str, failures: list[Failure]) -> Iterable[Crystal]:
    if isinstance(item, str | Path):
        return read(item, failures)
    crystals = _converted(item)
    if crystals is None:
        raise _no_crystal(item, where)
    return crystals


def _converted(item: Any) -> Iterator[Crystal] | None:
    """The crystal that an object is; None where it is none."""
    if isinstance(item, Crystal):
        return iter([item])
    if _is(item, "pymatgen.core.structure", "IStructure"):
        return iter([Crystal.from_pymatgen(item)])
    if _is(item, "ase.atoms", "Atoms"):
        return iter([Crystal.from_ase(item)])
    if hasattr(item, "to_crystal"):
        return iter([item.to_crystal()])
    structure: Any = getattr(item, "structure", None)
    if _is(structure, "pymatgen.core.structure", "IStructure"):
        given = (getattr(item, name, None) for name in ("material_id", "entry_id"))
        return iter([Crystal.from_pymatgen(structure, next((str(id) for id in given if id), ""))])
    return None


def _is(item: Any, module: str, name: str) -> bool:
    """Whether an object is of a class, without importing its module: of one that nobody imported there are none."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(item, kind)


def _no_crystal(item: Any, where: str) -> InputError:
    kinds = "a Crystal, a Structure of pymatgen, Atoms of ASE or a path"
    return InputError(f"{where}{type(item).__name__} is no crystal: {kinds} is needed")
