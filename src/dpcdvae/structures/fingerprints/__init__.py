"""Fingerprints of crystals: 61 numbers of the structure, 132 of the composition.

The structure's are the mean over the sites of matminer's ``CrystalNNFingerprint`` (preset "ops"): the
likelihood of each coordination number from 1 to 24, and times it how much the neighbours then look like
each motif of that number. Computed here from :mod:`~dpcdvae.structures.fingerprints.coordination` and
:mod:`~dpcdvae.structures.fingerprints.order_parameters`, equal to matminer's, at a tenth or less of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, one_line, reason_of
from dpcdvae.parallel.results import Kind, Results
from dpcdvae.structures.content import content_hash, pymatgen_version
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints.coordination import Coordination, coordinations
from dpcdvae.structures.fingerprints.magpie import composition_fingerprints
from dpcdvae.structures.fingerprints.order_parameters import MOTIFS, Views, body_centred_pairs, motif_scores
from dpcdvae.structures.primitive_cells import quiet

Floats = npt.NDArray[np.float64]

LARGEST_NUMBER = 24
LABELS = tuple(
    f"{name} CN_{number}" for number in range(1, LARGEST_NUMBER + 1) for name in ("wt", *MOTIFS.get(number, ()))
)
"""What each of the 61 numbers is, in matminer's words."""

ALGORITHM = "1"
"""To be raised with every change of the numbers."""

TIE = 1e-9
"""What differs by less in weight, cosine or score is equal but for round-off."""

_BCC_NUMBER = 8
_BCC = LABELS.index("body-centered cubic CN_8")


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of a set of crystals.

    Attributes:
        structure: (n, 61), NaN where there is none.
        composition: (n, 132), not standardised.
        reasons: crystal -> why it has no structure fingerprint.
    """

    structure: Floats
    composition: Floats
    reasons: dict[int, str]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(n,) where there is a structure fingerprint."""
        known: npt.NDArray[np.bool_] = np.isfinite(self.structure.sum(axis=1))
        return known


def fingerprint_crystals(crystals: Sequence[Crystal], results: Results) -> Fingerprints:
    """Fingerprints of crystals; the time limit is for each crystal."""
    structure, reasons = structure_fingerprints(crystals, results)
    return Fingerprints(structure, composition_fingerprints(crystals), reasons)


def structure_fingerprints(crystals: Sequence[Crystal], results: Results) -> tuple[Floats, dict[int, str]]:
    """(n, 61), NaN where there is none, and the reasons for these by index."""
    keys = [content_hash(crystal) for crystal in crystals]
    vectors, reasons = results.compute(structure_fingerprint_or_reason, crystals, keys, kind(), "fingerprints")
    none = np.full(len(LABELS), np.nan)
    rows = [none if vector is None else vector for vector in vectors]
    return np.array(rows, np.float64).reshape(-1, len(LABELS)), reasons


def kind() -> Kind:
    """What is kept: pymatgen is asked for the sites that depend on round-off."""
    return Kind("fingerprint", ALGORITHM, {"pymatgen": pymatgen_version()})


def structure_fingerprint_or_reason(crystal: Crystal) -> Floats | str:
    """The fingerprint, or why there is none: kept for all crystals of the same content, so without a name."""
    try:
        return structure_fingerprint(crystal)
    except InputError as error:
        return one_line(error)
    except Exception as error:  # odd cells break geometry in many ways: counted, with the reason
        return reason_of(error)


def structure_fingerprint(crystal: Crystal) -> Floats:
    """(61,) the mean of :func:`site_fingerprints`."""
    mean: Floats = site_fingerprints(crystal).mean(axis=0)
    return mean


def site_fingerprints(crystal: Crystal) -> Floats:
    """(n, 61) one row for each atom; see :data:`LABELS`.

    Raises:
        InputError: as :func:`dpcdvae.structures.fingerprints.coordination.coordinations`.
    """
    sites = coordinations(crystal)
    likelihoods = np.zeros((len(sites), LARGEST_NUMBER + 1))
    for i, site in enumerate(sites):
        small = site.numbers <= LARGEST_NUMBER
        likelihoods[i, site.numbers[small]] = site.likelihoods[small]
    result = np.zeros((len(sites), len(LABELS)))
    column = 0
    for number in range(1, LARGEST_NUMBER + 1):
        result[:, column] = likelihoods[:, number]
        motifs = len(MOTIFS.get(number, ()))
        rows = np.flatnonzero(likelihoods[:, number])
        if motifs and len(rows):
            scores = motif_scores(np.stack([sites[i].units[:number] for i in rows]))
            result[rows, column + 1 : column + 1 + motifs] = likelihoods[rows, number, None] * scores
        column += 1 + motifs
    for i in np.flatnonzero(likelihoods[:, _BCC_NUMBER]).tolist():
        if _depends_on_round_off(sites[i]):
            score = body_centred_score_of_pymatgen(crystal, i)
            if score is not None:
                result[i, _BCC] = likelihoods[i, _BCC_NUMBER] * score
    return result


def _depends_on_round_off(site: Coordination) -> bool:
    """Whether the body-centred cubic score has no one value.

    By its definition it changes with the order of equal neighbours, and with the sign of angles at 90 degrees.
    """
    views = Views(site.units[None, :_BCC_NUMBER])
    pairs = body_centred_pairs(views)[0]
    weights = site.weights[:_BCC_NUMBER]
    equal = np.abs(weights[:, None] - weights) < TIE
    right = np.abs(views.cos_theta[0]) < TIE
    return bool((np.abs(pairs - pairs.T)[equal] > TIE).any() or (np.abs(pairs)[right] > TIE).any())


def body_centred_score_of_pymatgen(crystal: Crystal, atom: int) -> float | None:
    """The body-centred cubic score with the order and the round-off of pymatgen; None where it has no such score."""
    from pymatgen.analysis.local_env import CrystalNN, LocalStructOrderParams

    with quiet():
        structure = crystal.to_pymatgen()
        try:
            neighbours = CrystalNN().get_nn_data(structure, atom).cn_nninfo.get(_BCC_NUMBER)
        except (RuntimeError, ValueError, ZeroDivisionError):  # its Voronoi search, its square roots
            return None
        if neighbours is None:
            return None
        sites = [structure[atom], *(neighbour["site"] for neighbour in neighbours)]
        parameters = LocalStructOrderParams(["bcc"])
        (score,) = parameters.get_order_parameters(sites, 0, list(range(1, len(sites))))  # type: ignore[arg-type]
    return float(score)
