# %% [markdown]
# # Relaxation, energy above hull, ground states
# With ASE's EMT potential, which knows a few metals and takes milliseconds. For real work: `calculator="chgnet"`,
# `"mace"`, `"mattersim"`, `"orb"`, and phases of the Materials Project (`dpcdvae phases`).

# %%
import json

from ase.build import bulk

import dpcdvae

alloy = bulk("Cu", cubic=True)
alloy[0].symbol = "Au"  # Cu3Au
alloy.set_cell(alloy.cell * 1.03, scale_atoms=True)
stretched = bulk("Cu")
stretched.set_cell(stretched.cell * 1.05, scale_atoms=True)

# %% Results keep what they were before, and are Atoms with energy, forces and stress.
EMT = "ase.calculators.emt:EMT"
relaxed = dpcdvae.relax([alloy, stretched], calculator=EMT, workers=0)
for item, atoms in zip(relaxed, relaxed.to_ase(), strict=True):
    print(item.final.formula, item.steps, item.converged, atoms.get_potential_energy())

# %% How far the crystals were from their ground states: Table 3 of the paper.
print(dpcdvae.ground_state(relaxed)["match_rate"].value)

# %% Phases with energies of the same method, then relaxation, hull and S.U.N. in one call.
elements = dpcdvae.relax([bulk("Cu"), bulk("Au")], calculator=EMT, workers=0).to_ase()
phases = [
    {"composition": str(atoms.symbols), "energy_per_atom": atoms.get_potential_energy() / len(atoms)}
    for atoms in elements
]
with open("phases.json", "w") as stream:
    json.dump(phases, stream)
result = dpcdvae.stability([alloy, stretched], "phases.json", calculator=EMT, workers=0)
print(result["energy_above_hull"].value)
