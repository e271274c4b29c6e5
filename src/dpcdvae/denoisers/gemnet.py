"""The denoiser GemNet-T with direct vector output (Gasteiger et al. 2021; the "dT" form).

The atom features are [type embedding | z | time embedding | Fourier features of the coordinates]; see Pakornchote et
al. 2024. The public code also evaluates an energy head in every output block and discards its result. There is none
here, which changes no output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import GemNetOptions
from dpcdvae.denoisers.gemnet_blocks import EdgeEmbedding, Interaction, VectorOutput, angular_weights
from dpcdvae.interfaces import Denoiser
from dpcdvae.nn.basis import GaussianRadialBasis, fourier_features, legendre_harmonics, sinusoidal_embedding
from dpcdvae.nn.layers import Dense, ExactLinear, mlp
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.graph import radius_graph


class GemNetDenoiser(Denoiser):
    """GemNet-T on the radius graph of the noisy crystals, which is searched anew with each call."""

    def __init__(self, latent_dim: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = read_options(GemNetOptions, options, "gemnet-t")
        self.options = o
        num_fourier = 6 * (o.fourier[1] - o.fourier[0] + 1) if o.fourier else 0
        num_features = o.hidden + latent_dim + o.time_embedding + num_fourier
        width = o.atom_width or num_features

        self.type_embedding = nn.Embedding(NUM_ELEMENTS + 1, o.hidden)
        if o.time_embedding:
            self.time_mlp = mlp(o.time_embedding, 4 * o.time_embedding, o.time_embedding)
        self.atom_features = mlp(num_features, width, width, o.feature_layers)
        self.radial_basis = GaussianRadialBasis(o.num_radial, o.cutoff, o.envelope_exponent)
        # One projection of the radial basis for each use, shared by all blocks.
        self.radial_triplet = Dense(o.num_radial, o.emb_rbf)
        self.radial_atom = Dense(o.num_radial, o.emb_rbf)
        self.radial_out = Dense(o.num_radial, o.emb_rbf)
        self.radial_circular = Dense(o.num_radial, o.num_spherical * o.emb_cbf)
        self.edge_embedding = EdgeEmbedding(width, o.num_radial, o.hidden)
        self.interactions = nn.ModuleList(Interaction(o, width) for _ in range(o.blocks))
        self.outputs = nn.ModuleList(VectorOutput(o) for _ in range(o.blocks + 1))
        self.type_head = ExactLinear(width, NUM_ELEMENTS)

    def forward(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        o = self.options
        graph = radius_graph(
            noisy.frac_coords, noisy.lattice, noisy.num_atoms, o.cutoff, o.max_neighbours, complete=o.complete_search
        )
        harmonics = legendre_harmonics(graph.cosines(), o.num_spherical)
        harmonics = harmonics * graph.triplet_mask()[:, :, None]
        radial = self.radial_basis(graph.distances) * graph.mask[..., None]
        triplet_basis = self.radial_triplet(radial)
        circular_basis = self.radial_circular(radial).unflatten(-1, (o.emb_cbf, o.num_spherical))
        angular_basis = angular_weights(circular_basis, harmonics)
        atom_basis, out_basis = self.radial_atom(radial), self.radial_out(radial)

        h = self.atom_features(self._features(noisy, z, time))
        m = self.edge_embedding(h, radial, graph)
        scalars = self.outputs[0](m, out_basis, graph)
        for interaction, output in zip(self.interactions, self.outputs[1:], strict=True):
            h, m = interaction(h, m, graph, triplet_basis, angular_basis, atom_basis)
            scalars = scalars + output(m, out_basis, graph)
        return (scalars * graph.vectors).sum(1), self.type_head(h)

    def _features(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> Tensor:
        o = self.options
        features = [self.type_embedding(noisy.atomic_numbers), noisy.per_atom(z)]
        if o.time_embedding:
            features.append(noisy.per_atom(self.time_mlp(sinusoidal_embedding(time, o.time_embedding))))
        if o.fourier:
            features.append(fourier_features(noisy.frac_coords, o.fourier[0], o.fourier[1]))
        return torch.cat(features, -1)
