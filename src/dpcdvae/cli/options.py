"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcdvae.cli.groups import Group, option
from dpcdvae.drawing.figures import HIGHEST_DPI, LOWEST_DPI
from dpcdvae.sampling.shards import BATCH_SIZE

if TYPE_CHECKING:
    from dpcdvae.model_store import StoredModel
    from dpcdvae.parallel import Engine

OWN = "the model's own"


def complete_models() -> list[str]:
    from dpcdvae.model_store import named_models

    return named_models()


def complete_datasets() -> list[str]:
    from dpcdvae.datasets import DATASETS, prepared_names

    return sorted({*DATASETS, *prepared_names()})


def complete_presets() -> list[str]:
    from dpcdvae.presets import preset_names

    return preset_names()


Model = Annotated[
    str, typer.Argument(help="A bundled model, a run folder or a checkpoint folder.", autocompletion=complete_models)
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change an option: section.option=value; may be repeated.")
]
Crystals = Annotated[Path, typer.Argument(help="File, folder or zip of crystals in any format.")]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        help="Column of the crystals in a CSV or Parquet.",
        show_default="cif, or the only one with crystals",
    ),
]
CalculatorOption = Annotated[
    list[str] | None, typer.Option("--calculator-option", help="KEY=VALUE for the calculator, repeatable.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**64 - 1, help="The same seed gives the same result.")]
Steps = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Denoising steps, one network evaluation each (heun: two).", show_default=OWN),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write all numbers here too, for machines.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write; must not exist yet.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Dpi = Annotated[int, typer.Option("--dpi", min=LOWEST_DPI, max=HIGHEST_DPI, help="Dots per inch of a PNG.")]
Symmetrise = Annotated[
    float | None,
    typer.Option(
        "--symmetrise", help="CIFs with space group and standard origin; Å that atoms may miss their symmetric places."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Work on a cluster: tcp://HOST:PORT or the JSON file of a dask scheduler, slurm:CONFIG, or local:N.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class DecodingOfOne(Group):
    """How a latent becomes a crystal."""

    seed: Seed = 0
    steps: Steps = None
    solver: str | None = option(
        None,
        "How a step is made: x0-jump, ancestral, ddim, dpm++2m, heun; of wrapped-normal the first three.",
        shown=OWN,
    )
    candidates: int | None = option(
        None,
        "Most decodes of each latent; the one whose encoding lies nearest to it is kept. 1: as published.",
        shown=OWN,
    )
    device: str = option("auto", "cpu, cuda, or auto.")

    def asked(self) -> dict[str, Any]:
        """The options of a decode as they were given, None where they were not."""
        return {"steps": self.steps, "solver": self.solver, "candidates": self.candidates}

    def settings(self, model: StoredModel) -> dict[str, Any]:
        """Seed, steps, solver and candidates, the model's own where none are given; InputError for a wrong one."""
        from dpcdvae.sampling.decoding_settings import sampling_settings

        return {"seed": self.seed, **sampling_settings(model, self.steps, self.solver, self.candidates)}


@dataclass(frozen=True, kw_only=True)
class Decoding(DecodingOfOne):
    """How latents become crystals."""

    batch_size: int = option(BATCH_SIZE, "Crystals per batch; affects memory and speed.", min=1, max=10**9)


@dataclass(frozen=True, kw_only=True)
class Processes(Group):
    """Where crystals are prepared, compared or relaxed."""

    workers: int | None = option(None, "Processes; 0: this one, without time limits.", shown="one for each core", min=0)
    scheduler: Scheduler = None

    def engine(self) -> Engine:
        from dpcdvae.parallel import engine_for

        return engine_for(self.workers, self.scheduler)
