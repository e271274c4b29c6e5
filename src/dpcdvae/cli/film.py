"""``dpcdvae film``: how one crystal is generated."""

from __future__ import annotations

from dpcdvae.cli.conditions import ConditionOptions
from dpcdvae.cli.groups import Call, option
from dpcdvae.cli.options import OWN, DecodingOfOne, Model, Out, Overwrite
from dpcdvae.cli.outputs import write_crystals


def film(
    *,
    call: Call,
    model: Model,
    out: Out,
    number: int = option(0, "Which crystal of the seed.", min=0, max=2**62),
    decoding: DecodingOfOne,
    conditions: ConditionOptions,
    prior: str | None = option(None, "Prior of z: normal is N(0, I), as published.", shown=OWN),
    overwrite: Overwrite = False,
) -> None:
    """Write one crystal as it is at the start, in noise, and after each denoising step.

    Frames have the ids ID@STEP, which view plays as a film; --neutral is not possible.
    It is crystal --number of generate with the same seed,
    and digit for digit that of batches of one crystal.

    \b
    Example:
      dpcdvae film perov-5 --number 17 --out film.extxyz
      dpcdvae view film.extxyz --out film.html
    """
    from dpcdvae.io import check_destination
    from dpcdvae.model_store import find_crystal_vae
    from dpcdvae.sampling.kinds import film_options
    from dpcdvae.sampling.training_range import Subject

    check_destination(out, overwrite=overwrite)
    source = find_crystal_vae(model)
    call = call.resolved(**decoding.settings(source))
    asked = film_options(Subject.stored(source), {"prior": prior, **conditions.asked()})
    from dpcdvae.checkpoints.loading import load_crystal_vae
    from dpcdvae.sampling import film as films

    loaded = load_crystal_vae(source, decoding.device)
    frames = films.frames_of(loaded, number, asked.options, seed=decoding.seed, **decoding.asked())
    write_crystals(call, frames, out, {"model_sha256": source.sha256, **asked.facts}, overwrite=overwrite)
    print(f"{out}: {len(frames)} frames of crystal {frames[-1].id.rpartition('@')[0]}")
