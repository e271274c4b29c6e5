"""Tables 1 to 3 of the paper beside the models of this package: one command for every row.

    python benchmarks/reproduce.py carbon-24-reconstruct-4 --work FOLDER   # makes, evaluates, keeps the numbers
    python benchmarks/reproduce.py --tables                                # writes docs/reproduction.md

Rows are those of reproduction.toml. Crystals and reports lie in --work, so that a killed command goes on; the numbers
of a row in results/reproduction/, with the calls, the commit and the hashes of model and data. Data sets must be
prepared (``dpcdvae data get NAME``). Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.files import write_json, write_text
from quality.making import check_whole, make
from quality.published import PAGE, render
from quality.rows import Row, row_of, rows
from speed.command import Parser, folder, positive, run
from speed.record import ROOT, revision, threads

RESULTS = ROOT / "benchmarks" / "results" / "reproduction"


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names in reproduction.toml")
    parser.add_argument("--work", type=folder, help="folder of crystals and reports")
    parser.add_argument("-n", type=positive, help="so many crystals instead of the row's; nothing is kept in results")
    parser.add_argument("--tables", action="store_true", help=f"write {PAGE.name} from what is kept")
    arguments = parser.parse_args()
    if not arguments.rows and not arguments.tables:
        raise InputError(f"which rows? {', '.join(rows())}; or --tables")
    if arguments.rows and arguments.work is None:
        raise InputError("--work FOLDER: where crystals and reports go")
    for row in [row_of(name) for name in arguments.rows]:
        measure(row, arguments.work, arguments.n)
    if arguments.tables:
        write_text(PAGE, render(page(), RESULTS))


def page() -> str:
    try:
        return PAGE.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{PAGE} cannot be read: git checkout has it") from None


def measure(row: Row, work: Path, n: int | None) -> dict[str, Any]:
    """Makes a row, and keeps its numbers if they are of all its crystals.

    Raises:
        InputError: ``work`` cannot be written, the model or the data are not whole, or the code that would make the row
            is not that of a commit.
    """
    threads(1)  # what is wrong with it is said before any work
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--work {work} cannot be written ({error.strerror}): name another folder") from None
    if n is None:
        check_whole(row)
        if revision(ROOT).endswith("+"):
            raise InputError("src differs from its commit: commit it, so that the row has one, or give -n")
    found = make(row, work, n)
    if n is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_json(RESULTS / f"{row.name}.json", found)
    return found


if __name__ == "__main__":
    run(main)
