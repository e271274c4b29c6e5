"""Which of several training processes this is; before Lightning, and without it."""

from __future__ import annotations

import os

# As torchrun, Lightning's own launcher, SLURM and Open MPI number them.
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")


def is_first_process() -> bool:
    """True for the process that makes folders and files; the others find them made."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)
