"""``dpcdvae generate``, ``dpcdvae reconstruct``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dpcdvae.cli.conditions import ConditionOptions, FilterOptions
from dpcdvae.cli.groups import Call, Group, argument, option
from dpcdvae.cli.options import OWN, Column, Decoding, Model, Out, Overwrite, Scheduler, Symmetrise, complete_datasets
from dpcdvae.cli.outputs import facts_of, write_crystals
from dpcdvae.errors import InputError
from dpcdvae.parallel import TIME_LIMIT

if TYPE_CHECKING:
    from dpcdvae.io import Failure
    from dpcdvae.model_store import StoredModel
    from dpcdvae.parallel import Engine
    from dpcdvae.sampling.filters import Filters
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

    def share(self, n: int) -> int:
        """How many of n crystals this shard is to keep."""
        from dpcdvae.sampling.shards import WHOLE, Shard

        shard = WHOLE if self.shard is None else Shard.parse(self.shard)
        return n * shard.number // shard.count - n * (shard.number - 1) // shard.count


def generate(
    *,
    call: Call,
    model: Model,
    batches: Batches,
    decoding: Decoding,
    n: int = option(100, "How many crystals.", "-n", min=1, max=10**9),  # batches are listed
    conditions: ConditionOptions,
    filters: FilterOptions,
    column: Column = None,
    prior: str | None = option(None, "Prior of z: normal is N(0, I), as published.", shown=OWN),
    lattice: str | None = option(
        None, "P-G-SchNet: uniform, a training lattice at random; conditional, one with its atoms.", shown=OWN
    ),
    first: int = option(0, "Number of the first crystal of this seed.", min=0, max=2**62),
) -> None:
    """Generate new crystals; the ending of --out chooses the format (a folder gets CIFs).

    Crystal k of a seed gets the same noise whatever the batch size, the shard or the number of workers, and, with the
    same batch size, the same digits. Finished batches are kept in OUT.work: after a kill the same command goes on.
    Conditions act in decoding. Where that is not possible, and with filters, crystals are made and filtered until -n
    are kept or --max-tries were made; how many of them were kept is said.

    \b
    Examples:
      dpcdvae generate perov-5 -n 100 --seed 0 --out crystals.extxyz
      dpcdvae generate perov-5 -n 10 --formula SrTiO3 --out srtio3/
      dpcdvae generate perov-5 -n 50 --elements Sr,Ba,Ti,O --unique --space-group 221 --out some.extxyz
      dpcdvae generate perov-5 -n 1000000 --shard 3/100 --out shards/3.extxyz
    """
    from dpcdvae.model_store import find_generative_model
    from dpcdvae.sampling import kinds
    from dpcdvae.sampling.distributed import generate_batch
    from dpcdvae.sampling.filters import tries_of

    batches.check(decoding.batch_size)
    source = find_generative_model(model)
    asked = {**decoding.asked(), "prior": prior, "lattice": lattice, **conditions.asked(), **filters.asked()}
    checked = kinds.generate_options(source, asked | _from_tables(column, asked))
    make = partial(
        generate_batch,
        first=first,
        options={"seed": decoding.seed, **checked.options},
        property_model=checked.property_model,
    )
    stated = {"seed": decoding.seed, **checked.plain}
    if checked.filters:
        stated["max_tries"] = tries_of(n, filters.max_tries)
    kept = checked.filters or None
    call, facts = call.resolved(**stated), dict(checked.facts)
    _run(call, "generating", source, n, batches, decoding, make, lambda numbers: numbers, facts, kept)


def reconstruct(
    *,
    call: Call,
    model: Model,
    crystals: str = argument(
        ..., "A file or folder of crystals, or DATASET[:split] (test without).", autocompletion=complete_datasets
    ),
    batches: Batches,
    decoding: Decoding,
    force_num_atoms: bool = option(False, "Decode with the true number of atoms.", "--force-num-atoms"),
    force_types: bool = option(False, "Decode with the true number and types of atoms.", "--force-types"),
    sample_latent: bool = option(False, "Draw z as the paper does, instead of its mean.", "--sample-latent"),
    limit: int | None = option(None, "Use only the first crystals, this many.", min=1),
    column: Column = None,
) -> None:
    """Encode crystals and decode them again, under their own ids.

    Crystals of a file are prepared as those of data sets are; those that cannot be are counted as not built.
    Finished batches are kept in OUT.work: after a kill the same command goes on.

    \b
    Example:
      dpcdvae reconstruct runs/perov perov_5:test --out recon.extxyz
      dpcdvae evaluate recon.extxyz --reference perov_5:test --paired
      dpcdvae reconstruct runs/perov my_cifs/ --out recon.extxyz
    """
    from dpcdvae.config import config_from_dict
    from dpcdvae.datasets.bonded_crystals import bonded_crystals
    from dpcdvae.model_store import find_generative_model
    from dpcdvae.sampling import kinds
    from dpcdvae.sampling.distributed import reconstruct_batch
    from dpcdvae.sampling.reconstruction import reconstructible
    from dpcdvae.sampling.training_range import Subject
    from dpcdvae.structures.content import table_hash

    batches.check(decoding.batch_size)
    source = find_generative_model(model)
    forced = {"force_num_atoms": force_num_atoms, "force_types": force_types, "sample_latent": sample_latent}
    options = {"seed": decoding.seed, **kinds.settings(source, "reconstruct", decoding.asked() | forced)}
    table, unusable = bonded_crystals(crystals, column)
    table = table.select(range(min(limit or len(table), len(table))))
    config = config_from_dict(source.description["config"], source.where)
    table, too_large = reconstructible(config, table, options, Subject.stored(source))
    call, make = call.resolved(**options), partial(reconstruct_batch, options=options)

    def item_of(numbers: range) -> Any:
        return numbers.start, table.select(numbers)

    facts = {"crystals_sha256": table_hash(table)}
    failures = [*unusable, *too_large]
    _run(call, "reconstructing", source, len(table), batches, decoding, make, item_of, facts, unusable=failures)


def _from_tables(column: str | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The crystals of --like and --training that lie in tables, where a column is named."""
    from dpcdvae.io import columns_of, read

    if column is None:
        return {}
    given = {name: asked[name] for name in ("like", "training") if asked[name] is not None}
    columns = dict(zip(given, columns_of(column, list(given.values())), strict=True))
    return {name: read(path, column=column) for name, path in given.items() if columns[name] is not None}


