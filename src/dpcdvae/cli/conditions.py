"""Options of ``dpcdvae generate``: what crystals are to be, and which of them are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dpcdvae.cli.groups import Group, option


@dataclass(frozen=True, kw_only=True)
class ConditionOptions(Group):
    """What the crystals are to be. It acts in decoding where the kind of model can do that."""

    num_atoms: str | None = option(None, "Atoms in every cell, e.g. 5, or one of several numbers: 5,10.")
    formula: list[str] | None = option(
        None, "Atoms of every cell, e.g. SrTiO3, or a file with a formula on each line; repeatable, taken in turn."
    )
    elements: str | None = option(None, "No other elements than these: Sr,Ti,O.")
    chemical_system: str | None = option(None, "Each of these elements and no other: Sr-Ti-O.")
    neutral: bool = option(False, "Charges can balance (SMACT's test).", "--neutral")
    like: str | None = option(None, "z near that of a crystal: a file of one, or DATASET[:split]/ID.")
    spread: float | None = option(
        None, "How far z lies from that of --like, in standard deviations of its posterior.", shown="1", min=0
    )
    anyway: bool = option(
        False, "Also what the model has not seen: elements, numbers of atoms, values of a property.", "--anyway"
    )

    def asked(self) -> dict[str, Any]:
        """The options as they were given, None where they were not."""
        return asdict(self) | {"formula": self.formula or None}


@dataclass(frozen=True, kw_only=True)
class FilterOptions(Group):
    """Which crystals are kept."""

    space_group: str | None = option(None, "Only crystals of this space group: 221 or Pm-3m.")
    unique: bool = option(False, "Each structure once.", "--unique")
    novel: bool = option(False, "No structure of the training set.", "--novel")
    training: str | None = option(
        None, "What --novel compares with: DATASET[:split] or a file.", shown="that of the model"
    )
    target: str | None = option(
        None, "PROPERTY=VALUE or PROPERTY=VALUE±TOL, by the model's property head or a property model."
    )
    property_model: str | None = option(None, "A model that predicts the property of --target for each crystal.")
    max_latent_distance: float | None = option(
        None, "Most standard deviations between the encoding of a crystal and its z.", min=0
    )
    max_tries: int | None = option(None, "Most crystals to make for those that are kept.", shown="20 times -n", min=1)

    def asked(self) -> dict[str, Any]:
        """The options as they were given, None where they were not."""
        return asdict(self)
