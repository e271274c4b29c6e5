"""A prepared data set with a part of its training crystals, to see what more data would bring.

    python benchmarks/part_of_data.py carbon_24 --every 4      # the data set carbon_24-1in4

Every 4th training crystal, from the first on; the other splits stay whole. The new data set lies beside the others, and
its cards and tables say that it is a part.
"""

from __future__ import annotations

import numpy as np

from dpcdvae.datasets import dataset_file, load_dataset
from dpcdvae.errors import InputError
from dpcdvae.files import check_output
from dpcdvae.structures.table import save_tables
from speed.command import Parser, positive, run


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="a prepared data set")
    parser.add_argument("--every", type=positive, required=True, help="4: a quarter of the training crystals")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    print(part(arguments.data, arguments.every, overwrite=arguments.overwrite))


def part(data: str, every: int, *, overwrite: bool = False) -> str:
    """Writes the data set, and returns its name."""
    dataset = load_dataset(data)
    train = dataset["train"]
    if every > len(train):
        raise InputError(
            f"--every {str(every)[:20]}: {dataset.name} has {len(train)} training crystals: give a smaller number"
        )
    name = f"{dataset.name}-1in{every}"
    path = check_output(dataset_file(name), overwrite=overwrite)
    tables = {**dataset.tables, "train": train.select(np.arange(0, len(train), every))}
    words = f"1 of {every} crystals"
    notes = dataset.metadata.get("notes", {})
    metadata = {
        **dataset.metadata,
        "name": name,
        "title": f"{dataset.metadata['title']}; train: {words}",
        # What was known of the training split before holds of its part too.
        "notes": {**notes, "train": ", ".join(filter(None, [notes.get("train"), words]))},
    }
    save_tables(path, tables, metadata)
    return name


if __name__ == "__main__":
    run(main)
