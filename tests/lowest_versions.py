"""Prints the lowest versions that pyproject.toml allows, as requirements of pip: for ``make test-minimum``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

TESTS = ("pytest", "hypothesis", "jsonschema", "vesin")

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
tools = [requirement for requirement in extras["dev"] if re.split("[<>=]", requirement)[0] in TESTS]
for requirement in [*project["dependencies"], *extras["parquet"], *tools]:
    name, lowest = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
    print(f"{name}=={lowest}" if lowest.count(".") else f"{name}=={lowest}.0")
