"""The configuration of a model: its schema, the options of its components, and presets with overrides."""

from dpcdvae.config.fields import Section
from dpcdvae.config.loading import load_config, override_config
from dpcdvae.config.schema import (
    KINDS,
    AnyConfig,
    Config,
    FTCPConfig,
    PlacementConfig,
    RegressorConfig,
    config_from_dict,
)
from dpcdvae.config.sections import MAX_CANDIDATES, NORMAL, EncoderConfig, LossConfig, ModelConfig, TrainConfig

__all__ = [
    "KINDS",
    "MAX_CANDIDATES",
    "NORMAL",
    "AnyConfig",
    "Config",
    "EncoderConfig",
    "FTCPConfig",
    "LossConfig",
    "ModelConfig",
    "PlacementConfig",
    "RegressorConfig",
    "Section",
    "TrainConfig",
    "config_from_dict",
    "load_config",
    "override_config",
]
