"""CDVAE's property model by its public definitions: files of the kind that were published, and what they predict."""

from __future__ import annotations

import collections
import enum
import functools
import math
import pathlib
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import spherical_jn
from torch import Tensor

from dpcdvae.nn.basis import spherical_bessel_zeros
from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.crystal import Crystal

PUBLISHED = {"hidden": 128, "int_emb": 64, "basis_emb": 8, "out_emb": 256, "blocks": 4}
SMALL = {"hidden": 12, "int_emb": 8, "basis_emb": 4, "out_emb": 10, "blocks": 2}
NUM_SPHERICAL, NUM_RADIAL, BEFORE, AFTER, LINS = 7, 6, 1, 2, 3
MEAN, STD = 1.4032213687896729, 0.6802186965942383  # of the published Perov-5 model
HPARAMS = """data:
  root_path: ${oc.env:PROJECT_ROOT}/data/perov_5
  prop: heat_ref
  readout: mean
  otf_graph: false
  datamodule:
    datasets:
      train:
        prop: ${data.prop}
      val:
      - _target_: cdvae.pl_data.dataset.CrystDataset
        prop: ${data.prop}
model:
  encoder:
    _target_: cdvae.pl_modules.gnn.DimeNetPlusPlusWrap
    otf_graph: ${data.otf_graph}
    cutoff: 7.0
    envelope_exponent: 5
    readout: ${data.readout}
  hidden_dim: 128
"""


def public_state(sizes: dict[str, int], dtype: torch.dtype = torch.float64) -> collections.OrderedDict[str, Tensor]:
    """A state dict of the public property model: its names, order and shapes, random weights."""
    hidden, int_emb, basis_emb, out_emb = (sizes[name] for name in ("hidden", "int_emb", "basis_emb", "out_emb"))
    generator = torch.Generator().manual_seed(3)
    state: collections.OrderedDict[str, Tensor] = collections.OrderedDict()

    def add(name: str, *shape: int, bias: bool = False) -> None:
        scale = 1 / math.sqrt(shape[-1])
        state[f"encoder.{name}.weight"] = scale * torch.randn(shape, generator=generator, dtype=dtype)
        if bias:
            state[f"encoder.{name}.bias"] = 0.3 * torch.randn(shape[0], generator=generator, dtype=dtype)

    noise = 0.05 * torch.randn(NUM_RADIAL, generator=generator, dtype=dtype)
    state["encoder.rbf.freq"] = math.pi * torch.arange(1, NUM_RADIAL + 1, dtype=dtype) + noise
    add("emb.emb", 95, hidden)
    state["encoder.emb.emb.weight"] *= math.sqrt(hidden)
    add("emb.lin_rbf", hidden, NUM_RADIAL, bias=True)
    add("emb.lin", hidden, 3 * hidden, bias=True)
    for block in range(sizes["blocks"] + 1):
        add(f"output_blocks.{block}.lin_rbf", hidden, NUM_RADIAL)
        add(f"output_blocks.{block}.lin_up", out_emb, hidden, bias=True)
        for k in range(LINS):
            add(f"output_blocks.{block}.lins.{k}", out_emb, out_emb, bias=True)
        add(f"output_blocks.{block}.lin", 1, out_emb)
    for block in range(sizes["blocks"]):
        name = f"interaction_blocks.{block}"
        add(f"{name}.lin_rbf1", basis_emb, NUM_RADIAL)
        add(f"{name}.lin_rbf2", hidden, basis_emb)
        add(f"{name}.lin_sbf1", basis_emb, NUM_SPHERICAL * NUM_RADIAL)
        add(f"{name}.lin_sbf2", int_emb, basis_emb)
        add(f"{name}.lin_kj", hidden, hidden, bias=True)
        add(f"{name}.lin_ji", hidden, hidden, bias=True)
        add(f"{name}.lin_down", int_emb, hidden)
        add(f"{name}.lin_up", hidden, int_emb)
        for k in range(BEFORE):
            for lin in ("lin1", "lin2"):
                add(f"{name}.layers_before_skip.{k}.{lin}", hidden, hidden, bias=True)
        add(f"{name}.lin", hidden, hidden, bias=True)
        for k in range(AFTER):
            for lin in ("lin1", "lin2"):
                add(f"{name}.layers_after_skip.{k}.{lin}", hidden, hidden, bias=True)
    return state


