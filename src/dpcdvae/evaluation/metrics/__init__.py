"""Every number of a report: to add one, write a function of a ``Sample`` under ``@metric`` in a module here.

The order of the imports is that of the report.
"""

# ruff: noqa: I001
from dpcdvae.evaluation.metric import METRICS, Metric
from dpcdvae.evaluation.metrics import validity
from dpcdvae.evaluation.metrics import geometry
from dpcdvae.evaluation.metrics import symmetry
from dpcdvae.evaluation.metrics import matching
from dpcdvae.evaluation.metrics import distributions
from dpcdvae.evaluation.metrics import coverage
from dpcdvae.evaluation.metrics import diversity
from dpcdvae.evaluation.metrics import uniqueness
from dpcdvae.evaluation.metrics import novelty
from dpcdvae.evaluation.metrics import stability
from dpcdvae.evaluation.metrics import relaxed
from dpcdvae.evaluation.metrics import decoding

__all__ = [
    "METRICS",
    "Metric",
    "coverage",
    "decoding",
    "distributions",
    "diversity",
    "geometry",
    "matching",
    "novelty",
    "relaxed",
    "stability",
    "symmetry",
    "uniqueness",
    "validity",
]
