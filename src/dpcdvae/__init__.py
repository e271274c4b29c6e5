"""dpcdvae: generate crystal structures with DP-CDVAE, and evaluate them.

The public names are imported when first used, so that ``import dpcdvae`` is quick and what needs no
torch does not load it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Crystal": "dpcdvae.structures.crystal",
    "InputError": "dpcdvae.errors",
    "read": "dpcdvae.io",
    "write": "dpcdvae.io",
    "load_dataset": "dpcdvae.datasets",
    "load_model": "dpcdvae.checkpoints.loading",
    "generate": "dpcdvae.sampling.kinds",
    "reconstruct": "dpcdvae.sampling.kinds",
    "evaluate": "dpcdvae.evaluation",
    "relax": "dpcdvae.relaxation",
}

__all__ = [
    "Crystal",
    "InputError",
    "__version__",
    "evaluate",
    "generate",
    "load_dataset",
    "load_model",
    "read",
    "reconstruct",
    "relax",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dpcdvae' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from dpcdvae.checkpoints.loading import load_model
    from dpcdvae.datasets import load_dataset
    from dpcdvae.errors import InputError
    from dpcdvae.evaluation import evaluate
    from dpcdvae.io import read, write
    from dpcdvae.relaxation import relax
    from dpcdvae.sampling.kinds import generate, reconstruct
    from dpcdvae.structures.crystal import Crystal