class Elsewhere:
    """Classes of packages that are there while a file is written and gone when it is read."""

    def __enter__(self) -> Elsewhere:
        self.scaler = self._define("cdvae.common.data_utils", "StandardScalerTorch")
        self.config = self._define("omegaconf.dictconfig", "DictConfig")
        self.mapping = self._define("omegaconf.containers", "Mapping", dict)
        self.sequence = self._define("omegaconf.containers", "Sequence", list)
        self.callback = self._define("pytorch_lightning_1.callbacks", "ModelCheckpoint")
        self.level = enum.Enum("Level", {"LOW": 1})
        self._file("omegaconf.enums", "Level", self.level)
        return self

    def _define(self, module: str, name: str, *bases: type) -> Any:
        cls = type(name, bases, {})
        self._file(module, name, cls)
        return cls

    def _file(self, module: str, name: str, cls: Any) -> None:
        cls.__module__, cls.__qualname__ = module, name
        parts = module.split(".")
        for depth in range(len(parts)):
            package = ".".join(parts[: depth + 1])
            sys.modules.setdefault(package, types.ModuleType(package))
        setattr(sys.modules[module], name, cls)

    def __exit__(self, *_: object) -> None:
        for module in [m for m in sys.modules if m.partition(".")[0] in ("cdvae", "omegaconf", "pytorch_lightning_1")]:
            del sys.modules[module]


