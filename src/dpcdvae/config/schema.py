"""Whole configurations of the kinds of models, checked from plain values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import ValidationError

from dpcdvae.config.fields import Section, read_options, wrong_value
from dpcdvae.config.ftcp import FTCPLossConfig, FTCPModelConfig, FTCPRepresentationConfig
from dpcdvae.config.options import COMPONENTS
from dpcdvae.config.placement import FINEST, GrowthConfig, PlacementModelConfig, PlacementSamplingConfig
from dpcdvae.config.sections import (
    AnyModelConfig,
    DenoiserConfig,
    DiffusionConfig,
    EncoderConfig,
    LossConfig,
    ModelConfig,
    PriorConfig,
    TrainConfig,
)
from dpcdvae.errors import InputError, listed, unknown_name


class AnyConfig(Section):
    """All options that a model and its training are built from; stored with every checkpoint."""

    free_form: ClassVar[tuple[str, ...]] = ()  # options that hold the tables of components
    kind: str
    model: AnyModelConfig = AnyModelConfig()
    train: TrainConfig = TrainConfig()

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return self.model_dump()

    @classmethod
    def option_names(cls) -> list[str]:
        """Every option as ``section.option``."""
        return [
            f"{name}.{option}"
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Section)
            for option in type(field.default).model_fields
        ]

    @classmethod
    def section_names(cls) -> list[str]:
        return [name for name, field in cls.model_fields.items() if isinstance(field.default, Section)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "configuration") -> Self:
        """A checked configuration; ``where`` names the source of the values.

        Raises:
            InputError: an unknown option or component, or a value that does not fit.
        """
        return cls.from_sections(values, where).with_checked_components(where)

    @classmethod
    def from_sections(cls, values: Mapping[str, Any], where: str) -> Self:
        """A configuration whose components are not checked yet, as further overrides may change them."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            place = first["loc"][:2]  # section, option; a third part names the alternative of a union
            option = ".".join(str(part) for part in place)
            if first["type"] == "extra_forbidden":
                raise unknown_option(cls, option, where) from None
            section = cls.model_fields[str(place[0])]
            options = type(section.default).model_fields if isinstance(section.default, Section) else {}
            field = options.get(str(place[-1]), section)
            raise InputError(f"{where}: option {option} {wrong_value(field, first)}") from None

    def with_checked_components(self, where: str) -> Self:
        """This configuration; raises InputError where a component is unknown or an option of one does not fit."""
        try:
            self.components()
            self.train.check()
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        return self

    def components(self) -> dict[str, Section]:
        """The options of every component, with defaults, by the table that they are written in.

        Raises:
            InputError: an unknown component or option, or a value that does not fit.
        """
        return {}


class _WithEncoder(AnyConfig):
    """A model that reads crystals with the encoders of :mod:`dpcdvae.encoders`."""

    encoder: EncoderConfig = EncoderConfig()

    def components(self) -> dict[str, Section]:
        return {f"encoder.options.{name}": options for name, options in self.encoder.parts().items()}


class Config(_WithEncoder):
    """A generative model: CDVAE, DP-CDVAE and all between."""

    free_form = ("encoder.options", "denoiser.options", "diffusion.options", "prior.options")
    kind: Literal["generative"] = "generative"
    model: ModelConfig = ModelConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    prior: PriorConfig = PriorConfig()
    loss: LossConfig = LossConfig()

    def components(self) -> dict[str, Section]:
        found = super().components()
        for section in ("denoiser", "diffusion", "prior"):
            chosen = getattr(self, section)
            found[f"{section}.options"] = read_options(COMPONENTS[section][chosen.name], chosen.options, chosen.name)
        return found


class RegressorConfig(_WithEncoder):
    """A model that predicts a property of a crystal, such as its energy."""

    free_form = ("encoder.options",)
    kind: Literal["regressor"] = "regressor"


class FTCPConfig(AnyConfig):
    """FTCP: a variational autoencoder of matrices that stand for crystals."""

    free_form = ("prior.options",)
    kind: Literal["ftcp"] = "ftcp"
    model: FTCPModelConfig = FTCPModelConfig()
    representation: FTCPRepresentationConfig = FTCPRepresentationConfig()
    loss: FTCPLossConfig = FTCPLossConfig()
    prior: PriorConfig = PriorConfig()

    def components(self) -> dict[str, Section]:
        self.model.check()
        self.loss.check()
        prior = self.prior
        return {"prior.options": read_options(COMPONENTS["prior"][prior.name], prior.options, prior.name)}


class PlacementConfig(AnyConfig):
    """A generative model that places atom after atom: G-SchNet, P-G-SchNet."""

    kind: Literal["placement"] = "placement"
    model: PlacementModelConfig = PlacementModelConfig()
    growth: GrowthConfig = GrowthConfig()
    sampling: PlacementSamplingConfig = PlacementSamplingConfig()

    def components(self) -> dict[str, Section]:
        """None; raises InputError for options that do not go together, or a property, which this kind cannot learn."""
        if self.model.property:
            raise InputError("model.property: a placement model learns no property; leave it empty")
        if not self.model.periodic and self.model.images > 1:
            raise InputError("model.images: a cluster (model.periodic = false) has no images; leave it at 1")
        model, sampling = self.model, self.sampling
        if model.max_distance < 2 * model.bin_width:
            raise InputError("model.bin_width: at least two bins have to fit below model.max_distance")
        if sampling.inner >= sampling.outer:
            raise InputError("sampling.inner must be less than sampling.outer: atoms are placed between them")
        if sampling.fine and sampling.spacing > FINEST * sampling.fine:
            raise InputError(f"sampling.fine: at least sampling.spacing / {FINEST} is needed, or 0 for no second grid")
        self.lattice_rule(None)
        return super().components()

    def lattice_rule(self, asked: str | None) -> str:
        """The lattice rule asked for, or the model's own; raises InputError for one that does not go with the model."""
        rule = self.sampling.lattice if asked is None else asked
        rules = ["uniform", "conditional"] if self.model.periodic else ["box"]
        if rule not in rules:
            what = "periodic crystals" if self.model.periodic else "clusters"
            raise unknown_name(f"lattice rule of a placement model of {what}", rule, rules)
        return rule


KINDS: dict[str, type[AnyConfig]] = {
    "generative": Config,
    "regressor": RegressorConfig,
    "ftcp": FTCPConfig,
    "placement": PlacementConfig,
}


def config_from_dict(values: Mapping[str, Any], where: str = "configuration") -> AnyConfig:
    """The configuration of the kind that ``values["kind"]`` names (generative without it)."""
    kind = values.get("kind", "generative")
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown_name("kind of model", str(kind), KINDS)
    return KINDS[kind].from_dict(values, where)


def unknown_option(kind: type[AnyConfig], option: str, where: str) -> InputError:
    """An error that offers the nearest option of a kind of configuration, and lists the options of its section."""
    section, _, last = option.rpartition(".")
    names = kind.option_names()
    if section in kind.section_names():
        choices = [name for name in names if name.startswith(section + ".")]
    else:
        choices = kind.section_names()
    elsewhere = [name for name in names if name.endswith("." + last)]  # the right name, the wrong section
    near = elsewhere or difflib.get_close_matches(option, [*names, *choices], n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"{where}: unknown option '{option}': {hint}choose from {listed(choices)}")
