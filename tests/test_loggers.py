"""Lightning's loggers by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

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


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch import loggers

    def missing(*args: Any, **options: Any) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(loggers, {"wandb": "WandbLogger", "mlflow": "MLFlowLogger"}[name], missing)
    with pytest.raises(InputError, match=f"pip install {name}"):
        make_logger(name, tmp_path)
    assert not list(tmp_path.iterdir())
