"""Every number of a report: to add one, write a function of a ``Sample`` under ``@metric`` in a module here.

The order of the imports is that of the report.
"""

# ruff: noqa: I001
from dpcdvae.evaluation.metric import METRICS, Metric
from dpcdvae.evaluation.metrics import validity
from dpcdvae.evaluation.metrics import matching
from dpcdvae.evaluation.metrics import distributions
from dpcdvae.evaluation.metrics import coverage
from dpcdvae.evaluation.metrics import uniqueness

__all__ = ["METRICS", "Metric", "coverage", "distributions", "matching", "uniqueness", "validity"]
