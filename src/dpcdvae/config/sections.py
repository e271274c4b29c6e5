"""The sections of a configuration: every option of a model and of its training. The defaults are the published values.

The published values are those of Pakornchote et al. (2024) and of the authors' public configuration. How presets are
put together is described in :mod:`dpcdvae.presets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dpcdvae.config.fields import Section, option, read_options
from dpcdvae.config.options import (
    DENOISER_OPTIONS,
    DIFFUSION_OPTIONS,
    ENCODER_OPTIONS,
    MAX_LAYERS,
    MAX_STEPS_PER_LEVEL,
    MAX_TIMESTEPS,
    MAX_WIDTH,
    PRIOR_OPTIONS,
)
from dpcdvae.errors import InputError, unknown_name

NORMAL = "normal"  # the prior z ~ N(0, I), which every model can draw from
MAX_CANDIDATES = 1000  # more is a typing error
MAX_EPOCHS = 1_000_000
MAX_BATCH = 1_000_000
MAX_SAMPLING_STEPS = MAX_TIMESTEPS * MAX_STEPS_PER_LEVEL
MAX_WEIGHT = 1e6  # of a term of the loss


class AnyModelConfig(Section):
    """The size of the largest crystal, and the property that is learned."""

    max_atoms: int = option(20, "atoms of the largest cell", "atoms", ge=1, le=1000)
    property: str = option(
        "", "column to learn; empty: none, or for a property model the one that the data set calls its energy"
    )


class ModelConfig(AnyModelConfig):
    """The latent, and the decoders of number of atoms, lattice and composition."""

    latent_dim: int = option(256, "dimensions of the latent z", ge=1, le=MAX_WIDTH)
    stats_hidden_dim: int = option(256, "width of the decoders of number, lattice, composition", ge=1, le=MAX_WIDTH)
    stats_hidden_layers: int = option(1, "hidden layers of these decoders", ge=1, le=MAX_LAYERS)
    lattice_scaler: Literal["standard", "minmax"] = option(
        "standard", "lattice parameters scaled by mean and standard deviation, or to the range 0 to 1"
    )
    lattice_per_atom: bool = option(True, "divide the lengths by the cube root of the number of atoms")


class EncoderConfig(Section):
    """One encoder, or several whose outputs are concatenated and mixed."""

    names: list[str] = option(["dimenet++"], f"encoders, each once, of {', '.join(ENCODER_OPTIONS)}")
    options: dict[str, dict[str, Any]] = option({}, "options of each encoder by its name")
    mixer_layers: int = option(1, "hidden layers between the concatenation and the latent", ge=0, le=MAX_LAYERS)
    mixer_width: int = option(0, "width of these layers; 0: that of the concatenation", ge=0, le=MAX_WIDTH)

    def parts(self) -> dict[str, Section]:
        """The options of each encoder by its name.

        Raises:
            InputError: no name, a name twice or unknown, or options of an encoder that is not named.
        """
        names = ", ".join(self.names)
        if not self.names:
            raise InputError(f"encoder.names is empty: name one encoder or more of {', '.join(ENCODER_OPTIONS)}")
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(f"encoder.names = [{names}]: '{name}' stands there twice; name each encoder once")
            if name in ("concatenation", "concat"):
                raise InputError(
                    f"encoder.names = [{names}]: the list itself is the concatenation; name its parts: "
                    f"{', '.join(ENCODER_OPTIONS)}"
                )
        kinds = {name: ENCODER_OPTIONS[name] for name in self.names}
        for name in self.options:
            if name not in kinds:
                raise InputError(
                    f"encoder.options.{name}: there is no '{name}' in encoder.names = [{names}]; options are written "
                    f"under the name of their encoder, such as encoder.options.{self.names[0]}"
                )
        return {name: read_options(kind, self.options.get(name, {}), name) for name, kind in kinds.items()}


class DenoiserConfig(Section):
    """The denoiser."""

    name: str = option("gemnet-t", f"denoiser: {', '.join(DENOISER_OPTIONS)}")
    options: dict[str, Any] = option({}, "options of the denoiser")


class DiffusionConfig(Section):
    """The noise on coordinates and types, and how crystals are sampled where nothing else is asked."""

    name: str = option("ddpm", f"diffusion of the coordinates: {', '.join(DIFFUSION_OPTIONS)}")
    timesteps: int = option(1000, "noise levels, of coordinates and of types", ge=1, le=MAX_TIMESTEPS)
    sampling_steps: int = option(
        0,
        "steps of the reverse process where no --steps is given; 0: all",
        ge=0,
        le=MAX_SAMPLING_STEPS,
    )
    sampling_candidates: int = option(
        1, "decodes of a latent at most, of which the best is kept", ge=1, le=MAX_CANDIDATES
    )
    options: dict[str, Any] = option({}, "options of the diffusion")
    type_noise: Literal["sum", "softmax"] = option("sum", "Eq. 9 as in the public code, or as printed")
    type_sigma_min: float = option(0.01, "smallest σ' of the type noise", gt=0, le=1e6)
    type_sigma_max: float = option(5.0, "largest σ' of the type noise", gt=0, le=1e6)
    type_count_weight: float = option(
        0.0,
        "sampling: how strongly the numbers of atoms of the elements keep to the composition; "
        "0: the type of each atom by itself, as published",
        ge=0,
        le=1e4,
    )


class PriorConfig(Section):
    """The prior of the latent."""

    name: str = option(NORMAL, f"distribution that generation draws z from: {', '.join(PRIOR_OPTIONS)}")
    options: dict[str, Any] = option({}, "options of the prior")

    def chosen(self, asked: str | None) -> str:
        """The prior to draw from: the one asked for, or the model's own; raises InputError for any other."""
        if asked not in (None, NORMAL, self.name):
            raise unknown_name("--prior of this model", asked, dict.fromkeys([self.name, NORMAL]))
        return asked or self.name


