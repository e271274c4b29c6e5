"""What a CIF says of its atoms: occupancies, formula, symbols; each contradiction is a failure or is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.spacegroup import crystal as ase_crystal
from pymatgen.core import Lattice, Structure

from crystal_files import message
from dpcdvae.errors import InputError
from dpcdvae.io import crystal_from_cif, read
from dpcdvae.structures.crystal import Crystal

SYMMETRY = {
    "P1": ["_symmetry_space_group_name_H-M 'P 1'"],
    "I m -3 m": ["_symmetry_space_group_name_H-M 'I m -3 m'"],
}


def text(sites: list[str], *more: str, columns: tuple[str, ...] = ("occupancy",), a: float = 4.2) -> str:
    """A cubic CIF; each site is a line of label, symbol, three coordinates and the further columns."""
    lines = ["data_x", *(f"_cell_length_{axis} {a}" for axis in "abc")]
    lines += [f"_cell_angle_{angle} 90" for angle in ("alpha", "beta", "gamma")]
    lines += [*more, "loop_", *(f"_atom_site_{c}" for c in ("label", "type_symbol", "fract_x", "fract_y", "fract_z"))]
    return "\n".join([*lines, *(f"_atom_site_{column}" for column in columns), *sites, ""])


@pytest.mark.parametrize("symmetry", SYMMETRY.values(), ids=SYMMETRY)
class TestOccupancies:
    """The same rule with and without symmetry."""

    def test_one_element_in_two_states_is_one_atom(self, symmetry: list[str]) -> None:
        for amounts in (("0.5", "0.5"), ("0.25", "0.75"), ("0.3333", "0.6667"), ("0.3(1)", "0.7(1)")):
            sites = [f"M{k} Mn{2 + k}+ 0 0 0 {amount}" for k, amount in enumerate(amounts)]
            assert set(crystal_from_cif(text(sites, *symmetry)).symbols) == {"Mn"}

    @pytest.mark.parametrize("amount", ["1.0", "0.9991", "1.0009", "1.000(2)", ".", "?"])
    def test_within_a_thousandth_of_one_is_one(self, symmetry: list[str], amount: str) -> None:
        sites = [f"Cs1 Cs 0 0 0 {amount}"]
        assert set(crystal_from_cif(text(sites, *symmetry)).symbols) == {"Cs"}

    def test_an_occupancy_of_zero_is_no_atom_and_gets_a_note(self, symmetry: list[str]) -> None:
        told: list[str] = []
        crystal = crystal_from_cif(text(["W1 W 0 0 0 1", "Ar1 Ar 0.25 0.25 0.25 0.0"], *symmetry), note=told.append)
        assert set(crystal.symbols) == {"W"}
        assert told == ["atoms of occupancy 0 are left out"]

    @pytest.mark.parametrize(
        ("sites", "reason"),
        [
            (["W1 W 0 0 0 0.5"], "partial occupancies"),
            (["W1 W 0 0 0 0.5", "Mo1 Mo 0 0 0 0.5"], "partial occupancies"),
            (["W1 W 0 0 0 0.5", "W2 W 0.1 0 0 0.5"], "partial occupancies"),
            (["W1 W 0 0 0 -0.5"], "must lie between 0 and 1"),
            (["W1 W 0 0 0 1", "Mo1 Mo 0.25 0.25 0.25 -1"], "must lie between 0 and 1"),
            (["W1 W 0 0 0 1.2"], "more than one atom"),
            (["W1 W 0 0 0 0.7", "W2 W 0 0 0 0.7"], "more than one atom"),
            (["W1 W 0 0 0 nan"], "must lie between 0 and 1"),
        ],
    )
    def test_everything_else_is_refused(self, symmetry: list[str], sites: list[str], reason: str) -> None:
        assert reason in message(lambda: crystal_from_cif(text(sites, *symmetry)))


def test_occupancies_of_pymatgen_and_ase_follow_the_same_rule() -> None:
    lattice = Lattice.cubic(4.2)
    mixed = Structure(lattice, [{"Fe2+": 0.5, "Fe3+": 0.5}, "O2-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert Crystal.from_pymatgen(mixed).symbols == ["Fe", "O"]
    with pytest.raises(InputError, match="partial occupancies"):
        Crystal.from_pymatgen(Structure(lattice, [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]]))
    with pytest.raises(InputError, match="partial occupancies"):
        Crystal.from_ase(
            ase_crystal(["Fe"], [(0, 0, 0)], spacegroup=229, cellpar=[2.9] * 3 + [90] * 3, occupancies=[0.5])
        )
    with pytest.raises(InputError, match="periodic"):
        Crystal.from_ase(Atoms("Fe", cell=np.eye(3), pbc=(True, True, False)))


SALT = ["Ca1 Ca 0 0 0", "O1 O 0.5 0.5 0.5"]


@pytest.mark.parametrize("formula", ["Ca O", "'Ca O'", "'Ca4 O4'", "CaO", "?", "'Ca1. O1.'", "'CAO'", "'Ca (O)2'"])
def test_a_formula_that_agrees_or_cannot_be_read(formula: str) -> None:
    formula = formula if formula[0] in "'?" else f"'{formula}'"
    assert crystal_from_cif(text(SALT, f"_chemical_formula_sum {formula}", columns=())).formula == "CaO"


@pytest.mark.parametrize("formula", ["Ca H2 O2", "Ca O2", "Ca", "Mg O", "Ca O H0.01"])
def test_a_formula_that_disagrees_is_a_failure(formula: str) -> None:
    said = message(lambda: crystal_from_cif(text(SALT, f"_chemical_formula_sum '{formula}'", columns=())))
    assert said == f"the formula says {formula}, but the sites give O1 Ca1"


def test_hydrogens_without_coordinates_are_a_failure() -> None:
    for column, last in (("attached_hydrogens", "2"), ("attached_hydrogens", "1")):
        sites = [f"{SALT[0]} 0", f"{SALT[1]} {last}"]
        assert "attached hydrogens" in message(lambda s=sites, c=column: crystal_from_cif(text(s, columns=(c,))))  # type: ignore[misc]
    assert crystal_from_cif(text([f"{s} 0" for s in SALT], columns=("attached_hydrogens",))).num_atoms == 2


def test_symbols_in_any_case_and_labels_alone() -> None:
    for symbol in ("FE", "fe", "Fe", "FE3+", "Fe+3", "Fe0"):
        assert crystal_from_cif(text([f"X1 {symbol} 0 0 0"], columns=())).symbols == ["Fe"]
    for label, symbol in (("Fe1", "Fe"), ("O12A", "O"), ("Ow", "O"), ("OW1", "O"), ("NA+", None), ("CO1", None)):
        cif = text([f"{label} 0 0 0"], columns=()).replace("_atom_site_type_symbol\n", "")
        if symbol:
            assert crystal_from_cif(cif).symbols == [symbol]
        else:
            assert "add _atom_site_type_symbol" in message(lambda cif=cif: crystal_from_cif(cif))  # type: ignore[misc]
    known = text(["CO1 0 0 0"], "_chemical_formula_sum 'Co'", columns=()).replace("_atom_site_type_symbol\n", "")
    assert crystal_from_cif(known).symbols == ["Co"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "cp1252"])
def test_names_in_any_usual_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_bytes(text(SALT, "_publ_author_name 'Pérez, Å.'", columns=()).encode(encoding))
    assert read(tmp_path / "a.cif")[0].formula == "CaO"


def test_line_ends_of_every_system_and_tags_in_capitals_or_with_dots(tmp_path: Path) -> None:
    cif = text(SALT, columns=())
    for changed in (
        cif.replace("\n", "\r\n"),
        cif.replace("\n", "\r"),
        cif.replace("_cell_", "_CELL_"),
        cif.replace("_atom_site_", "_atom_site."),
        cif.replace("data_x", "DATA_x"),
    ):
        (tmp_path / "a.cif").write_bytes(changed.encode())
        assert read(tmp_path / "a.cif")[0].formula == "CaO"


def test_one_bad_block_is_one_failure(tmp_path: Path) -> None:
    good = text(SALT, columns=())
    bad = {"data_syntax": good.replace("O1 O 0.5", "O1 'O 0.5"), "data_atoms": good.replace("Ca1 Ca", "Q1 Qq")}
    blocks = [good, *(block.replace("data_x", name) for name, block in bad.items()), good.replace("data_x", "data_y")]
    (tmp_path / "a.cif").write_text("".join(blocks))
    failures: list = []
    assert [c.id for c in read(tmp_path / "a.cif", failures)] == ["x", "y"]
    assert [f.id for f in failures] == ["syntax", "atoms"]


def test_what_is_left_out_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = ["Ca1 Ca 0 0 0 1", "O1 O 0.5 0.5 0.5 1", "Xe1 Xe 0.25 0.25 0.25 0"]
    (tmp_path / "a.cif").write_text("".join(text(sites).replace("data_x", f"data_{k}") for k in range(3)))
    assert [c.formula for c in read(tmp_path / "a.cif")] == ["CaO"] * 3
    said = capsys.readouterr().err
    assert said == f"note: {tmp_path / 'a.cif'} block 1 (data_0): atoms of occupancy 0 are left out (3 times)\n"


@pytest.mark.parametrize("column", [("1.0", "0", "1.0"), ("0.0",), ("1",), ("1", "1", "1", "1", "0.5")])
def test_a_column_of_occupancies_that_does_not_fit_the_sites_is_a_failure(column: tuple[str, ...]) -> None:
    sites = [f"Cu{k} Cu {k / 4} 0 0" for k in range(4)]
    content = text(sites, "loop_", "_atom_site_occupancy", *column, columns=(), a=12.0)
    with pytest.raises(InputError, match=f"4 sites, but {len(column)} occupancies"):
        crystal_from_cif(content)


def test_a_loop_is_read_whatever_its_first_column_is() -> None:
    operations = ["x,y,z", "-x,-y,z", "-x,y,-z", "x,-y,-z"]
    listed = [f"{k} '{operation}'" for k, operation in enumerate(operations)]
    plain = ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{operation}'" for operation in operations)]
    foreign = ["loop_", "_xtal_op_id", "_symmetry_equiv_pos_as_xyz", *listed]
    found = [crystal_from_cif(text(["Cu1 Cu 0.1 0.2 0.3"], *more, columns=())) for more in (plain, foreign)]
    assert [crystal.num_atoms for crystal in found] == [4, 4]
    np.testing.assert_array_equal(found[0].frac_coords, found[1].frac_coords)


def test_an_underscore_makes_no_number() -> None:
    with pytest.raises(InputError, match="'1_0' is not a number"):
        crystal_from_cif(text(["Cu1 Cu 1_0 0 0"], columns=()))


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (("gap", "energy"), ("1.5",), "2 _dpcdvae_property_name, but 1 _dpcdvae_property_value"),
        (("gap",), ("1.5", "2"), "1 _dpcdvae_property_name, but 2 _dpcdvae_property_value"),
        (("gap",), (), "1 _dpcdvae_property_name, but 0 _dpcdvae_property_value"),
        (("gap", "gap"), ("1.5", "1.5"), "'gap' stands twice"),
        (("gap",), ("1_0",), "_dpcdvae_property_value '1_0' is not a number"),
    ],
)
def test_properties_of_a_cif_without_a_name_or_a_value_are_a_failure(
    names: tuple[str, ...], values: tuple[str, ...], message: str
) -> None:
    columns = {"_dpcdvae_property_name": names, "_dpcdvae_property_value": values}
    loops = [line for tag, column in columns.items() if column for line in ("loop_", tag, *column)]
    with pytest.raises(InputError, match=message):
        crystal_from_cif(text(["Cu1 Cu 0.1 0.2 0.3"], *loops, columns=()))
