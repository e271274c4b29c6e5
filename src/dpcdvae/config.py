"""What a run is made of: the schema of every option, and overrides of single ones.

The schema's defaults are the published values (Pakornchote et al. 2024 and the authors' public
configuration). How presets are put together is told in :mod:`dpcdvae.presets`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from dpcdvae.errors import InputError, unknown_name
from dpcdvae.presets import load_preset, merge

NORMAL = "normal"  # the prior z ~ N(0, I), which every model can draw from
MOST_LEVELS = 10_000  # of noise: published models have 1000 or fewer
MOST_PASSES = 1_000_000  # of the network for one crystal
MOST_CANDIDATES = 1000  # a slip of the keyboard, not a wish, beyond


class Section(BaseModel):
    """Immutable; refuses options it does not know, and values of another type ("10" is no integer)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class AnyModelConfig(Section):
    max_atoms: PositiveInt = Field(20, description="in one cell")
    property: str = Field(
        "", description="column to learn; empty: none, or for a regressor what the data set calls its energy"
    )


class ModelConfig(AnyModelConfig):
    latent_dim: PositiveInt = 256
    stats_hidden_dim: PositiveInt = 256
    stats_hidden_layers: PositiveInt = 1
    lattice_scaler: Literal["standard", "minmax"] = "standard"
    lattice_per_atom: bool = Field(True, description="divide the lengths by the cube root of the number of atoms")


class EncoderConfig(Section):
    names: list[str] = Field(["dimenet++"], description="several are concatenated and mixed")
    options: dict[str, dict[str, Any]] = Field({}, description="by encoder; checked by the encoder itself")
    mixer_layers: NonNegativeInt = Field(1, description="hidden layers between the concatenation and the latent")
    mixer_width: NonNegativeInt = Field(0, description="of these layers; 0: that of the concatenation")


class DenoiserConfig(Section):
    name: str = "gemnet-t"
    options: dict[str, Any] = Field({}, description="checked by the denoiser itself")


class DiffusionConfig(Section):
    name: str = "ddpm"
    timesteps: int = Field(1000, ge=1, le=MOST_LEVELS, description="noise levels, of coordinates and of types")
    sampling_steps: int = Field(
        0, ge=0, le=MOST_PASSES, description="passes of the network where none are asked; 0: all"
    )
    sampling_candidates: int = Field(
        1, ge=1, le=MOST_CANDIDATES, description="decodes of a latent at most, the best is kept"
    )
    options: dict[str, Any] = Field({}, description="checked by the diffusion itself")
    type_noise: Literal["sum", "softmax"] = Field("sum", description="Eq. 9 as in the public code, or as printed")
    type_sigma_min: PositiveFloat = 0.01
    type_sigma_max: PositiveFloat = 5.0


class PriorConfig(Section):
    name: str = Field(NORMAL, description="what z is drawn from in generation")
    options: dict[str, Any] = Field({}, description="checked by the prior itself")

    def chosen(self, asked: str | None) -> str:
        """The prior to draw from: as asked, or the model's own; raises InputError for any other."""
        if asked not in (None, NORMAL, self.name):
            raise unknown_name("--prior of this model", asked, dict.fromkeys([self.name, NORMAL]))
        return asked or self.name


class LossConfig(Section):
    """Weights of the terms (L = c_N CE + c_L MSE + c_C CE + c_r |eps|^2 + c_A CE/sigma + beta KL)."""

    num_atoms: NonNegativeFloat = 1.0
    lattice: NonNegativeFloat = 10.0
    composition: NonNegativeFloat = 1.0
    coords: NonNegativeFloat = 1.0
    types: NonNegativeFloat = 1.0
    kl: NonNegativeFloat = 0.01
    property: NonNegativeFloat = 1.0
    coords_late: NonNegativeFloat = Field(1.0, description="replaces coords from epoch coords_late_epoch on")
    coords_late_epoch: NonNegativeInt = Field(0, description="0: never")
    teacher_forcing_epochs: NonNegativeInt = Field(0, description="epochs that see the true lattice")


