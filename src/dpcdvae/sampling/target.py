"""A value of a property that crystals are to have, and what a model knows of that property. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.sampling.training_range import ANYWAY
from dpcdvae.structures.crystal import Crystal

SHARE = 20
"""The default tolerance is the range of the training set over this."""

NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"


@dataclass(frozen=True)
class Target:
    """``name`` within ``tolerance`` of ``value``, in the unit of the property.

    Attributes:
        prediction: the property of a crystal that holds the prediction.
        guided: whether z is moved towards the value, by the model's head.
    """

    name: str
    value: float
    tolerance: float
    prediction: str
    guided: bool

    def problem(self, crystal: Crystal) -> str | None:
        """Why a crystal is not kept, or None."""
        found = crystal.properties.get(self.prediction, math.nan)
        if not math.isfinite(found):
            return f"{self.name} cannot be predicted"
        return None if abs(found - self.value) <= self.tolerance else f"{self.name} beyond the tolerance"

    @classmethod
    def parse(cls, text: str, *, head: str, predicts: str | None, card: Mapping[str, Any], anyway: bool) -> Target:
        """``PROPERTY=VALUE`` or ``PROPERTY=VALUE±TOL`` (also ``+-``).

        Args:
            head: the property that the generating model predicts, "" for none.
            predicts: the property that the property model predicts, None without one. With one its card is ``card``.
            card: of the model that predicts the property.

        Raises:
            InputError: another form, nothing that predicts this property, no tolerance where the card knows no range, a
                value outside of what was seen in training without ``anyway``.
        """
        found = re.fullmatch(rf"\s*([^=]+?)\s*=\s*({NUMBER})\s*(?:(?:±|\+-|\+/-)\s*({NUMBER}))?\s*", text)
        if found is None:
            raise InputError(
                f"--target {text}: write PROPERTY=VALUE or PROPERTY=VALUE±TOLERANCE, e.g. heat_ref=1.2±0.1"
            )
        name, value = found[1], float(found[2])
        if predicts is not None and predicts != name:
            raise InputError(
                f"--property-model predicts '{predicts}', but --target is of '{name}': give a model of that"
            )
        if predicts is None and head != name:
            has = f"a head for '{head}'" if head else "no property head"
            raise InputError(
                f"--target {name}: the model has {has}: give a --property-model for {name}, or train with "
                f"--property {name}"
            )
        seen = seen_range(card, name)
        if seen is not None and not anyway and not seen[0] <= value <= seen[1]:
            raise InputError(
                f"--target {name}={value:g} lies outside of the training set, {seen[0]:g} to {seen[1]:g} ({seen[2]}); "
                f"{ANYWAY}"
            )
        if found[3] is None and seen is None:
            raise InputError(f"--target {text}: the range of {name} is not known: give a tolerance, {name}=VALUE±TOL")
        tolerance = float(found[3]) if found[3] else (seen[1] - seen[0]) / SHARE if seen else 0.0
        if not (math.isfinite(value) and 0 < tolerance < math.inf):
            raise InputError(f"--target {text}: a finite value and a tolerance above 0 are needed")
        return cls(name, value, tolerance, f"{'predicted' if predicts is None else 'evaluated'}_{name}", head == name)


def seen_range(card: Mapping[str, Any], name: str) -> tuple[float, float, str] | None:
    """Lowest and highest value of a property in the training set, and what these are; None where it is not known.

    Cards of earlier versions have quantiles only.
    """
    known = card.get("property")
    if not isinstance(known, Mapping) or known.get("name") != name:
        return None
    try:
        if "range" in known:
            low, high = map(float, known["range"])
            return low, high, "its extremes"
        quantiles = known["quantiles"]
        return float(quantiles["5"]), float(quantiles["95"]), "its 5 and 95 % quantiles; the extremes are not known"
    except (KeyError, TypeError, ValueError):
        return None
