"""``dpcdvae models``."""

from __future__ import annotations


def models() -> None:
    """The models that come with the package.

    \b
    Example:
      dpcdvae models
    """
    from dpcdvae.model_store import bundled_models, read_card

    for name in bundled_models():
        print(f"{name}  {read_card(name)['summary']}")
