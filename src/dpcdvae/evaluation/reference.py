"""What the crystals are held against: a data set, a file, or the statistics in a model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.datasets import DATASETS, dataset_file, load_split, prepared_names
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.evaluation.distributions import ReferenceStatistics, element_counts
from dpcdvae.files import sha256
from dpcdvae.io import read

CARD = "card.json"
STATISTICS_KEY = "training_statistics"
DEFAULT_SPLIT = "test"


@dataclass(frozen=True)
class Reference:
    """Crystals, or the statistics that are left of them.

    Attributes:
        source: what it is, for the report.
        sha256: hash of the file behind it, "" for crystals that came from no file.
        crystals: None where only statistics are known.
    """

    source: str
    sha256: str
    crystals: Sequence[Crystal] | None = None
    statistics: ReferenceStatistics | None = None

    @property
    def count(self) -> int:
        return len(self.densities)

    @cached_property
    def densities(self) -> npt.NDArray[np.float64]:
        """(count,) g/cm^3."""
        if self.statistics is not None:
            return self.statistics.densities
        return np.array([crystal.density for crystal in self.crystals or ()], np.float64)

    @cached_property
    def element_counts(self) -> npt.NDArray[np.float64]:
        """(count,) number of different elements of each crystal."""
        return self.statistics.element_counts if self.statistics is not None else element_counts(self.crystals or ())


def as_reference(value: Reference | ReferenceStatistics | Sequence[Crystal] | str | Path) -> Reference:
    if isinstance(value, Reference):
        return value
    if isinstance(value, ReferenceStatistics):
        return Reference(f"statistics of {value.source}", value.sha256, statistics=value)
    if isinstance(value, (str, Path)):
        return resolve_reference(value)
    return Reference("crystals", "", crystals=value)


def resolve_reference(text: str | Path) -> Reference:
    """Finds what a user means by ``--reference``.

    A path to a model's or a run's folder (its card's training statistics), a path to crystals, the name of
    a bundled model, or a data set as ``NAME`` (its test split) or ``NAME:split``, looked for in this order.

    Raises:
        InputError: nothing of that name, or what is there cannot serve as a reference.
    """
    text = str(text)
    path = Path(text)
    if (path / CARD).is_file():
        return _from_card(path / CARD, text)
    bundled = _bundled_models()
    if text in bundled:
        return _from_card(bundled[text], text)
    name, _, split = text.partition(":")
    if path.is_file() and path.suffix == ".npz" and _is_dataset(path):
        return _from_dataset(text, path)
    if path.exists():
        return Reference(text, sha256(path), crystals=_usable(read(path, []), text))
    if name in {*DATASETS, *prepared_names()}:
        return _from_dataset(f"{name}:{split or DEFAULT_SPLIT}", dataset_file(name))
    if name.endswith(".npz") and Path(name).is_file():
        return _from_dataset(text, Path(name))
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"no reference {text}: no such file or folder")
    raise unknown_name("reference", name, {*DATASETS, *prepared_names(), *bundled})


def _from_dataset(text: str, path: Path) -> Reference:
    table = load_split(text, DEFAULT_SPLIT)
    return Reference(text, sha256(path) if path.is_file() else "", crystals=_usable(list(table), text))


def _usable(crystals: Sequence[Crystal], source: str) -> Sequence[Crystal]:
    if not crystals:
        raise InputError(f"the reference {source} has no crystals")
    return crystals


def _from_card(path: Path, text: str) -> Reference:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the model card {path}: {error}") from error
    if not isinstance(card, dict) or STATISTICS_KEY not in card:
        raise InputError(
            f"the model card {path} has no '{STATISTICS_KEY}': give the data set as reference, e.g. perov_5:test"
        )
    statistics = ReferenceStatistics.from_json(card[STATISTICS_KEY])
    return Reference(f"{text} (statistics of {statistics.source})", sha256(path), statistics=statistics)


def _bundled_models() -> dict[str, Path]:
    """Folder name -> card of the models that come with the package."""
    folder = Path(str(files("dpcdvae"))) / "models"
    return {card.parent.name: card for card in folder.glob(f"*/{CARD}")}


def _is_dataset(path: Path) -> bool:
    """Whether an ``.npz`` is a prepared data set rather than a list of crystals."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return "metadata" in stored.files
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no .npz file: {error}") from error
