"""What ``generate`` and ``reconstruct`` share: shards, workers, going on after a kill, writing the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcdvae.cli.common import tell_failures
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from dpcdvae.io import Failure
    from dpcdvae.sampling.batchwise import ModelSource
    from dpcdvae.sampling.finished_batches import Part, Parts
    from dpcdvae.sampling.shards import Shard
    from dpcdvae.structures.crystal import Crystal

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", help="i/n: the i-th of n shares of these crystals, digit for digit those of the whole run.",
        show_default=False,
    ),
]  # fmt: skip
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0,
        help="Processes that make batches; 0: this one.  [default: one for each core; 0 on a GPU]", show_default=False,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Where the crystals of a command are made and where they go: what its options say."""

    out: Path
    overwrite: bool
    batch_size: int
    shard: str | None
    device: str
    workers: int | None
    scheduler: str | None

    @property
    def share(self) -> Shard:
        """What ``shard`` says; raises InputError for one that is none."""
        from dpcdvae.sampling.shards import WHOLE, Shard

        return WHOLE if self.shard is None else Shard.parse(self.shard)

    def check(self) -> None:
        """Raises InputError, before any work, where ``out`` cannot be written, or for a shard that is none."""
        from dpcdvae.io import check_destination
        from dpcdvae.sampling.finished_batches import is_writing

        _ = self.share
        check_destination(self.out, overwrite=self.overwrite or is_writing(self.out))


def run_batches(
    command: str,
    doing: str,
    model: str,
    total: int,
    target: Target,
    function_of: Callable[[ModelSource], Callable[[Any], Part]],
    item_of: Callable[[range], Any],
    arguments: dict[str, Any],
    **facts: Any,
) -> None:
    """Makes the crystals 0 .. total - 1 of a run, or a shard of them, and writes them with their manifest.

    Args:
        target: checked.
        function_of: what makes a batch of crystals, from the model and from what ``item_of`` gives for their numbers.
        arguments: of the command, and ``facts`` that shape the crystals with them.
    """
    from dpcdvae import __version__
    from dpcdvae.sampling.batchwise import ModelSource, device_here, engine_of, make_batches
    from dpcdvae.sampling.finished_batches import Parts
    from dpcdvae.sampling.shards import batches_of

    batches = batches_of(total, target.batch_size, target.share)
    device = target.device if target.scheduler else device_here(target.device)
    source = ModelSource.of(model, device)
    shaping = {**arguments, "batch_size": target.batch_size, "shard": target.shard, "device": device}
    facts = {"model_sha256": source.sha256, **facts}
    engine = engine_of(target.workers, target.scheduler, device, len(batches))
    with engine, Parts(target.out, {"dpcdvae": __version__, "command": command, **shaping, **facts}) as parts:
        make_batches(function_of(source), [item_of(batch) for batch in batches], batches, parts, engine, doing)
        manifest = {"model": model, **shaping, "workers": target.workers, "scheduler": target.scheduler}
        finish_batches(parts, batches, command, target, manifest, facts)


def finish_batches(
    parts: Parts,
    batches: Sequence[range],
    command: str,
    target: Target,
    arguments: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Writes the crystals of all batches and their manifest; says on standard error what could not be built.

    The manifest comes last: where it is, the command has done its work. A shard without any crystal has it alone.
    """
    from dpcdvae.files import atomic_output, manifest_path, write_manifest
    from dpcdvae.io import write

    out = target.out
    crystals: list[Crystal] = []
    failures: list[Failure] = []
    passes = 0
    for batch in batches:
        part = parts.get(batch.start)
        crystals += part.crystals
        failures += part.failures
        passes += part.passes
    not_built = tell_failures(failures)
    total = len(crystals) + len(failures)
    if not crystals and target.shard is None:
        parts.remove()
        raise InputError(f"none of {total} crystals could be built: the model needs more training")
    parts.begin_writing()
    if (old := manifest_path(out)).is_file():  # of what --overwrite replaces
        old.unlink()
    if crystals:
        complete = write(crystals, parts.folder / "complete" / out.name, overwrite=True)
        with atomic_output(out) as temporary:
            complete.rename(temporary)
    elif out.exists():
        raise InputError(f"shard {target.shard} has no crystals, so nothing replaces {out}: remove it")
    write_manifest(out, command, arguments, **facts, crystals=len(crystals), passes=passes, failures=not_built)
    parts.remove()
    if not batches:
        print(f"shard {target.shard} has nothing to do: there are fewer batches of {target.batch_size} than shards")
    elif not crystals:
        print(f"shard {target.shard}: none of {total} crystals could be built")
    else:
        print(f"{out}: {len(crystals)} of {total} crystals")
