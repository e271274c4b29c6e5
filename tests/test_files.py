"""What the file system and files of others may hold against us is one line, and nothing that was done is lost by it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from crystal_files import message
from dpcdvae import files
from dpcdvae.cli import main
from dpcdvae.cli.exit_codes import run
from dpcdvae.errors import InputError
from dpcdvae.evaluation import read_generated
from dpcdvae.evaluation.phase_files import calculator_of
from dpcdvae.files import LONGEST_NAME, atomic_output, check_output, home, read_toml, sha256, write_text
from dpcdvae.io import write
from dpcdvae.structures.crystal import Crystal

DEEP = "[" * 100_000 + "]" * 100_000
HUGE = "9" * 5000
CARBON = Crystal(np.array([6]), np.zeros((1, 3)), 3.0 * np.eye(3), "a")


@pytest.mark.parametrize("text", [f"a = {DEEP}", f"a = {HUGE}", "a = ", "\0", "\ud800"], ids=str.__len__)
def test_a_file_that_is_no_toml_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    assert message(lambda: read_toml(path, "preset")).startswith(f"preset {path} is not TOML: ")


def test_without_a_home_folder_another_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DPCDVAE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert "set DPCDVAE_HOME to a folder" in message(home)
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path))
    assert home() == tmp_path


def test_a_folder_has_a_hash_whatever_is_unreadable_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    whole, read = sha256(tmp_path), Path.open

    def refuse(path: Path, *arguments: str) -> object:
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    assert sha256(tmp_path) != whole
    assert sha256(tmp_path) == sha256(tmp_path)


def raises(error: Exception) -> Callable[[], None]:
    def command() -> None:
        """Meets an error."""
        raise error

    return command


def test_an_error_of_the_file_system_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.command()(raises(PermissionError(13, "Permission denied", "/locked/\x1b[31mx")))
    assert run(app, []) == 2
    assert capsys.readouterr().err == "dpcdvae: error: cannot use /locked/ [31mx: Permission denied\n"
    bug = typer.Typer()
    bug.command()(raises(OSError("of a library")))
    with pytest.raises(OSError, match="of a library"):
        run(bug, [])


@pytest.mark.parametrize("count", [0, 3, 200])
def test_an_output_is_flushed_before_it_has_its_name(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file all its bytes, of a folder all its files; and the new name in the folder that it lies in."""
    happened: list[int | str] = []
    monkeypatch.setattr("os.fsync", lambda stream: happened.append(os.fstat(stream).st_ino))
    monkeypatch.setattr("os.sync", lambda: happened.append("all"))
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda *names: (happened.append("renamed"), replace(*names)))
    output = tmp_path / "new" / "out"
    with atomic_output(output) as temporary:
        if count:
            (temporary / "inner").mkdir(parents=True)
            for k in range(count):
                (temporary / "inner" / f"{k}").write_text("x")
        else:
            temporary.write_text("x")
    before, after = happened[: happened.index("renamed")], happened[happened.index("renamed") + 1 :]
    assert after == [output.parent.stat().st_ino]
    parts = {path.stat().st_ino for path in (output, *output.rglob("*"))}
    assert before == ["all"] if count > 100 else set(before) == parts


