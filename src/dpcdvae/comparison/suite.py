"""Suites of a benchmark, read from a file: data, presets, seeds, budget, sample sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from dpcdvae.config import Section
from dpcdvae.errors import InputError, misfit, unknown_name
from dpcdvae.files import read_toml


class SubsetConfig(Section):
    """Crystals to train and validate on, chosen at random once for all presets; all of a split where none is named."""

    train: PositiveInt | None = None
    val: PositiveInt | None = None
    seed: NonNegativeInt = Field(0, description="of the choice, that of the crystals to reconstruct too")


class SampleConfig(Section):
    reconstruct: PositiveInt = Field(200, description="crystals of the test split, at most")
    generate: PositiveInt = 200
    steps: PositiveInt = Field(50, description="denoising steps")
    candidates: PositiveInt = Field(1, description="decodes of each latent, of which the best is kept")


class Suite(Section):
    """A suite file. ``overrides`` is its table ``[set]``."""

    dataset: str
    presets: list[str] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field([0], min_length=1)
    cpu_minutes: PositiveFloat | None = Field(None, description="of training, for each preset and seed")
    epochs: PositiveInt | None = None
    subset: SubsetConfig = SubsetConfig()
    sample: SampleConfig = SampleConfig()
    cutoffs: list[PositiveFloat] | None = Field(
        None, min_length=2, max_length=2, description="of the coverage, structure and composition; else the data set's"
    )
    overrides: dict[str, Any] = Field({}, alias="set")

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, by the names in the file."""
        return self.model_dump(by_alias=True)


SUITES_OWN = {"train.seed": "seeds", "train.max_epochs": "cpu_minutes or epochs"}
"""Options that ``[set]`` must leave to the suite, and what it calls them."""


def read_suite(path: str | Path) -> Suite:
    """Raises InputError: no such file, no TOML, a key or value that is not meant, none or two budgets."""
    path = Path(path)
    values = read_toml(path, "suite")
    try:
        suite = Suite.model_validate(values)
    except ValidationError as error:
        raise _explained(error, path) from None
    _check(suite, path)
    return suite


def _check(suite: Suite, path: Path) -> None:
    if (suite.cpu_minutes is None) == (suite.epochs is None):
        many = "names two budgets" if suite.epochs is not None else "has no budget"
        raise InputError(f"suite {path} {many}: give either cpu_minutes or epochs")
    for what, names in (("preset", suite.presets), ("seed", suite.seeds)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"suite {path}: {what} {twice[0]} is named twice")
    for option in flat(suite.overrides):
        if option in SUITES_OWN:
            raise InputError(f"suite {path}: [set] cannot say {option}: the suite does, with {SUITES_OWN[option]}")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"train": {"lr": 1}}`` and ``{"train.lr": 1}`` -> ``{"train.lr": 1}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


def _explained(error: ValidationError, path: Path) -> InputError:
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        section, _, key = ".".join(map(str, first["loc"])).rpartition(".")
        models: dict[str, type[Section]] = {"subset": SubsetConfig, "sample": SampleConfig}
        known = [field.alias or name for name, field in models.get(section, Suite).model_fields.items()]
        return InputError(f"suite {path}: {unknown_name('key', key, known)}")
    return InputError(f"suite {path}: {misfit(error)}")
