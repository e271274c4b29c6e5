"""CHGNet for relaxations: one crystal or many at once, with a fraction of the memory.

CHGNet's own prediction differentiates twice, once for forces and once for stresses, and keeps what a training would
need to differentiate these again. Here one differentiation gives both, and its graph is gone with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

# Po, At, Rn, Fr and Ra do not occur in MPtrj, what CHGNet learnt from (Deng et al. 2023: 89 elements, up to Pu).
ELEMENTS = frozenset(range(1, 95)) - frozenset(range(84, 89))

QUANTITIES = frozenset({"energy", "free_energy", "forces", "stress"})


def chgnet(*, model_name: str = "0.3.0", use_device: str | None = None) -> Calculator:
    """CHGNet's calculator, quick at energies, forces and stresses."""
    from ase.calculators.calculator import Calculator as Base
    from chgnet.model.dynamics import CHGNetCalculator
    from chgnet.model.model import CHGNet

    class Quick(CHGNetCalculator):
        def calculate(
            self, atoms: Any = None, properties: Any = None, system_changes: Any = None, task: Any = "efsm"
        ) -> None:
            if not QUANTITIES.issuperset(properties or ()):  # magnetic moments
                super().calculate(atoms, properties, system_changes, task)
                return
            Base.calculate(self, atoms)
            (self.results,) = evaluate(self, [atoms])

    model = CHGNet.load(model_name=model_name, use_device=use_device, verbose=False)
    model.requires_grad_(False).eval()  # nothing is trained
    return Quick(model, use_device=use_device, on_isolated_atoms="ignore")


def evaluate(calculator: Any, crystals: Sequence[Atoms]) -> list[dict[str, Any]]:
    """Of each crystal, all computed as one batch.

    Args:
        calculator: of :func:`chgnet`.

    Returns:
        ``energy`` and ``free_energy`` (eV of the cell), ``forces`` (n, 3) eV/Å, ``stress`` (3, 3) eV/Å^3, positive
        where it pulls.
    """
    from chgnet.model.model import BatchedGraph
    from pymatgen.io.ase import AseAtomsAdaptor

    model = calculator.model
    graphs = [model.graph_converter(AseAtomsAdaptor.get_structure(atoms)).to(calculator.device) for atoms in crystals]
    batch = BatchedGraph.from_graphs(
        graphs,
        bond_basis_expansion=model.bond_basis_expansion,
        angle_basis_expansion=model.angle_basis_expansion,
        compute_stress=True,
    )
    positions: Sequence[Any] = batch.atom_positions
    strains: Sequence[Any] = batch.strains
    for tensor in positions:
        tensor.retain_grad()
    prediction = model._compute(batch)  # what its forward() does, less the two differentiations
    counts, energies = prediction["atoms_per_graph"], prediction["e"]
    extensive = counts if model.is_intensive else 1
    (energies * extensive).sum().backward()
    if model.composition_model is not None:
        energies = energies + model.composition_model(graphs)
    energies = (energies * extensive).tolist()
    return [
        {
            "energy": energy,
            "free_energy": energy,
            "forces": -position.grad.cpu().numpy(),
            "stress": strain.grad.cpu().numpy() / atoms.get_volume(),
        }
        for energy, position, strain, atoms in zip(energies, positions, strains, crystals, strict=True)
    ]
