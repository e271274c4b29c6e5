"""What a run is made of: the schema of every option, presets that state only what differs, overrides.

A preset is a TOML file; ``extends = "other"`` names the preset it starts from. The schema's defaults
are the published values (Pakornchote et al. 2024 and the authors' public configuration).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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

PRESETS = Path(__file__).parent / "presets"


class Section(BaseModel):
    """Immutable; refuses options it does not know, and values of another type ("10" is no integer)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelConfig(Section):
    latent_dim: PositiveInt = 256
    max_atoms: PositiveInt = 20
    stats_hidden_dim: PositiveInt = 256
    stats_hidden_layers: PositiveInt = 1
    lattice_scaler: Literal["standard", "minmax"] = "standard"
    lattice_per_atom: bool = Field(True, description="divide the lengths by the cube root of the number of atoms")


class EncoderConfig(Section):
    name: str = "dimenet++"
    options: dict[str, Any] = Field({}, description="checked by the encoder itself")


class DenoiserConfig(Section):
    name: str = "gemnet-t"
    options: dict[str, Any] = Field({}, description="checked by the denoiser itself")


class DiffusionConfig(Section):
    name: str = "ddpm"
    timesteps: PositiveInt = 1000
    schedule: str = "sigmoid"
    beta_start: PositiveFloat = 1e-10
    beta_end: PositiveFloat = 0.01
    reverse_rule: str = "eq7"
    mean_free: bool = Field(True, description="remove each crystal's mean from the noise")
    recentre: bool = Field(True, description="put the centre of the clean coordinates at the origin")
    type_noise: Literal["sum", "softmax"] = Field("sum", description="Eq. 9 as in the public code, or as printed")
    type_sigma_min: PositiveFloat = 0.01
    type_sigma_max: PositiveFloat = 5.0
    turn_frame: bool = Field(True, description="false: the public code's Cartesian output against fractional noise")
    time_input: Literal["step", "fraction"] = Field("step", description="fraction: t/T, as in the public code")


class LossConfig(Section):
    """Weights of the terms (spec: L = c_N CE + c_L MSE + c_C CE + c_r |eps|^2 + c_A CE/sigma + beta KL)."""

    num_atoms: NonNegativeFloat = 1.0
    lattice: NonNegativeFloat = 10.0
    composition: NonNegativeFloat = 1.0
    coords: NonNegativeFloat = 1.0
    types: NonNegativeFloat = 1.0
    kl: NonNegativeFloat = 0.01
    coords_late: NonNegativeFloat = Field(1.0, description="replaces coords from epoch coords_late_epoch on")
    coords_late_epoch: NonNegativeInt = Field(0, description="0: never")
    teacher_forcing_epochs: NonNegativeInt = Field(0, description="epochs that see the true lattice")


class TrainConfig(Section):
    max_epochs: PositiveInt = 3000
    batch_size: PositiveInt = 256
    lr: PositiveFloat = 1e-3
    lr_schedule: Literal["plateau", "cosine"] = Field("plateau", description="cosine: to min_lr at max_epochs")
    lr_factor: float = Field(0.6, gt=0, lt=1)
    lr_patience: NonNegativeInt = 30
    min_lr: NonNegativeFloat = 1e-4
    grad_clip_value: NonNegativeFloat = Field(0.5, description="0: off")
    weight_ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0: off")
    seed: NonNegativeInt = 0
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: PositiveInt | Literal["auto"] = 1
    num_nodes: PositiveInt = 1
    strategy: str = "auto"
    save_top_k: PositiveInt = 1
    max_minutes: NonNegativeFloat = Field(0.0, description="stop after the last epoch that fits; 0: off")
    early_stopping_patience: NonNegativeInt = Field(0, description="validations without progress; 0: off")
    tensorboard: bool = False
    matmul_precision: Literal["highest", "high", "medium"] = "highest"


