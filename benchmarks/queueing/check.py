"""Runs with the package of a clone: are the presets, options and data sets of these entries known there?

Standard input: a JSON list of {name, dataset, preset, set}. Exit code 2 with one line for the first that is not.
"""

import json
import sys

from dpcdvae.config import load_config
from dpcdvae.datasets import DATASETS, prepared_names
from dpcdvae.errors import InputError, unknown_name

for entry in json.load(sys.stdin):
    try:
        load_config(entry["preset"], entry["set"])
        if entry["dataset"] not in {*DATASETS, *prepared_names()}:
            raise unknown_name("data set", entry["dataset"], {*DATASETS, *prepared_names()})
    except InputError as error:
        print(f"run '{entry['name']}': {error}", file=sys.stderr)
        sys.exit(2)
