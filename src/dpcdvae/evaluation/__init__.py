"""How good a set of crystals is, whoever made it. Loads no torch."""

from __future__ import annotations

from dpcdvae.evaluation.baselines import BASELINES
from dpcdvae.evaluation.energy import EnergyModel
from dpcdvae.evaluation.generated import Generated, read_generated
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.phase_files import read_phases
from dpcdvae.evaluation.phases import Phase, Phases
from dpcdvae.evaluation.protocol import PROTOCOLS
from dpcdvae.evaluation.reference import Reference, resolve_reference
from dpcdvae.evaluation.report import Report
from dpcdvae.evaluation.scoring import evaluate
from dpcdvae.evaluation.stability import EnergySource, Stability, property_energies
from dpcdvae.intervals import Number
from dpcdvae.structures.summary import ReferenceStatistics

__all__ = [
    "BASELINES",
    "METRICS",
    "PROTOCOLS",
    "EnergyModel",
    "EnergySource",
    "Generated",
    "Number",
    "Phase",
    "Phases",
    "Reference",
    "ReferenceStatistics",
    "Report",
    "Stability",
    "evaluate",
    "property_energies",
    "read_generated",
    "read_phases",
    "resolve_reference",
]
