"""Symbols, numbers and masses of the elements."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, unknown_name

# Index = atomic number; index 0 is no element. Spelt out so that training needs no chemistry library.
SYMBOLS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr "
    "Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
).split()
ATOMIC_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}
MAX_ATOMIC_NUMBER = len(SYMBOLS) - 1


@cache
def atomic_masses() -> npt.NDArray[np.float64]:
    """(119,) u, indexed by atomic number (ASE's table, IUPAC 2016)."""
    from ase.data import atomic_masses

    return np.asarray(atomic_masses, dtype=np.float64)


def atomic_number(symbol: str) -> int:
    """Raises InputError with the nearest symbol when there is no such element."""
    try:
        return ATOMIC_NUMBERS[symbol]
    except KeyError:
        if symbol.capitalize() in ATOMIC_NUMBERS:
            raise InputError(f"unknown element '{symbol}': did you mean '{symbol.capitalize()}'?") from None
        raise unknown_name("element", symbol, ATOMIC_NUMBERS) from None
