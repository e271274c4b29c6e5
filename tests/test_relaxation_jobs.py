"""Jobs for a cluster: what is written says what was asked for, and what comes back is read in our units and signs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from crystal_files import message
from dpcdvae.cli import main
from dpcdvae.errors import InputError
from dpcdvae.evaluation import read_generated
from dpcdvae.files import write_manifest
from dpcdvae.io import Failure, read, write
from dpcdvae.relaxation.calculators import build_calculator
from dpcdvae.relaxation.dft import espresso_scf
from dpcdvae.relaxation.dft_settings import choose
from dpcdvae.relaxation.from_files import pair_relaxed
from dpcdvae.relaxation.ground_state import ground_state
from dpcdvae.relaxation.jobs import read_jobs, write_jobs
from dpcdvae.relaxation.minimise import Settings, relax
from dpcdvae.relaxation.relaxed_crystal import Relaxed
from dpcdvae.structures.crystal import Crystal
from test_standardise import chiral_crystal, group_of

SETTINGS = Settings("vasp", {"settings": "paper-carbon"}, pressure=10.0, max_force=0.01, max_stress=0.05, max_steps=99)


def diamond(a: float = 3.55, id: str = "C/1") -> Crystal:
    return Crystal.from_ase(bulk("C", "diamond", a), id)


def vectors(name: str, rows: np.ndarray) -> str:
    lines = "".join(f"<v>{' '.join(f'{x:.8f}' for x in row)}</v>" for row in rows)
    return f'<varray name="{name}">{lines}</varray>'


def structure(crystal: Crystal, name: str = "") -> str:
    cell = f'<crystal>{vectors("basis", crystal.lattice)}<i name="volume">{crystal.volume}</i></crystal>'
    label = f' name="{name}"' if name else ""
    return f"<structure{label}>{cell}{vectors('positions', crystal.frac_coords)}</structure>"


def vasprun(steps: list[tuple[Crystal, float, float, np.ndarray]], unsettled: int | None = None) -> str:
    """The parts of a vasprun.xml that describe a relaxation: crystal, energy, force on the first atom, stress in kB.

    At the step ``unsettled`` the self-consistent field did not converge: it took as many rounds as it may.
    """
    text = ""
    for number, (crystal, energy, force, stress) in enumerate(steps):
        forces = np.array([[force, 0, 0], [-force, 0, 0]])
        energies = "".join(f'<i name="{k}">{energy}</i>' for k in ("e_fr_energy", "e_wo_entrp", "e_0_energy"))
        # With PSTRESS the energy of the step holds pV, that of its last electronic step does not.
        total = energies.replace(str(energy), str(energy + 7.0))
        rounds = f"<scstep><energy>{energies}</energy></scstep>" * (60 if number == unsettled else 1)
        text += (
            f"<calculation>{rounds}{structure(crystal)}"
            f"{vectors('forces', forces)}{vectors('stress', stress)}<energy>{total}</energy></calculation>"
        )
    first, last = steps[0][0], steps[-1][0]
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling><generator><i name="program" type="string">vasp</i><i name="version" type="string">6.4.2</i></generator>
<incar><i type="int" name="NSW">99</i><i type="int" name="IBRION">2</i><i name="EDIFFG">-0.01</i></incar>
<kpoints><generation param="Monkhorst-Pack"><v type="int" name="divisions">5 5 5</v>
<v name="usershift">0 0 0</v></generation>
<varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1.0</v></varray></kpoints>
<parameters><separator name="electronic"><i type="int" name="NELM">60</i><i type="int" name="NSW">99</i>
<i type="int" name="IBRION">2</i></separator></parameters>
<atominfo><atoms>2</atoms><types>1</types>
<array name="atoms"><set><rc><c>C</c><c>1</c></rc><rc><c>C</c><c>1</c></rc></set></array>
<array name="atomtypes"><set><rc><c>2</c><c>C</c><c>12.0</c><c>4.0</c><c>PAW_PBE C 08Apr2002</c></rc></set></array>
</atominfo>{structure(first, "initialpos")}{text}{structure(last, "finalpos")}</modeling>"""


