"""Fingerprints of crystals: 61 numbers of the structure, 132 of the composition.

The structure's are the mean over the sites of matminer's ``CrystalNNFingerprint`` (preset "ops"): the
likelihood of each coordination number from 1 to 24, and times it how much the neighbours then look like
each motif of that number. Computed here from :mod:`~dpcdvae.evaluation.coordination` and
:mod:`~dpcdvae.evaluation.order_parameters`, equal to matminer's, at a tenth or less of its time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.errors import InputError
from dpcdvae.evaluation.coordination import Coordination, coordinations
from dpcdvae.evaluation.fingerprint_cache import load_block, store_block
from dpcdvae.evaluation.magpie import composition_fingerprints
from dpcdvae.evaluation.matching import quiet
from dpcdvae.evaluation.order_parameters import MOTIFS, Views, body_centred_pairs, motif_scores
from dpcdvae.parallel import Engine, Lost

Floats = npt.NDArray[np.float64]

LARGEST_NUMBER = 24
LABELS = tuple(
    f"{name} CN_{number}" for number in range(1, LARGEST_NUMBER + 1) for name in ("wt", *MOTIFS.get(number, ()))
)
"""What each of the 61 numbers is, in matminer's words."""

BLOCK = 2048
"""Crystals after which the results are saved: seconds of work are lost by an interruption, not hours."""

TIE = 1e-9
"""What differs by less in weight, cosine or score is equal but for round-off."""

WORTH_KEEPING = 2.0
"""Seconds: what took less is not saved."""

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
        return np.isfinite(self.structure.sum(axis=1))

    def of(self, chosen: npt.NDArray[np.int64]) -> Fingerprints:
        """Those of some of the crystals."""
        reasons = {k: self.reasons[i] for k, i in enumerate(chosen.tolist()) if i in self.reasons}
        return Fingerprints(self.structure[chosen], self.composition[chosen], reasons)


def fingerprint_crystals(
    crystals: Sequence[Crystal], *, engine: Engine, time_limit: float, cache: Path | None = None
) -> Fingerprints:
    """Fingerprints of crystals, each within ``time_limit`` seconds.

    Args:
        cache: folder in which structure fingerprints are kept between runs, by the content of the crystals.
    """
    structure = np.full((len(crystals), len(LABELS)), np.nan)
    reasons: dict[int, str] = {}
    for start in range(0, len(crystals), BLOCK):
        block = crystals[start : start + BLOCK]
        keys = [content_hash(crystal) for crystal in block]
        found = load_block(cache, keys, len(LABELS)) if cache is not None else {}
        began = time.monotonic()
        missing = [k for k in range(len(block)) if k not in found]
        whole = f" {start + 1}-{start + len(block)} of {len(crystals)}" if len(crystals) > BLOCK else ""
        results = engine.map(
            structure_fingerprint_or_reason,
            [block[k] for k in missing],
            time_limit=time_limit,
            description=f"fingerprints{whole}",
        )
        cut = {k: result.reason for k, result in zip(missing, results, strict=True) if isinstance(result, Lost)}
        found |= {k: result for k, result in zip(missing, results, strict=True) if not isinstance(result, Lost)}
        if cache is not None and time.monotonic() - began >= WORTH_KEEPING:
            store_block(cache, keys, found, len(LABELS))
        for k, result in (found | cut).items():
            if isinstance(result, str):
                reasons[start + k] = result
            else:
                structure[start + k] = result
    return Fingerprints(structure, composition_fingerprints(crystals), dict(sorted(reasons.items())))


def content_hash(crystal: Crystal) -> str:
    """Hex digest of what a fingerprint depends on: atoms, coordinates and lattice, to the last bit."""
    digest = hashlib.sha256(crystal.atomic_numbers.tobytes())
    digest.update(crystal.frac_coords.tobytes())
    digest.update(crystal.lattice.tobytes())
    return digest.hexdigest()


def structure_fingerprint_or_reason(crystal: Crystal) -> Floats | str:
    """The fingerprint, or why there is none."""
    try:
        return structure_fingerprint(crystal)
    except InputError as error:
        return str(error)


def structure_fingerprint(crystal: Crystal) -> Floats:
    """(61,) the mean of :func:`site_fingerprints`."""
    return site_fingerprints(crystal).mean(axis=0)


def site_fingerprints(crystal: Crystal) -> Floats:
    """(n, 61) one row for each atom; see :data:`LABELS`.

    Raises:
        InputError: as :func:`dpcdvae.evaluation.coordination.coordinations`.
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
    return score
