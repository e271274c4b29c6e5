"""Fingerprints of the crystals of a sample and of its reference, which several metrics need."""

from __future__ import annotations

from collections.abc import Sequence

from dpcdvae.evaluation.sample import Sample
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints import Fingerprints, fingerprint_crystals


def fingerprints(sample: Sample) -> Fingerprints:
    """Of all crystals: for ``sample.once``."""
    return _find(sample, "fingerprint", sample.crystals)


def reference_fingerprints(sample: Sample) -> Fingerprints:
    """None where the reference has no crystals: for ``sample.once_for_all``."""
    return _find(sample, "fingerprint of the reference", sample.reference.crystals or ())


def _find(sample: Sample, what: str, crystals: Sequence[Crystal]) -> Fingerprints:
    found = fingerprint_crystals(crystals, sample.results)
    sample.give_up(what, crystals, found.reasons)
    return found