def test_the_inputs_of_the_materials_project_are_those_of_its_set(tmp_path: Path) -> None:
    from pymatgen.io.vasp.inputs import Incar, Kpoints
    from pymatgen.io.vasp.sets import MPRelaxSet

    from dpcdvae.relaxation.staged_relaxation import stages_of

    oxide = Crystal.from_ase(bulk("FeO", "rocksalt", 4.3), "FeO")
    settings = stages_of("vasp", settings="materials-project")[0]
    write_jobs([oxide, diamond()], settings, tmp_path / "jobs")
    for folder, crystal, potentials in (("000000-FeO", oxide, "Fe_pv\nO"), ("000001-C_1", diamond(), "C")):
        job, known = tmp_path / "jobs" / folder, MPRelaxSet(crystal.to_pymatgen())
        incar = Incar.from_file(job / "INCAR")
        for tag, value in known.incar.items():
            if tag not in ("NSW", "LWAVE", "LCHARG"):
                assert incar[tag] == value, tag
        assert Kpoints.from_file(job / "KPOINTS").kpts == known.kpoints.kpts
        assert (job / "POTCAR.spec").read_text() == potentials
        assert (job / "POTCAR.functional").read_text() == "PBE\n"
    assert "LDAUU" in (tmp_path / "jobs" / "000000-FeO" / "INCAR").read_text()
    assert read_jobs(tmp_path / "jobs").settings == settings
    with pytest.raises(InputError, match="are input files of VASP"):
        choose("materials-project")  # which every other code calls
    with pytest.raises(InputError, match="are input files of VASP"):
        write_jobs([oxide], replace(settings, options={**settings.options, "cutoff": 400}), tmp_path / "other")


def test_the_potentials_of_a_job_are_joined_in_the_order_of_its_poscar(tmp_path: Path) -> None:
    oxide = Crystal.from_ase(bulk("FeO", "rocksalt", 4.3), "FeO")
    write_jobs([oxide], replace(SETTINGS, options={}), tmp_path / "jobs")
    (tmp_path / "vasp").write_text("#!/bin/sh\ntouch vasprun.xml\necho run >> runs\n")
    (tmp_path / "vasp").chmod(0o755)
    script = Path(__file__).parents[1] / "examples" / "vasp_jobs.sh"
    environment = {**os.environ, "POTENTIALS": str(tmp_path / "potpaw"), "VASP": str(tmp_path / "vasp")}
    call = ["bash", str(script), str(tmp_path / "jobs")]
    job = tmp_path / "jobs" / "000000-FeO"
    spec = (job / "POTCAR.spec").read_text().split()
    for name in spec:
        (tmp_path / "potpaw" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "potpaw" / name / "POTCAR").write_text(f"potential {name}\n")
    assert subprocess.run(call, env=environment).returncode == 0
    assert (job / "POTCAR").read_text() == "".join(f"potential {name}\n" for name in spec)
    (job / "vasprun.xml").write_text("</modeling>")
    assert subprocess.run(call, env=environment).returncode == 0
    assert (job / "runs").read_text() == "run\n"  # what is complete is passed over
    shutil.rmtree(tmp_path / "potpaw" / spec[0])
    (job / "vasprun.xml").unlink()
    failed = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1
    assert f"no potential {spec[0]}" in failed.stderr
    nothing = subprocess.run([*call[:2], str(tmp_path / "potpaw")], env=environment, capture_output=True, text=True)
    assert (nothing.returncode, "no folders of jobs" in nothing.stderr) == (1, True)


def test_vasp_gets_the_settings_of_the_paper_in_its_input_files(tmp_path: Path) -> None:
    write_jobs([diamond(), diamond(3.6, "C/2")], SETTINGS, tmp_path / "jobs")
    job = tmp_path / "jobs" / "000000-C_1"
    assert sorted(path.name for path in job.iterdir()) == [
        "INCAR",
        "KPOINTS",
        "POSCAR",
        "POTCAR.functional",
        "POTCAR.spec",
    ]
    incar = dict(re.findall(r"^(\w+) = (.*)$", (job / "INCAR").read_text(), re.MULTILINE))
    told = {"ENCUT": 800, "EDIFF": 1e-5, "EDIFFG": -0.01, "PSTRESS": 100, "ISIF": 3, "NSW": 99, "ISMEAR": 0, "ISYM": 0}
    assert {key: float(incar[key]) for key in told} == told
    assert not {"MAGMOM", "LDAU", "EDIFF_PER_ATOM", "KSPACING"} & incar.keys()
    assert (job / "KPOINTS").read_text().splitlines()[2:4] == ["Monkhorst", "5 5 5"]
    assert (job / "POTCAR.spec").read_text() == "C"
    assert (job / "POTCAR.functional").read_text() == "PBE_54\n"
    assert np.allclose(read(job / "POSCAR")[0].lattice, diamond().lattice)


