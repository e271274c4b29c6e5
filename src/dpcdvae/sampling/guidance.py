"""Latents moved towards a value of the property that the model's head predicts, and that prediction for crystals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.agreement import encode_crystals
from dpcdvae.sampling.target import Target
from dpcdvae.structures.crystal import Crystal

MOST_STEPS = 400
LEARNING_RATE = 0.02  # of Adam; z has a standard deviation of about 1


def moved_to(model: CDVAE, z: Tensor, target: Target) -> Tensor:
    """Each z (C, latent_dim) moved by Adam until the head predicts the value to half the tolerance, and no farther.

    Those that are not there after ``MOST_STEPS`` stay where they have come to. Each moves by itself, whatever is in
    the batch.
    """
    assert model.property_head is not None
    head = model.property_head
    # Also inside of inference mode, in which batches are decoded.
    with torch.inference_mode(False), torch.enable_grad():
        z = z.detach().clone().requires_grad_(True)
        adam = torch.optim.Adam([z], lr=LEARNING_RATE)
        for _ in range(MOST_STEPS):
            miss = head.scaler.inverse(head(z)) - target.value
            there = miss.detach().abs() <= 0.5 * target.tolerance
            if there.all():
                break
            (z.grad,) = torch.autograd.grad((miss / target.tolerance).square().sum(), z)
            before = z.detach().clone()
            adam.step()
            z.data[there] = before[there]
    return z.detach()


@torch.inference_mode()
def with_predictions(model: CDVAE, crystals: Sequence[Crystal], name: str) -> list[Crystal]:
    """The crystals with the property ``name``: what the head predicts from their own encodings; without where none."""
    assert model.property_head is not None
    head = model.property_head
    places, posterior = encode_crystals(model, crystals)
    values = head.scaler.inverse(head(posterior.mu)).double().tolist()
    found = list(crystals)
    for place, value in zip(places, values, strict=True):
        if math.isfinite(value):
            found[place] = replace(found[place], properties={**found[place].properties, name: value})
    return found
