"""The public DimeNet++ (CDVAE, Xie et al. 2022; PyTorch Geometric) in our terms.

It is ours but for four conventions (as of CDVAE's own environment, PyTorch Geometric 2.0.1):

- the angle of a triplet k -> j -> i is taken between r_j - r_i and r_k - r_j, the supplement of ours, and
  P_l(-x) = (-1)^l P_l(x): the weights of the odd orders change sign;
- the first layer reads the atom that a message arrives at before the one it leaves: columns change places;
- there is no triplet whose k and i are the same atom, not even in different cells: ``same_atom_triplets = false``;
- the embedding has rows for the atomic numbers 0-94 only.

What remains is rounding: the public code evaluates its spherical Bessel functions by formulas that cancel in float32.
A bond longer than the cutoff, which CrystalNN all but never gives, is silent here; the public envelope runs on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import DimeNetOptions
from dpcdvae.encoders.dimenet import DimeNetEncoder
from dpcdvae.errors import InputError

PREFIX = "encoder."  # what the names begin with in the state dict of a whole model
EMBEDDING = "emb.emb.weight"
_ADVICE = "is this a DimeNet++ property model of CDVAE?"


def convert_encoder(public: Mapping[str, Tensor], where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The options and the state dict of our DimeNet++ that computes what the public one does.

    Args:
        public: state dict of CDVAE's ``DimeNetPlusPlusWrap``; all sizes are read from its shapes. The cutoff and the
            envelope are not in it: the options give the published 7 Å and exponent 5.
        where: the name of its source, for errors.

    Raises:
        InputError: layers that are missing, too many or of a wrong shape.
    """
    options = _sizes(public, where)
    names = _public_names(options)
    if missing := sorted(set(names.values()) - public.keys()):
        raise InputError(f"{where}: no layer {PREFIX}{missing[0]} ({len(missing)} missing): {_ADVICE}")
    if unknown := sorted(public.keys() - set(names.values())):
        raise InputError(f"{where}: unknown layer {PREFIX}{unknown[0]} ({len(unknown)} unknown): {_ADVICE}")
    state = DimeNetEncoder(1, 1, options.model_dump()).state_dict()
    for ours, theirs in names.items():
        tensor, shape = public[theirs], tuple(state[ours].shape)
        if theirs == EMBEDDING and tensor.shape[0] <= shape[0]:
            tensor = torch.cat([tensor, tensor.new_zeros(shape[0] - tensor.shape[0], *tensor.shape[1:])])
        if tuple(tensor.shape) != shape:
            raise InputError(f"{where}: {PREFIX}{theirs} has shape {tuple(tensor.shape)}, not {shape}: {_ADVICE}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{where}: {PREFIX}{theirs} is not finite: the file is damaged, download it again")
        state[ours] = tensor
    arriving, leaving, distance = state["edge_embedding.0.weight"].split([options.hidden] * 3, 1)
    state["edge_embedding.0.weight"] = torch.cat([leaving, arriving, distance], 1)
    sign = (-1.0) ** torch.arange(options.num_spherical).repeat_interleave(options.num_radial)
    for block in range(options.blocks):
        state[f"interactions.{block}.spherical.weight"] = state[f"interactions.{block}.spherical.weight"] * sign
    return options.model_dump(), state


def _sizes(public: Mapping[str, Tensor], where: str) -> DimeNetOptions:
    """The sizes of the network, from the shapes of the public layers."""

    def size(name: str, axis: int) -> int:
        if name not in public or public[name].dim() != 2 or not public[name].numel():
            raise InputError(f"{where}: no layer {PREFIX}{name} that is a matrix: {_ADVICE}")
        return public[name].shape[axis]

    def count(layers: str) -> int:
        return len({m[1] for m in (re.match(rf"{re.escape(layers)}\.(\d+)\.", name) for name in public) if m})

    first, output = "interaction_blocks.0.", "output_blocks.0."
    if (targets := size(output + "lin.weight", 0)) != 1:
        raise InputError(f"{where} predicts {targets} numbers for a crystal: only models of one property are supported")
    num_radial = size("emb.lin_rbf.weight", 1)
    sizes = {
        "hidden": size(EMBEDDING, 1),
        "blocks": count("interaction_blocks"),
        "int_emb": size(first + "lin_down.weight", 0),
        "basis_emb": size(first + "lin_rbf1.weight", 0),
        "out_emb": size(output + "lin_up.weight", 0),
        "num_spherical": size(first + "lin_sbf1.weight", 1) // num_radial,
        "num_radial": num_radial,
        "layers_before_skip": count(first + "layers_before_skip"),
        "layers_after_skip": count(first + "layers_after_skip"),
        "output_layers": count(output + "lins"),
        "same_atom_triplets": False,
    }
    return read_options(DimeNetOptions, sizes, where)


def _public_names(o: DimeNetOptions) -> dict[str, str]:
    """Our names of the weights -> those of the public code."""
    names = {"radial_basis.frequencies": "rbf.freq", "atom_embedding.weight": EMBEDDING}

    def add(ours: str, theirs: str, *, bias: bool = True) -> None:
        for part in ("weight", "bias") if bias else ("weight",):
            names[f"{ours}.{part}"] = f"{theirs}.{part}"

    def skips(ours: str, theirs: str, number: int) -> None:
        for k in range(number):
            add(f"{ours}.{k}.layers.0.0", f"{theirs}.{k}.lin1")
            add(f"{ours}.{k}.layers.1.0", f"{theirs}.{k}.lin2")

    add("radial_embedding.0", "emb.lin_rbf")
    add("edge_embedding.0", "emb.lin")
    for block in range(o.blocks):
        ours, theirs = f"interactions.{block}", f"interaction_blocks.{block}"
        for ours_layer, theirs_layer in (
            ("radial.0", "lin_rbf1"),
            ("radial.1", "lin_rbf2"),
            ("spherical", "lin_sbf1"),
            ("spherical_up", "lin_sbf2"),
            ("down.0", "lin_down"),
            ("up.0", "lin_up"),
        ):
            add(f"{ours}.{ours_layer}", f"{theirs}.{theirs_layer}", bias=False)
        for ours_layer, theirs_layer in (("incoming.0", "lin_kj"), ("own.0", "lin_ji"), ("final.0", "lin")):
            add(f"{ours}.{ours_layer}", f"{theirs}.{theirs_layer}")
        skips(f"{ours}.before_skip", f"{theirs}.layers_before_skip", o.layers_before_skip)
        skips(f"{ours}.after_skip", f"{theirs}.layers_after_skip", o.layers_after_skip)
    for block in range(o.blocks + 1):
        ours, theirs = f"outputs.{block}", f"output_blocks.{block}"
        add(f"{ours}.radial", f"{theirs}.lin_rbf", bias=False)
        add(f"{ours}.up", f"{theirs}.lin_up")
        for k in range(o.output_layers):
            add(f"{ours}.layers.{k}.0", f"{theirs}.lins.{k}")
        add(f"{ours}.final", f"{theirs}.lin", bias=False)
    return names
