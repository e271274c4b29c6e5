"""From a generated crystal to the minimum it lies closest to, under pressure. Loads no torch of its own."""

from __future__ import annotations

from dpcdvae.relaxation.calculators import CALCULATORS, build_calculator
from dpcdvae.relaxation.campaign import relax_all
from dpcdvae.relaxation.ground_state import GroundState
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.relaxation.of_any_crystals import ground_state, relax
from dpcdvae.relaxation.ranking import Ranked, rank
from dpcdvae.relaxation.relaxed_crystal import Relaxations, Relaxed
from dpcdvae.relaxation.single_point import SinglePoint, single_points
from dpcdvae.relaxation.staged_relaxation import relax_in_stages, stages_of

__all__ = [
    "CALCULATORS",
    "GroundState",
    "Ranked",
    "Relaxations",
    "Relaxed",
    "Settings",
    "SinglePoint",
    "build_calculator",
    "ground_state",
    "rank",
    "relax",
    "relax_all",
    "relax_in_stages",
    "single_points",
    "stages_of",
]
