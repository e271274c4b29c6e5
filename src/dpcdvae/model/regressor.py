"""A property predicted from the crystal: an encoder with one output (CDVAE's ``CrystGNN_Supervise``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpcdvae.config import RegressorConfig
from dpcdvae.datasets.preparation import Settings, prepare_one
from dpcdvae.encoders import build_encoder
from dpcdvae.interfaces import NUM_ELEMENTS
from dpcdvae.model.trainable import TargetScaler, Trainable
from dpcdvae.parallel import HERE, Engine, Lost
from dpcdvae.progress import Progress
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch

BATCH_SIZE = 256


class PropertyRegressor(Trainable):
    """Bonded crystals -> the property ``config.model.property``, in the unit of its column."""

    config: RegressorConfig
    known_elements: Tensor

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder, 1, config.model.max_atoms)
        self.scaler = TargetScaler()
        self.register_buffer("known_elements", torch.zeros(NUM_ELEMENTS + 1, dtype=torch.bool))

    @property
    def device(self) -> torch.device:
        return self.scaler.mean.device

    @property
    def dtype(self) -> torch.dtype:
        return self.scaler.mean.dtype

    def forward(self, batch: CrystalBatch) -> Tensor:
        """(C,) in the unit of the property."""
        return self.scaler.inverse(self.encoder(batch).squeeze(-1))

    def measure(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        assert targets is not None
        self.scaler.fit(targets, self.target)

    def remember(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        assert targets is not None
        learnt_from = crystals.per_atom(targets.isfinite())
        self.known_elements[crystals.atomic_numbers[learnt_from].unique()] = True

    def step_losses(
        self, batch: CrystalBatch, targets: Tensor | None, generator: torch.Generator, epoch: int
    ) -> dict[str, Tensor]:
        """``mse`` of the scaled property, ``mae`` in its unit."""
        assert targets is not None
        error, known = self.scaler.errors(self.encoder(batch).squeeze(-1), targets)
        return {"mse": error.square().sum() / known, "mae": error.detach().abs().sum() / known * self.scaler.std}

    def count(self, batch: CrystalBatch, targets: Tensor | None) -> int | Tensor:
        return len(batch) if targets is None else targets.isfinite().sum()

    def total(self, losses: dict[str, Tensor], epoch: int) -> Tensor:
        return losses["mse"]

    def criterion(self, losses: dict[str, Tensor]) -> Tensor:
        return losses["mae"]

    def unknown_elements(self, numbers: Sequence[int]) -> list[str]:
        """Symbols of those of the atomic numbers that no crystal of its training set held."""
        known = self.known_elements.cpu().numpy()
        return [SYMBOLS[z] for z in sorted(set(numbers)) if not (z < len(known) and known[z])]


@torch.inference_mode()
def predict(model: PropertyRegressor, table: CrystalTable, batch_size: int = BATCH_SIZE) -> npt.NDArray[np.float64]:
    """(n,) the property of every crystal of a table with bonds; NaN for one without any."""
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
    model: PropertyRegressor, crystals: Sequence[Crystal], *, engine: Engine = HERE, time_limit: float = 60.0
) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
    """(n,) the property of crystals of any origin, standardised and bonded first as those of a data set are.

    NaN where it cannot be told: a crystal without bonds, or with an element that the model was not trained on.
    The second value gives the reason for each of these by index.
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
