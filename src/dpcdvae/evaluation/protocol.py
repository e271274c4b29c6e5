"""Which numbers a report holds: all of them, or those of a published protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dpcdvae.evaluation.metrics.matching import PREDICTION_GATE
from dpcdvae.evaluation.metrics.validity import DRAWN_GATE, FINGERPRINT_GATE
from dpcdvae.registry import Registry


@dataclass(frozen=True)
class Protocol:
    """A choice among the metrics.

    Attributes:
        title: for people.
        gates: metric -> the gate under which it counts, "" for metrics without, None for every gate; None in place
            of all stands for every metric under every gate.
    """

    title: str
    gates: Mapping[str, str | None] | None = None

    def measures(self, metric: str) -> bool:
        return self.gates is None or metric in self.gates

    def keeps(self, metric: str, gate: str) -> bool:
        return self.gates is None or (metric in self.gates and self.gates[metric] in (None, gate))


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    {
        "full": Protocol("every number there is"),
        "stability": Protocol(
            "energies above hull, and S.U.N.",
            dict.fromkeys(("stability", "energy_above_hull", "energy_above_hull_median", "sun", "msun")),
        ),
        # Xie et al., ICLR 2022, tables 1-2; the DP-CDVAE paper follows it.
        "cdvae": Protocol(
            "the numbers of CDVAE's tables, as its script computes them",
            {
                "structural_validity": "",
                "compositional_validity": "",
                "validity": FINGERPRINT_GATE,
                "match_rate": PREDICTION_GATE,
                "match_rms": PREDICTION_GATE,
                "density_wasserstein": DRAWN_GATE,
                "num_elements_wasserstein": DRAWN_GATE,
                "energy_wasserstein": DRAWN_GATE,
                "composition_diversity": DRAWN_GATE,
                "structure_diversity": DRAWN_GATE,
                "coverage_recall": "",
                "coverage_precision": "",
                "structure_distance_recall": "",
                "structure_distance_precision": "",
                "composition_distance_recall": "",
                "composition_distance_precision": "",
            },
        ),
    },
)