def test_what_vasp_answers_is_read_in_our_units_and_signs(tmp_path: Path) -> None:
    crystals = [diamond(3.55 + 0.01 * k, f"c{k}") for k in range(4)]
    folder = write_jobs(crystals, SETTINGS, tmp_path / "jobs")
    final = diamond(3.545)
    push = np.diag([100.2, 99.9, 100.0])  # kB, VASP's sign: it pushes
    (folder / "000000-c0" / "vasprun.xml").write_text(
        vasprun([(crystals[0], -18.0, 0.5, np.eye(3) * 130), (final, -18.2, 0.001, push)])
    )
    (folder / "000001-c1" / "vasprun.xml").write_text(
        vasprun([(crystals[1], -18.0, 0.5, np.eye(3) * 130), (final, -18.1, 0.2, push)])
    )
    (folder / "000002-c2" / "vasprun.xml").write_text(vasprun([(crystals[2], -18.0, 0.5, push)])[:900])
    done, unfinished, cut, absent = read_jobs(folder).results
    assert done.converged
    assert (done.initial_energy, done.energy, done.steps) == pytest.approx((-9.0, -9.1, 1))
    assert done.volume == pytest.approx(3.545**3 / 8)
    assert done.stress == pytest.approx([-10.02, -9.99, -10.0, 0, 0, 0])
    assert (done.max_force, done.max_stress) == pytest.approx((0.001, 0.02))
    assert not unfinished.converged
    assert unfinished.reason == "not converged (force 0.2 eV/Å, stress 0.02 GPa)"
    assert cut.reason.startswith("vasprun.xml is not complete (")
    assert absent.reason == "no vasprun.xml (in 000003-c3)"


def test_outputs_that_are_not_of_the_crystal_as_it_was_written(tmp_path: Path) -> None:
    """Of other elements: nothing. Gone on from where a job had ended: no initial energy, which is not in there."""
    folder = write_jobs([diamond(id="other"), diamond(id="further")], SETTINGS, tmp_path / "jobs")
    rest = np.eye(3) * 100
    text = vasprun([(diamond(), -18.0, 0.0, rest), (diamond(), -18.0, 0.0, rest)])
    (folder / "000000-other" / "vasprun.xml").write_text(text.replace("<c>C</c>", "<c>Si</c>"))
    begun = vasprun([(diamond(3.546), -18.0, 0.0, rest), (diamond(3.545), -18.2, 0.0, rest)])
    (folder / "000001-further" / "vasprun.xml").write_text(begun)
    other, further = read_jobs(folder).results
    assert other.reason == "vasprun.xml is of another crystal (Si)"
    assert (further.converged, further.energy) == (True, pytest.approx(-9.1))
    assert np.isnan(further.initial_energy)


def test_the_energy_of_a_field_that_did_not_converge_is_unknown(tmp_path: Path) -> None:
    folder = write_jobs([diamond(id="first"), diamond(id="last")], SETTINGS, tmp_path / "jobs")
    steps = [(diamond(), -3.0, 0.5, np.eye(3) * 130), (diamond(3.545), -18.2, 0.001, np.eye(3) * 100)]
    for name, step in (("000000-first", 0), ("000001-last", 1)):
        (folder / name / "vasprun.xml").write_text(vasprun(steps, unsettled=step))
    first, last = read_jobs(folder).results
    assert (first.converged, first.energy) == (True, pytest.approx(-9.1))
    assert np.isnan(first.initial_energy)
    assert first.initial_reason == last.reason == "the self-consistent field did not converge"
    assert np.isnan(last.energy)
    assert not last.converged
    assert Relaxed.from_record(first.to_record(), first.initial).initial_reason == first.initial_reason
    older = {key: value for key, value in last.to_record().items() if key != "initial_reason"}
    assert Relaxed.from_record(older, last.initial).initial_reason == ""
    report = ground_state([first, last])
    assert report.rows[0].delta_energy is None
    assert report.rows[0].delta_volume is not None
    assert report.unknown_energies == [("the self-consistent field did not converge", 1)]
    (again,) = pair_relaxed([replace(first.initial, properties={"energy": -1.0})], [first.to_crystal()], 10.0)
    assert np.isnan(again.initial_energy), "that of another calculator"


