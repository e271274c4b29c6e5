"""Every number about a set of crystals, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from dpcdvae.arguments import checked
from dpcdvae.errors import InputError
from dpcdvae.evaluation.baselines import BASELINES
from dpcdvae.evaluation.comparison_notes import commonest
from dpcdvae.evaluation.energy import EnergyModel
from dpcdvae.evaluation.generated import read_generated
from dpcdvae.evaluation.headline import Key
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.metrics.coverage import cutoffs as coverage_cutoffs
from dpcdvae.evaluation.metrics.geometry import CLOSE, WINDOW
from dpcdvae.evaluation.metrics.matching import pairs
from dpcdvae.evaluation.metrics.relaxed import relaxed_pairs
from dpcdvae.evaluation.metrics.validity import DRAWN, DRAWS
from dpcdvae.evaluation.protocol import PROTOCOLS, Protocol
from dpcdvae.evaluation.reference import Reference, as_reference, training_of
from dpcdvae.evaluation.report import Report, tool_versions
from dpcdvae.evaluation.sample import Sample
from dpcdvae.evaluation.stability import Stability
from dpcdvae.intervals import LEVEL, REPLICATES, Number
from dpcdvae.io import CrystalsLike, Failure, as_crystals
from dpcdvae.parallel import TIME_LIMIT, Engine, engine_for
from dpcdvae.parallel.results import Results, default_cache
from dpcdvae.structures.fingerprints import ALGORITHM
from dpcdvae.structures.match_candidates import NEAREST
from dpcdvae.structures.space_groups import CONVENTIONS, REDUCED, SYMPREC
from dpcdvae.structures.summary import ReferenceStatistics
from dpcdvae.structures.tolerances import PUBLISHED
from dpcdvae.structures.validity import MIN_DISTANCE, MIN_VOLUME

DEFAULT_BASELINES = ("reference", "training")

AnyReference: TypeAlias = "Reference | ReferenceStatistics | CrystalsLike"


@checked
def evaluate(
    crystals: CrystalsLike,
    reference: AnyReference,
    *,
    paired: bool = False,
    failures: Sequence[Failure] = (),
    protocol: str = "full",
    training: AnyReference | None = None,
    baselines: Sequence[str] | None = None,
    workers: int | None = None,
    engine: Engine | None = None,
    seed: int = 0,
    time_limit: float = TIME_LIMIT,
    cutoffs: tuple[float, float] | None = None,
    energy_model: EnergyModel | None = None,
    stability: Stability | None = None,
    symmetry: str = REDUCED,
    relaxed: CrystalsLike | None = None,
    may_be_empty: bool = False,
) -> Report:
    """Scores crystals of any origin.

    Example:
        >>> report = dpcdvae.evaluate("crystals.extxyz", "perov-5")
        >>> report["structural_validity"].value, report["structural_validity"].interval

    Args:
        crystals: what was generated: anything that :func:`~dpcdvae.io.as_crystals` takes. Failures beside it count.
        reference: crystals, statistics, or what ``--reference`` takes: a data set, file or model.
        paired: each crystal is a reconstruction of one of the reference: also match rate and rms distance.
        failures: what else could not be read or built; it counts in every rate.
        protocol: one of :data:`~dpcdvae.evaluation.protocol.PROTOCOLS`: which numbers.
        training: what the generator has learnt from, for novelty and the baselines; by default the training
            split of the data set that ``reference`` is a split of, if it is one.
        baselines: of :data:`~dpcdvae.evaluation.baselines.BASELINES`: other crystals to take the same numbers
            of. By default :data:`DEFAULT_BASELINES`, as far as there are crystals for them.
        workers: processes, by default one for each core; 0 for none, and then no time limit.
        engine: where to work, instead of ``workers``, e.g. ``engine_for(scheduler=...)`` for a cluster.
        seed: of the bootstrap intervals and of what is drawn at random.
        time_limit: seconds of CPU time for one comparison or fingerprint; what takes longer counts as no match, or
            as not covered, and is counted beside the number.
        cutoffs: of the coverage, for structure and composition; by default the data set's, or those of MP-20.
        energy_model: for the distribution of energies, which is left out without one.
        stability: reference phases and energies, for the energy above hull and what goes with it.
        symmetry: of :data:`~dpcdvae.structures.space_groups.CONVENTIONS`: how space groups are found.
        relaxed: the same crystals after relaxation, by id or in the same order, for the RMSD to them.
        may_be_empty: failures alone are scored too, with rates of zero: for a model that has built nothing.

    Raises:
        InputError: nothing to evaluate, a reference that cannot be found, pairs that do not fit, an unknown name.
    """
    if isinstance(crystals, str | Path):
        generated = read_generated(crystals)
        crystals, known = generated.crystals, generated.failures
    else:
        crystals = as_crystals(crystals)
        known = list(crystals.failures)
    # What read() was given as ``failures`` hangs on its crystals too.
    counted = {id(failure) for failure in failures}
    failures = [*(failure for failure in known if id(failure) not in counted), *failures]
    if not crystals and not (may_be_empty and failures):
        reasons = [failure.reason for failure in failures]
        why = f": none of {len(reasons)} could be read or built: {commonest(reasons)}" if reasons else ""
        raise InputError(f"there are no crystals to evaluate{why}")
    if cutoffs is not None and not (len(cutoffs) == 2 and all(0 < cutoff < float("inf") for cutoff in cutoffs)):
        given = " ".join(f"{cutoff:g}" for cutoff in cutoffs)
        raise InputError(f"--cutoffs {given}: two are needed, both above 0 and finite")
    if seed < 0:
        raise InputError(f"--seed {seed}: it must not be negative")
    chosen, _ = PROTOCOLS[protocol], CONVENTIONS[symmetry]
    makers = {name: BASELINES[name] for name in (DEFAULT_BASELINES if baselines is None else baselines)}
    against = as_reference(reference)
    results = Results(engine_for(workers) if engine is None else engine, time_limit, default_cache())
    sample = Sample(
        crystals,
        failures,
        against,
        paired,
        results,
        seed,
        cutoffs=cutoffs,
        energy_model=energy_model,
        stability=stability,
        symmetry=symmetry,
        relaxed=None if relaxed is None else as_crystals(relaxed),
        training=training_of(against) if training is None else as_reference(training),
    )
    if energy_model is not None and against.crystals is None:
        raise InputError(f"energies need the crystals of the reference, and {against.source} has none")
    if cutoffs is not None and against.crystals is None:
        raise InputError(
            f"--cutoffs are for the coverage, which needs the crystals of {against.source}, not statistics"
        )
    if training is not None and sample.training is not None and sample.training.crystals is None:
        raise InputError(f"--training needs crystals, and {sample.training.source} has statistics only")
    if stability is not None and not chosen.measures("stability"):
        raise InputError(f"protocol {protocol} has no energy above hull, so reference phases have no effect")
    if stability is None and protocol == "stability":
        raise InputError("protocol stability needs reference phases, from --phases")
    if relaxed is not None and not chosen.measures("relaxed_rmsd"):
        raise InputError(f"protocol {protocol} has no RMSD to relaxed crystals, so these have no effect")
    # Pairs that do not fit are an error before minutes of work.
    if relaxed is not None:
        sample.once(relaxed_pairs)
    if paired:
        sample.once(pairs)
    beside: dict[str, dict[Key, Number]] = {}
    with nullcontext() if engine is not None else results.engine:
        numbers = measure(sample, chosen)
        given_up = list(sample.given_up)
        for name, baseline in makers.items():
            other = baseline.make(sample)
            if other is None:
                if baselines is not None:
                    raise InputError(f"baseline '{name}' needs {baseline.needs}, which are not there: leave it out")
            else:
                beside[name] = {(metric, number.gate): number for metric, number in measure(other, chosen)}
                given_up += [{**entry, "what": f"{name}: {entry['what']}"} for entry in other.given_up]
    return Report(
        numbers=tuple(numbers),
        baselines=beside,
        sample=sample,
        given_up=tuple(given_up),
        settings={"protocol": protocol, **_settings(sample)},
        versions=tool_versions(),
    )


def measure(sample: Sample, protocol: Protocol) -> list[tuple[str, Number]]:
    """(metric, number) for all that the protocol asks for and the sample has, in the order of the table."""
    return [
        (name, number)
        for name, metric in METRICS.items()
        if protocol.measures(name)
        for number in metric.measure(sample)
        if protocol.keeps(name, number.gate)
    ]


def _settings(sample: Sample) -> dict[str, Any]:
    return {
        "paired": sample.paired,
        "seed": sample.seed,
        "time_limit_s": sample.results.time_limit,
        "training": None if sample.training is None else sample.training.source,
        "drawn": DRAWN,
        "draws": DRAWS,
        "oxidation_states": "smact14 (gates), icsd24 (beside)",
        "composition_scaling": "CDVAE (txie-93/cdvae)",
        "matcher": {"name": "pymatgen StructureMatcher", **asdict(PUBLISHED)},
        "min_distance_A": MIN_DISTANCE,
        "min_volume_A3": MIN_VOLUME,
        "close_contact": CLOSE,
        "window_quantiles": list(WINDOW),
        "symprec_A": SYMPREC,
        "symmetry": sample.symmetry,
        "angle_tolerance": CONVENTIONS[sample.symmetry].angle_tolerance,
        "nearest_candidates": NEAREST,
        "energy_model": None if sample.energy_model is None else sample.energy_model.source,
        "stability": None if sample.stability is None else sample.stability.settings(),
        "coverage": {"cutoffs": list(coverage_cutoffs(sample)[0]), "fingerprint": f"structure-{ALGORITHM}"},
        "interval_level": LEVEL,
        "bootstrap_replicates": REPLICATES,
    }
