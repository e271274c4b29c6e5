"""dpcdvae: generate crystal structures with DP-CDVAE, and get honest numbers about them."""

__version__ = "0.1.0"