QE_STEP = """
     Self-consistent Calculation
     convergence {word} achieved after  9 iterations
"""


def test_quantum_espresso_says_which_fields_converged(tmp_path: Path) -> None:
    output = tmp_path / "espresso.pwo"
    output.write_text(QE_STEP.format(word="NOT") + QE_STEP.format(word="has been"))
    assert espresso_scf(output) == [False, True]
    assert espresso_scf(tmp_path / "absent") == []


def test_what_a_code_has_no_potential_for_is_counted_and_the_rest_becomes_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Potentials are those that exist in their set; the spec names them in the order of POSCAR."""
    many = [
        Crystal.from_ase(bulk("Po", "sc", a=3.35), "po"),
        Crystal.from_ase(bulk("W"), "w"),
        Crystal(np.array([97]), np.zeros((1, 3)), 4 * np.eye(3), "bk"),
        Crystal(np.array([9, 88, 9]), np.array([[0.25] * 3, [0] * 3, [0.75] * 3]), 4.5 * np.eye(3), "raf2"),
        Crystal.from_ase(bulk("Yb"), "yb"),
    ]
    write(many, tmp_path / "c.extxyz")
    folder = tmp_path / "jobs"
    how = ["--calculator", "vasp", "--settings", "screening", "--write-jobs", str(folder)]
    assert main(["relax", str(tmp_path / "c.extxyz"), *how]) == 0
    said = capsys.readouterr()
    assert said.out == f"{folder}: 4 jobs, 1 crystals without one\n"
    assert said.err == "no job: bk (write-jobs: there is no potential for Bk)\n"
    specs = {path.parent.name[7:]: path.read_text() for path in folder.glob("*/POTCAR.spec")}
    assert specs == {"po": "Po_d", "w": "W_sv", "raf2": "Ra_sv\nF", "yb": "Yb_3"}
    jobs = read_jobs(folder)
    assert [result.initial.id for result in jobs.results] == ["po", "w", "raf2", "yb"]
    assert jobs.failures == [Failure("bk", "write-jobs", "there is no potential for Bk")]
    assert "none of 1 crystals can become a job: there is no potential for Bk" in message(
        lambda: write_jobs([many[2]], SETTINGS, tmp_path / "none")
    )
    assert not (tmp_path / "none").exists()


def test_every_potential_is_in_its_set() -> None:
    import bz2
    from importlib.resources import files

    from pymatgen.io.vasp.sets import MPScanRelaxSet

    content = files("pymatgen.io.vasp").joinpath("potcar-summary-stats.json.bz2").read_bytes()
    known = json.loads(bz2.decompress(content))[MPScanRelaxSet.CONFIG["POTCAR_FUNCTIONAL"]]
    symbols = {entry["symbol"] for entries in known.values() for entry in entries}
    assert set(MPScanRelaxSet.CONFIG["POTCAR"].values()) <= symbols


def test_no_code_gets_the_mirror_image(tmp_path: Path) -> None:
    pseudo = tmp_path / "pseudo"
    pseudo.mkdir()
    for symbol in ("Si", "O"):
        (pseudo / f"{symbol}.pbe-n-kjpaw_psl.1.0.0.UPF").write_text("<UPF/>")
    many = [chiral_crystal(group, np.eye(3), str(group)) for group in (76, 152, 154, 213)]
    espresso = Settings("espresso", {"pseudo_dir": str(pseudo)})
    for settings, name in ((SETTINGS, "POSCAR"), (espresso, "espresso.pwi")):
        folder = write_jobs(many, settings, tmp_path / settings.calculator)
        for crystal, job in zip(many, sorted(path for path in folder.iterdir() if path.is_dir()), strict=True):
            written = Crystal.from_ase(ase.io.read(job / name))  # type: ignore[arg-type]
            assert np.linalg.det(written.lattice) > 0
            assert group_of(written) == int(crystal.id)


HUGE = "9" * 5000


OTHERS = ({"calculator": ["vasp"]}, {"calculator": "vasp", "pressure": "x"}, {"calculator": "vasp", "colour": 1})
CHANGES: dict[str, list[Any]] = {
    "folders": [["../elsewhere"], ["/etc"], [".."], ["000000-a/../../b"], [3], "000000-C_1"],
    "failures": [["x"], [{"id": 1}]],
    "part": [2],
    "settings": [*OTHERS, "HUGE", "DEEP", []],
    "more": [1],
}


@pytest.mark.parametrize("change", [{name: value} for name in CHANGES for value in CHANGES[name]], ids=str)
def test_a_list_of_jobs_of_another_kind_is_refused_in_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    folder = write_jobs([diamond()], SETTINGS, tmp_path / "jobs")
    text = json.dumps({**json.loads((folder / "jobs.json").read_text()), **change})
    text = text.replace('"HUGE"', f'{{"calculator": "vasp", "max_steps": {HUGE}}}')
    (folder / "jobs.json").write_text(text.replace('"DEEP"', "[" * 10**5 + "]" * 10**5))
    assert message(lambda: read_jobs(folder)).startswith(f"{folder} is no folder of jobs (")


def test_quantum_espresso_gets_the_settings_of_the_paper(tmp_path: Path) -> None:
    pseudo = tmp_path / "pseudo"
    pseudo.mkdir()
    (pseudo / "C.pbe-n-kjpaw_psl.1.0.0.UPF").write_text("<UPF/>")
    options = {"pseudo_dir": str(pseudo), "kpoints": [3, 3, 4], "cutoff": 500.0}
    settings = Settings("espresso", options, pressure=10.0, max_force=0.02, max_stress=0.1)
    folder = write_jobs([diamond()], settings, tmp_path / "jobs")
    text = (folder / "000000-C_1" / "espresso.pwi").read_text()
    values = dict(re.findall(r"^ *(\w+) *= *(\S+)", text, re.MULTILINE))
    assert values["calculation"] == "'vc-relax'"
    assert float(values["press"]) == 100
    assert float(values["press_conv_thr"]) == pytest.approx(1.0)
    assert float(values["ecutwfc"]) * 13.605693 == pytest.approx(500)
    assert float(values["forc_conv_thr"]) * 25.711043 == pytest.approx(0.02)  # eV/Å in 1 Ry/Bohr
    assert re.search(r"K_POINTS automatic\n3 3 4 +0 0 1", text)
    assert read_jobs(folder).results[0].reason == "no espresso.pwo (in 000000-C_1)"


@pytest.mark.slow
def test_quantum_espresso_reaches_the_same_minimum_as_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job and a relaxation by ASE's optimizer end in the same minimum."""
    if "DPCDVAE_TEST_DFT" not in os.environ or shutil.which("pw.x") is None:
        pytest.skip("takes minutes: set DPCDVAE_TEST_DFT=1, with pw.x on the PATH")
    monkeypatch.setenv("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo")
    settings = Settings("espresso", {"settings": "screening"}, pressure=10.0, optimizer="lbfgs", max_steps=30)
    atoms = bulk("C", "diamond", 3.55)
    atoms.rattle(0.02, seed=1)
    crystal = Crystal.from_ase(atoms, "c")
    folder = write_jobs([crystal], settings, tmp_path / "jobs") / "000000-c"
    with (folder / "espresso.pwo").open("w") as output:
        subprocess.run(["pw.x", "-in", "espresso.pwi"], cwd=folder, stdout=output, check=True)
    (job,) = read_jobs(tmp_path / "jobs").results
    live = relax(crystal, settings, build_calculator("espresso", settings.options))
    for result in (job, live):
        assert result.converged, result.reason
    assert job.volume == pytest.approx(live.volume, rel=2e-3)
    assert job.enthalpy == pytest.approx(live.enthalpy, abs=1e-3)
    assert job.initial_energy == pytest.approx(live.initial_energy, abs=1e-3)


