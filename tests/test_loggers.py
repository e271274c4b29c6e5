"""Lightning's loggers by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from dpcdvae.config import config_from_dict
from dpcdvae.errors import InputError
from dpcdvae.training.loggers import make_logger


def test_none_is_no_logger(tmp_path: Path) -> None:
    assert make_logger("none", tmp_path) == (False, [])


def test_a_resumed_run_keeps_the_table_of_its_first_part(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        logger, _ = make_logger("csv", tmp_path)
        assert isinstance(logger, CSVLogger)
        logger.log_metrics({"loss": value})
        logger.save()
    assert len(list((tmp_path / "csv").glob("*/metrics.csv"))) == 2


@pytest.mark.parametrize(
    ("name", "kind", "id_of"), [("wandb", "WandbLogger", "id"), ("mlflow", "MLFlowLogger", "run_id")]
)
def test_a_resumed_run_goes_on_under_its_id(
    name: str, kind: str, id_of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch import loggers

    asked: list[str | None] = []

    def stand_in(**options: Any) -> SimpleNamespace:
        asked.append(options[id_of])
        return SimpleNamespace(run_id="given by the server")

    monkeypatch.setattr(loggers, kind, stand_in)
    for _ in range(2):
        logger, callbacks = make_logger(name, tmp_path)
        for callback in callbacks:
            callback.on_fit_start(SimpleNamespace(is_global_zero=True, logger=logger), None)  # type: ignore[arg-type]
    first, second = asked
    assert second == ("given by the server" if first is None else first)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch import loggers

    def missing(*args: Any, **options: Any) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(loggers, {"wandb": "WandbLogger", "mlflow": "MLFlowLogger"}[name], missing)
    with pytest.raises(InputError, match=f"pip install {name}"):
        make_logger(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_server_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch import loggers

    def refuse(**options: Any) -> None:
        raise RuntimeError("no server\nat this address")

    monkeypatch.setattr(loggers, "MLFlowLogger", refuse)
    with pytest.raises(InputError, match="cannot begin: no server at this address") as refused:
        make_logger("mlflow", tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("old", "logger"), [(True, "tensorboard"), (False, "none")])
def test_a_configuration_from_before_the_loggers_loads(old: bool, logger: str) -> None:
    config = config_from_dict({"train": {"tensorboard": old}})
    assert config.train.logger == logger
    assert "tensorboard" not in config.to_dict()["train"]
