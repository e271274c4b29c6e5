"""The options of ``generate``, checked before torch is loaded: those of the model, and filters of its crystals."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.datasets import DATASETS, dataset_path, load_split, prepared_names
from dpcdvae.datasets.bonded_crystals import bonded_crystal
from dpcdvae.datasets.preparation import Settings, prepare_one
from dpcdvae.errors import InputError
from dpcdvae.files import sha256
from dpcdvae.io import as_crystals, read
from dpcdvae.model_store import StoredModel, find_property_model
from dpcdvae.sampling.atom_conditions import CONDITIONS, AtomConditions, read_formulas
from dpcdvae.sampling.filters import Filters, space_group_number
from dpcdvae.sampling.target import Target
from dpcdvae.sampling.training_range import Subject
from dpcdvae.structures.content import content_hash, table_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.structures.table import CrystalTable

if TYPE_CHECKING:
    from dpcdvae.model.regressor import PropertyRegressor

SHARED_OPTIONS = frozenset(
    {"space_group", "unique", "novel", "training", "target", "property_model", "max_tries", "anyway", *CONDITIONS}
)
"""Options of every kind of model. Those of :data:`CONDITIONS` a kind may have among its own: then they act in it."""


@dataclass(frozen=True)
class GenerateOptions:
    """The checked options of ``generate``, divided between the model and the filters.

    Attributes:
        options: of the model's own ``generate``.
        filters: what it cannot ensure.
        property_model: a model of the property that is the target, None without one.
        facts: for the manifest: hashes of what is not an option's value.
    """

    options: Mapping[str, Any]
    filters: Filters
    property_model: StoredModel | PropertyRegressor | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> dict[str, Any]:
        """The options as a manifest states them."""
        stated = {name: value for name, value in self.options.items() if name not in ("like", "target")}
        if self.filters.space_group is not None:
            stated["space_group"] = self.filters.space_group
        if (target := self.filters.target) is not None:
            stated["target"] = f"{target.name}={target.value:g}±{target.tolerance:g}"
        return stated


def checked_options(own: frozenset[str], subject: Subject, asked: Mapping[str, Any], what: str) -> GenerateOptions:
    """Checks what is asked for, and divides it between the model and the filters.

    Args:
        own: options of the model's own ``generate``.
        asked: options that were given, which are in ``own`` or in :data:`SHARED_OPTIONS`.
        what: the model in words, for messages.

    Raises:
        InputError: what cannot be read, contradicts, goes beyond the training set without ``anyway``, or needs what is
            not there (a property model, the training set).
    """
    anyway, facts = bool(asked.get("anyway")), dict[str, Any]()
    options = {name: value for name, value in asked.items() if name in own and name != "max_latent_distance"}
    if "formula" in asked:
        formulas = read_formulas(asked["formula"])
        asked = {**asked, "formula": formulas}
        if "formula" in own:
            options["formula"] = formulas[0] if len(formulas) == 1 else formulas
        else:
            facts["formulas"] = formulas
    conditions = AtomConditions.of(asked, subject.max_atoms)
    if not anyway and conditions != AtomConditions(neutral=conditions.neutral):
        named = (f"--{name.replace('_', '-')}" for name in CONDITIONS if asked.get(name) and name != "neutral")
        subject.check_seen(conditions.all_numbers, conditions.all_sizes, ", ".join(named))
    if "like" in asked:
        if "prior" in asked:
            raise InputError("--like and --prior contradict: z is either near a crystal's or from a prior")
        options["like"] = table = seed_crystal(asked["like"], subject, what, anyway=anyway)
        facts["like_sha256"] = table_hash(table)
    elif "spread" in asked:
        raise InputError("--spread without --like: it says how far z lies from that crystal's")
    if not 0 <= asked.get("spread", 0.0) < 1e6:
        raise InputError(f"--spread must lie between 0 and 1e6, not {asked['spread']:g}")
    target, property_model = _target(asked, subject, "target" in own, anyway=anyway)
    options.pop("target", None)
    if target is not None and target.guided:
        options["target"] = target
    source = property_model if isinstance(property_model, StoredModel | None) else property_model.source
    if source is not None:
        facts["property_model_sha256"] = source.sha256
    training = _training(asked, subject)
    if training is not None:
        facts["training_sha256"] = content_hash(*training)
    if not asked.get("max_latent_distance", 1.0) > 0:
        raise InputError(f"--max-latent-distance must be above 0, not {asked['max_latent_distance']:g}")
    filters = Filters(
        AtomConditions(neutral=conditions.neutral) if own.issuperset(CONDITIONS) else conditions,
        space_group_number(asked["space_group"]) if "space_group" in asked else None,
        bool(asked.get("unique")),
        training,
        target,
        asked.get("max_latent_distance"),
    )
    if "max_tries" in asked and not filters:
        raise InputError("--max-tries: nothing is asked for that a crystal could fail, so each is made once")
    return GenerateOptions(options, filters, property_model, facts)


def seed_crystal(given: Any, subject: Subject, what: str, *, anyway: bool) -> CrystalTable:
    """A table of one crystal with bonds, of one :data:`~dpcdvae.io.CrystalsLike`, or of ``DATASET[:split]/ID``.

    Raises:
        InputError: none there, or one that the model cannot encode or has not seen the like of.
    """
    if isinstance(given, str | Path):
        prepared = bonded_crystal(str(given))
    else:
        crystals = as_crystals(given)
        if len(crystals) != 1:
            raise InputError(f"--like: one crystal is needed, not {len(crystals)}")
        found = prepare_one((crystals[0], Settings(max_atoms=crystals[0].num_atoms)))
        if isinstance(found, str):
            raise InputError(f"--like: the crystal cannot be used: {found}")
        prepared, given = found, crystals[0].id or "the crystal"
    crystal, bonds = prepared
    numbers = sorted(set(crystal.atomic_numbers.tolist()))
    if numbers[-1] > NUM_ELEMENTS:
        raise InputError(f"--like {given}: models know the elements 1 to {NUM_ELEMENTS}")
    if crystal.num_atoms > subject.max_atoms:
        raise InputError(
            f"--like {given} has {crystal.num_atoms} atoms: {what} holds 1 to {subject.max_atoms} (model.max_atoms)"
        )
    if not len(bonds[0]):
        raise InputError(f"--like {given} cannot be encoded: it has no bonds")
    if not anyway:
        subject.check_seen(numbers, (crystal.num_atoms,), f"--like {given}")
    return CrystalTable.from_crystals([crystal], [bonds])


def _target(
    asked: Mapping[str, Any], subject: Subject, guides: bool, *, anyway: bool
) -> tuple[Target | None, StoredModel | PropertyRegressor | None]:
    """``guides``: whether the kind of model can be guided by a head."""
    given = asked.get("property_model")
    if "target" not in asked:
        if given is not None:
            raise InputError("--property-model without --target: give the value that is wanted too")
        return None, None
    property_model: Any = given
    name, card = None, subject.card
    if isinstance(given, str | Path | StoredModel):
        property_model = find_property_model(given)
        name, card = property_model.predicts, Subject.stored(property_model).card
    elif given is not None:
        name, card = given.target, Subject.loaded(given).card
    head = subject.head if guides else ""
    return Target.parse(asked["target"], head=head, predicts=name, card=card, anyway=anyway), property_model


def _training(asked: Mapping[str, Any], subject: Subject) -> Sequence[Crystal] | None:
    """The crystals that a novel one is none of.

    Raises:
        InputError: they are not here, or are named without being needed.
    """
    given = asked.get("training")
    if not asked.get("novel"):
        if given is not None:
            raise InputError("--training without --novel: it is the set that new crystals are compared with")
        return None
    if given is not None and not isinstance(given, str | Path):
        return as_crystals(given)
    if given is not None:
        text = str(given)
        name = text.partition(":")[0]
        if name in {*DATASETS, *prepared_names()} or name.endswith(".npz"):
            return list(load_split(text, "train"))
        return read(given)
    dataset = subject.card.get("dataset", {})
    name = str(dataset.get("name", ""))
    try:
        table = load_split(name, "train") if name else None
    except InputError as error:
        raise InputError(
            f"--novel: the training set of {subject.name} is not here ({error}); or give --training"
        ) from None
    if table is None:
        raise InputError(f"--novel: the training set of {subject.name} is not known: give --training DATASET or FILE")
    path = dataset_path(name)
    if path.is_file() and sha256(path) != dataset.get("sha256"):
        print(
            f"note: {name} here is not the same file that {subject.name} was trained on: novelty is against this one",
            file=sys.stderr,
        )
    return list(table)