class TrainConfig(Section):
    max_epochs: PositiveInt = 3000
    batch_size: PositiveInt = Field(256, description="crystals of one process in a step")
    batch_atoms: NonNegativeInt = Field(
        0, description="fill batches with crystals of like size up to about so many atoms; 0: batch_size crystals"
    )
    lr: PositiveFloat = 1e-3
    lr_schedule: Literal["plateau", "cosine"] = Field("plateau", description="cosine: to min_lr at max_epochs")
    lr_factor: float = Field(0.6, gt=0, lt=1)
    lr_patience: NonNegativeInt = 30
    min_lr: NonNegativeFloat = 1e-4
    grad_clip_value: NonNegativeFloat = Field(0.5, description="0: off")
    weight_ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0: off")
    seed: int = Field(0, ge=0, lt=2**32)
    precision: str = Field(
        "32-true", description="Lightning's; auto: bf16-mixed on a processor that multiplies bfloat16, else 32-true"
    )
    accelerator: str = "auto"
    devices: PositiveInt | Literal["auto"] = 1
    num_nodes: PositiveInt = 1
    strategy: str = "auto"
    save_top_k: PositiveInt = 1
    max_minutes: NonNegativeFloat = Field(0.0, description="stop after the last epoch that fits; 0: off")
    early_stopping_patience: NonNegativeInt = Field(0, description="validations without progress; 0: off")
    finish: bool = Field(True, description="fit prior and threshold and write the card when training stops")
    tensorboard: bool = False
    matmul_precision: Literal["highest", "high", "medium"] = "highest"


class AnyConfig(Section):
    """Everything a model and its training are built from; stored with every checkpoint."""

    free_form: ClassVar[tuple[str, ...]] = ()  # options that hold tables which the components check themselves
    kind: str
    model: AnyModelConfig = AnyModelConfig()
    encoder: EncoderConfig = EncoderConfig()
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
        """Raises InputError on an unknown option or a value that does not fit; ``where`` names the source."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            place = first["loc"][:2]  # section, option; a third part names the alternative of a union
            option = ".".join(str(part) for part in place)
            if first["type"] == "extra_forbidden":
                raise _unknown_option(cls, option, where) from None
            reasons = " or ".join(_lower(e["msg"]) for e in error.errors() if e["loc"][:2] == place)
            raise InputError(f"{where}: option {option}: {reasons}, not {first['input']!r}") from None


class Config(AnyConfig):
    """A generative model: CDVAE, DP-CDVAE and all between."""

    free_form = ("encoder.options", "denoiser.options", "diffusion.options", "prior.options")
    kind: Literal["generative"] = "generative"
    model: ModelConfig = ModelConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    prior: PriorConfig = PriorConfig()
    loss: LossConfig = LossConfig()


class RegressorConfig(AnyConfig):
    """A model that predicts a property of a crystal, such as its energy."""

    free_form = ("encoder.options",)
    kind: Literal["regressor"] = "regressor"


KINDS: dict[str, type[AnyConfig]] = {"generative": Config, "regressor": RegressorConfig}


def config_from_dict(values: Mapping[str, Any], where: str = "configuration") -> AnyConfig:
    """The configuration of the kind that ``values["kind"]`` names (generative without it)."""
    kind = values.get("kind", "generative")
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown_name("kind of model", str(kind), KINDS)
    return KINDS[kind].from_dict(values, where)


def load_config(preset: str | Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """The configuration of a preset with ``section.option=value`` overrides on top.

    Args:
        preset: the name of a preset in this package (``compact``, ``paper/dp-cdvae-perov_5``) or the
            path of a TOML file of your own, which may extend either.
        overrides: values as TOML writes them; what is no TOML value is taken as a string.

    Raises:
        InputError: unknown preset or option (the nearest name is offered), wrong type, circular
            ``extends``, a file that is not TOML.
    """
    return override_config(config_from_dict(load_preset(preset), where=f"preset '{preset}'"), overrides)


def override_config(config: AnyConfig, overrides: Sequence[str]) -> AnyConfig:
    """``config`` with ``section.option=value`` overrides on top; raises as :func:`load_config` does."""
    for override in overrides:
        changed = merge(config.to_dict(), _parse_override(type(config), override))
        config = type(config).from_dict(changed, where=f"--set {override}")
    return config


def _parse_override(kind: type[AnyConfig], override: str) -> dict[str, Any]:
    option, equals, text = override.partition("=")
    option = option.strip()
    parts = option.split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {override}: write section.option=value, such as train.max_epochs=10")
    if option in kind.section_names():
        raise InputError(f"--set {override}: '{option}' is a section: write {option}.option=value")
    if option not in kind.option_names() and ".".join(parts[:2]) not in kind.free_form:
        raise _unknown_option(kind, option, f"--set {override}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in reversed(parts):
        value = {part: value}
    return value


def _unknown_option(kind: type[AnyConfig], option: str, where: str) -> InputError:
    section, _, last = option.rpartition(".")
    names = kind.option_names()
    if section in kind.section_names():
        choices = [name for name in names if name.startswith(section + ".")]
    else:
        choices = kind.section_names()
    elsewhere = [name for name in names if name.endswith("." + last)]  # the right name, the wrong section
    near = elsewhere or difflib.get_close_matches(option, [*names, *choices], n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"{where}: unknown option '{option}': {hint}choose from {', '.join(choices)}")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
