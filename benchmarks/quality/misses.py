"""Why a reconstructed crystal is not the one that was meant."""

from __future__ import annotations

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.lattice_mapping import lattice_mappings
from dpcdvae.structures.tolerances import PUBLISHED

CAUSES = ("not built", "number of atoms", "composition", "cell", "arrangement")
"""Each miss has one, the first that holds. "not built": the decoded lattice is no cell, or the coordinates ran away."""


def cause(made: Crystal, truth: Crystal) -> str:
    """The first thing that is wrong with a crystal that does not match.

    "cell" is the matcher's own first condition: scaled to the same volume, no three lattice vectors of the one have
    the lengths (within a factor of 1.3) and angles (within 10 degrees) of the other's cell. Numbers of atoms and cells
    are those of the cells as they stand, which the data sets keep primitive. "arrangement" is what is left: the cell
    would do, but the atoms are in the wrong places, or the elements are.
    """
    if made.num_atoms != truth.num_atoms:
        return "number of atoms"
    if made.composition != truth.composition:
        return "composition"
    try:
        return "arrangement" if len(lattice_mappings(made, truth, PUBLISHED)) else "cell"
    except ValueError:  # too flat to be compared
        return "cell"
