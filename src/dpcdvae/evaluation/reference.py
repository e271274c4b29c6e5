"""What the crystals are compared with: a data set, a file, or the statistics in a model card."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.datasets import DATASETS, dataset_file, load_dataset, prepared_names
from dpcdvae.datasets.loading import is_dataset
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.files import sha256
from dpcdvae.io import CrystalsLike, Failure, as_crystals, read
from dpcdvae.model_store import CARD, CHECKPOINTS, CONFIG, StoredModel, find_model, named_models, read_json
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.summary import ReferenceStatistics, element_counts

STATISTICS_KEY = "training_statistics"
DEFAULT_SPLIT = "test"


@dataclass(frozen=True)
class Reference:
    """Crystals, or the statistics that are left of them.

    Attributes:
        source: what it is, for the report.
        sha256: hash of the file behind it, "" for crystals that came from no file.
        crystals: None where only statistics are known.
        statistics: what is known then.
        dataset: name of the data set it is a split of, "" for others.
        energy: the property that this data set calls its energy, "" for none.
        training: the training split of this data set, as :func:`resolve_reference` takes it, "" for none.
    """

    source: str
    sha256: str
    crystals: Sequence[Crystal] | None = None
    statistics: ReferenceStatistics | None = None
    dataset: str = ""
    energy: str = ""
    training: str = ""

    def only(self, ids: Collection[str]) -> Reference:
        """The part of it that bears these ids; all of it where it has no crystals."""
        if self.crystals is None:
            return self
        chosen = [crystal for crystal in self.crystals if crystal.id in ids]
        return replace(self, source=f"{len(chosen)} of {self.source}", crystals=chosen)

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


def as_reference(value: Reference | ReferenceStatistics | StoredModel | CrystalsLike) -> Reference:
    """Raises InputError as :func:`resolve_reference`."""
    if isinstance(value, Reference):
        return value
    if isinstance(value, ReferenceStatistics):
        return Reference(f"statistics of {value.source}", value.sha256, statistics=value)
    if isinstance(value, (StoredModel, str, Path)):
        return resolve_reference(value)
    return _of_crystals(as_crystals(value), "crystals", "")


def training_of(reference: Reference) -> Reference | None:
    """The training set behind a reference, where it is a split of a data set that has one."""
    return resolve_reference(reference.training) if reference.training else None


def resolve_reference(text: str | Path | StoredModel, column: str | None = None) -> Reference:
    """Finds what a user means by ``--reference``.

    A bundled model, the folder of a run or of a model (the training statistics in its card), a file or
    folder of crystals, or a data set as ``NAME`` (its test split) or ``NAME:split``, looked for in this order.

    Args:
        column: of the crystals, where these are in a table, as of :func:`dpcdvae.io.read`.

    Raises:
        InputError: nothing of that name, or what is there cannot serve as a reference.
    """
    if isinstance(text, StoredModel):
        return _from_card(text.card(), text.name)
    text = str(text)
    path = Path(text)
    if text in named_models():
        return _from_card(find_model(text).card(), text)
    if (path / CARD).is_file():
        return _from_card(read_json(path / CARD), text)
    if (path / CONFIG).is_file() or (path / CHECKPOINTS).is_dir():
        return _from_card(find_model(path).card(), text)
    name, _, split = text.partition(":")
    if path.is_file() and path.suffix == ".npz" and is_dataset(path):
        return _from_dataset(text, path)
    if path.exists():
        failures: list[Failure] = []
        return _of_crystals(read(path, failures, column=column), text, sha256(path), failures)
    if name in {*DATASETS, *prepared_names()}:
        return _from_dataset(f"{name}:{split or DEFAULT_SPLIT}", dataset_file(name))
    if name.endswith(".npz") and Path(name).is_file():
        return _from_dataset(text, Path(name))
    if name in named_models():
        raise InputError(f"{name} is a model, which has no splits: leave out ':{split}'")
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"no reference {text}: no such file or folder")
    raise unknown_name("reference", name, {*DATASETS, *prepared_names(), *named_models()})


def file_behind(text: str) -> Path | None:
    """The file or folder whose crystals :func:`resolve_reference` reads; None for a model or the name of a data set."""
    path = Path(text)
    is_model = any((path / name).is_file() for name in (CARD, CONFIG)) or (path / CHECKPOINTS).is_dir()
    if text in named_models() or is_model:
        return None
    return path if path.exists() else None


def _from_dataset(text: str, path: Path) -> Reference:
    name, _, split = text.partition(":")
    dataset = load_dataset(name)
    split = split or DEFAULT_SPLIT
    crystals, note = list(dataset[split]), dataset.metadata.get("notes", {}).get(split)
    source = f"{text} ({note})" if note else text
    made = _of_crystals(crystals, source, sha256(path) if path.is_file() else "")
    return replace(
        made,
        dataset=dataset.name,
        energy=dataset.metadata.get("energy") or "",
        training=f"{name}:train" if "train" in dataset.tables else "",
    )


def _of_crystals(crystals: Sequence[Crystal], source: str, digest: str, failures: Sequence[Failure] = ()) -> Reference:
    """What can be compared with; ``source`` says how many crystals could not be read or are none."""
    usable = [crystal for crystal in crystals if crystal.problem() is None]
    reasons = [failure.reason for failure in failures]
    reasons += [f"crystal '{c.id}': {problem}" for c in crystals if (problem := c.problem()) is not None]
    if not usable:
        raise InputError(
            f"the reference {source} has no crystals" + (f" that can be used: {reasons[0]}" if reasons else "")
        )
    if reasons:
        source += f" ({len(reasons)} left out, the first: {reasons[0]})"
    return Reference(source, digest, crystals=usable)


def _from_card(card: Mapping[str, Any], text: str) -> Reference:
    if STATISTICS_KEY not in card:
        raise InputError(f"the card of {text} has no '{STATISTICS_KEY}': give a data set as reference instead")
    statistics = ReferenceStatistics.from_json(card[STATISTICS_KEY])
    return Reference(f"{text} (statistics of {statistics.source})", statistics.sha256, statistics=statistics)
