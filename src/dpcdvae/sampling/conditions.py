"""Conditions on sampling (a number of atoms, a formula), and latents that fit them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcdvae.errors import InputError
from dpcdvae.interfaces import NUM_ELEMENTS, LatentPrior
from dpcdvae.model.stats import StatisticsDecoder
from dpcdvae.structures.elements import atomic_number
from dpcdvae.tensors.noise import CrystalRandom

DRAWS = 128  # latents drawn for one that fits the condition
MAX_FORMULA_ATOMS = 10_000  # more than any model holds, few enough to write out


@dataclass(frozen=True)
class Condition:
    """``num_atoms``: of every crystal, or None. ``types``: (num_atoms,) atomic numbers, or None."""

    num_atoms: int | None
    types: Tensor | None

    @classmethod
    def parse(cls, num_atoms: int | None, formula: str | None, max_atoms: int) -> Condition:
        """Raises InputError when formula and number do not agree or the model cannot hold them."""
        types = None
        if formula is not None:
            numbers = parse_formula(formula)
            times, rest = divmod(len(numbers) if num_atoms is None else num_atoms, len(numbers))
            if rest or times < 1:
                raise InputError(f"--num-atoms {num_atoms} is no multiple of the {len(numbers)} atoms of {formula}")
            types = torch.tensor(numbers * times)
            num_atoms = len(types)
        if num_atoms is not None and not 1 <= num_atoms <= max_atoms:
            what = f"formula {formula} has {num_atoms} atoms" if formula else f"--num-atoms is {num_atoms}"
            raise InputError(f"{what}: this model holds 1 to {max_atoms} (model.max_atoms)")
        return cls(num_atoms, types)

    def of_batch(self, size: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Numbers of atoms (size,) and types (N,) of that many crystals; None what is not fixed."""
        num_atoms = None if self.num_atoms is None else torch.full((size,), self.num_atoms, device=device)
        return num_atoms, None if self.types is None else self.types.to(device).repeat(size)

    def latents(self, stats: StatisticsDecoder, random: CrystalRandom, prior: LatentPrior, latent_dim: int) -> Tensor:
        """(C, latent_dim) from the prior, given the condition.

        Importance resampling: of ``DRAWS`` draws per crystal, one is taken with probability in
        proportion to what the decoder gives the wanted number of atoms and composition.
        """
        weight = stats.scaler.shift
        if self.num_atoms is None:
            z: Tensor = prior(random.normal("latent", latent_dim).to(weight))
            return z
        with torch.no_grad():
            noise = random.normal("latent", latent_dim * DRAWS).to(weight)
            draws: Tensor = prior(noise.unflatten(1, (DRAWS, -1)))
            decoded = stats(draws)
            log_weight = decoded.num_atoms.log_softmax(-1)[..., self.num_atoms]
            if self.types is not None:
                counts = torch.bincount(self.types.to(weight.device) - 1, minlength=NUM_ELEMENTS).to(weight)
                log_weight = log_weight + decoded.composition.log_softmax(-1) @ counts
            gumbel = -torch.log(-torch.log(random.uniform("choice", DRAWS))).to(weight)
            chosen = (log_weight + gumbel).argmax(-1)
            return draws[torch.arange(len(chosen), device=chosen.device), chosen]


def parse_formula(formula: str) -> list[int]:
    """``SrTiO3`` -> [38, 22, 8, 8, 8]; parentheses allowed. Raises InputError."""
    tokens = re.findall(r"[A-Z][a-z]?|\d{1,9}|[()]", formula)
    if not tokens or "".join(tokens) != formula:
        raise InputError(f"cannot read the formula '{formula}': write it like SrTiO3 or Ca(OH)2")
    groups: list[list[int]] = [[]]
    last: list[int] = []
    for token in tokens:
        if token == "(":
            groups.append([])
            last = []
        elif token == ")" and len(groups) > 1 and groups[-1]:
            last = groups.pop()
            groups[-1] += last
        elif token.isdigit() and last and int(token) > 0:
            if len(last) * int(token) > MAX_FORMULA_ATOMS:
                raise InputError(f"the formula '{formula}' has more than {MAX_FORMULA_ATOMS} atoms")
            groups[-1] += last * (int(token) - 1)
            last = []
        elif token[0].isalpha():
            last = [atomic_number(token)]
            if last[0] > NUM_ELEMENTS:
                raise InputError(f"element {token} in '{formula}': models know the elements 1 to {NUM_ELEMENTS}")
            groups[-1] += last
        else:
            raise InputError(f"cannot read the formula '{formula}' at '{token}'")
    if len(groups) > 1:
        raise InputError(f"cannot read the formula '{formula}': a parenthesis is not closed")
    return groups[0]
