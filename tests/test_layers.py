"""Imports point down only, and what needs no torch loads without it.

The layer table is the one in docs/architecture.md, so that page cannot drift from the code.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "dpcdvae"
TORCH_FREE, COMPARISON, BRANCH, TOP = 5, 13, "branch", "top"

# The one torch among the torch-free layers: peers' eval_*.pt are torch files. It is imported when such a file is read.
LAZY_TORCH = {"io/torch_files.py"}

# What a machine that only trains may lack.
CHEMISTRY = ["pymatgen", "ase", "spglib", "smact", "matminer"]
# What takes long to import, so is imported where it is used.
HEAVY = {*CHEMISTRY, "scipy", "matplotlib", "pandas", "lightning", "torch", "safetensors", "dask", "distributed"}
TORCH = {"torch", "lightning", "safetensors"}


def layers() -> dict[str, int | str]:
    """unit (module or sub-package) -> layer, as docs/architecture.md has it."""
    table: dict[str, int | str] = {}
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"\d+|branch|top", cells[0]):
            layer = int(cells[0]) if cells[0].isdigit() else cells[0]
            table |= dict.fromkeys(re.findall(r"`(\w+)`", cells[2]), layer)
    return table


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, tree: ast.Module | None = None) -> Iterator[str]:
    """Full names of all that a module imports anywhere: lazily and for type checking too."""
    here = ["dpcdvae", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(tree or ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: -node.level], *([node.module] if node.module else [])] if node.level else [node.module]
            # `from dpcdvae import io` imports a unit, `from dpcdvae.io import read` a name in one.
            yield from (".".join([*map(str, base), alias.name]) for alias in node.names)


def unit_imports(path: Path) -> set[str]:
    names = (name.split(".") for name in imported(path))
    return {parts[1] for parts in names if parts[0] == "dpcdvae" and len(parts) > 1} - {"__version__", unit_of(path)}


def allowed(layer: int | str, target: int | str) -> bool:
    if layer == TOP:
        return True
    if layer == COMPARISON and target == BRANCH:
        return True
    if not isinstance(target, int):
        return False
    return target <= TORCH_FREE if layer == BRANCH else isinstance(layer, int) and target < layer


def torch_free(layer: int | str | None) -> bool:
    return layer == BRANCH or (isinstance(layer, int) and layer <= TORCH_FREE)


def test_table_names_every_module_and_no_other() -> None:
    units = {unit_of(path) for path in modules()} - {"__init__"}
    assert set(layers()) == units


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return  # the public names: lazy, and checked by test_importing_the_package_is_light
    table = layers()
    layer = table[unit_of(path)]
    wrong = {unit for unit in unit_imports(path) if not allowed(layer, table[unit])}
    assert not wrong, f"layer {layer} may not import {wrong}"


def test_no_module_imports_itself_through_others() -> None:
    """Modules of one folder too; what is imported lazily or for type checking counts."""
    names = {name_of(path): path for path in modules() if path != PACKAGE / "__init__.py"}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        found = (full if full in names else full.rpartition(".")[0] for full in imported(path))
        graph[name] = {module for module in found if module in names}
    TopologicalSorter(graph).prepare()  # raises CycleError


def name_of(path: Path) -> str:
    parts = ["dpcdvae", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_free_floors_and_branches_do_not_mention_torch(path: Path) -> None:
    if torch_free(layers().get(unit_of(path))) and str(path.relative_to(PACKAGE)) not in LAZY_TORCH:
        assert not {name.split(".")[0] for name in imported(path)} & TORCH


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    """At the top of a module only torch may stand, and that above the torch-free layers."""
    top = ast.parse(path.read_text())
    for node in ast.walk(top):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    layer = layers().get(unit_of(path))
    allowed_here = TORCH if isinstance(layer, int) and not torch_free(layer) else set()
    assert not {name.split(".")[0] for name in imported(path, top)} & (HEAVY - allowed_here)


def test_the_test_itself_sees_imports(tmp_path: Path) -> None:
    """A checker that finds nothing would pass everything."""
    assert {"model", "tensors", "structures"} <= unit_imports(PACKAGE / "sampling" / "generation.py")
    assert allowed(1, 0)
    assert not allowed(0, 1)
    assert not allowed(1, 1)
    assert allowed(BRANCH, TORCH_FREE)
    assert not allowed(BRANCH, TORCH_FREE + 1)
    assert not allowed(BRANCH, BRANCH)
    assert not allowed(4, TOP)
    assert allowed(COMPARISON, BRANCH)
    assert not allowed(COMPARISON, TOP)


def run_python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without(blocked: list[str], units: list[str]) -> str:
    """Code that imports all modules of ``units`` where no ``blocked`` package exists, and prints what got loaded."""
    return f"""
import importlib, json, pkgutil, sys

sys.modules.update(dict.fromkeys({blocked!r}))  # None: not found
for unit in {units!r}:
    module = importlib.import_module("dpcdvae." + unit)
    for inner in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
        importlib.import_module(inner.name)
print(json.dumps(sorted({{name.split(".")[0] for name, module in sys.modules.items() if module}})))
"""


def test_torch_free_floors_and_branches_load_without_torch() -> None:
    units = [unit for unit, layer in layers().items() if torch_free(layer)]
    assert {"io", "evaluation", "datasets", "drawing"} <= set(units)
    loaded = json.loads(run_python(without(sorted(TORCH), units)))
    assert "numpy" in loaded


def test_training_needs_no_chemistry_library() -> None:
    units = [unit for unit, layer in layers().items() if layer not in (BRANCH, TOP)]
    loaded = json.loads(run_python(without(CHEMISTRY, units)))
    assert "torch" in loaded


def test_importing_the_package_is_light_and_warns_of_nothing() -> None:
    loaded = json.loads(
        run_python(
            "import dpcdvae, json, sys; dpcdvae.__version__, dir(dpcdvae);"
            "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))",
            "-Werror",
        )
    )
    assert not {"numpy", "torch", "pymatgen", "ase", "pydantic", "typer"} & set(loaded)


def test_help_is_light() -> None:
    """Time depends on the machine; what is imported does not."""
    loaded = json.loads(
        run_python(
            "import contextlib, io, json, sys\nfrom dpcdvae.cli import main\n"
            "with contextlib.redirect_stdout(io.StringIO()) as page:\n    assert main(['--help']) == 0\n"
            "assert 'generate' in page.getvalue()\n"
            "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
        )
    )
    assert not HEAVY & set(loaded)


def test_public_names_resolve() -> None:
    import dpcdvae

    for name in dpcdvae.__all__:
        assert getattr(dpcdvae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dpcdvae.nothing  # noqa: B018