def _run(
    call: Call,
    doing: str,
    model: StoredModel,
    total: int,
    batches: Batches,
    decoding: Decoding,
    make: Callable[..., GenerationResult],
    item_of: Callable[[range], Any],
    facts: dict[str, Any],
    kept: Filters | None = None,
    unusable: Sequence[Failure] = (),
) -> None:
    """Makes the crystals 0 .. total - 1 of a run, or a shard of them, and writes them with their manifest.

    Args:
        make: (model, device, item) -> a batch of crystals, with the item that ``item_of`` gives for their numbers.
        facts: that shape the crystals, beside the call.
        unusable: crystals that nothing could be made of. They count in the whole run and in its first shard.
        kept: filters. Then crystals are made until ``total`` are kept, or the call's ``max_tries`` were made.
    """
    from dpcdvae import __version__
    from dpcdvae.files import NOT_SHAPING
    from dpcdvae.parallel.results import Results
    from dpcdvae.sampling.distributed import device_here, engine_of, make_batches
    from dpcdvae.sampling.filters import select
    from dpcdvae.sampling.finished_batches import Parts

    size = decoding.batch_size if kept is None else min(decoding.batch_size, total)
    todo = batches.of(total if kept is None else call.arguments["max_tries"], size)
    device = decoding.device if batches.scheduler else device_here(decoding.device)
    call = call.resolved(device=device)
    facts = {"model_sha256": model.sha256, **facts}
    settings = {"dpcdvae": __version__, "command": call.command, **call.arguments, **facts}
    shaping = {name: value for name, value in settings.items() if name not in NOT_SHAPING}
    engine = engine_of(batches.workers, batches.scheduler, device, len(todo))
    with engine, Parts(batches.out, shaping) as parts:

        def finished(some: Sequence[range]) -> GenerationResult:
            items = [item_of(numbers) for numbers in some]
            make_batches(partial(make, model, device), items, some, parts, engine, doing)
            return parts.joined(numbers.start for numbers in some)

        if kept is None:
            result = finished(todo)
            if todo and todo[0].start == 0:
                result = replace(result, failures=[*unusable, *result.failures])
        else:
            comparing = Results(engine, TIME_LIMIT)
            result = select(kept, batches.share(total), todo, size, lambda some: [finished(some)], comparing)
        _write(call, batches, parts, result, facts, size, engine)


def _write(
    call: Call,
    batches: Batches,
    parts: Parts,
    result: GenerationResult,
    facts: dict[str, Any],
    batch_size: int,
    engine: Engine,
) -> None:
    """A shard without any crystal has a manifest alone."""
    from dpcdvae.parallel.results import Results
    from dpcdvae.sampling.filters import Selected, check_kept, distinct

    out, shard, crystals = batches.out, batches.shard, result.crystals
    if not crystals and shard is None:
        parts.remove()
    if isinstance(result, Selected):
        if shard is None:
            check_kept(result)
        facts |= result.facts()
    facts |= facts_of(result, may_be_empty=shard is not None)
    different = distinct(crystals, Results(engine, TIME_LIMIT)) if call.command == "generate" else None
    facts |= {} if different is None else {"distinct": different}
    parts.begin_writing()
    if not crystals and out.exists():
        raise InputError(f"shard {shard} has no crystals, so nothing replaces {out}: remove it")
    write_crystals(
        call, crystals, out, facts, overwrite=True, through=parts.folder / "complete", symmetrise=batches.symmetrise
    )
    parts.remove()
    if isinstance(result, Selected):
        said = result.words()
        if len(crystals) < result.asked:
            print(result.shortfall(), file=sys.stderr)
    else:
        built = len(crystals) or "none"
        said = f"{built} of {len(crystals) + len(result.failures)} crystals" + ("" if crystals else " could be built")
    if not (crystals or result.failures or isinstance(result, Selected)):
        print(f"shard {shard} has nothing to do: there are fewer batches of {batch_size} than shards")
    elif not crystals:
        print(f"shard {shard}: {said}")
    else:
        print(f"{out}: {said}" + ("" if different is None else f"; {different} distinct"))
