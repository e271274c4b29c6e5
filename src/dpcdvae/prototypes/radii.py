"""Radii of ions and atoms in Å, as far as the prototypes need them."""

from __future__ import annotations

from typing import Final

from dpcdvae.structures.element_data import covalent_radii
from dpcdvae.structures.elements import ATOMIC_NUMBERS


def _table(text: str) -> dict[str, float]:
    words = text.split()
    return {species: float(radius) for species, radius in zip(words[::2], words[1::2], strict=True)}


# R. D. Shannon, Acta Cryst. A32, 751 (1976): effective ionic radii, coordination number 6; high spin
# where there is a choice, but low spin for Co3+ and Ni3+, which have it in their layered oxides.
IONIC: Final = _table("""
    Li+ 0.76 Na+ 1.02 K+ 1.38 Rb+ 1.52 Cs+ 1.67 Cu+ 0.77 Ag+ 1.15 Tl+ 1.50
    Mg2+ 0.72 Ca2+ 1.00 Sr2+ 1.18 Ba2+ 1.35 Ti2+ 0.86 V2+ 0.79 Cr2+ 0.80 Mn2+ 0.83 Fe2+ 0.78 Co2+ 0.745 Ni2+ 0.69
    Zn2+ 0.74 Cd2+ 0.95 Eu2+ 1.17 Pb2+ 1.19
    Al3+ 0.535 Sc3+ 0.745 Ti3+ 0.67 V3+ 0.64 Cr3+ 0.615 Mn3+ 0.645 Fe3+ 0.645 Co3+ 0.545 Ni3+ 0.56 Ga3+ 0.62
    Y3+ 0.90 In3+ 0.80 La3+ 1.032 Bi3+ 1.03
    Ti4+ 0.605 V4+ 0.58 Cr4+ 0.55 Mn4+ 0.53 Ge4+ 0.53 Zr4+ 0.72 Ru4+ 0.62 Sn4+ 0.69 Ce4+ 0.87 Hf4+ 0.71
    Ir4+ 0.625 Pt4+ 0.625 Pb4+ 0.775 Th4+ 0.94 U4+ 0.89
    Nb5+ 0.64 Ta5+ 0.64 W6+ 0.60 Re6+ 0.55
    F- 1.33 Cl- 1.81 Br- 1.96 I- 2.20 O2- 1.40 S2- 1.84 Se2- 1.98 Te2- 2.21
""")

# B. Cordero et al., Dalton Trans. 2832 (2008): covalent radii; carbon with four bonds, which the table has with three.
COVALENT: Final = {
    symbol: float(covalent_radii()[ATOMIC_NUMBERS[symbol]])
    for symbol in "Be B N O Al Si P S Cl Cu Zn Ga Ge As Se Br Ag Cd In Sn Sb Te I Po".split()
} | {"C": 0.76}

# E. T. Teatum, K. A. Gschneidner, J. T. Waber, LA-4003 (1968): radii of metals for coordination number 12.
METALLIC: Final = _table("""
    Li 1.562 Be 1.128 Na 1.911 Mg 1.602 Al 1.432 Si 1.319 K 2.376 Ca 1.974 Sc 1.641 Ti 1.462 V 1.346 Cr 1.360
    Mn 1.304 Fe 1.274 Co 1.252 Ni 1.246 Cu 1.278 Zn 1.394 Ga 1.411 Ge 1.369 Rb 2.546 Sr 2.151 Y 1.801 Zr 1.602
    Nb 1.468 Mo 1.400 Ru 1.339 Rh 1.345 Pd 1.376 Ag 1.445 Cd 1.568 In 1.663 Sn 1.545 Sb 1.590 Cs 2.731 Ba 2.243
    La 1.877 Hf 1.580 Ta 1.467 W 1.408 Re 1.375 Os 1.353 Ir 1.357 Pt 1.387 Au 1.442 Tl 1.716 Pb 1.750 Th 1.798
""")

# A. Bondi, J. Phys. Chem. 68, 441 (1964); boron: M. Mantina et al., J. Phys. Chem. A 113, 5806 (2009).
VAN_DER_WAALS: Final = _table("B 1.92 C 1.70 N 1.55")