def test_a_folder_that_cannot_be_flushed_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = errno.EINVAL

    def refuse(stream: int) -> None:
        raise OSError(reason, "as it says")

    monkeypatch.setattr("os.fsync", refuse)
    write_text(tmp_path / "a", "x")
    reason = errno.EIO
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / "b", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("option", ["--work", "--out", "--ranked"])
def test_a_name_that_is_too_long_is_one_line(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write([CARBON], tmp_path / "c.extxyz")
    places = {"--out": str(tmp_path / "r.extxyz"), option: str(tmp_path / ("x" * 300 + ".extxyz"))}
    arguments = [word for pair in places.items() for word in pair]
    how = ["--calculator", "ase.calculators.emt:EMT", "--workers", "0"]
    assert main(["relax", str(tmp_path / "c.extxyz"), *how, *arguments]) == 2
    error = capsys.readouterr().err
    assert "too long" in error
    assert error.count("\n") == 1


MANIFEST = {"command": "generate", "crystals": 1, "arguments": {}, "failures": [{"id": "x", "reason": "no cell"}]}


OTHER_TYPES: dict[str, list[object]] = {
    "failures": [["x"], [None], {}],
    "arguments": [[], None],
    "crystals": ["1"],
    "command": [3],
    "part": ["yes"],
    "model_sha256": [[]],
}
OTHER_MANIFESTS = [json.dumps({**MANIFEST, name: value}) for name, values in OTHER_TYPES.items() for value in values]
OTHER_MANIFESTS += [json.dumps(MANIFEST).replace("{}", value) for value in (f'{{"seed": {HUGE}}}', f'{{"a": {DEEP}}}')]


@pytest.mark.parametrize("text", [*OTHER_MANIFESTS, "[]", "3", "", "\x00"], ids=lambda text: text[-60:])
def test_a_manifest_of_another_kind_is_passed_over(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In silence where it is no more than the name that agrees."""
    source = tmp_path / "g.extxyz"
    write([CARBON], source)
    (tmp_path / "g.extxyz.manifest.json").write_text(text)
    assert read_generated(source).failures == []
    assert capsys.readouterr().err.count("passed over") == (text not in ("[]", "3"))
    assert calculator_of(source) == ""


def test_manifests_are_of_files_whose_names_differ_in_spaces_alone(tmp_path: Path) -> None:
    names = ("a b.extxyz", "a  b.extxyz", "a  z.extxyz", "c\td.extxyz", "in  it/x.extxyz")
    for count, name in enumerate(names, 1):
        atoms = [Crystal(np.array([6 + count]), np.zeros((1, 3)), (3.0 + k) * np.eye(3), "a") for k in range(count)]
        path = write(atoms, tmp_path / name)
        manifest = {**MANIFEST, "crystals": count, "failures": [{"id": name, "reason": "no cell"}]}
        path.with_name(f"{path.name}.manifest.json").write_text(json.dumps(manifest))
    generated = read_generated(tmp_path)
    assert len(generated.crystals) == 1 + 2 + 3 + 4 + 5
    assert {failure.id for failure in generated.failures} == {" ".join(name.split()) for name in names}
    assert len(generated.failures) == len(names)


def test_shards_of_one_run_may_be_made_on_different_devices(tmp_path: Path) -> None:
    for k, device in ((1, "cpu"), (2, "cuda")):
        path = write([Crystal(np.array([6]), np.zeros((1, 3)), (2.0 + k) * np.eye(3), "a")], tmp_path / f"{k}.extxyz")
        arguments = {"shard": f"{k}/2", "seed": 0, "device": device, "workers": k}
        manifest = {**MANIFEST, "arguments": arguments}
        path.with_name(f"{path.name}.manifest.json").write_text(json.dumps(manifest))
    assert not read_generated(tmp_path).part
    (tmp_path / "1.extxyz.manifest.json").write_text(
        json.dumps({**MANIFEST, "arguments": {"shard": "1/2", "seed": 1, "device": "cpu"}})
    )
    assert read_generated(tmp_path).part


@pytest.mark.parametrize("count", ["999999999", "9" * 400])
def test_the_number_of_shards_is_only_a_claim(count: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "g.extxyz"
    write([CARBON], source)
    manifest = {**MANIFEST, "arguments": {"shard": f"2/{count}"}, "failures": [{"id": "\x1b[2J", "reason": "\x07bad"}]}
    (tmp_path / "g.extxyz.manifest.json").write_text(json.dumps(manifest))
    (failure,) = read_generated(tmp_path).failures
    assert (failure.id, failure.reason) == ("[2J", "bad")
    said = capsys.readouterr().err
    assert ("missing 1, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 999999988 more of 999999999" in said) == (len(count) < 10)


def test_no_cell_is_a_formula() -> None:
    from dpcdvae.io.tables import guarded

    assert [guarded(text) for text in ("=cmd|' /C calc'!A0", "+1", "@x", "-a", "mp-1")] == [
        "'=cmd|' /C calc'!A0",
        "'+1",
        "'@x",
        "'-a",
        "mp-1",
    ]


def test_a_pipe_has_no_hash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a pipe or a device, not a file"):
        sha256(tmp_path / "pipe")


@pytest.mark.parametrize("out", [".", "/", ".."])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_an_output_without_a_name_of_its_own_is_one_line(
    out: str, overwrite: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "perov-5-compact", "-n", "1", "--out", out, *overwrite]) == 2
    assert "it has no name of its own" in capsys.readouterr().err


def test_what_fails_leaves_no_folder_that_was_made_for_it(tmp_path: Path) -> None:
    def fails(output: Path) -> None:
        with atomic_output(output) as temporary:
            temporary.mkdir()
            (temporary / "part").write_text("x")
            raise ZeroDivisionError

    (tmp_path / "there").mkdir()
    for output in (tmp_path / "there" / "a" / "b" / "c.json", tmp_path / "a" / "folder"):
        with pytest.raises(ZeroDivisionError):
            fails(output)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder in which nothing can be written, to root either")
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "perov-5-compact", "--out", "/proc/x/o.extxyz"],
        ["train", "prototypes", "--out", "/proc/x/y"],
        ["train", "prototypes", "--out", "/proc/x"],
        ["demo", "--out", "/proc/x"],
        ["export", "perov-5-compact", "--out", "/proc/x"],
        ["benchmark", "suite.toml", "--out", "/proc/x"],
        ["phases", "--chemical-system", "Ti-O", "--out", "/proc/x.json"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_place_where_nothing_can_be_written_is_refused_before_any_work(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("dpcdvae: error: cannot write /proc/x"), said
    assert "nothing can be written in /proc" in said


@pytest.mark.parametrize(("option", "value"), [("--seed", str(2**64)), ("-n", "1000000000000")])
def test_numbers_beyond_what_can_be_counted_are_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "perov-5-compact", option, value, "--out", str(tmp_path / "o.extxyz")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_cell_vector_of_any_length_is_no_crystal() -> None:
    crystal = Crystal(np.array([6]), np.zeros((1, 3)), np.diag([1e308, 3.0, 3.0]))
    assert crystal.problem() == "a cell vector is longer than 1e+06 Å"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a file without an end")
@pytest.mark.parametrize(
    "arguments",
    [
        ["benchmark", "/dev/zero", "--out", "o"],
        ["generate", "perov-5-compact", "--scheduler", "slurm:/dev/zero", "--out", "o.extxyz"],
        ["relax", "--read-jobs", "jobs", "--out", "o.extxyz"],
        ["evaluate", "/dev/zero", "--reference", "/dev/zero"],
        ["stability", "/dev/zero", "--phases", "/dev/zero"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_device_in_the_place_of_a_file_is_not_read(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "jobs.json").symlink_to("/dev/zero")
    assert main(arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "a pipe or a device" in said, said
    assert {path.name for path in tmp_path.iterdir()} == {"jobs"}


@pytest.mark.parametrize("length", [LONGEST_NAME - len(files.MANIFEST), LONGEST_NAME - len(files.MANIFEST) + 1])
def test_a_name_is_refused_before_any_work_where_its_manifest_could_not_be_written(length: int, tmp_path: Path) -> None:
    path = tmp_path / ("x" * length)
    if length > LONGEST_NAME - len(files.MANIFEST):
        with pytest.raises(InputError, match="too long"):
            check_output(path)
    else:
        write_text(check_output(path), "x")
        files.write_manifest(path, "generate", {})
