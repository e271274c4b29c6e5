"""Which crystals are possible at all: their atoms are apart from each other.

The definition is CDVAE's (Xie et al., ICLR 2022), as is that of balanced charges
(:mod:`dpcdvae.structures.neutrality`). What is no crystal at all is not valid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.contacts import Contacts, closest_contacts
from dpcdvae.structures.crystal import Crystal

MIN_DISTANCE = 0.5  # Å
MIN_VOLUME = 0.1  # Å^3


def structurally_valid(crystals: Sequence[Crystal], contacts: Contacts | None = None) -> npt.NDArray[np.bool_]:
    """(n,) True where every periodic distance exceeds 0.5 Å and the volume 0.1 Å^3.

    The images of an atom itself count, so a supercell is as valid as its cell. The published
    script leaves them out, which differs only for cells with a lattice vector below 0.5 Å.

    Args:
        contacts: of the crystals, where they are known already.
    """
    contacts = contacts or closest_contacts(crystals)
    roomy = np.array([crystal.problem() is None and crystal.volume > MIN_VOLUME for crystal in crystals], bool)
    return roomy & (contacts.distance > MIN_DISTANCE)


def structural_problem(crystal: Crystal, distance: float) -> str | None:
    """Why :func:`structurally_valid` says no, or None where it says yes; ``distance`` (Å) is the shortest one."""
    reason = crystal.problem()
    if reason is None and not crystal.volume > MIN_VOLUME:
        reason = f"the volume is {crystal.volume:.3g} Å^3"
    if reason is None and not distance > MIN_DISTANCE:
        reason = f"atoms are {distance:.2f} Å apart"
    return reason
