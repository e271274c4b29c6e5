"""However a CIF states its symmetry, the atoms are those of its setting; where it leaves that open, it is refused."""

from __future__ import annotations

from collections.abc import Sequence

import gemmi
import numpy as np
import pytest

from crystal_files import message
from dpcdvae.io import crystal_from_cif
from dpcdvae.structures.crystal import Crystal

AXES = tuple(f"_cell_{name}" for name in "length_a length_b length_c angle_alpha angle_beta angle_gamma".split())


def text(
    cell: Sequence[float], sites: Sequence[tuple[str, float | str, float | str, float | str]], *statements: str
) -> str:
    """A CIF of a cell, sites (symbol, x, y, z) and whatever lines state the symmetry."""
    lines = ["data_x", *(f"{tag} {value:.6f}" for tag, value in zip(AXES, cell, strict=True)), *statements]
    lines += ["loop_", "_atom_site_label", "_atom_site_type_symbol"]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"]
    lines += [f"{symbol}{k} {symbol} {x} {y} {z}" for k, (symbol, x, y, z) in enumerate(sites)]
    return "\n".join([*lines, ""])


def name(value: str) -> str:
    return f"_symmetry_space_group_name_H-M '{value}'"


def number(value: int) -> str:
    return f"_symmetry_Int_Tables_number {value}"


def formula(value: str, units: int) -> tuple[str, str]:
    return f"_chemical_formula_sum '{value}'", f"_cell_formula_units_Z {units}"


def operations(entry: gemmi.SpaceGroup) -> str:
    listed = [operation.triplet() for operation in entry.operations()]
    return "\n".join(["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{triplet}'" for triplet in listed)])


def cell_of(entry: gemmi.SpaceGroup) -> list[float]:
    """Lengths and angles that have the symmetry of a group and no more."""
    metric = np.array([[25.0, -3.0, -2.0], [-3.0, 36.0, -4.0], [-2.0, -4.0, 49.0]])
    turns = [np.array(operation.rot) / 24 for operation in entry.operations()]
    metric = np.mean([turn.T @ metric @ turn for turn in turns], axis=0)
    lengths = np.sqrt(np.diag(metric))
    cosines = [metric[i, j] / lengths[i] / lengths[j] for i, j in ((1, 2), (0, 2), (0, 1))]
    return [*lengths, *np.degrees(np.arccos(cosines))]


def same_atoms(first: Crystal, second: Crystal) -> bool:
    if first.num_atoms != second.num_atoms:
        return False
    apart = first.frac_coords[:, None] - second.frac_coords[None]
    distance = np.abs(apart - np.round(apart)).max(-1)
    distance[first.atomic_numbers[:, None] != second.atomic_numbers[None]] = np.inf
    return bool(distance.min(1).max() < 1e-6 and distance.min(0).max() < 1e-6)


def test_every_setting_is_the_same_by_list_hall_symbol_and_name() -> None:
    """With two sites, general and on the origin, in all 560 settings of the tables."""
    sites = [("Si", 0.1373, 0.2191, 0.4127), ("O", 0, 0, 0)]
    for entry in gemmi.spacegroup_table():
        cell = cell_of(entry)
        listed = crystal_from_cif(text(cell, sites, operations(entry)))
        assert listed.symbols.count("Si") == len(entry.operations())
        hall = crystal_from_cif(text(cell, sites, f"_symmetry_space_group_name_Hall '{entry.hall}'"))
        named = crystal_from_cif(text(cell, sites, name(entry.xhm()), number(entry.number)))
        assert same_atoms(listed, hall), entry.xhm()
        assert same_atoms(listed, named), entry.xhm()


@pytest.mark.parametrize("written", ["{}:2", "{} :2", "{} Z", "{}Z"])
def test_the_second_origin_in_every_spelling(written: str) -> None:
    for short, count in (("F d -3 m", 8), ("P 4/n m m", 2)):
        entry = gemmi.find_spacegroup_by_name(f"{short}:2")
        point = (0.125, 0.125, 0.125) if short[0] == "F" else (0.25, 0.75, 0)
        crystal = crystal_from_cif(text(cell_of(entry), [("C", *point)], name(written.format(short))))
        assert crystal.num_atoms == count
        first = text(cell_of(entry), [("C", 0, 0, 0)], name(written.format(short).replace("2", "1").replace("Z", "S")))
        assert crystal_from_cif(first).num_atoms == count


@pytest.mark.parametrize("written", ["R -3 m", "R -3 m :R", "R -3 m:R", "R -3 m R", "R-3m"])
@pytest.mark.parametrize("symbol", [("Bi", 4.746, 57.23, 0.234), ("Sb", 4.507, 57.11, 0.2336)])
def test_rhombohedral_axes(written: str, symbol: tuple[str, float, float, float]) -> None:
    element, a, angle, x = symbol
    for statements in ([name(written)], [name(written), number(166)], [number(166)]):
        crystal = crystal_from_cif(text([a] * 3 + [angle] * 3, [(element, x, x, x)], *statements))
        assert crystal.num_atoms == 2
    hexagonal = crystal_from_cif(text([4.546, 4.546, 11.86, 90, 90, 120], [("Bi", 0, 0, 0.234)], name("R -3 m")))
    assert hexagonal.num_atoms == 6