def test_the_command_line_writes_and_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, jobs, out = (str(tmp_path / name) for name in ("c.extxyz", "jobs", "r.extxyz"))
    write([diamond(id="c0"), diamond(3.6, "c1")], source)
    how = ["--calculator", "vasp", "--settings", "paper-carbon", "--fmax", "0.01"]
    assert main(["relax", source, *how, "--write-jobs", jobs]) == 0
    beside = ["--calculator", "vasp", "--pressure", "0", "--retry"]
    assert main(["relax", "--read-jobs", jobs, "--out", out, *beside]) == 2
    assert "relaxes nothing here: leave out --calculator, --pressure, --retry" in capsys.readouterr().err
    assert main(["relax", "--read-jobs", jobs, "--out", out]) == 2
    assert "none of 2 crystals could be relaxed: no vasprun.xml" in capsys.readouterr().err
    run = vasprun([(diamond(), -18.0, 0.5, np.eye(3) * 130), (diamond(3.545), -18.2, 0.001, np.eye(3) * 100)])
    (tmp_path / "jobs" / "000000-c0" / "vasprun.xml").write_text(run)
    assert main(["relax", "--read-jobs", jobs, "--out", out, "--workers", "0"]) == 0
    (relaxed,) = read(out)
    assert relaxed.id == "c0"
    assert relaxed.properties["energy_eV_per_atom"] == pytest.approx(-9.1)
    manifest = json.loads((tmp_path / "r.extxyz.manifest.json").read_text())
    assert manifest["arguments"]["calculator"] == "vasp"
    assert [failure["id"] for failure in manifest["failures"]] == ["c1"]


