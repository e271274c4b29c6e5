"""How the training of the models in models/ went, by their cards."""

from __future__ import annotations

from pydantic import model_validator

from dpcdvae.model_store import read_card
from quality.checked import Checked, checked
from queueing.state import MODELS


class Curve(Checked):
    """The learning curve of a card, an element for each epoch; ``criterion`` is the loss that chooses the best one."""

    epoch: list[float]
    cpu_minutes: list[float]
    criterion: list[float]

    @model_validator(mode="after")
    def fits(self) -> Curve:
        if not len(self.epoch) == len(self.cpu_minutes) == len(self.criterion) > 0:
            raise ValueError("as many minutes and criteria as epochs are needed, and at least one")
        return self


def curve_of(model: str) -> Curve | None:
    """The learning curve of a model of models/; None where there is no such model."""
    if not model or not (MODELS / model).is_dir():
        return None
    return checked(read_card(MODELS / model).get("curve"), Curve, f"{MODELS / model}, curve of the card: ")


def training(model: str) -> str:
    """The budget of a model of models/ in words; nothing where there is no such model."""
    curve = curve_of(model)
    return "" if curve is None else f"{curve.cpu_minutes[-1]:.0f} CPU minutes, {curve.epoch[-1]:.0f} epochs"
