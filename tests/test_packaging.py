"""The package as others get it: a wheel and an sdist, built without a network, hold everything and work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

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


def test_an_installed_wheel_works_away_from_the_sources(dist: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", target]
    subprocess.run([*pip, next(dist.glob("*.whl"))], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def output(*command: str | Path) -> str:
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return run.stdout

    assert "generate" in output(target / "bin" / "dpcdvae", "--help")
    facts = output(
        sys.executable,
        "-c",
        "import dpcdvae; from dpcdvae.model_store import bundled_models; from dpcdvae.presets import names\n"
        "print(dpcdvae.__file__, dpcdvae.__version__, *bundled_models(), len(names()) > 0)",
    )
    file, version, *models, presets = facts.split()
    assert Path(file).is_relative_to(target)
    assert presets == "True"
    assert set(models) == {path.parent.name for path in (ROOT / "src" / "dpcdvae" / "models").glob("*/config.json")}
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in cited


def test_every_extra_holds_something() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all(project["optional-dependencies"].values())
