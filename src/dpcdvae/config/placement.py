"""The options of models that place atom after atom (G-SchNet, P-G-SchNet). The defaults are those of the papers.

G-SchNet: Gebauer, Gastegger & Schütt, NeurIPS 2019, and the package schnetpack-gschnet of the authors. P-G-SchNet is
described in one sentence of the CDVAE paper; what that does not say is ours.
"""

from __future__ import annotations

from typing import Literal

from dpcdvae.config.fields import Section, option
from dpcdvae.config.options import MAX_LAYERS, MAX_WIDTH
from dpcdvae.config.sections import AnyModelConfig

FINEST = 20  # points of the fine grid between two of the coarse one: their number grows with its cube

LatticeRule = Literal["box", "uniform", "conditional"]


class PlacementModelConfig(AnyModelConfig):
    """The network: features of the atoms placed so far, and what it predicts of the next one."""

    periodic: bool = option(True, "neighbours and distances over the images of a crystal; false: of a cluster alone")
    features: int = option(128, "width of the features of an atom", ge=1, le=MAX_WIDTH)
    interactions: int = option(9, "interaction blocks of SchNet", ge=1, le=MAX_LAYERS)
    num_radial: int = option(25, "Gaussians of the distance between neighbours", ge=2, le=1024)
    cutoff: float = option(10.0, "distance up to which atoms are neighbours", "Å", gt=0, le=20)
    max_neighbours: int = option(1000, "neighbours of an atom at most, the nearest", ge=1, le=10_000)
    head_layers: int = option(4, "hidden layers of both heads", ge=0, le=MAX_LAYERS)
    head_width: int = option(256, "width of these layers", ge=1, le=MAX_WIDTH)
    max_distance: float = option(15.0, "end of the last bin of the predicted distances", "Å", gt=0, le=100)
    bin_width: float = option(0.05, "width of a bin", "Å", ge=1e-3, le=1)
    smearing: float = option(
        0.05, "standard deviation of the Gaussian that a distance is smeared with", "Å", gt=0, le=5
    )
    images: int = option(
        1,
        "images of each placed atom to which distances are predicted, the nearest; 1: minimum image alone",
        ge=1,
        le=26,
    )
    kept_cells: int = option(
        10_000, "training cells, with their atoms, that the model keeps to draw from", ge=1, le=1_000_000
    )


class GrowthConfig(Section):
    """The order in which the atoms of known crystals are placed, and how much of it is learnt."""

    contact: float = option(1.25, "neighbours of the focus lie within so many sums of covalent radii", gt=0, le=10)
    steps: int = option(10, "steps of a crystal, drawn at random, that are learnt in an epoch", ge=1, le=10_000)


class PlacementSamplingConfig(Section):
    """How atoms are placed where nothing else is asked."""

    lattice: LatticeRule = option(
        "uniform",
        "box: around the finished cluster; uniform: a training lattice at random; conditional: one with its atoms",
    )
    inner: float = option(0.7, "least distance of two atoms in sums of covalent radii", gt=0, le=2)
    outer: float = option(2.0, "greatest distance from the focus in sums of covalent radii", gt=0, le=10)
    spacing: float = option(
        0.1, "spacing of the grid in the shell, wider in a shell of over 30 000 such points", "Å", ge=0.01, le=1
    )
    fine: float = option(
        0.02, "spacing of the second grid about the point that was drawn; 0: no such grid", "Å", ge=0, le=1
    )
    temperature: float = option(0.1, "temperature of the places", ge=1e-3, le=100)
