"""Kinds of models: what each takes, what it refuses, and that the tables of kinds agree with one another."""

from __future__ import annotations

import dataclasses

import pytest

import dpcdvae
from dpcdvae.checkpoints.loading import NETWORKS
from dpcdvae.config import KINDS
from dpcdvae.errors import InputError
from dpcdvae.model_store import StoredModel, find_crystal_vae, find_model
from dpcdvae.sampling import kinds
from dpcdvae.training.train import AFTER_TRAINING


def bundled(kind: str = "generative") -> StoredModel:
    """The bundled model, described as one of another kind."""
    model = find_model("perov-5-compact")
    config = {**model.description["config"], "kind": kind}
    return dataclasses.replace(model, description={**model.description, "config": config})


def test_every_kind_of_configuration_has_a_network_and_every_other_table_names_kinds_only() -> None:
    assert set(NETWORKS) == set(KINDS)
    assert set(kinds.SAMPLED_KINDS) <= set(KINDS)
    assert set(AFTER_TRAINING) <= set(KINDS)


@pytest.mark.parametrize("kind", kinds.SAMPLED_KINDS)
@pytest.mark.parametrize("task", ["generate", "reconstruct"])
def test_an_option_that_a_kind_does_not_have_is_refused_by_name(kind: str, task: str) -> None:
    if getattr(kinds.SAMPLED_KINDS[kind], task) is None:
        with pytest.raises(InputError, match="has no encoder"):
            kinds.settings(bundled(kind), task, {})
    else:
        with pytest.raises(InputError, match="--no-such-option has no meaning for perov-5-compact"):
            kinds.settings(bundled(kind), task, {"no_such_option": 1})


def test_options_that_were_not_given_are_the_models_own() -> None:
    model = bundled()
    assert kinds.settings(model, "generate", {"steps": None, "prior": None})["steps"] == 20
    assert kinds.settings(model, "generate", {"steps": 7})["steps"] == 7
    assert kinds.settings(model, "reconstruct", {"force_types": False}).keys() == {"steps", "solver", "candidates"}
    assert kinds.settings(model, "reconstruct", {"force_types": True})["force_types"] is True


def test_what_only_a_crystal_vae_can_do_is_refused_for_another_kind() -> None:
    with pytest.raises(InputError, match="of the kind 'ftcp'"):
        find_crystal_vae(bundled("ftcp"))


def test_the_public_functions_take_any_loaded_model_and_refuse_unknown_options() -> None:
    model = dpcdvae.load_model("perov-5-compact", "cpu")
    with pytest.raises(InputError, match="--temperature has no meaning"):
        dpcdvae.generate(model, 1, temperature=1.0)
    one = dpcdvae.generate(model, 1, steps=2, candidates=1)
    assert len(one.crystals) + len(one.failures) == 1
