"""The schema of the options: complete, bounded, printed without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dpcdvae.cli import main
from dpcdvae.config import KINDS, Section, load_config
from dpcdvae.config.describe import REGENERATE, OptionRow, option_rows, options_page
from dpcdvae.config.fields import AUTHORS_CODE, allowed, group_of, option, read_options, unit_of
from dpcdvae.config.options import COMPONENTS, DDPMOptions, WrappedNormalOptions
from dpcdvae.denoisers import DENOISERS
from dpcdvae.diffusion import COORDINATE_DIFFUSIONS, TYPE_DIFFUSIONS
from dpcdvae.diffusion.ddpm_solvers import DDPM_SOLVERS
from dpcdvae.diffusion.schedules import SCHEDULES
from dpcdvae.diffusion.wrapped_normal import WRAPPED_SOLVERS
from dpcdvae.encoders import ENCODERS
from dpcdvae.errors import InputError
from dpcdvae.presets import about, load_preset, names, preset_names
from dpcdvae.priors import PRIORS
from test_config import flat

SECTIONS: list[type[Section]] = [
    *dict.fromkeys(type(field.default) for kind in KINDS.values() for field in kind.model_fields.values()),
    *(options for table in COMPONENTS.values() for options in table.values()),
]
SECTIONS = [section for section in SECTIONS if issubclass(section, Section)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_option_has_a_meaning_and_every_number_two_bounds(section: type[Section]) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():
        assert field.description, name
        for part in allowed(field).split(" or "):
            if ("whole number" in part and "list" not in part) or part.startswith("a number"):
                assert any(word in part for word in ("from", "above")), name
                assert any(word in part for word in ("to ", "below")), name


def test_lengths_have_a_unit() -> None:
    units = {name: unit_of(field) for section in SECTIONS for name, field in section.model_fields.items()}
    found = [units[name] for name in ("cutoff", "step_size", "max_minutes", "max_atoms")]
    assert found == ["Å", "Å²", "min", "atoms"]


def test_the_schema_names_the_components_there_are() -> None:
    registries = {"encoder": ENCODERS, "denoiser": DENOISERS, "diffusion": COORDINATE_DIFFUSIONS, "prior": PRIORS}
    assert {kind: set(table) for kind, table in COMPONENTS.items()} == {k: set(r) for k, r in registries.items()}

    def choices(section: type[Section], name: str) -> set[str]:
        return {part.strip("'") for part in allowed(section.model_fields[name]).split(" or ")}

    assert choices(DDPMOptions, "schedule") == set(SCHEDULES)
    assert choices(DDPMOptions, "reverse_rule") == set(DDPM_SOLVERS)
    assert choices(WrappedNormalOptions, "reverse_rule") == set(WRAPPED_SOLVERS)
    diffusion = type(KINDS["generative"].model_fields["diffusion"].default)
    assert choices(diffusion, "type_noise") == set(TYPE_DIFFUSIONS)


def test_switches_of_the_authors_code_are_what_its_choice_sets() -> None:
    switches = {row.name for row in option_rows(load_config("compact")) if row.group == AUTHORS_CODE}
    assert switches == set(flat(load_preset("compact+authors-code"))) - set(flat(load_preset("compact")))
    assert {group_of(field) for section in SECTIONS for field in section.model_fields.values()} == {"", AUTHORS_CODE}
    row = next(row for row in option_rows(load_config("compact+authors-code")) if row.name.endswith("turn_frame"))
    assert (row.value, row.default) == (False, True)


def test_rows_are_the_configuration_with_the_defaults_of_its_components() -> None:
    rows = {row.name: row for row in option_rows(load_config("compact/dp-cdvae-cell"))}
    config = load_config("compact/dp-cdvae-cell")
    for name, value in flat(config.to_dict()).items():
        assert name == "kind" or value == {} or rows[name].value == value
    assert rows["encoder.options.lattice.layers"] == OptionRow(
        "encoder.options.lattice.layers", 2, 2, "", "hidden layers of the perceptron", "a whole number from 0 to 32", ""
    )
    assert rows["prior.options.width"].value == 256
    assert all(not name.endswith(".options") for name in rows)


def test_the_page_of_options_is_that_of_the_schema() -> None:
    page = Path(__file__).parents[1] / "docs" / "options.md"
    assert page.read_text() == options_page(), f"make it anew: {REGENERATE}"


def test_every_preset_says_in_a_line_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert set(lines) == {*preset_names(), *(f"+{choice}" for choice in names("choices"))}
    assert all(lines.values())
    assert (
        lines["paper/cdvae-mp_20"].strip()
        == about("paper/cdvae-mp_20")
        == ("CDVAE; published widths; settings for MP-20")
    )


def test_config_show_prints_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["config", "show", "compact+authors-code", "--set", "diffusion.options.reverse_rule=eq6"]
    assert main([*line, "--json"]) == 0
    options: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["options"]
    found = {row["name"]: row for row in options}
    assert found["diffusion.options.reverse_rule"]["value"] == "ancestral"
    assert found["denoiser.options.cutoff"]["unit"] == "Å"
    assert main(line) == 0
    page = capsys.readouterr().out
    assert all(f"{name} " in page for name in found)
    last = page[page.index(f"[{AUTHORS_CODE}]") :]
    assert last.count("\n") == 1 + sum(row["group"] == AUTHORS_CODE for row in options)


def test_presets_and_options_are_shown_and_refused_without_torch() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "lightning", "numpy", "safetensors"]))
from dpcdvae.cli import main
assert main(["presets"]) == main(["config", "show", "energy"]) == main(["config", "show", "paper"]) == 0
assert main(["config", "show", "papr"]) == main(["config", "show", "paper", "--set", "diffusion.name=x"]) == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "did you mean" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2


class Example(Section):
    """For the test below."""

    ratio: float = option(0.5, "a share", ge=0, lt=1)
    sizes: list[int] = option([1], "some sizes")
    count: int = option(1, "a number", gt=0, le=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ratio": 1}, "option ratio of example must be a number from 0 to below 1, not 1"),
        ({"ratio": float("inf")}, "option ratio of example must be a number from 0 to below 1, not inf"),
        ({"sizes": [1.5]}, "option sizes of example must be a list of whole numbers, not 1.5"),
        ({"count": True}, "option count of example must be a whole number above 0 and up to 3, not True"),
        ({"cuont": 1}, "unknown option of example 'cuont': did you mean 'count'? choose from count, ratio, sizes"),
        ({"count": list(range(10**5))}, None),
    ],
)
def test_a_wrong_value_gives_one_line_with_its_bounds(values: dict[str, Any], message: str | None) -> None:
    with pytest.raises(InputError) as caught:
        read_options(Example, values, "example")
    assert message in (None, str(caught.value))
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
    assert read_options(Example, {"ratio": 0}, "example").ratio == 0.0
