"""The published evaluation protocol, crystal by crystal, from the libraries' own functions.

The definitions are those of CDVAE (Xie et al., ICLR 2022), written to be read and sharing no code with
``dpcdvae.evaluation``: pymatgen reads and compares structures, SMACT judges compositions, matminer gives the
fingerprints, scipy the distances. One Perov-5 crystal takes about a tenth of a second.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Lattice, Structure
from scipy.spatial.distance import cdist, pdist
from scipy.stats import wasserstein_distance

Floats = npt.NDArray[np.float64]

SCALER = Path(__file__).resolve().parents[1] / "src" / "dpcdvae" / "structures" / "data" / "magpie_scaler.json"


@dataclass(frozen=True)
class Judged:
    """One crystal, and all that the protocol asks of it alone.

    ``fingerprints`` are those of the structure (61,) and of the composition (132,), None where matminer gives none.
    """

    structure: Structure
    structure_valid: bool
    composition_valid: bool
    fingerprints: tuple[Floats, Floats] | None

    @property
    def valid(self) -> bool:
        """As published: a crystal without a fingerprint is not valid either."""
        return self.structure_valid and self.composition_valid and self.fingerprints is not None


def generated_structures(file: Path, count: int | None = None) -> list[Structure]:
    """The first ``count`` of an npz of generated crystals."""
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    ends = np.cumsum(arrays["num_atoms"].astype(int))[:count]
    structures = []
    for k, (end, size) in enumerate(zip(ends, arrays["num_atoms"], strict=False)):
        lattice = Lattice.from_parameters(*arrays["lengths"][k].astype(float), *arrays["angles"][k].astype(float))
        atoms = slice(end - int(size), end)
        numbers = arrays["atom_types"][atoms].tolist()
        structures.append(Structure(lattice, numbers, arrays["frac_coords"][atoms].astype(float)))
    return structures


def real_structures(file: Path, count: int | None = None) -> list[Structure]:
    """The first ``count`` of a CSV with a ``cif`` column."""
    import pandas

    with quiet():
        cifs = pandas.read_csv(file, nrows=count)["cif"]
        return [Structure.from_str(cif, fmt="cif") for cif in cifs]


def judge(structures: Sequence[Structure]) -> list[Judged]:
    with quiet():
        return [Judged(s, structure_valid(s), composition_valid(s), fingerprints(s)) for s in structures]


def structure_valid(structure: Structure) -> bool:
    """No two atoms nearer than 0.5 Å, images included, and a volume that is one."""
    distances = structure.distance_matrix
    np.fill_diagonal(distances, np.inf)
    return bool(distances.min() >= 0.5 and structure.volume >= 0.1)


def composition_valid(structure: Structure) -> bool:
    """By SMACT's published table charges can balance; single elements and alloys of metals always pass."""
    import smact
    from smact.screening import smact_validity

    symbols = {element.symbol for element in structure.species}
    if len(symbols) == 1 or symbols <= set(smact.metals):
        return True
    return bool(smact_validity(structure.composition, include_alloys=False, oxidation_states_set="smact14"))


def fingerprints(structure: Structure) -> tuple[Floats, Floats] | None:
    """Mean over the sites of CrystalNN's, and Magpie's."""
    sites, composition = _featurizers()
    try:
        rows = [sites.featurize(structure, k) for k in range(len(structure))]
    except Exception:  # the published script, too, asks for no reason
        return None
    return np.mean(rows, axis=0), np.array(composition.featurize(Composition(structure.composition)))


@cache
def _featurizers() -> tuple[Any, Any]:
    from matminer.featurizers.composition import ElementProperty
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    return CrystalNNFingerprint.from_preset("ops"), ElementProperty.from_preset("magpie", impute_nan=True)


def _known(crystals: Sequence[Judged]) -> tuple[Floats, Floats]:
    """Of those that have them: structure (n, 61), and composition (n, 132) by the published means and deviations."""
    structure, composition = zip(*(c.fingerprints for c in crystals if c.fingerprints is not None), strict=True)
    figures = json.loads(SCALER.read_text())["values"]
    return np.array(structure), np.nan_to_num((np.array(composition) - figures["mean"]) / figures["std"])


def rates(generated: Sequence[Judged]) -> dict[str, float]:
    return {
        "structural_validity": float(np.mean([g.structure_valid for g in generated])),
        "compositional_validity": float(np.mean([g.composition_valid for g in generated])),
        "validity": float(np.mean([g.valid for g in generated])),
    }


def coverage(generated: Sequence[Judged], real: Sequence[Judged], cutoffs: tuple[float, float]) -> dict[str, float]:
    """COV-R and COV-P, and the mean distances to the nearest behind them, from whole matrices of distances."""
    ours, theirs = _known(generated), _known(real)
    structure, composition = cdist(ours[0], theirs[0]), cdist(ours[1], theirs[1])
    found = {}
    for name, axis, total in (("recall", 0, len(theirs[0])), ("precision", 1, len(generated))):
        near, alike = structure.min(axis=axis), composition.min(axis=axis)
        found[f"coverage_{name}"] = float(((near <= cutoffs[0]) & (alike <= cutoffs[1])).sum() / total)
        found[f"structure_distance_{name}"] = float(near.mean())
        found[f"composition_distance_{name}"] = float(alike.mean())
    return found


def distances(generated: Sequence[Structure], real: Sequence[Structure]) -> dict[str, float]:
    """Wasserstein of the two properties that need no model."""
    densities = ([float(s.density) for s in side] for side in (generated, real))
    elements = ([len(set(s.species)) for s in side] for side in (generated, real))
    return {
        "density_wasserstein": float(wasserstein_distance(*densities)),
        "num_elements_wasserstein": float(wasserstein_distance(*elements)),
    }


def diversity(generated: Sequence[Judged]) -> dict[str, float]:
    """Mean distance of two different valid crystals."""
    structure, composition = _known([g for g in generated if g.valid])
    return {
        "structure_diversity": float(pdist(structure).mean()),
        "composition_diversity": float(pdist(composition).mean()),
    }


def matches(predictions: Sequence[Judged], truths: Sequence[Judged]) -> dict[str, tuple[float, float]]:
    """Match rate over all pairs and mean rms distance over the matched ones, under each gate of the field."""
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    with quiet():
        found = [matcher.get_rms_dist(p.structure, t.structure) for p, t in zip(predictions, truths, strict=True)]
    gates = {
        "none": [True] * len(truths),
        "prediction valid": [p.valid for p in predictions],
        "both valid": [p.valid and t.valid for p, t in zip(predictions, truths, strict=True)],
    }
    results = {}
    for name, open_ in gates.items():
        rms = [pair[0] for pair, counts in zip(found, open_, strict=True) if pair is not None and counts]
        results[name] = (len(rms) / len(truths), float(np.mean(rms)))
    return results


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that matminer and pymatgen have for every site."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
