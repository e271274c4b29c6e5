"""``dpcdvae generate``, ``dpcdvae reconstruct``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dpcdvae.cli.groups import Call, Group, argument, option
from dpcdvae.cli.options import OWN, Decoding, Model, Out, Overwrite, Scheduler, Symmetrise, complete_datasets
from dpcdvae.cli.outputs import facts_of, write_crystals
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from dpcdvae.model_store import StoredModel
    from dpcdvae.sampling.finished_batches import GenerationResult, Parts


@dataclass(frozen=True, kw_only=True)
class Batches(Group):
    """Which of the crystals are made, in which processes, and where they go."""

    out: Out
    shard: str | None = option(
        None, "i/n: the i-th of n shares of these crystals, digit for digit those of the whole run."
    )
    workers: int | None = option(
        None, "Processes that make batches; 0: this one.", shown="one for each core; 0 on a GPU", min=0
    )
    scheduler: Scheduler = None
    symmetrise: Symmetrise = None
    overwrite: Overwrite = False

    def check(self, size: int) -> None:
        """Raises InputError, before any work, where ``out`` cannot be written, or for a shard that is none."""
        from dpcdvae.io import check_destination
        from dpcdvae.sampling.finished_batches import is_writing

        self.of(0, size)
        check_destination(self.out, overwrite=self.overwrite or is_writing(self.out), symmetrise=self.symmetrise)

    def of(self, total: int, size: int) -> list[range]:
        """The numbers of the crystals in each batch."""
        from dpcdvae.sampling.shards import WHOLE, Shard, batches_of

        return batches_of(total, size, WHOLE if self.shard is None else Shard.parse(self.shard))


def generate(
    call: Call,
    model: Model,
    batches: Batches,
    decoding: Decoding,
    n: int = option(100, "How many crystals.", "-n", min=1, max=10**9),  # batches are listed
    prior: str | None = option(None, "Prior of z: normal is N(0, I), as published.", shown=OWN),
    num_atoms: int | None = option(None, "Atoms in every cell.", min=1),
    formula: str | None = option(None, "Atoms of every cell, e.g. SrTiO3."),
    lattice: str | None = option(
        None, "P-G-SchNet: uniform, a training lattice at random; conditional, one with its atoms.", shown=OWN
    ),
    first: int = option(0, "Number of the first crystal of this seed.", min=0, max=2**62),
) -> None:
    """Generate new crystals; the ending of --out chooses the format (a folder gets CIFs).

    Crystal k of a seed gets the same noise whatever the batch size, the shard or the number of workers, and, with the
    same batch size, the same digits. Finished batches are kept in OUT.work: after a kill the same command goes on.

    \b
    Examples:
      dpcdvae generate perov-5-compact -n 100 --seed 0 --out crystals.extxyz
      dpcdvae generate perov-5-compact -n 10 --formula SrTiO3 --out srtio3/
      dpcdvae generate perov-5-compact -n 1000000 --shard 3/100 --out shards/3.extxyz
    """
    from dpcdvae.model_store import find_generative_model
    from dpcdvae.sampling import kinds
    from dpcdvae.sampling.distributed import generate_batch

    batches.check(decoding.batch_size)
    source = find_generative_model(model)
    asked = {**decoding.asked(), "prior": prior, "num_atoms": num_atoms, "formula": formula, "lattice": lattice}
    options = {"seed": decoding.seed, **kinds.settings(source, "generate", asked)}
    make = partial(generate_batch, first=first, options=options)
    _run(call.resolved(**options), "generating", source, n, batches, decoding, make, lambda numbers: numbers)


def reconstruct(
    *,
    call: Call,
    model: Model,
    crystals: str = argument(..., "DATASET or DATASET:split (test without).", autocompletion=complete_datasets),
    batches: Batches,
    decoding: Decoding,
    force_num_atoms: bool = option(False, "Decode with the true number of atoms.", "--force-num-atoms"),
    force_types: bool = option(False, "Decode with the true number and types of atoms.", "--force-types"),
    sample_latent: bool = option(False, "Draw z as the paper does, instead of its mean.", "--sample-latent"),
    limit: int | None = option(None, "Use only the first crystals, this many.", min=1),
) -> None:
    """Encode crystals and decode them again, under their own ids.

    Finished batches are kept in OUT.work: after a kill the same command goes on.

    \b
    Example:
      dpcdvae reconstruct runs/perov perov_5:test --out recon.extxyz
      dpcdvae evaluate recon.extxyz --reference perov_5:test --paired
    """
    from dpcdvae.config import config_from_dict
    from dpcdvae.datasets import load_split
    from dpcdvae.model_store import find_generative_model
    from dpcdvae.sampling import kinds
    from dpcdvae.sampling.distributed import reconstruct_batch
    from dpcdvae.structures.content import table_hash

    batches.check(decoding.batch_size)
    source = find_generative_model(model)
    forced = {"force_num_atoms": force_num_atoms, "force_types": force_types, "sample_latent": sample_latent}
    options = {"seed": decoding.seed, **kinds.settings(source, "reconstruct", decoding.asked() | forced)}
    table = load_split(crystals)
    table = table.select(range(min(limit or len(table), len(table))))
    kinds.check_reconstruction(config_from_dict(source.description["config"], source.where), table, options)
    call, make = call.resolved(**options), partial(reconstruct_batch, options=options)

    def item_of(numbers: range) -> Any:
        return numbers.start, table.select(numbers)

    facts = {"crystals_sha256": table_hash(table)}
    _run(call, "reconstructing", source, len(table), batches, decoding, make, item_of, **facts)


def _run(
    call: Call,
    doing: str,
    model: StoredModel,
    total: int,
    batches: Batches,
    decoding: Decoding,
    make: Callable[..., GenerationResult],
    item_of: Callable[[range], Any],
    **facts: Any,
) -> None:
    """Makes the crystals 0 .. total - 1 of a run, or a shard of them, and writes them with their manifest.

    Args:
        make: (model, device, item) -> a batch of crystals, with the item that ``item_of`` gives for their numbers.
        facts: that shape the crystals, beside the call.
    """
    from dpcdvae import __version__
    from dpcdvae.files import NOT_SHAPING
    from dpcdvae.sampling.distributed import device_here, engine_of, make_batches
    from dpcdvae.sampling.finished_batches import Parts

    todo = batches.of(total, decoding.batch_size)
    device = decoding.device if batches.scheduler else device_here(decoding.device)
    call = call.resolved(device=device)
    facts = {"model_sha256": model.sha256, **facts}
    settings = {"dpcdvae": __version__, "command": call.command, **call.arguments, **facts}
    shaping = {name: value for name, value in settings.items() if name not in NOT_SHAPING}
    engine = engine_of(batches.workers, batches.scheduler, device, len(todo))
    with engine, Parts(batches.out, shaping) as parts:
        items = [item_of(numbers) for numbers in todo]
        make_batches(partial(make, model, device), items, todo, parts, engine, doing)
        _write(call, batches, parts, todo, decoding.batch_size, facts)


def _write(
    call: Call, batches: Batches, parts: Parts, todo: list[range], batch_size: int, facts: dict[str, Any]
) -> None:
    """A shard without any crystal has a manifest alone."""
    result, out, shard = parts.joined(numbers.start for numbers in todo), batches.out, batches.shard
    crystals, total = result.crystals, len(result.crystals) + len(result.failures)
    if not crystals and shard is None:
        parts.remove()
    facts |= facts_of(result, may_be_empty=shard is not None)
    parts.begin_writing()
    if not crystals and out.exists():
        raise InputError(f"shard {shard} has no crystals, so nothing replaces {out}: remove it")
    write_crystals(
        call, crystals, out, facts, overwrite=True, through=parts.folder / "complete", symmetrise=batches.symmetrise
    )
    parts.remove()
    if not todo:
        print(f"shard {shard} has nothing to do: there are fewer batches of {batch_size} than shards")
    elif not crystals:
        print(f"shard {shard}: none of {total} crystals could be built")
    else:
        print(f"{out}: {len(crystals)} of {total} crystals")
