"""The agreement threshold of a model, also of one whose run has not found it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpcdvae.model.agreement_threshold import Agreement
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.training.fit_prior_and_threshold import calibrate
from quality.batches import kept, split_table


def find_threshold(model: CDVAE, name: str, data: str, crystals: int, work: Path) -> dict[str, Any]:
    """Sees to it that the model has a threshold, and tells where it is from; one found here is kept in ``work``."""
    if model.agreement is not None:
        return {"from": "the checkpoint", **model.agreement.to_facts()}
    val = split_table(data, "val")
    found = kept(
        work / f"agreement-{data}-{crystals}.json", lambda: calibrate(model, val, crystals=crystals).to_facts()
    )
    seconds = {name: found.pop(name) for name in ("cpu_seconds", "wall_seconds")}
    model.agreement = Agreement(**found)
    threshold, n = found["threshold"], found["crystals"]
    print(f"{name} has no agreement threshold: {threshold:.3f} from {n} crystals of {data}:val", flush=True)
    return {"from": f"{data}:val, found here", **found, **seconds}
