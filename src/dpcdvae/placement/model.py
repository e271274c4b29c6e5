"""The model that places atom after atom: features, heads, training cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpcdvae.config import PlacementConfig
from dpcdvae.errors import InputError
from dpcdvae.interfaces import Trainable
from dpcdvae.placement.bounding_box import CLOSEST
from dpcdvae.placement.cells import TrainingCells
from dpcdvae.placement.growth import draw_steps, grow, radii_of
from dpcdvae.placement.heads import STOP, DistanceHead, TypeHead
from dpcdvae.placement.sampler import Partial
from dpcdvae.placement.schnet import SchNet
from dpcdvae.structures.elements import NUM_ELEMENTS, SYMBOLS
from dpcdvae.tensors.batch import CrystalBatch


class PlacementModel(Trainable):
    """G-SchNet (``model.periodic`` false) and P-G-SchNet."""

    about = (
        "re-implemented from the paper (Gebauer et al. 2019); CDVAE's adaptation to crystals is one sentence each and "
        "has no code; the lattice rules are ours. box: the bounding box along the principal axes of the atoms, each "
        f"edge just so long that images stay {CLOSEST} times the smallest sum of covalent radii apart. uniform: a "
        "training lattice at random, atoms as the model decides. conditional: a training lattice together with its "
        "atoms (their number and elements), of which the model decides order and places: no new composition"
    )
    of_training_set = ("cells.", "known")
    only_known_elements = True
    config: PlacementConfig
    known: Tensor

    def __init__(self, config: PlacementConfig) -> None:
        super().__init__()
        self.config = config
        self.schnet = SchNet(config.model)
        self.type_head = TypeHead(config.model)
        self.distance_head = DistanceHead(config.model)
        self.cells = TrainingCells(config.model.kept_cells, config.model.max_atoms)
        self.register_buffer("known", torch.zeros(NUM_ELEMENTS + 1, dtype=torch.bool))  # classes of the type head

    def problem(self) -> str | None:
        radii = radii_of(torch.arange(1, NUM_ELEMENTS + 1, device=self.known.device))
        if bool(self.known[1:][radii.isnan()].any()):
            return "known has elements without a covalent radius"
        return self.cells.problem()

    def measure(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        """Nothing is scaled."""

    @torch.no_grad()
    def record_training_set(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        """Keeps which elements there are, and the cells with their atoms.

        Raises:
            InputError: an element that has no covalent radius.
        """
        numbers = crystals.atomic_numbers.unique()
        large = numbers[(numbers > NUM_ELEMENTS) | radii_of(numbers).isnan()].tolist()
        if large:
            raise InputError(
                f"the training set holds {', '.join(SYMBOLS[z] for z in large)}, of which no covalent radius is known: "
                "a placement model cannot place it; leave these crystals out"
            )
        self.known.zero_()[numbers] = True
        self.known[STOP] = True
        self.cells.keep(crystals, torch.Generator().manual_seed(self.config.train.seed))

    def step_losses(
        self, batch: CrystalBatch, targets: Tensor | None, generator: torch.Generator, epoch: int
    ) -> dict[str, Tensor]:
        """``types``: -log p of the next type or stop; ``distances``: KL divergence from the smeared distances, its mean
        over the nodes in place and their images. Both are means over steps of the crystals that are drawn at random.

        Raises:
            InputError: an element that the training set does not hold.
        """
        unknown = [z for z in batch.atomic_numbers.unique().tolist() if z > NUM_ELEMENTS or not bool(self.known[z])]
        if unknown:
            raise InputError(
                f"a crystal holds {', '.join(SYMBOLS[z] for z in unknown)}, which no training crystal holds: a "
                "placement model cannot place it"
            )
        config = self.config.growth
        growth = grow(batch, self.config.model.periodic, config.contact)
        steps = draw_steps(growth, config.steps, generator)
        x = self.schnet(growth.numbers, growth.positions, growth.num_atoms, growth.space, steps.focus, steps.placed)
        crystals, count, nodes = x.shape[:3]
        node = torch.arange(nodes, device=x.device)
        visible = node <= steps.placed[..., None]
        x, node = x[visible], node.expand_as(visible)[visible]
        step = torch.arange(crystals * count, device=x.device).view(crystals, count, 1).expand_as(visible)[visible]
        placed = steps.placed.flatten()
        new = growth.numbers.gather(1, steps.placed.clamp(max=growth.numbers.shape[1] - 1))
        new = new.masked_fill(steps.stop, STOP).flatten()
        types = nn.functional.nll_loss(self.type_head(x, step, crystals * count, self.known), new)

        placing = new[step] != STOP
        x, node, step = x[placing], node[placing], step[placing]
        crystal = step // count
        places = nn.functional.pad(growth.positions, (0, 0, 1, 0))
        away = growth.positions[crystal, placed[step]] - places[crystal, node]
        distances = growth.space.select(crystal).distances(away, self.distance_head.images)
        wanted, predicted = self.distance_head.labels(distances), self.distance_head(x, new[step])
        divergence = (torch.xlogy(wanted, wanted) - wanted * predicted).sum(-1).mean(-1)
        weights = 1 / (placed[step] + 1).to(divergence)  # each step counts the same
        return {"types": types, "distances": (divergence * weights).sum() / weights.sum().clamp(min=1)}

    def total(self, losses: dict[str, Tensor], epoch: int) -> Tensor:
        return losses["types"] + losses["distances"]

    def criterion(self, losses: dict[str, Tensor]) -> Tensor:
        return losses["types"] + losses["distances"]

    @property
    def bin_width(self) -> float:
        return self.distance_head.width

    def predict(self, partial: Partial) -> _Prediction:
        """What comes next in crystals that are partly in place."""
        x = self.schnet(
            partial.numbers,
            partial.positions,
            partial.placed,
            partial.space,
            partial.focus[:, None],
            partial.placed[:, None],
        ).squeeze(1)
        visible = torch.arange(x.shape[1], device=x.device) <= partial.placed[:, None]
        step = torch.arange(len(x), device=x.device)[:, None].expand_as(visible)[visible]
        return _Prediction(self.type_head(x[visible], step, len(x), self.known), x, self.distance_head)


class _Prediction:
    """The two heads, on the features (A, m, F) of the nodes of A crystals."""

    def __init__(self, types: Tensor, features: Tensor, head: DistanceHead) -> None:
        self.types, self._features, self._head = types, features, head

    def distances(self, some: Tensor, types: Tensor) -> Tensor:
        x = self._features[some]
        found: Tensor = self._head(x.flatten(0, 1), types.repeat_interleave(x.shape[1]))
        return found.view(*x.shape[:2], *found.shape[1:])