def test_crystals_that_were_no_jobs_are_counted_with_those_that_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, jobs, out = tmp_path / "c.extxyz", tmp_path / "jobs", tmp_path / "r.extxyz"
    how = ["--calculator", "vasp", "--settings", "paper-carbon"]
    (tmp_path / "bad.cif").write_text("data_bad\n_cell_length_a 3.0\n")
    assert main(["relax", str(tmp_path / "bad.cif"), *how, "--write-jobs", str(jobs)]) == 2
    error = capsys.readouterr().err
    assert "bad.cif" in error
    assert error.count("\n") == 1
    write([diamond(id="c0")], source)
    write_manifest(source, "generate", {"limit": 2}, crystals=1, failures=[{"id": "c1", "reason": "no cell"}])
    assert main(["relax", str(source), *how, "--write-jobs", str(jobs)]) == 0
    run = vasprun([(diamond(), -18.0, 0.5, np.eye(3) * 130), (diamond(3.545), -18.2, 0.0, np.eye(3) * 100)])
    (jobs / "000000-c0" / "vasprun.xml").write_text(run)
    assert main(["relax", "--read-jobs", str(jobs), "--out", str(out), "--workers", "0"]) == 0
    assert read_generated(out).failures == [Failure("c1", "generate", "no cell")]
    assert read_generated(out).part


def test_a_folder_of_jobs_is_not_written_into_and_not_read_when_it_was_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_jobs([diamond(), diamond(3.6, "b")], SETTINGS, tmp_path / "jobs")
    for name in ("crystals.json", "jobs.json", "new.extxyz"):
        assert main(["relax", "--read-jobs", str(folder), "--out", str(folder / name), "--overwrite"]) == 2
        assert "would lie among" in capsys.readouterr().err
    description = json.loads((folder / "jobs.json").read_text())
    for change, text in (
        ({"folders": description["folders"][:1]}, "lists 1 jobs and holds 2 crystals"),
        ({"folders": None}, "is no folder of jobs"),
        ({"settings": {}}, "is no folder of jobs"),
    ):
        (folder / "jobs.json").write_text(json.dumps({**description, **change}))
        assert text in message(lambda: read_jobs(folder))


def test_bad_requests_are_one_line(tmp_path: Path) -> None:
    assert "unknown code with jobs 'chgnet'" in message(lambda: write_jobs([diamond()], Settings(), tmp_path / "jobs"))
    wrong = Settings("vasp", {"cutof": 500})
    assert "did you mean 'cutoff'?" in message(lambda: write_jobs([diamond()], wrong, tmp_path / "jobs"))
    assert not (tmp_path / "jobs").exists()
    assert "no crystals to write jobs for" in message(lambda: write_jobs([], SETTINGS, tmp_path / "jobs"))
    assert "is no folder of jobs" in message(lambda: read_jobs(tmp_path))
    assert "exists: give another name" in message(lambda: write_jobs([diamond()], SETTINGS, tmp_path))
