"""Which crystals are possible at all."""

from __future__ import annotations

from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.evaluation.validity import compositionally_valid


@metric("structural_validity", "structural validity")
def _structural_validity(sample: Sample) -> list[Number]:
    return [sample.rate(sample.structure_valid, sample.generated)]


@metric("compositional_validity", "compositional validity")
def _compositional_validity(sample: Sample) -> list[Number]:
    return [sample.rate(sample.composition_valid, sample.generated, note="SMACT table smact14")]


@metric("compositional_validity_icsd24", "compositional validity")
def _compositional_validity_icsd24(sample: Sample) -> list[Number]:
    """Beside the number of the published table, what a newer table says."""
    good = compositionally_valid(sample.crystals, "icsd24")
    return [sample.rate(good, sample.generated, note="SMACT table icsd24")]


@metric("validity", "validity, both")
def _validity(sample: Sample) -> list[Number]:
    """Of structure and composition; and as published, where a crystal without fingerprint is not valid either."""
    return [
        sample.rate(sample.valid, sample.generated, gate="none", note="SMACT table smact14"),
        sample.rate(sample.counted, sample.generated, gate="with fingerprint", note="SMACT table smact14"),
    ]