class Config(Section):
    """Everything a model and its training are built from; stored with every checkpoint."""

    model: ModelConfig = ModelConfig()
    encoder: EncoderConfig = EncoderConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return self.model_dump()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "configuration") -> Config:
        """Raises InputError on an unknown option or a value that does not fit; ``where`` names the source."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            place = first["loc"][:2]  # section, option; a third part names the alternative of a union
            option = ".".join(str(part) for part in place)
            if first["type"] == "extra_forbidden":
                raise _unknown_option(option, where) from None
            reasons = " or ".join(_lower(e["msg"]) for e in error.errors() if e["loc"][:2] == place)
            raise InputError(f"{where}: option {option}: {reasons}, not {first['input']!r}") from None


def load_config(preset: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a preset with ``section.option=value`` overrides on top.

    Args:
        preset: the name of a preset in this package (``compact``, ``paper/dp-cdvae-perov_5``) or the
            path of a TOML file of your own, which may extend either.
        overrides: values as TOML writes them; what is no TOML value is taken as a string.

    Raises:
        InputError: unknown preset or option (the nearest name is offered), wrong type, circular
            ``extends``, a file that is not TOML.
    """
    return override_config(Config.from_dict(load_preset(preset), where=f"preset '{preset}'"), overrides)


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """``config`` with ``section.option=value`` overrides on top; raises as :func:`load_config` does."""
    for override in overrides:
        config = Config.from_dict(merge(config.to_dict(), _parse_override(override)), where=f"--set {override}")
    return config


def preset_names() -> list[str]:
    """The presets of this package."""
    return sorted(path.relative_to(PRESETS).with_suffix("").as_posix() for path in PRESETS.rglob("*.toml"))


def option_names() -> list[str]:
    """Every option as ``section.option``."""
    return [
        f"{name}.{option}"
        for name, section in Config.model_fields.items()
        for option in type(section.default).model_fields
    ]


def load_preset(preset: str | Path) -> dict[str, Any]:
    """The merged values of a preset and all it extends, not yet checked against the schema."""
    layers = [values for _, values in _chain(_find(str(preset), Path.cwd()))]
    merged: dict[str, Any] = {}
    for values in reversed(layers):
        merged = merge(merged, {k: v for k, v in values.items() if k != "extends"})
    return merged


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` on top, table by table.

    The ``options`` of a component belong to its ``name``: a change of name starts from none.
    """
    merged = dict(base)
    if "name" in changes and changes["name"] != base.get("name"):
        merged.pop("options", None)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _chain(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The preset, then what it extends, and so on."""
    seen: list[Path] = []
    while True:
        if path in seen:
            names = " -> ".join(p.stem for p in [*seen, path])
            raise InputError(f"preset {path}: 'extends' goes in a circle: {names}")
        seen.append(path)
        values = _read(path)
        yield path, values
        if "extends" not in values:
            return
        if not isinstance(values["extends"], str):
            raise InputError(f"preset {path}: 'extends' names one other preset, not {values['extends']!r}")
        path = _find(values["extends"], path.parent)


def _find(preset: str, folder: Path) -> Path:
    """A name in this package, or a TOML file given by its path (relative to ``folder``)."""
    if preset.endswith(".toml"):
        path = (folder / preset).resolve()
        if not path.is_file():
            raise InputError(f"no preset file {path}")
        return path
    if preset not in preset_names():
        raise unknown_name("preset", preset, preset_names())
    return (PRESETS / f"{preset}.toml").resolve()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"preset {path} is not TOML: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read preset {path}: {error.strerror}") from None


def _parse_override(override: str) -> dict[str, Any]:
    option, equals, text = override.partition("=")
    option = option.strip()
    parts = option.split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {override}: write section.option=value, such as train.max_epochs=10")
    if option in Config.model_fields:
        raise InputError(f"--set {override}: '{option}' is a section: write {option}.option=value")
    if option not in option_names() and ".".join(parts[:2]) not in ("encoder.options", "denoiser.options"):
        raise _unknown_option(option, f"--set {override}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in reversed(parts):
        value = {part: value}
    return value


def _unknown_option(option: str, where: str) -> InputError:
    section, _, last = option.rpartition(".")
    if section in Config.model_fields:
        choices = [name for name in option_names() if name.startswith(section + ".")]
    else:
        choices = list(Config.model_fields)
    elsewhere = [name for name in option_names() if name.endswith("." + last)]  # the right name, the wrong section
    near = elsewhere or difflib.get_close_matches(option, [*option_names(), *choices], n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"{where}: unknown option '{option}': {hint}choose from {', '.join(choices)}")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
