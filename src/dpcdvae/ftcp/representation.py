"""The matrix that stands for a crystal (Ren et al., Matter 5, 314 (2022)), written from crystals.

Columns: those of real space, one for each element (three at least), then the points of reciprocal space. Rows, block
after block:

| block | rows | in real space | in reciprocal space |
|---|---|---|---|
| elements | 103 | column c is the one-hot vector of the c-th element | |
| lengths | 1 | a, b, c in the first three columns, Å | |
| angles | 1 | alpha, beta, gamma, degrees | |
| coordinates | sites, or twice that | fractional x, y, z of each site; or their sines, then their cosines | |
| occupancy | sites | row i is the one-hot vector of the element of site i over the columns | |
| distances | 1 | | \\|k\\|, 1/Å |
| properties | 92 | CGCNN's vector Z of each element | Σ over sites of Z π k·r; or of Z cos, and Z sin, of 2π k·r |

The published sum is linear in k·r: moving a site by a lattice vector changes it. The structure factor does not change;
its imaginary part has columns of its own. Zero rows make the height a multiple of 4, for two layers that halve it.
"""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor, nn

from dpcdvae.config import FTCPConfig
from dpcdvae.errors import InputError
from dpcdvae.ftcp.canonical import canonical
from dpcdvae.ftcp.padded_sites import Sites, element_columns
from dpcdvae.ftcp.reciprocal import POINTS, reciprocal_points
from dpcdvae.structures.element_data import cgcnn_vectors
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import full_precision, parameters_from_lattice

ELEMENTS = 103  # rows of the one-hot vectors, H to Lr
AXES = 3
BLOCKS = ("elements", "lengths", "angles", "coordinates", "occupancy", "distances", "properties")


class Representation(nn.Module):
    """Crystals to matrices (C, rows, columns), and where in these each block lies.

    Attributes:
        rows: block -> its rows. height, width: of a matrix. real: columns of real space; points: of reciprocal space.
        sites: of a crystal.
    """

    vectors: Tensor

    def __init__(self, config: FTCPConfig) -> None:
        super().__init__()
        self.config, options = config, config.representation
        self.sites = config.model.max_atoms
        self.periodic, self.canonical = options.coordinates == "periodic", options.order == "canonical"
        self.structure_factor = options.fourier == "structure-factor"
        with torch.device("cpu"):  # constants, also where a model is built without memory (meta)
            self.register_buffer("vectors", torch.tensor(cgcnn_vectors()).float(), persistent=False)
        sizes = (ELEMENTS, 1, 1, self.sites * (2 if self.periodic else 1), self.sites, 1, self.vectors.shape[1])
        ends = list(accumulate(sizes))
        self.points = POINTS
        self.rows = {name: slice(end - size, end) for name, size, end in zip(BLOCKS, sizes, ends, strict=True)}
        self.height = -(-ends[-1] // 4) * 4
        self.real = max(options.max_elements, AXES)
        self.width = self.real + POINTS * (2 if self.structure_factor else 1)

    def sites_of(self, batch: CrystalBatch) -> Sites:
        """The crystals on numbered sites, in the order and with the origin of this representation.

        Raises:
            InputError: a crystal of more atoms or elements than there is room for, or an element without a vector.
        """
        for wrong in unrepresented(self.config, batch.num_atoms, batch.atomic_numbers).values():
            raise InputError(f"a crystal {wrong}")
        numbers, frac, _ = batch.padded(self.sites)
        sites = Sites(numbers, frac, batch.lattice)
        return canonical(sites) if self.canonical else sites

    def forward(self, batch: CrystalBatch) -> Tensor:
        """The matrices (C, height, width); raises InputError as :meth:`sites_of`."""
        return self.matrices(self.sites_of(batch))

    @full_precision
    def matrices(self, sites: Sites) -> Tensor:
        """The matrices (C, height, width) of crystals as :meth:`sites_of` gives them."""
        numbers, frac, lattice = sites
        column = element_columns(numbers)
        matrix = frac.new_zeros((len(numbers), self.height, self.width))
        crystal, site = torch.nonzero(sites.occupied, as_tuple=True)
        placed, number = column[crystal, site], numbers[crystal, site]
        matrix[crystal, self.rows["elements"].start + number - 1, placed] = 1
        matrix[crystal, self.rows["occupancy"].start + site, placed] = 1
        parameters = parameters_from_lattice(lattice)
        matrix[:, self.rows["lengths"].start, :AXES] = parameters[:, :3]
        matrix[:, self.rows["angles"].start, :AXES] = parameters[:, 3:]
        matrix[:, self.rows["coordinates"], :AXES] = self._coordinates(frac, sites.occupied)
        vectors = self.vectors[numbers].to(frac)  # (C, S, 92), zeros where there is no atom
        matrix[crystal, self.rows["properties"], placed] = vectors[crystal, site]
        hkl, lengths = reciprocal_points(lattice)
        here = slice(self.real, self.real + POINTS)
        phase = math.pi * frac @ hkl.mT  # (C, S, 59)
        matrix[:, self.rows["distances"].start, here] = lengths
        if self.structure_factor:
            matrix[:, self.rows["properties"], here] = vectors.mT @ torch.cos(2 * phase)
            matrix[:, self.rows["properties"], self.real + POINTS :] = vectors.mT @ torch.sin(2 * phase)
        else:
            matrix[:, self.rows["properties"], here] = vectors.mT @ phase
        return matrix

    def _coordinates(self, frac: Tensor, occupied: Tensor) -> Tensor:
        if not self.periodic:
            return frac
        angle = 2 * math.pi * frac
        return torch.cat([torch.sin(angle), torch.cos(angle)], 1) * occupied.repeat(1, 2)[..., None]


def unrepresented(config: FTCPConfig, num_atoms: Tensor, atomic_numbers: Tensor) -> dict[int, str]:
    """What of the crystals (by row) there is no room for (atoms, elements) or no vector for, the largest first.

    Args:
        num_atoms: (C,); atomic_numbers: (N,).
    """
    if not len(num_atoms):
        return {}
    sites, columns, last = config.model.max_atoms, config.representation.max_elements, len(cgcnn_vectors()) - 1
    crystal = torch.arange(len(num_atoms), device=num_atoms.device).repeat_interleave(num_atoms)
    distinct = torch.unique(crystal * len(SYMBOLS) + atomic_numbers) // len(SYMBOLS)
    num_elements = torch.bincount(distinct, minlength=len(num_atoms))
    wrong = {
        row: f"has {count} atoms; this representation has {sites} sites (model.max_atoms): train with "
        f"--set model.max_atoms={count}"
        for row, count in _above(num_atoms, sites)
    }
    for row, count in _above(num_elements, columns):
        wrong.setdefault(
            row,
            f"has {count} elements; this representation has columns for {columns} (representation.max_elements): train "
            f"with --set representation.max_elements={count}",
        )
    for row in crystal[atomic_numbers > last].unique().tolist():
        heaviest = SYMBOLS[int(atomic_numbers[crystal == row].max())]
        wrong.setdefault(row, f"has {heaviest}: element vectors end with {SYMBOLS[last]} ({last})")
    return wrong


def _above(counts: Tensor, most: int) -> list[tuple[int, int]]:
    """Rows of ``counts`` (C,) above ``most``, with their counts, the largest first."""
    rows = (counts > most).nonzero().squeeze(1)
    return sorted(zip(rows.tolist(), counts[rows].tolist(), strict=True), key=lambda pair: -pair[1])
