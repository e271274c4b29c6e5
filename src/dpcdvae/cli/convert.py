"""``dpcdvae convert``."""

from __future__ import annotations

from pathlib import Path

import typer

from dpcdvae.cli.options import Out


def convert(
    *,
    source: Path = typer.Argument(..., metavar="FOLDER", help="A published property model, or the .ckpt in it."),
    out: Out,
    property: str | None = typer.Option(None, help="The column it predicts.", show_default="what hparams.yaml says"),
) -> None:
    """Convert a property model that CDVAE published (cdvae/prop_models) for evaluate --energy-model.

    The folder holds epoch=...ckpt, prop_scaler.pt and hparams.yaml. No code from these files is run.
    Prints the folder of the converted model, which predicts what the published one does.

    \b
    Example:
      dpcdvae convert cdvae/prop_models/perovskite --out perov-energy
    """
    from dpcdvae.files import check_output

    check_output(out, overwrite=None)
    from dpcdvae.checkpoints.convert import convert_property_model

    print(convert_property_model(source, out, property))