def _weight(default: float, term: str) -> Any:
    return option(default, f"weight of {term}", ge=0, le=MAX_WEIGHT)


class LossConfig(Section):
    """Weights of the terms (L = c_N CE + c_L MSE + c_C CE + c_r |ε - ε_θ|² + c_A CE/σ' + β KL)."""

    num_atoms: float = _weight(1.0, "the number of atoms, c_N")
    lattice: float = _weight(10.0, "the lattice, c_L")
    composition: float = _weight(1.0, "the composition, c_C")
    coords: float = _weight(1.0, "the coordinates, c_r")
    types: float = _weight(1.0, "the atom types, c_A")
    kl: float = _weight(0.01, "the KL divergence of the latent, β")
    property: float = _weight(1.0, "the property, where one is learned")
    coords_late: float = _weight(1.0, "the coordinates from epoch coords_late_epoch on")
    coords_late_epoch: int = option(
        0, "epoch at which coords_late replaces coords; 0: never", "epochs", ge=0, le=MAX_EPOCHS
    )
    teacher_forcing_epochs: int = option(
        0, "epochs in which the denoiser sees the true lattice", "epochs", ge=0, le=MAX_EPOCHS
    )
    denoised_share: float = option(
        1.0,
        "share of the crystals of a batch that are denoised; the others train the latent alone, which is cheaper",
        gt=0,
        le=1,
    )


