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
        gates: metric -> the gate under which it counts, "" for metrics without; None stands for every
            metric under every gate.
    """

    title: str
    gates: Mapping[str, str] | None = None

    def measures(self, metric: str) -> bool:
        return self.gates is None or metric in self.gates

    def keeps(self, metric: str, gate: str) -> bool:
        return self.gates is None or self.gates.get(metric) == gate


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    {
        "full": Protocol("every number there is"),
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
