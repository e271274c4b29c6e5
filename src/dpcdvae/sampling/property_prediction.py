"""Properties that a trained model predicts for crystals of a data set or of any origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dpcdvae.datasets.preparation import Settings, prepare_one
from dpcdvae.model.regressor import PropertyRegressor
from dpcdvae.parallel import HERE, TIME_LIMIT, Engine, Lost
from dpcdvae.progress import Progress
from dpcdvae.sampling.shards import BATCH_SIZE
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch


@torch.inference_mode()
def predict(model: PropertyRegressor, table: CrystalTable, batch_size: int = BATCH_SIZE) -> npt.NDArray[np.float64]:
    """The property (n,) of every crystal of a table with bonds; NaN for a crystal without any."""
    values = np.full(len(table), np.nan)
    bonded = np.flatnonzero(table.num_bonds)
    model.eval()
    with Progress(f"predicting {model.target}", total=len(bonded)) as bar:
        for start in range(0, len(bonded), batch_size):
            indices = bonded[start : start + batch_size]
            batch = CrystalBatch.from_table(table, indices, model.dtype).to(model.device)
            values[indices] = model(batch).double().cpu().numpy()
            bar.advance(len(indices))
    return values


def predict_crystals(
    model: PropertyRegressor, crystals: Sequence[Crystal], *, engine: Engine = HERE, time_limit: float = TIME_LIMIT
) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
    """The property (n,) of crystals of any origin, which are standardised and bonded first, as those of a data set are.

    It is NaN for a crystal without bonds, and for one with an element that the model was not trained on. The second
    value gives the reason for each of these by its index.
    """
    values, reasons, jobs = np.full(len(crystals), np.nan), dict[int, str](), dict[int, Crystal]()
    for k, crystal in enumerate(crystals):
        if unknown := model.unknown_elements(crystal.atomic_numbers.tolist()):
            reasons[k] = f"{model.target} of {', '.join(unknown)} was not trained"
        else:
            jobs[k] = crystal
    settings = Settings(max_atoms=max((crystal.num_atoms for crystal in jobs.values()), default=1))
    results = engine.map(
        prepare_one,
        [(crystal, settings) for crystal in jobs.values()],
        time_limit=time_limit,
        description="finding bonds",
    )
    good = {}
    for k, result in zip(jobs, results, strict=True):
        if isinstance(result, str | Lost):
            reasons[k] = result if isinstance(result, str) else result.reason
        else:
            good[k] = result
    table = CrystalTable.from_crystals([crystal for crystal, _ in good.values()], [bonds for _, bonds in good.values()])
    values[list(good)] = predict(model, table)
    return values, reasons


def mean_absolute_error(model: PropertyRegressor, table: CrystalTable) -> tuple[float, int, int]:
    """(error in the unit of the property, crystals behind it, crystals whose value is unknown)."""
    truth = table.properties.get(model.target, np.full(len(table), np.nan))
    known = np.flatnonzero(np.isfinite(truth))
    if not len(known):
        return float("nan"), 0, len(table)
    error = np.abs(predict(model, table.select(known)) - truth[known])
    return float(error.mean()), len(known), len(table) - len(known)
