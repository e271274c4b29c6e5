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
        check_crystals(self.config, batch.num_atoms, batch.atomic_numbers)
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


def check_crystals(config: FTCPConfig, num_atoms: Tensor, atomic_numbers: Tensor) -> None:
    """Raises InputError for a crystal of more atoms or elements than there is room for, or an element without a vector.

    Args:
        num_atoms: (C,); atomic_numbers: (N,).
    """
    if not len(num_atoms):
        return
    if (most := int(num_atoms.max())) > config.model.max_atoms:
        raise InputError(
            f"a crystal has {most} atoms; this representation has {config.model.max_atoms} sites (model.max_atoms): "
            f"train with --set model.max_atoms={most}"
        )
    if (number := int(atomic_numbers.max())) >= len(cgcnn_vectors()):
        last = len(cgcnn_vectors()) - 1
        raise InputError(f"a crystal has {SYMBOLS[number]}: element vectors end with {SYMBOLS[last]} ({last})")
    crystal = torch.arange(len(num_atoms), device=num_atoms.device).repeat_interleave(num_atoms)
    distinct = torch.unique(crystal * len(SYMBOLS) + atomic_numbers) // len(SYMBOLS)
    if (most := int(torch.bincount(distinct).max())) > config.representation.max_elements:
        raise InputError(
            f"a crystal has {most} elements; this representation has {config.representation.max_elements} columns for "
            f"them (representation.max_elements): train with --set representation.max_elements={most}"
        )