class TrainConfig(Section):
    """Optimiser, batches, devices, and when training ends."""

    max_epochs: int = option(3000, "epochs at most", "epochs", ge=1, le=MAX_EPOCHS)
    batch_size: int = option(256, "crystals of one process in a step", "crystals", ge=1, le=MAX_BATCH)
    batch_atoms: int = option(
        0,
        "fill batches with crystals of like size up to about so many atoms; 0: batch_size crystals",
        "atoms",
        ge=0,
        le=MAX_BATCH,
    )
    optimizer: Literal["adam", "rmsprop"] = option(
        "adam", "optimiser; rmsprop with decay 0.9 and epsilon 1e-7, as Keras"
    )
    lr: float = option(1e-3, "learning rate", gt=0, le=10)
    lr_schedule: Literal["plateau", "cosine"] = option(
        "plateau", "lower the rate where the loss does not fall, or by a cosine to min_lr at max_epochs"
    )
    lr_factor: float = option(0.6, "factor of the rate at a plateau", gt=0, lt=1)
    lr_patience: int = option(30, "validations without progress that make a plateau", "epochs", ge=0, le=MAX_EPOCHS)
    lr_plateau_of: Literal["val/criterion", "train/loss"] = option(
        "val/criterion", "quantity at whose plateaus the learning rate is reduced"
    )
    min_lr: float = option(1e-4, "smallest learning rate", ge=0, le=10)
    lr_set_epochs: list[int] = option([], "epochs from which on lr_set holds, counted from 0; not with cosine")
    lr_set: list[float] = option([], "learning rates, one for each of lr_set_epochs")
    grad_clip_value: float = option(0.5, "limit of each component of the gradient; 0: off", ge=0, le=1e6)
    weight_ema: float = option(0.0, "decay of the averaged weights, which become the model; 0: off", ge=0, lt=1)
    freeze_encoder_epochs: int = option(
        0, "epochs at the start in which the encoder keeps its weights, for --init", "epochs", ge=0, le=MAX_EPOCHS
    )
    seed: int = option(0, "seed of weights, batches and noise", ge=0, lt=2**32)
    precision: str = option(
        "32-true", "Lightning's; auto: bf16-mixed on a processor that multiplies bfloat16, else 32-true"
    )
    accelerator: str = option("auto", "Lightning's: cpu, gpu, auto")
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = option(1, "processes on each machine")
    num_nodes: int = option(1, "machines", ge=1, le=100_000)
    strategy: str = option("auto", "Lightning's, such as ddp for several processes")
    save_top_k: int = option(1, "best checkpoints that are kept", ge=1, le=1000)
    max_minutes: float = option(0.0, "stop after the last epoch that fits; 0: off", "min", ge=0, le=1e7)
    early_stopping_patience: int = option(
        0, "validations without progress that end training; 0: off", "epochs", ge=0, le=MAX_EPOCHS
    )
    finish: bool = option(True, "fit prior and threshold and write the card when training stops")
    logger: Literal["none", "tensorboard", "csv", "mlflow", "wandb"] = option(
        "none", "one of Lightning's loggers, beside the run's own metrics.csv"
    )
    matmul_precision: Literal["highest", "high", "medium"] = option("highest", "torch's precision of float32 products")

    @model_validator(mode="before")
    @classmethod
    def _tensorboard(cls, values: Any) -> Any:
        """Configurations written before ``logger`` have ``tensorboard = true`` or ``false``."""
        if not isinstance(values, Mapping) or not isinstance(values.get("tensorboard"), bool):
            return values
        rest = {name: value for name, value in values.items() if name != "tensorboard"}
        return {"logger": "tensorboard", **rest} if values["tensorboard"] else rest

    def check(self) -> None:
        """Raises InputError where ``lr_set_epochs`` and ``lr_set`` do not fit each other or the schedule."""
        if len(self.lr_set_epochs) != len(self.lr_set):
            raise InputError(
                f"train.lr_set has {len(self.lr_set)} learning rates for {len(self.lr_set_epochs)} epochs of "
                "train.lr_set_epochs: give one for each"
            )
        if not all(0 < lr <= 10 for lr in self.lr_set):
            raise InputError(f"train.lr_set = {self.lr_set[:5]}: learning rates lie above 0 and up to 10")
        if self.lr_set and self.lr_schedule == "cosine":
            raise InputError("train.lr_set has no meaning for train.lr_schedule = cosine: set it to plateau")
