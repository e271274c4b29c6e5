"""The published protocol twice: as ``dpcdvae evaluate`` gives it, and step by step with the libraries' own functions.

    python benchmarks/protocol_reference.py [--generated cdvae_replica_perov_gen] [--reference perov_5] [--count 500]

The first ``--count`` crystals of an npz in ``generated/`` against the whole test set, both in the folder named by
DPCDVAE_DATA (or ../shared/data). The slow version is the one that the tests use; on one core it takes a tenth of a
second a Perov-5 crystal, so 7 minutes for 500 against 3785. ``--json FILE`` keeps the figures.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import published_protocol as published  # noqa: E402
from speed.command import Parser, real_data  # noqa: E402

WHOLE = ", whole file"
CUTOFFS = {"perov_5": (0.2, 4.0), "carbon_24": (0.2, 4.0), "mp_20": (0.4, 10.0)}


def main() -> int:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--generated", default="cdvae_replica_perov_gen")
    parser.add_argument("--reference", default="perov_5", choices=CUTOFFS)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = real_data()
    files = data / "generated" / f"{arguments.generated}.npz", data / arguments.reference / "test.csv.gz"
    cutoffs = CUTOFFS[arguments.reference]

    start = time.perf_counter()
    expected = slow(*files, arguments.count, cutoffs)
    between = time.perf_counter()
    found = ours(*files, arguments.count, cutoffs)
    seconds = {"step by step": round(between - start, 1), "dpcdvae": round(time.perf_counter() - between, 1)}
    print(f"{'':42}{'step by step':>14}{'dpcdvae':>14}{'apart':>10}")
    for name, value in expected.items():
        print(f"{name:42}{value:14.8f}{found[name]:14.8f}{abs(found[name] - value):10.1e}")
    print(", ".join(f"{what} {value} s" for what, value in seconds.items()))
    if arguments.json:
        given = {name: getattr(arguments, name) for name in ("generated", "reference", "count")}
        figures = {**given, "step_by_step": expected, "dpcdvae": found, "seconds": seconds}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(abs(found[name] - value) > allowed(name) for name, value in expected.items()))


def allowed(name: str) -> float:
    """Rates must be equal."""
    return 1e-6 if "distance" in name or "diversity" in name or "wasserstein" in name else 0.0


def slow(generated: Path, reference: Path, count: int, cutoffs: tuple[float, float]) -> dict[str, float]:
    """Every number of the first ``count``, and the distributions of all that the file holds."""
    everything = published.generated_structures(generated)
    made = published.judge(everything[:count])
    real = published.judge(published.real_structures(reference))
    truths = [r.structure for r in real]
    valid = published.distances([m.structure for m in made if m.valid], truths)
    return (
        published.rates(made)
        | published.coverage(made, real, cutoffs)
        | published.diversity(made)
        | valid
        | {f"{name}{WHOLE}": value for name, value in published.distances(everything, truths).items()}
    )


def ours(generated: Path, reference: Path, count: int, cutoffs: tuple[float, float]) -> dict[str, float]:
    """The same by :func:`dpcdvae.evaluate`, without fingerprints of an earlier time."""
    from dpcdvae.evaluation import evaluate
    from dpcdvae.evaluation.distributions import wasserstein
    from dpcdvae.io import read
    from dpcdvae.structures.summary import element_counts

    crystals, real = read(generated, []), read(reference, [])
    with tempfile.TemporaryDirectory() as home:
        os.environ["DPCDVAE_HOME"] = home
        report = evaluate(crystals[:count], real, workers=0, cutoffs=cutoffs)
    gates = ("", "valid", "with fingerprint")
    found = {name: number.value for name, number in report.numbers if number.gate in gates and number.value is not None}
    densities = ([c.density for c in side] for side in (crystals, real))
    return found | {
        f"density_wasserstein{WHOLE}": wasserstein(*densities),
        f"num_elements_wasserstein{WHOLE}": wasserstein(element_counts(crystals), element_counts(real)),
    }


if __name__ == "__main__":
    sys.exit(main())
