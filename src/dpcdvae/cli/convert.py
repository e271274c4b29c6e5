"""``dpcdvae convert``."""

from __future__ import annotations

from pathlib import Path

from dpcdvae.cli.groups import argument, option
from dpcdvae.cli.options import Out


def convert(
    *,
    source: Path = argument(..., "A published property model, or the .ckpt in it.", metavar="FOLDER"),
    out: Out,
    property: str | None = option(None, "The column it predicts.", shown="what hparams.yaml says"),
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