def publish(folder: pathlib.Path, state: dict[str, Tensor], *, seen: Sequence[int] | None = None) -> pathlib.Path:
    """A folder as CDVAE published it, written as PyTorch 1.8 and Lightning 1.3 did."""
    folder.mkdir(exist_ok=True)
    moments = {}
    for number, (name, weight) in enumerate(state.items()):
        second = torch.rand(weight.shape) + 1e-9
        if name == "encoder.emb.emb.weight" and seen is not None:
            second[[z for z in range(len(second)) if z not in seen]] = 0
        moments[number] = {"step": 5, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": second}
    with Elsewhere() as gone:
        config = gone.config()
        config.__dict__ |= {"_content": {"cutoff": 7.0, "any": typing.Any}, "_parent": config, "_level": gone.level.LOW}
        items = gone.mapping(a=1)
        items.note = "with a state"
        torch.save(
            {
                "epoch": 2664,
                "global_step": 61294,
                "pytorch-lightning_version": "1.3.8",
                "state_dict": state,
                "callbacks": {gone.callback: {"best_model_score": torch.tensor(0.1), "best_model_path": "/gone"}},
                "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-3, "params": list(moments)}]}],
                "lr_schedulers": [{"best": 0.1, "mode": "min"}],
                "hparams_name": "kwargs",
                "hyper_parameters": {
                    "encoder": config,
                    "items": [items, gone.sequence([1, config]), collections.defaultdict(int, a=1), {1, 2}],
                    "calls": [functools.partial(int, base=2), pathlib.PurePosixPath("a/b"), complex(1, 2), b"bytes"],
                },
            },
            folder / "epoch=2664-step=61294.ckpt",
        )
        scaler = gone.scaler()
        scaler.means, scaler.stds = torch.tensor(MEAN), torch.tensor(STD)
        torch.save(scaler, folder / "prop_scaler.pt")
    (folder / "hparams.yaml").write_text(HPARAMS)
    return folder


def public_prediction(state: dict[str, Tensor], crystal: Crystal, *, cutoff: float = 7.0, exponent: int = 5) -> float:
    """What the public DimeNet++ says of a crystal: its names, order, angle, triplets and envelope; bases by scipy."""
    w = {name.removeprefix("encoder."): tensor.double() for name, tensor in state.items()}
    act = torch.nn.functional.silu
    p = exponent + 1
    zeros = spherical_bessel_zeros(NUM_SPHERICAL, NUM_RADIAL)

    def lin(name: str, x: Tensor) -> Tensor:
        y = w[f"{name}.weight"] @ x
        return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

    def envelope(x: float) -> float:
        assert x < 1
        a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
        return 1 / x + a * x ** (p - 1) + b * x**p + c * x ** (p + 1)

    def residual(name: str, x: Tensor) -> Tensor:
        return x + act(lin(f"{name}.lin2", act(lin(f"{name}.lin1", x))))

    edges = []  # j -> i with the vector pos_j - pos_i
    for (a, b), image in zip(*crystal_nn_bonds(crystal), strict=True):
        vector = (crystal.frac_coords[b] + image - crystal.frac_coords[a]) @ crystal.lattice
        edges += [(int(b), int(a), vector), (int(a), int(b), -vector)]
    rbf = []
    for _, _, vector in edges:
        x = float(np.linalg.norm(vector)) / cutoff
        rbf.append(envelope(x) * torch.sin(w["rbf.freq"] * x))

    triplets = []  # (edge kj, edge ji, basis)
    for ji, (j, i, pos_ji) in enumerate(edges):
        for kj, (k, end, pos_kj) in enumerate(edges):
            if end != j or i == k:
                continue
            angle = math.atan2(float(np.linalg.norm(np.cross(pos_ji, pos_kj))), float(pos_ji @ pos_kj))
            x = float(np.linalg.norm(pos_kj)) / cutoff
            values = []
            for order in range(NUM_SPHERICAL):
                legendre = float(np.polynomial.legendre.Legendre.basis(order)(math.cos(angle)))
                harmonic = math.sqrt((2 * order + 1) / (4 * math.pi)) * legendre
                for zero in zeros[order]:
                    norm = 1 / math.sqrt(0.5 * spherical_jn(order + 1, zero) ** 2)
                    values.append(envelope(x) * norm * spherical_jn(order, zero * x) * harmonic)
            triplets.append((kj, ji, torch.tensor(values, dtype=torch.float64)))

    h = w["emb.emb.weight"]
    z = [int(number) for number in crystal.atomic_numbers]
    x = [
        act(lin("emb.lin", torch.cat([h[z[i]], h[z[j]], act(lin("emb.lin_rbf", radial))])))
        for (j, i, _), radial in zip(edges, rbf, strict=True)
    ]

    def output(name: str) -> Tensor:
        atoms = torch.zeros(crystal.num_atoms, w[f"{name}.lin_rbf.weight"].shape[0], dtype=torch.float64)
        for e, (_, i, _) in enumerate(edges):
            atoms[i] += lin(f"{name}.lin_rbf", rbf[e]) * x[e]
        rows = []
        for atom in atoms:
            y = lin(f"{name}.lin_up", atom)
            for k in range(LINS):
                y = act(lin(f"{name}.lins.{k}", y))
            rows.append(lin(f"{name}.lin", y))
        return torch.cat(rows)

    total = output("output_blocks.0")
    for block in range(sum(name.endswith("lin_kj.weight") for name in w)):
        name = f"interaction_blocks.{block}"
        down = [
            act(
                lin(
                    f"{name}.lin_down",
                    act(lin(f"{name}.lin_kj", x[e])) * lin(f"{name}.lin_rbf2", lin(f"{name}.lin_rbf1", rbf[e])),
                )
            )
            for e in range(len(edges))
        ]
        summed = [torch.zeros_like(message) for message in down]
        for kj, ji, sbf in triplets:
            summed[ji] = summed[ji] + down[kj] * lin(f"{name}.lin_sbf2", lin(f"{name}.lin_sbf1", sbf))
        updated = []
        for e in range(len(edges)):
            y = act(lin(f"{name}.lin_ji", x[e])) + act(lin(f"{name}.lin_up", summed[e]))
            for k in range(BEFORE):
                y = residual(f"{name}.layers_before_skip.{k}", y)
            y = act(lin(f"{name}.lin", y)) + x[e]
            for k in range(AFTER):
                y = residual(f"{name}.layers_after_skip.{k}", y)
            updated.append(y)
        x = updated
        total = total + output(f"output_blocks.{block + 1}")
    return STD * float(total.mean()) + MEAN
