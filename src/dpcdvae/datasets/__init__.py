"""Data sets by name: the published ones, the built-in one, and the user's own, prepared and cached.

Loading a prepared data set needs numpy alone; preparing one needs pymatgen.
"""

from __future__ import annotations

from dpcdvae.datasets.building import add_dataset, get_dataset
from dpcdvae.datasets.catalogue import DATASETS, SPLITS, DatasetSpec
from dpcdvae.datasets.loading import load_dataset, load_split
from dpcdvae.datasets.store import Dataset, dataset_file, dataset_path, prepared_names

__all__ = [
    "DATASETS",
    "SPLITS",
    "Dataset",
    "DatasetSpec",
    "add_dataset",
    "dataset_file",
    "dataset_path",
    "get_dataset",
    "load_dataset",
    "load_split",
    "prepared_names",
]
