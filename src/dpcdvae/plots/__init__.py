"""Plots of training runs, evaluations and relaxations, for a paper or a notebook."""

from __future__ import annotations

from dpcdvae.plots import of_distributions, of_matches, of_relaxations, of_runs  # noqa: F401  file their plots
from dpcdvae.plots.make import plot
from dpcdvae.plots.plot_table import PLOTS

__all__ = ["PLOTS", "plot"]
