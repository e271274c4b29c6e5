"""Runs with the package of a clone: can these entries be trained there, with the data sets of this machine?

Standard input: a JSON list of {name, dataset, preset, set}. Exit code 2 with one line for the first that cannot;
else the names of the options of training, as a JSON list. A data set is read once, a model built once.
"""

import contextlib
import functools
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from dpcdvae.config import AnyConfig, load_config
from dpcdvae.datasets import Dataset, load_dataset
from dpcdvae.errors import InputError, one_line
from dpcdvae.training.by_name import with_property


@functools.cache
def data_set(name: str) -> Dataset:
    return load_dataset(name)


@functools.cache
def build(components: str, kind: type[AnyConfig]) -> None:
    from dpcdvae.checkpoints.loading import build_model

    build_model(kind.from_dict(json.loads(components)))


@functools.cache
def make(train: str, kind: type[AnyConfig]) -> None:
    from dpcdvae.training.train import make_trainer

    with tempfile.TemporaryDirectory() as folder:
        make_trainer(kind.from_dict({"train": json.loads(train), "kind": kind().kind}), Path(folder))


def names(entry: dict[str, Any]) -> None:
    """What is quickly looked up."""
    with_property(load_config(entry["preset"], entry["set"]), data_set(entry["dataset"]))


def parts(entry: dict[str, Any]) -> None:
    """What torch and Lightning have to be imported for."""
    from dpcdvae.training.train import check_data

    data = data_set(entry["dataset"])
    config = with_property(load_config(entry["preset"], entry["set"]), data)
    check_data(data.tables, config)
    values = config.to_dict()
    train = {**values.pop("train"), "seed": 0}
    build(json.dumps(values, sort_keys=True), type(config))
    make(json.dumps(train, sort_keys=True), type(config))


entries = json.load(sys.stdin)
for check in (names, parts):
    for entry in entries:
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # remarks, which training makes again
                check(entry)
        except InputError as error:
            print(f"run '{entry['name']}': {one_line(error)}", file=sys.stderr)
            sys.exit(2)
print(json.dumps([name for name in AnyConfig.option_names() if name.startswith("train.")]))
