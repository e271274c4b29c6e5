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

SCALER = Path(__file__).resolve().parents[1] / "src" / "dpcdvae" / "evaluation" / "data" / "magpie_scaler.json"


@dataclass(frozen=True)
class Judged:
    """One crystal, and all that the protocol asks of it alone; the fingerprints are None where matminer gives none."""

    structure: Structure
    structure_valid: bool
    composition_valid: bool
    structure_fingerprint: Floats | None
    composition_fingerprint: Floats | None

    @property
    def valid(self) -> bool:
        """As published: a crystal without a fingerprint is not valid either."""
        return self.structure_valid and self.composition_valid and self.structure_fingerprint is not None

    @property
    def num_elements(self) -> int:
        return len(set(self.structure.species))


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
        return [
            Judged(s, structure_valid(s), composition_valid(s), *fingerprints(s))  # one by one: this may take a while
            for s in structures
        ]


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


def fingerprints(structure: Structure) -> tuple[Floats, Floats] | tuple[None, None]:
    """(61,) mean over the sites, and (132,) of the composition."""
    sites, composition = _featurizers()
    try:
        rows = [sites.featurize(structure, k) for k in range(len(structure))]
    except Exception:  # the published script, too, asks for no reason
        return None, None
    return np.mean(rows, axis=0), np.array(composition.featurize(Composition(structure.composition)))


@cache
def _featurizers() -> tuple[Any, Any]:
    from matminer.featurizers.composition import ElementProperty
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    return CrystalNNFingerprint.from_preset("ops"), ElementProperty.from_preset("magpie", impute_nan=True)


def scaled(fingerprints: Sequence[Floats]) -> Floats:
    """Composition fingerprints (n, 132) by the published means and deviations, the unknown zero."""
    figures = json.loads(SCALER.read_text())["values"]
    return np.nan_to_num((np.array(fingerprints) - figures["mean"]) / figures["std"])


def rates(generated: Sequence[Judged]) -> dict[str, float]:
    return {
        "structural_validity": float(np.mean([g.structure_valid for g in generated])),
        "compositional_validity": float(np.mean([g.composition_valid for g in generated])),
        "validity": float(np.mean([g.valid for g in generated])),
    }


def coverage(generated: Sequence[Judged], real: Sequence[Judged], cutoffs: tuple[float, float]) -> dict[str, float]:
    """COV-R and COV-P, and the mean distances to the nearest behind them, from whole matrices of distances."""
    ours, theirs = ([j for j in side if j.structure_fingerprint is not None] for side in (generated, real))
    structure = cdist(*([j.structure_fingerprint for j in side] for side in (ours, theirs)))
    composition = cdist(*(scaled([j.composition_fingerprint for j in side]) for side in (ours, theirs)))
    found = {}
    for name, axis, total in (("recall", 0, len(theirs)), ("precision", 1, len(generated))):
        near, alike = structure.min(axis=axis), composition.min(axis=axis)
        found[f"coverage_{name}"] = float(((near <= cutoffs[0]) & (alike <= cutoffs[1])).sum() / total)
        found[f"structure_distance_{name}"] = float(near.mean())
        found[f"composition_distance_{name}"] = float(alike.mean())
    return found


def distances(generated: Sequence[Judged], real: Sequence[Judged]) -> dict[str, float]:
    """Wasserstein of the two properties that need no model."""
    return {
        "density_wasserstein": wasserstein_distance(
            [float(g.structure.density) for g in generated], [float(r.structure.density) for r in real]
        ),
        "num_elements_wasserstein": wasserstein_distance(
            [g.num_elements for g in generated], [r.num_elements for r in real]
        ),
    }


def diversity(generated: Sequence[Judged]) -> dict[str, float]:
    """Mean distance of two different valid crystals."""
    valid = [g for g in generated if g.valid]
    return {
        "structure_diversity": float(pdist([g.structure_fingerprint for g in valid]).mean()),
        "composition_diversity": float(pdist(scaled([g.composition_fingerprint for g in valid])).mean()),
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
