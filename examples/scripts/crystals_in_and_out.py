# %% [markdown]
# # pymatgen, ASE, pandas and files
# Every function takes any of these, and every result becomes any of them, with ids and properties.

# %%
from ase.build import bulk
from monty.serialization import loadfn
from pymatgen.core import Lattice, Structure

import dpcdvae

salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
salt.properties["material_id"] = "salt"
crystals = dpcdvae.as_crystals([salt, bulk("Cu")])
print(crystals)
assert crystals[0].id == "salt"

# %% Files: the ending chooses the format.
for name in ("all.extxyz", "all.json", "all.csv", "all.zip"):
    dpcdvae.write(crystals, name)
    assert {crystal.formula for crystal in dpcdvae.read(name)} == {"NaCl", "Cu"}
assert all(isinstance(structure, Structure) for structure in loadfn("all.json"))

# %% CIFs with space group and standard origin.
dpcdvae.write(crystals, "cifs", symmetrise=0.01)

# %% A table, ASE's Atoms, pymatgen's Structures.
print(crystals.to_pandas())
assert crystals.to_ase()[0].info["material_id"] == "salt"
assert crystals.to_pymatgen()[0].properties["material_id"] == "salt"
