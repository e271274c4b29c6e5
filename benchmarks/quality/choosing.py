"""The best of K candidates by each criterion, from what is known of every candidate. (n, most) arrays throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.intervals import Number, bootstrap
from quality.judging import cell, markdown_table

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
BINS = 10
AGREEING = " + N_a, composition"
DISTANCE = "latent"


@dataclass(frozen=True)
class Candidates:
    """``rms`` is infinite without a match, a criterion where there is none; ``agree``: N_a and composition both do."""

    rms: Floats
    criteria: dict[str, Floats]
    agree: Flags
    real_cell: Flags

    @classmethod
    def of(cls, passes: Sequence[Sequence[dict[str, Any]]]) -> Candidates:
        """From the kept passes, ``passes[batch][candidate]``."""

        def columns(name: str, inner: str = "") -> npt.NDArray[Any]:
            return np.concatenate(
                [np.array([p[name][inner] if inner else p[name] for p in batch], object).T for batch in passes]
            )

        def numbers(name: str, inner: str = "") -> Floats:
            values = columns(name, inner)
            return np.where(values == None, np.inf, values).astype(np.float64)  # noqa: E711 -- of each entry

        agree = columns("num_atoms_agree").astype(bool) & columns("composition_agrees").astype(bool)
        names = passes[0][0]["criteria"]
        return cls(
            numbers("rms"),
            {name: numbers("criteria", name) for name in names},
            agree,
            columns("real_cell").astype(bool),
        )

    @property
    def most(self) -> int:
        return self.rms.shape[1]

    def tried(self) -> list[int]:
        """1, 2, 4, ... and all."""
        return sorted({2**k for k in range(self.most.bit_length()) if 2**k <= self.most} | {self.most})

    def ways(self) -> Iterator[tuple[str, Floats, Flags]]:
        """Every criterion alone, and behind the demand that N_a and composition agree."""
        for name, values in self.criteria.items():
            yield name, values, np.ones_like(self.agree)
            yield name + AGREEING, values, self.agree


def chosen(values: Floats, agree: Flags) -> Indices:
    """(n,) the candidate of the least value among those that agree, among all where none does; of equals the first."""
    return np.lexsort((values, ~agree))[:, 0]


def adaptive(candidates: Candidates, threshold: float, k: int) -> tuple[Indices, Indices]:
    """(n,) the candidate kept, and how many were tried, as ``decode_by_agreement`` does it."""
    distances = candidates.criteria[DISTANCE][:, :k]
    done = (distances <= threshold) | ~candidates.real_cell[:, :k]
    tried = np.where(done.any(axis=1), done.argmax(axis=1) + 1, k)
    seen = np.where(np.arange(k) < tried[:, None], distances, np.inf)
    return seen.argmin(axis=1), tried


def rates(rms: Floats) -> dict[str, Any]:
    """Match rate and mean rms of the matches, of (n,) kept crystals."""
    good = rms[np.isfinite(rms)]
    return {
        "match_rate": Number.rate(len(good), len(rms)).to_json(),
        "match_rms": Number.mean(good, seed=0).to_json(),
    }


def summary(candidates: Candidates, threshold: float, steps: int) -> dict[str, Any]:
    """Everything for tables and plot."""
    rows = np.arange(len(candidates.rms))
    by_k, stopping = {}, {}
    for k in candidates.tried():
        rms = candidates.rms[:, :k]
        found = {name: rates(rms[rows, chosen(v[:, :k], a[:, :k])]) for name, v, a in candidates.ways()}
        by_k[str(k)] = {**found, "any": rates(rms.min(axis=1))}
        place, tried = adaptive(candidates, threshold, k)
        stopping[str(k)] = {
            **rates(rms[rows, place]),
            "mean_candidates": float(tried.mean()),
            "mean_passes": steps * float(tried.mean()),
        }
    return {"best_of": by_k, "adaptive": stopping, "curve": curve(candidates)}


def curve(candidates: Candidates) -> list[dict[str, Any]]:
    """Share of matches in bins of equally many candidates by distance; intervals by drawing crystals anew."""
    distance, match = candidates.criteria[DISTANCE], np.isfinite(candidates.rms)
    known = distance[np.isfinite(distance)]
    if not len(known):
        return []
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    which = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, max(len(edges) - 2, 0))
    bins = []
    for k in range(max(len(edges) - 1, 1)):
        inside = (which == k) & np.isfinite(distance)
        counts = np.stack([(inside & match).sum(axis=1), inside.sum(axis=1)], axis=1).astype(np.float64)
        counts = counts[counts[:, 1] > 0]
        if len(counts):
            bins.append(
                {
                    "distance": float(np.median(distance[inside])),
                    "from": float(distance[inside].min()),
                    "to": float(distance[inside].max()),
                    "candidates": int(inside.sum()),
                    "match": share(counts),
                    "interval": bootstrap(counts, share, seed=0),
                }
            )
    return bins


def share(counts: Floats) -> float:
    """Matches over candidates, of (n, 2) counts of each crystal."""
    return float(counts[:, 0].sum() / counts[:, 1].sum())


def markdown(result: dict[str, Any]) -> str:
    """Three tables: match rate in percent and mean rms by criterion and K, and stopping at the threshold."""
    what = f"{result['data']}:{result['split']}, first {result['n']} crystals, {result['steps']} passes each"
    by_k, ks = result["best_of"], list(result["best_of"])
    header = ["kept by", *(f"K = {k}" for k in ks)]
    names = list(by_k[ks[0]])
    match = [[name, *(percent(by_k[k][name]["match_rate"]) for k in ks)] for name in names]
    rms = [[name, *(cell(by_k[k][name]["match_rms"]) for k in ks)] for name in names]
    stopping = [
        [
            k,
            percent(found["match_rate"]),
            cell(found["match_rms"]),
            f"{found['mean_candidates']:.2f}",
            f"{found['mean_passes']:.0f}",
        ]
        for k, found in result["adaptive"].items()
    ]
    columns = ["K at most", "match rate (%)", "mean rms", "mean decodes", "mean passes"]
    threshold = result["threshold"]
    return "\n\n".join(
        [
            f"Match rate (%), 95 % interval; {what}:",
            markdown_table(header, match),
            "Mean rms distance of the matches:",
            markdown_table(header, rms),
            f"Stopping at a latent distance of {threshold['threshold']:.3f} ({threshold['from']}):",
            markdown_table(columns, stopping),
        ]
    )


def percent(number: dict[str, Any]) -> str:
    low, high = number["interval"]
    return f"{100 * number['value']:.1f} ({100 * low:.1f}–{100 * high:.1f})"
