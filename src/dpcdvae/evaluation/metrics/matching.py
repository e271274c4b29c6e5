"""How well reconstructions match their ground truths."""

from __future__ import annotations

import numpy as np

from dpcdvae.evaluation.intervals import bootstrap_mean
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Number, Sample


@metric("match_rate", "match rate")
def _match_rate(sample: Sample) -> list[Number]:
    """Over all ground truths, those without a prediction included."""
    if not sample.paired:
        return []
    missing = f", {sample.pairs.missing} without prediction" if sample.pairs.missing else ""
    note = f"paired by {sample.pairs.by}{missing}"
    return [
        sample.rate(np.isfinite(sample.rms) & gate, len(sample.truths), gate=name, note=note)
        for name, gate in sample.gates.items()
    ]


@metric("match_rms", "mean rms distance", "(V/N)^(1/3)")
def _match_rms(sample: Sample) -> list[Number]:
    """Over the matched pairs."""
    if not sample.paired:
        return []
    numbers = []
    for name, gate in sample.gates.items():
        rms = sample.rms[np.isfinite(sample.rms) & gate]
        value, interval = (float(rms.mean()), bootstrap_mean(rms, seed=sample.seed)) if len(rms) else (None, None)
        numbers.append(Number(value, len(rms), interval, name))
    return numbers
