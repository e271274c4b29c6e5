"""How good a set of crystals is, whoever made it. Loads no torch."""

from __future__ import annotations

from dpcdvae.evaluation.distributions import ReferenceStatistics
from dpcdvae.evaluation.metrics import METRICS, Number
from dpcdvae.evaluation.reference import Reference, resolve_reference
from dpcdvae.evaluation.report import Report, evaluate

__all__ = ["METRICS", "Number", "Reference", "ReferenceStatistics", "Report", "evaluate", "resolve_reference"]
