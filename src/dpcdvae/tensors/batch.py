"""Some crystals as tensors, atoms concatenated: what the networks read and the sampler returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.lattice import wrap


@dataclass(frozen=True)
class CrystalBatch:
    """C crystals, N atoms, E bonds.

    Attributes:
        atomic_numbers: (N,) int64.
        frac_coords: (N, 3).
        lattice: (C, 3, 3) Å, rows are the vectors.
        num_atoms: (C,) int64.
        bonds: (E, 2) int64 atoms counted within their crystal, each bond once; bond_images: (E, 3).
        num_bonds: (C,) int64.
    """

    atomic_numbers: Tensor
    frac_coords: Tensor
    lattice: Tensor
    num_atoms: Tensor
    bonds: Tensor
    bond_images: Tensor
    num_bonds: Tensor

    @classmethod
    def from_table(
        cls, table: CrystalTable, indices: npt.ArrayLike | None = None, dtype: torch.dtype | None = None
    ) -> CrystalBatch:
        """The crystals at ``indices`` (all without it), in float32 unless ``dtype`` says otherwise."""
        chosen = table if indices is None else table.select(indices)
        dtype = dtype or torch.get_default_dtype()
        return cls(
            torch.from_numpy(np.ascontiguousarray(chosen.atomic_numbers)),
            torch.from_numpy(np.ascontiguousarray(chosen.frac_coords)).to(dtype),
            torch.from_numpy(np.ascontiguousarray(chosen.lattices)).to(dtype),
            torch.from_numpy(np.ascontiguousarray(chosen.num_atoms)),
            torch.from_numpy(np.ascontiguousarray(chosen.bonds)),
            torch.from_numpy(np.ascontiguousarray(chosen.bond_images)),
            torch.from_numpy(np.ascontiguousarray(chosen.num_bonds)),
        )

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal], dtype: torch.dtype | None = None) -> CrystalBatch:
        """Without bonds: fit for the denoiser, not for an encoder."""
        return cls.from_table(CrystalTable.from_crystals(crystals), dtype=dtype)

    @classmethod
    def unbonded(cls, atomic_numbers: Tensor, frac_coords: Tensor, lattice: Tensor, num_atoms: Tensor) -> CrystalBatch:
        none = num_atoms.new_zeros
        return cls(atomic_numbers, frac_coords, lattice, num_atoms, none((0, 2)), none((0, 3)), none(num_atoms.shape))

    def to_crystals(self, ids: Sequence[str] | None = None) -> list[Crystal]:
        """Coordinates wrapped into [0, 1). Values may be NaN: see :meth:`Crystal.problem`."""
        sizes = self.num_atoms.tolist()
        numbers = self.atomic_numbers.cpu().split(sizes)
        coords = wrap(self.frac_coords.double().cpu()).split(sizes)
        lattices = self.lattice.double().cpu().numpy()
        names = ids if ids is not None else [""] * len(sizes)
        return [
            Crystal(z.numpy(), x.numpy(), cell, name)
            for z, x, cell, name in zip(numbers, coords, lattices, names, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.num_atoms)

    @property
    def crystal_index(self) -> Tensor:
        """(N,) crystal of each atom."""
        return torch.repeat_interleave(self.num_atoms, output_size=len(self.atomic_numbers))

    def per_atom(self, values: Tensor) -> Tensor:
        """(C, ...) of each crystal -> (N, ...) of each atom's crystal."""
        return values.repeat_interleave(self.num_atoms, 0, output_size=len(self.atomic_numbers))

    def mean_over_atoms(self, values: Tensor) -> Tensor:
        """(N, ...) -> (C, ...)."""
        return segment_mean(values, self.crystal_index, self.num_atoms)

    def element_fractions(self, dtype: torch.dtype) -> Tensor:
        """(C, NUM_ELEMENTS): which fraction of the atoms of a crystal each element is."""
        elements = torch.nn.functional.one_hot(self.atomic_numbers - 1, NUM_ELEMENTS)
        return self.mean_over_atoms(elements.to(dtype))

    def padded(self, width: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Crystals side by side, in rows of ``width`` atoms, by default those of the largest; empty places hold zeros.

        Returns:
            Atomic numbers (C, width), fractional coordinates (C, width, 3), which places hold an atom (C, width).
        """
        width = int(self.num_atoms.max()) if width is None else width
        real = torch.arange(width, device=self.num_atoms.device) < self.num_atoms[:, None]
        numbers, frac = self.atomic_numbers.new_zeros(real.shape), self.frac_coords.new_zeros((*real.shape, 3))
        numbers[real], frac[real] = self.atomic_numbers, self.frac_coords
        return numbers, frac, real

    def part(self, crystals: Tensor, atoms: Tensor) -> CrystalBatch:
        """Without bonds, the chosen crystals (C,), and their atoms (N,)."""
        return CrystalBatch.unbonded(
            self.atomic_numbers[atoms], self.frac_coords[atoms], self.lattice[crystals], self.num_atoms[crystals]
        )

    def replace(self, **changes: Tensor) -> CrystalBatch:
        return dataclasses.replace(self, **changes)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> CrystalBatch:
        """Moves everything; ``dtype`` changes the floating-point fields only."""
        return CrystalBatch(
            **{
                item.name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
                for item in dataclasses.fields(self)
                for value in (getattr(self, item.name),)
            }
        )


def segment_mean(values: Tensor, segment: Tensor, sizes: Tensor) -> Tensor:
    """Mean of ``values`` (N, ...) over each of C segments; ``segment`` (N,) in 0..C-1, ``sizes`` (C,)."""
    total = values.new_zeros((len(sizes), *values.shape[1:])).index_add(0, segment, values)
    return total / sizes.to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
