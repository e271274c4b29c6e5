"""When two crystals are the same structure: the tolerances that pymatgen's StructureMatcher made common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerances:
    """Of lengths (a fraction), of sites (of (V/N)^(1/3)), of angles (degrees); by default CDVAE's, Xie et al. 2022."""

    ltol: float = 0.3
    stol: float = 0.5
    angle_tol: float = 10.0


PUBLISHED = Tolerances()
"""Of the match rates of CDVAE and of DP-CDVAE, Table 3 included."""