def test_a_tag_that_the_cell_contradicts_is_refused() -> None:
    said = message(lambda: crystal_from_cif(text([4.7] * 3 + [57.0] * 3, [("Bi", 0.2, 0.2, 0.2)], name("R -3 m :H"))))
    assert "the cell does not have the symmetry" in said
    cubic = gemmi.find_spacegroup_by_name("P m -3 m")
    said = message(lambda: crystal_from_cif(text([4, 4, 5, 90, 90, 90], [("Po", 0, 0, 0)], operations(cubic))))
    assert "the cell does not have the symmetry" in said
    said = message(lambda: crystal_from_cif(text([4] * 3 + [90] * 3, [("Po", 0, 0, 0)], name("P m -3 m"), number(225))))
    assert "is space group 221, but the number given is 225" in said


PEROVSKITE = [("Gd", 0.9935, 0.0635, 0.25), ("Fe", 0, 0.5, 0), ("O", 0.09, 0.47, 0.25), ("O", 0.70, 0.29, 0.05)]


def test_a_number_alone_is_refused_where_its_group_has_several_settings() -> None:
    cell = [5.349, 5.611, 7.669, 90, 90, 90]
    assert "the setting is ambiguous: P n m a or" in message(
        lambda: crystal_from_cif(text(cell, PEROVSKITE, number(62)))
    )
    assert crystal_from_cif(text(cell, PEROVSKITE, name("P b n m"))).num_atoms == 20
    for units, reason in ((4, "the setting is ambiguous: P b n m or P n a m"), (8, "with none of")):
        stated = text(cell, PEROVSKITE, number(62), *formula("Gd Fe O3", units))
        assert reason in message(lambda stated=stated: crystal_from_cif(stated))  # type: ignore[misc]
    diamond = text([3.567] * 3 + [90] * 3, [("C", 0, 0, 0)], number(227), *formula("C", 8))
    assert crystal_from_cif(diamond).num_atoms == 8
    assert crystal_from_cif(text([3.6] * 3 + [90] * 3, [("Cu", 0, 0, 0)], number(225))).num_atoms == 4


def test_a_name_that_leaves_the_origin_open_needs_another_fact() -> None:
    cell, sites = [3.567] * 3 + [90] * 3, [("C", 0.125, 0.125, 0.125)]
    assert "the setting is ambiguous: F d -3 m:1 or F d -3 m:2" in message(
        lambda: crystal_from_cif(text(cell, sites, name("F d -3 m")))
    )
    assert crystal_from_cif(text(cell, sites, name("F d -3 m"), *formula("C", 8))).num_atoms == 8
    assert crystal_from_cif(text(cell, sites, name("F d -3 m"), *formula("C", 16))).num_atoms == 16
    multiplicity = text(cell, sites, name("F d -3 m")).replace(
        "_fract_z\n", "_fract_z\n_atom_site_symmetry_multiplicity\n"
    )
    assert crystal_from_cif(multiplicity.rstrip("\n") + " 8\n").num_atoms == 8


def test_short_monoclinic_names_take_the_unique_axis_that_the_cell_has() -> None:
    sites = [("Zr", 0.27, 0.04, 0.21)]
    for angles, full in (((90, 99, 90), "P 1 21/m 1"), ((90, 90, 99), "P 1 1 21/m"), ((90, 90, 90), "P 1 21/m 1")):
        cell = [5.1, 5.2, 5.3, *angles]
        short, long = (crystal_from_cif(text(cell, sites, name(n))) for n in ("P 21/m", full))
        assert same_atoms(short, long)


def test_no_symmetry_at_all_is_p1() -> None:
    assert crystal_from_cif(text([4] * 3 + [90] * 3, [("Po", 0.3, 0, 0)])).num_atoms == 1


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (name("P q m m"), "unknown space group 'P q m m'"),
        ("loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n-x,y,z\nx,-y,z", "are no group, 4 are needed"),
        ("loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx+1/5,y,z", "cannot be read"),
        ("loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx+y,x+y,z", "no symmetry operation"),
        ("loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx/2,2*y,z", "no symmetry operation"),
        ("_space_group_ssg_name 'P m(0b0)'", "modulated structure"),
    ],
)
def test_symmetry_that_is_none_is_refused(statement: str, reason: str) -> None:
    assert reason in message(lambda: crystal_from_cif(text([4] * 3 + [90] * 3, [("Po", 0, 0, 0)], statement)))


def test_many_operations_are_refused_at_once() -> None:
    listed = "\n".join(f"'x+{k}/30011,y,z'" for k in range(25_000))
    said = message(
        lambda: crystal_from_cif(
            text([4] * 3 + [90] * 3, [("Po", 0, 0, 0)], f"loop_\n_symmetry_equiv_pos_as_xyz\n{listed}")
        )
    )
    assert "25000 symmetry operations: no space group has more than 192" in said


def test_operations_of_a_magnetic_group_are_those_of_the_atoms() -> None:
    listed = (
        "loop_\n_space_group_symop_magn_operation.xyz\nx,y,z,+1\n-x,-y,-z,-1\n"
        "loop_\n_space_group_symop_magn_centering.xyz\nx,y,z,+1\nx+1/2,y+1/2,z+1/2,-1"
    )
    assert crystal_from_cif(text([4] * 3 + [90] * 3, [("Mn", 0.1, 0.2, 0.3)], listed)).num_atoms == 4


def test_sites_that_are_images_of_one_another_are_refused() -> None:
    entry = gemmi.find_spacegroup_by_name("F m -3 m")
    sites = [("Cu", 0, 0, 0), ("Cu", 0.5, 0.5, 0)]
    assert "are one by symmetry" in message(
        lambda: crystal_from_cif(text([3.6] * 3 + [90] * 3, sites, operations(entry)))
    )
