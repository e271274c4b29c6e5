"""Many crystals as one object: a list that a notebook shows, and that becomes a table, Atoms or Structures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, SupportsIndex, overload

from dpcdvae.io.failures import Failure
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import outside_names

if TYPE_CHECKING:
    import pandas
    from ase import Atoms
    from pymatgen.core import Structure

MOST_FORMULAS = 5  # named by repr
_COLUMNS = frozenset({"num_atoms", "volume", "density"})  # of to_pandas, beside those that no file has free
MOST_ROWS = 20  # shown in a notebook


class CrystalSequence:
    """What every result has that is a sequence of crystals, or of items with one each: ids and properties are kept.

    Attributes:
        failures: what could not be read or built, with the reason.
    """

    failures: Sequence[Failure] = ()

    def to_crystals(self) -> list[Crystal]:
        """The crystals alone."""
        raise NotImplementedError

    def to_ase(self) -> list[Atoms]:
        """ASE's Atoms; ids (as ``material_id``) and properties are in ``info``, energy and forces in a calculator."""
        return [crystal.to_ase() for crystal in self.to_crystals()]

    def to_pymatgen(self) -> list[Structure]:
        """Pymatgen's Structures; ids (as ``material_id``) and properties are in ``properties``."""
        return [crystal.to_pymatgen() for crystal in self.to_crystals()]

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each crystal: material_id, formula, num_atoms, volume (Å^3), density (g/cm^3), its properties."""
        import pandas

        rows = [
            {
                "material_id": crystal.id,
                "formula": crystal.formula,
                "num_atoms": crystal.num_atoms,
                "volume": crystal.volume,
                "density": crystal.density,
                **outside_names(crystal.properties, _COLUMNS),
            }
            for crystal in self.to_crystals()
        ]
        return pandas.DataFrame(rows, columns=None if rows else ["material_id", "formula", "num_atoms"])

    def __repr__(self) -> str:
        all_of_them = self.to_crystals()
        formulas = list(dict.fromkeys(crystal.formula for crystal in all_of_them))
        named = ", ".join(formulas[:MOST_FORMULAS])
        more = f" and {len(formulas) - MOST_FORMULAS} more formulas" if len(formulas) > MOST_FORMULAS else ""
        failures = f"; {len(self.failures)} failures" if self.failures else ""
        crystals = f"{len(all_of_them)} crystal{'' if len(all_of_them) == 1 else 's'}"
        return f"<{type(self).__name__}: {crystals}{': ' if named else ''}{named}{more}{failures}>"

    def _repr_html_(self) -> str:
        """The table of the first crystals, for notebooks."""
        from html import escape

        html: str = CrystalList(self.to_crystals()[:MOST_ROWS]).to_pandas().to_html(index=False, border=0)
        return f"<p>{escape(repr(self)[1:-1])}</p>{html}"


class CrystalList(CrystalSequence, list[Crystal]):
    """A list of crystals, with the ``failures`` beside it.

    Example:
        >>> crystals = dpcdvae.read("crystals.extxyz")
        >>> crystals[0].formula, len(crystals), crystals.to_pandas()
    """

    def __init__(self, crystals: Iterable[Crystal] = (), failures: Sequence[Failure] = ()) -> None:
        list.__init__(self, crystals)
        self.failures = failures

    def to_crystals(self) -> list[Crystal]:
        return list(self)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Crystal: ...
    @overload
    def __getitem__(self, index: slice) -> CrystalList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Crystal | CrystalList:
        if isinstance(index, slice):
            return CrystalList(list.__getitem__(self, index))
        return list.__getitem__(self, index)
