"""The package as others get it: a wheel and an sdist, built without a network, hold everything and work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from dpcdvae import __version__

ROOT = Path(__file__).resolve().parents[1]
BUILD = "from setuptools.build_meta import build_sdist as s, build_wheel as w; s('dist'); w('dist')"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built from a copy by the build backend itself, so that pip fetches nothing."""
    pytest.importorskip("setuptools", minversion="77", reason="the build backend is not installed")
    copy = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return copy / "dist"


def of_package() -> set[str]:
    """Every file of the package, below ``src``."""
    files = (path for path in (ROOT / "src" / "dpcdvae").rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT / "src")) for path in files if "__pycache__" not in path.parts}


def test_wheel_and_sdist_hold_every_file_of_the_package(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
        assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    assert inside == of_package()
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= {f"src/{name}" for name in of_package()} | {"pyproject.toml", "LICENSE", "README.md"}


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"])
def environment(request: pytest.FixtureRequest, dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new virtual environment with the package, from a wheel or an sdist.

    What the package needs is here already: that folder is added as a mere path, so that an editable installation of the
    package itself there stays out.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    Path(paths["purelib"], "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = Path(paths["scripts"], "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index"]
    archive = next(dist.glob(request.param))
    subprocess.run([*pip, "--no-build-isolation", "--no-compile", archive], env=clean(), check=True)
    return python.parent


def clean() -> dict[str, str]:
    """An environment without the path of the sources."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_an_installed_package_works_away_from_the_sources(environment: Path, tmp_path: Path) -> None:
    def output(*command: str | Path) -> str:
        run = subprocess.run(command, cwd=tmp_path, env=clean(), capture_output=True, text=True, check=True)
        return run.stdout

    assert "generate" in output(environment / "dpcdvae", "--help")
    facts = output(
        environment / "python",
        "-c",
        "import dpcdvae; from dpcdvae.model_store import bundled_models; from dpcdvae.presets import names\n"
        "print(dpcdvae.__file__, dpcdvae.__version__, *bundled_models(), len(names()) > 0)",
    )
    file, version, *models, presets = facts.split()
    assert Path(file).is_relative_to(environment.parent)
    assert version == __version__
    assert presets == "True"
    assert set(models) == {path.parent.name for path in (ROOT / "src" / "dpcdvae" / "models").glob("*/config.json")}


def test_the_version_is_that_of_the_citation_and_of_the_newest_changes() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[\d.]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == __version__


def test_a_tagged_commit_has_the_version_of_its_tag() -> None:
    done = subprocess.run(["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    tags = [tag for tag in done.stdout.split() if re.fullmatch(r"v\d[\d.]*", tag)]
    if not tags:
        pytest.skip("no tag of a version at this commit, or no repository")
    assert tags == [f"v{__version__}"]


def test_every_extra_holds_something() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all(project["optional-dependencies"].values())
