"""How far the crystals move when they are relaxed: near zero for those that are at rest already."""

from __future__ import annotations

import numpy as np

from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.pairing import Pairs, pair
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.structures.pair_matching import Matches, match_pairs

NOTE = "rms of the matched structures, times (V/N)^(1/3) of the relaxed crystal"


def relaxed_pairs(sample: Sample) -> Pairs | None:
    """Which crystal became which relaxed one; None without relaxed crystals, InputError where they do not fit."""
    if sample.relaxed is None:
        return None
    # The relaxed crystals may lack some, whose relaxation failed: they take the place of the predictions.
    failed = [failure.id for failure in (*sample.failures, *sample.relaxed.failures)]
    there = pair(sample.relaxed, sample.crystals, failed, what="relaxed crystals", of="the evaluated file")
    return Pairs(there.truths, there.predictions, there.missing, there.by)


def relaxed_matches(sample: Sample) -> Matches | None:
    """Each crystal that has a relaxed one, compared with it."""
    found = sample.once(relaxed_pairs)
    if found is None or sample.relaxed is None:
        return None
    before = [sample.crystals[k] for k in found.predictions]
    matched = match_pairs(before, [sample.relaxed[k] for k in found.truths], sample.results)
    sample.give_up("relaxed", before, matched.reasons)
    return matched


@metric("relaxed_match_rate", "same structure after relaxation")
def _relaxed_match_rate(sample: Sample) -> list[Number]:
    """Share of all crystals that match their relaxed ones; without a relaxed one a crystal counts as not matched."""
    found, pairs = sample.once(relaxed_matches), sample.once(relaxed_pairs)
    if found is None or pairs is None:
        return []
    note = f"without a relaxed one: {pairs.missing}" if pairs.missing else ""
    return [Number.rate(found.matched, sample.generated, note=note, undecided=len(found.reasons))]


@metric("relaxed_rmsd", "RMSD to the relaxed", unit="Å")
def _relaxed_rmsd(sample: Sample) -> list[Number]:
    """Mean over the matched pairs of the rms displacement of the atoms, in Å."""
    found, pairs = sample.once(relaxed_matches), sample.once(relaxed_pairs)
    if found is None or pairs is None or sample.relaxed is None:
        return []
    relaxed = [sample.relaxed[k] for k in pairs.truths]
    lengths = np.array([(abs(crystal.volume) / crystal.num_atoms) ** (1 / 3) for crystal in relaxed])
    rms = (found.rms * lengths)[found.matched]
    return [Number.mean(rms, seed=sample.seed, note=NOTE)]
