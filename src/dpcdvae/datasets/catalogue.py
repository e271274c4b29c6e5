"""The data sets known by name: what they hold, where they come from, on what terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dpcdvae.registry import Registry

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetSpec:
    """Facts about a data set that are known before it is fetched.

    Attributes:
        title: what it holds.
        max_atoms: atoms in the largest cell.
        energy: the property that the published protocol calls the energy, if there is one.
        coverage_cutoffs: of structure and composition in the published coverage, if there are any.
        columns: unit or meaning of each property.
        url: folder with ``train.csv``, ``val.csv`` and ``test.csv``; empty for what is built, not fetched.
        blobs: git blob SHA-1 of the CSV of each split, as in the public repository.
        rows: crystals in each of these files.
        ids: :func:`dpcdvae.datasets.origin.ids_hash` of the ``material_id`` of each split, where these are known.
        licence: terms, as far as they are known.
        citation: the paper of the data.
    """

    title: str
    max_atoms: int
    energy: str | None = None
    coverage_cutoffs: tuple[float, float] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    blobs: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""


CDVAE_DATA = "https://raw.githubusercontent.com/txie-93/cdvae/main/data"
_CURATED = "curated by Xie et al., ICLR 2022 (repository: MIT)"

DATASETS: Registry[DatasetSpec] = Registry(
    "data set",
    {
        "perov_5": DatasetSpec(
            title="18 928 perovskites ABX3, 5 atoms a cell, 56 elements",
            max_atoms=20,
            energy="heat_ref",
            coverage_cutoffs=(0.2, 4.0),
            columns={
                "heat_all": "heat of formation, eV (as in the CMR; per atom or cell is not stated)",
                "heat_ref": "heat of formation against reference phases, eV (as in the CMR)",
                "dir_gap": "direct band gap, eV",
                "ind_gap": "indirect band gap, eV",
            },
            url=f"{CDVAE_DATA}/perov_5",
            blobs={
                "train": "0769074b5d51d293b765c4371b8f55c468c9c9f2",
                "val": "4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f",
                "test": "d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1",
            },
            rows={"train": 11356, "val": 3787, "test": 3785},
            ids={
                "train": "3336b99e400dd3a2ea0d7164e1873795e9cfe0a2863290a4688afd3d058da074",
                "val": "bfc7b48ca9fabc5f6392372411f7714399b319e48d64097efdd8788f62ff88dc",
                "test": "da7a8180997812e37e974d269a611449d119553601421de7ecbdc6c95c272cb1",
            },
            licence=f"Computational Materials Repository: see its terms; {_CURATED}",
            citation="Castelli et al., Energy Environ. Sci. 5, 5814 and 9034 (2012)",
        ),
        "carbon_24": DatasetSpec(
            title="10 153 carbon structures from random search at 10 GPa, 6 to 24 atoms a cell",
            max_atoms=24,
            energy="energy_per_atom",
            coverage_cutoffs=(0.2, 4.0),
            columns={"energy_per_atom": "eV/atom"},
            url=f"{CDVAE_DATA}/carbon_24",
            blobs={
                "train": "5e7ae970fbad8ddc46b6963e8cd6e425f11783a6",
                "val": "b3e29b927883642426ca1d9632d00359b412742b",
                "test": "9beca843fde489de1fe288b32f9e3ff710d42803",
            },
            rows={"train": 6091, "val": 2032, "test": 2030},
            ids={
                "train": "1ee7a611bd28d485d5e2ec405a5fdc6f710b3ba81408a3daf65ccef87e5321ed",
                "val": "972316c2d1926cf504b603ad843d6a32a74485f9d2ee669df3b969b38ecf8eb2",
                "test": "06b16da1346520553e911d909534eda7271726e9ea7c4b74ed37da19885e9add",
            },
            licence=f"CC BY 4.0 (Materials Cloud 2020.0026/v1); {_CURATED}",
            citation="Pickard, Materials Cloud 2020.0026/v1 (2020), doi:10.24435/materialscloud:2020.0026/v1",
        ),
        "mp_20": DatasetSpec(
            title="45 229 inorganic materials from the Materials Project, 1 to 20 atoms a cell, 89 elements",
            max_atoms=20,
            energy="formation_energy_per_atom",
            coverage_cutoffs=(0.4, 10.0),
            columns={
                "formation_energy_per_atom": "eV/atom",
                "e_above_hull": "eV/atom",
                "band_gap": "eV",
                "spacegroup.number": "international number",
            },
            url=f"{CDVAE_DATA}/mp_20",
            blobs={
                "train": "b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f",
                "val": "7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1",
                "test": "5dc643041df53f5ce4970a79930ad262b4f07acd",
            },
            rows={"train": 27136, "val": 9047, "test": 9046},
            # Of the train split only the number of rows is known. The ids of val and test come from a copy in other
            # bytes, equal to the published files in fields and order in the 7140 and 7118 rows that could be compared.
            ids={
                "val": "0b25ee88ab5b12c10ef43dbd7e0aed6e8db76ee64fae1b3c6693de8f3e4b7cab",
                "test": "36f0c88272a3b5b1eb84753de52b911879877c515462aded5f2eeb32206c1984",
            },
            licence=f"Materials Project: CC BY 4.0, see its terms; {_CURATED}",
            citation="Jain et al., APL Materials 1, 011002 (2013)",
        ),
        "prototypes": DatasetSpec(
            title="textbook structure types with tabulated radii, built by this package",
            max_atoms=20,
            licence="MIT (this package)",
        ),
    },
)
