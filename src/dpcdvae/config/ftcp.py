"""Options of an FTCP model. The defaults are the published values (Ren et al., Matter 5, 314 (2022), and its code)."""

from __future__ import annotations

from typing import Literal

from dpcdvae.config.fields import Section, option
from dpcdvae.config.options import MAX_WIDTH
from dpcdvae.config.sections import MAX_WEIGHT, AnyModelConfig
from dpcdvae.errors import InputError


class FTCPModelConfig(AnyModelConfig):
    """The widths of the variational autoencoder."""

    latent_dim: int = option(256, "dimensions of the latent z", ge=1, le=MAX_WIDTH)
    channels: list[int] = option(
        [32, 64, 128], "filters of the three convolutions of the encoder; the decoder mirrors them"
    )
    hidden: int = option(1024, "width of the dense layer between convolutions and latent", ge=1, le=MAX_WIDTH)

    def check(self) -> None:
        """Raises InputError where ``channels`` are not three widths."""
        channels = self.channels
        if len(channels) != 3 or not all(1 <= width <= MAX_WIDTH for width in channels):
            raise InputError(f"option model.channels must be three widths from 1 to {MAX_WIDTH}, not {channels[:5]}")


class FTCPRepresentationConfig(Section):
    """The matrix that stands for a crystal."""

    max_elements: int = option(7, "different elements of a crystal at most", ge=1, le=100)
    fourier: Literal["linear", "structure-factor"] = option(
        "linear", "block in reciprocal space: Σ Z π k·r as published, or Σ Z exp(2πi k·r), real and imaginary part"
    )
    coordinates: Literal["plain", "periodic"] = option(
        "plain", "fractional coordinates as they are, or the sine and cosine of 2π times each"
    )
    order: Literal["file", "canonical"] = option(
        "file", "atoms and origin as the data have them, or by a rule that does not depend on either"
    )
    empty_sites: Literal["hydrogen", "skip"] = option(
        "hydrogen", "an empty site before an occupied one is decoded as hydrogen, as in the public code, or skipped"
    )


class FTCPLossConfig(Section):
    """The terms of the loss."""

    terms: Literal["published", "blocks"] = option(
        "published",
        "squared error summed over the matrix; or cross entropy of elements and occupancy, and the mean squared error "
        "of each other block",
    )
    lattice: float = option(1.0, "weight of lengths and angles among the blocks", ge=0, le=MAX_WEIGHT)
    coordinates: float = option(1.0, "weight of the coordinates among the blocks", ge=0, le=MAX_WEIGHT)
    kl: float = option(2.0, "weight of the KL divergence of the latent", ge=0, le=MAX_WEIGHT)
    kl_scale: Literal["published", "nats"] = option(
        "published", "mean over the latent dimensions divided by the crystals of the batch, or the divergence in nats"
    )
    property: float = option(10.0, "weight of the squared error of the property", ge=0, le=MAX_WEIGHT)

    def check(self) -> None:
        """Raises InputError where a weight of a block is set, but the terms are not blocks."""
        if self.terms == "published" and (self.lattice, self.coordinates) != (1.0, 1.0):
            raise InputError(
                "loss.lattice and loss.coordinates are weights of loss.terms = blocks, and have no meaning for "
                "published: leave both at 1"
            )
