"""dpcdvae: generate crystal structures with DP-CDVAE, and evaluate them.

The public names are imported when first used, so that ``import dpcdvae`` is quick and what needs no
torch does not load it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "Crystal": "dpcdvae.structures.crystal",
    "CrystalList": "dpcdvae.io",
    "GenerationResult": "dpcdvae.sampling.finished_batches",
    "GroundState": "dpcdvae.relaxation",
    "InputError": "dpcdvae.errors",
    "Relaxations": "dpcdvae.relaxation",
    "Report": "dpcdvae.evaluation",
    "SearchResult": "dpcdvae.sampling.search",
    "StabilityResult": "dpcdvae.screening",
    "as_crystals": "dpcdvae.io",
    "draw": "dpcdvae.drawing.picture",
    "evaluate": "dpcdvae.evaluation",
    "film": "dpcdvae.sampling.film",
    "generate": "dpcdvae.sampling.kinds",
    "ground_state": "dpcdvae.relaxation",
    "interpolate": "dpcdvae.sampling.interpolation",
    "load_config": "dpcdvae.config",
    "load_dataset": "dpcdvae.datasets",
    "load_model": "dpcdvae.checkpoints.loading",
    "optimize": "dpcdvae.sampling.search",
    "plot": "dpcdvae.plots",
    "read": "dpcdvae.io",
    "reconstruct": "dpcdvae.sampling.reconstruction",
    "relax": "dpcdvae.relaxation",
    "stability": "dpcdvae.screening",
    "train": "dpcdvae.training.by_name",
    "view": "dpcdvae.drawing.page.view",
    "write": "dpcdvae.io",
}

__all__ = [
    "Crystal",
    "CrystalList",
    "GenerationResult",
    "GroundState",
    "InputError",
    "Relaxations",
    "Report",
    "SearchResult",
    "StabilityResult",
    "__version__",
    "as_crystals",
    "draw",
    "evaluate",
    "film",
    "generate",
    "ground_state",
    "interpolate",
    "load_config",
    "load_dataset",
    "load_model",
    "optimize",
    "plot",
    "read",
    "reconstruct",
    "relax",
    "stability",
    "train",
    "view",
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
    from dpcdvae.config import load_config
    from dpcdvae.datasets import load_dataset
    from dpcdvae.drawing.page.view import view
    from dpcdvae.drawing.picture import draw
    from dpcdvae.errors import InputError
    from dpcdvae.evaluation import Report, evaluate
    from dpcdvae.io import CrystalList, as_crystals, read, write
    from dpcdvae.plots import plot
    from dpcdvae.relaxation import GroundState, Relaxations
    from dpcdvae.relaxation.of_any_crystals import ground_state, relax
    from dpcdvae.sampling.film import film
    from dpcdvae.sampling.finished_batches import GenerationResult
    from dpcdvae.sampling.interpolation import interpolate
    from dpcdvae.sampling.kinds import generate
    from dpcdvae.sampling.reconstruction import reconstruct
    from dpcdvae.sampling.search import SearchResult, optimize
    from dpcdvae.screening import StabilityResult, stability
    from dpcdvae.structures.crystal import Crystal
    from dpcdvae.training.by_name import train
