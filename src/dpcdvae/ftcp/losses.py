"""How far a decoded matrix is from the true one, and what the network's output means: as published, or by blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from dpcdvae.ftcp.representation import AXES, Representation
from dpcdvae.interfaces import LatentPosterior


def published(logits: Tensor, scaled: Tensor) -> dict[str, Tensor]:
    """``matrix``: the squared error summed over rows and columns, of sigmoids; the mean over the crystals."""
    return {"matrix": (torch.sigmoid(logits) - scaled).square().sum((1, 2)).mean()}


def by_blocks(representation: Representation, logits: Tensor, scaled: Tensor) -> dict[str, Tensor]:
    """A mean for each block, over what says something of the crystal, and then over the crystals.

    Cross entropies of the elements (over the columns in use) and of the occupancy (over the sites; an empty one has a
    class of its own with the logit 0); squared errors of lattice, coordinates (of the atoms), distances, properties (of
    the columns in use) and the Fourier block.
    """
    rows, real = representation.rows, slice(0, representation.real)
    axes, reciprocal = slice(0, AXES), slice(representation.real, None)

    def squared(block: str, columns: slice, counts: Tensor | None = None) -> Tensor:
        """(C,) mean over the entries of a block that ``counts`` gives the weight 1."""
        errors = (torch.sigmoid(logits[:, rows[block], columns]) - scaled[:, rows[block], columns]).square()
        if counts is None:
            return errors.mean((1, 2))
        counts = counts.expand_as(errors)
        return (errors * counts).sum((1, 2)) / counts.sum((1, 2))

    elements, occupancy = scaled[:, rows["elements"], real], scaled[:, rows["occupancy"], real]
    used, occupied = elements.sum(1), occupancy.sum(2)  # (C, real), (C, S); 0 or 1
    of_elements = -(elements * logits[:, rows["elements"], real].log_softmax(1)).sum((1, 2)) / used.sum(1)
    log_shares, log_nothing = log_occupancy(logits[:, rows["occupancy"], real])
    of_sites = -((occupancy * log_shares).sum(2) + (1 - occupied) * log_nothing)
    atoms = occupied.repeat(1, 2 if representation.periodic else 1)[..., None]
    losses = {
        "elements": of_elements,
        "occupancy": of_sites.mean(1),
        "lattice": (squared("lengths", axes) + squared("angles", axes)) / 2,
        "coordinates": squared("coordinates", axes, atoms),
        "distances": squared("distances", slice(representation.real, representation.real + representation.points)),
        "properties": squared("properties", real, used[:, None]),
        "fourier": squared("properties", reciprocal),
    }
    return {name: value.mean() for name, value in losses.items()}


def scaled_matrices(representation: Representation, logits: Tensor, *, blocks: bool) -> Tensor:
    """What logits (C, height, width) stand for: sigmoids; with ``blocks`` probabilities of elements and occupancy."""
    matrices = torch.sigmoid(logits)
    if blocks:
        rows, real = representation.rows, slice(0, representation.real)
        matrices[:, rows["elements"], real] = logits[:, rows["elements"], real].softmax(1)
        matrices[:, rows["occupancy"], real] = log_occupancy(logits[:, rows["occupancy"], real])[0].exp()
    return matrices


def log_occupancy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(C, S, columns) logits to log probabilities of each column and (C, S) of none, whose logit is 0."""
    nothing = torch.zeros_like(logits[..., :1])
    log_shares = torch.cat([logits, nothing], -1).log_softmax(-1)
    return log_shares[..., :-1], log_shares[..., -1]


def divergence(posterior: LatentPosterior, *, nats: bool) -> Tensor:
    """The KL divergence from N(0, I): in nats, averaged over the crystals; or as the public code has it.

    That one is the *mean* over the dimensions, beside errors that are *summed* over the batch. The loss here is that
    of one crystal, so it is divided by the crystals of the batch once more.
    """
    terms = -0.5 * (1 + posterior.log_var - posterior.mu.square() - posterior.log_var.exp())
    if nats:
        return terms.sum(1).mean()
    return terms.mean() / len(terms)
