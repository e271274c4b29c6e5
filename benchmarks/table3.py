"""Table 3 of the paper for crystals whose answer is known: how far from their ground states do real ones lie?

    python benchmarks/table3.py rattled | crysbfn [--count 100] [--max-atoms N] [--calculator chgnet] [--work FOLDER]

``rattled``: Carbon-24 test crystals drawn with --seed, each coordinate moved by a normal 0.05 Å; ``crysbfn``: the first
that a peer generated. Both from the folder named by DPCDVAE_DATA (or ../shared/data). Relaxed at 10 GPa; --work keeps
what is done, so a killed run goes on. ``--json FILE`` keeps the figures.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from dpcdvae import Crystal, read
from dpcdvae.errors import InputError
from dpcdvae.files import check_output, write_json
from dpcdvae.parallel import engine_for
from dpcdvae.relaxation import ground_state, relax_in_stages, stages_of
from speed.command import Parser, above_zero, positive, real_data, run, seed_number

RATTLE = 0.05  # Å


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=("rattled", "crysbfn"))
    parser.add_argument("--count", type=positive, default=100)
    parser.add_argument("--max-atoms", type=positive, default=24)
    parser.add_argument("--calculator", default="chgnet", help="several with commas: one after the other")
    parser.add_argument("--settings", help="of the DFT code: paper-carbon or screening")
    parser.add_argument("--optimizer", default="lbfgs")
    parser.add_argument("--time-limit", type=above_zero, default=3600.0, help="seconds for one crystal")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = real_data()
    if arguments.json:
        check_output(arguments.json)

    crystals = rattled(data, arguments.seed) if arguments.kind == "rattled" else generated(data)
    crystals = [crystal for crystal in crystals if crystal.num_atoms <= arguments.max_atoms][: arguments.count]
    if not crystals:
        raise InputError(f"--max-atoms {arguments.max_atoms}: there are no such crystals: give a larger number")
    stages = stages_of(arguments.calculator, settings=arguments.settings, pressure=10.0, optimizer=arguments.optimizer)
    with engine_for(arguments.workers, None) as engine:
        results = relax_in_stages(crystals, stages, work=arguments.work, engine=engine, time_limit=arguments.time_limit)
        report = ground_state(results, engine=engine, seed=arguments.seed)
    if arguments.json:
        given = {name: getattr(arguments, name) for name in "kind max_atoms calculator settings optimizer seed".split()}
        seconds = int(np.nansum([item.seconds for item in results]))
        kept = {**given, "count": len(crystals), "seconds": seconds}
        found = report.to_json()
        kept |= {name: found[name] for name in ("crystals", "figures", "energy_histogram")}
        write_json(arguments.json, kept)
    for figure in report.figures:
        value, interval = figure.number.shown(figure.unit)
        print(f"{figure.title:24} {value:>10} {figure.unit:11} {interval:20} n = {figure.number.n}")


def rattled(data: Path, seed: int) -> list[Crystal]:
    """Test crystals in an order drawn with the seed, each atom moved."""
    rng = np.random.default_rng(seed)
    crystals = read(data / "carbon_24" / "test.csv.gz")
    moved = []
    for index in rng.permutation(len(crystals)):
        crystal = crystals[index]
        step = rng.normal(scale=RATTLE, size=(crystal.num_atoms, 3)) @ np.linalg.inv(crystal.lattice)
        moved.append(dataclasses.replace(crystal, frac_coords=crystal.frac_coords + step))
    return moved


def generated(data: Path) -> list[Crystal]:
    """In the order of the peer's file."""
    return list(read(data / "generated" / "crysbfn_carbon_24_gen.npz"))


if __name__ == "__main__":
    run(main)
