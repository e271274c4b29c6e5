"""Trained models in files: names, run folders and checkpoint folders, without torch.

A checkpoint is a folder: ``model.safetensors`` (the weights to use), ``config.json`` (what the model is built from,
facts about its training, the hash of the weights), and, where training can go on, ``training.safetensors`` with
``training.json``. A bundled or fetched model has a ``card.json`` too. A run folder holds checkpoints in
``checkpoints/``; which is the best and which the last is read from their ``config.json``, never from their names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, one_line, unknown_name
from dpcdvae.files import home, refuse_device
from dpcdvae.pickles import PICKLE_SUFFIXES, is_pickle, pickle_refused

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.json"
TRAINING_TENSORS, TRAINING = "training.safetensors", "training.json"
CHECKPOINTS, LAST = "checkpoints", "last"
MOST_NESTED = 100  # a checkpoint's own files are nested about ten deep
FETCHED = "fetched.json"  # beside a model that was fetched: from where, and the checksum of the archive
BUNDLED = Path(__file__).parent / "models"


def bundled_models() -> list[str]:
    """Names of the models that come with this package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


def fetched_folder() -> Path:
    """Where the models lie that were fetched (:mod:`dpcdvae.model_fetch`), each in a folder of its name."""
    return home() / "models"


def fetched_models() -> list[str]:
    """Names of the models that were fetched to this machine."""
    try:
        return sorted(path.parent.name for path in fetched_folder().glob(f"[!.]*/{FETCHED}"))
    except InputError:  # no home folder: nothing can have been fetched
        return []


def named_models() -> list[str]:
    """Names that stand for a model in every command: the bundled and the fetched ones."""
    return [*bundled_models(), *fetched_models()]


@dataclass(frozen=True)
class StoredModel:
    """A trained model in its folder, as it was when it was looked up.

    Whatever is done with a model takes this and not its name: a run that goes on may have another best checkpoint a
    moment later. It can be handed to processes elsewhere, which refuse other weights than those of ``sha256``.

    Attributes:
        name: as the user gave it, for messages and manifests.
        place: name of a bundled model, or the absolute path of a checkpoint folder.
        sha256: hash of the weights.
        description: ``config.json``, as :func:`read_description` gives it.
    """

    name: str
    place: str
    sha256: str
    description: Mapping[str, Any] = field(compare=False, repr=False)

    @property
    def folder(self) -> Path:
        return BUNDLED / self.place  # an absolute path replaces what stands before it

    @property
    def where(self) -> str:
        """The file that describes it, for messages."""
        return str(self.folder / CONFIG)

    @property
    def kind(self) -> str:
        """The kind of model that its configuration names."""
        return str(self.description["config"].get("kind", "generative"))

    @property
    def predicts(self) -> str | None:
        """The property that it predicts, None for a generative model."""
        model = self.description["config"].get("model")
        return str(model.get("property")) if self.kind == "regressor" and isinstance(model, dict) else None

    def card(self) -> dict[str, Any]:
        """Its model card; raises InputError where it has none."""
        if not (self.folder / CARD).is_file():
            raise InputError(f"{self.folder} has no {CARD}: its training-set statistics are unknown")
        return read_json(self.folder / CARD)


def find_model(model: str | Path | StoredModel) -> StoredModel:
    """The model that a name (bundled or fetched), a run folder (its best checkpoint) or a checkpoint folder stands for.

    The name of a bundled or fetched model wins over a folder of the same name: write ``./name`` for the folder.
    A model that was found before is given back as it was.

    Raises:
        InputError: no such name or folder, a folder without a checkpoint, or a file (a pickle is refused).
    """
    if isinstance(model, StoredModel):
        return model
    path, name = Path(model), str(model)
    if isinstance(model, str) and model in named_models():
        place = model if model in bundled_models() else str((fetched_folder() / model).absolute())
        return _stored(name, place, read_description(BUNDLED / place))
    if path.is_dir():
        if (path / CONFIG).is_file():
            return stored_in(path)
        if (path / CHECKPOINTS).is_dir():
            folder, description = _best(path)
            return _stored(name, str(folder.absolute()), description)
        for file in sorted(path.iterdir()):
            if file.suffix in PICKLE_SUFFIXES:
                raise pickle_refused(file)
        raise InputError(f"{path} is no model: neither {CONFIG} (a checkpoint) nor {CHECKPOINTS}/ (a run) is in it")
    if path.exists():
        refuse_device(path)
        if path.suffix in PICKLE_SUFFIXES or is_pickle(path):
            raise pickle_refused(path)
        raise InputError(f"{path} is a file: give the checkpoint folder, the one that holds {WEIGHTS} and {CONFIG}")
    if path.name != name:
        raise InputError(f"no such folder: {path}; give a bundled model, a run folder or a checkpoint folder")
    wrong = f"{unknown_name('model', name, known)}, or" if (known := named_models()) else f"no model '{name}':"
    raise InputError(f"{wrong} give a run or checkpoint folder")


def stored_in(folder: Path) -> StoredModel:
    """The model of a checkpoint folder; raises InputError as :func:`read_description`."""
    return _stored(str(folder), str(folder.absolute()), read_description(folder))


def find_generative_model(model: str | Path | StoredModel) -> StoredModel:
    """:func:`find_model`; raises InputError also for a model without weights or one that predicts a property."""
    found = _with_weights(find_model(model))
    if found.predicts is not None:
        raise InputError(
            f"{found.name} predicts a property ({found.predicts}) and makes no crystals: give a generative model"
        )
    return found


def find_crystal_vae(model: str | Path | StoredModel) -> StoredModel:
    """:func:`find_generative_model`; raises InputError also for a model of another kind than CDVAE and DP-CDVAE."""
    found = find_generative_model(model)
    if found.kind != "generative":
        raise InputError(
            f"{found.name} is of the kind '{found.kind}': only a crystal VAE (CDVAE, DP-CDVAE) can do this"
        )
    return found


def find_property_model(model: str | Path | StoredModel) -> StoredModel:
    """:func:`find_model`; raises InputError also for a model without weights or one that makes crystals."""
    found = _with_weights(find_model(model))
    if found.predicts is None:
        raise InputError(f"{found.name} makes crystals and predicts no property: give one trained with --preset energy")
    return found


def _with_weights(model: StoredModel) -> StoredModel:
    if not (model.folder / WEIGHTS).is_file():
        raise InputError(f"{model.folder} has no {WEIGHTS}: copy the weights there, or train the model again")
    return model


def best_checkpoint(run: str | Path) -> Path:
    """The checkpoint of a run with the lowest ``criterion`` among its facts; without any, the last one.

    Raises:
        InputError: the run holds no checkpoint, or a ``config.json`` that cannot be read.
    """
    return _best(Path(run))[0]


def has_checkpoint(run: str | Path) -> bool:
    """Whether a run has written a whole checkpoint, which it does at the end of its first epoch."""
    return bool(_checkpoint_folders(Path(run)))


def last_checkpoint(run: str | Path) -> Path:
    """The checkpoint from which a run goes on: the one of the highest ``global_step`` with training state.

    Raises:
        InputError: no checkpoint of the run has training state, or a ``config.json`` cannot be read.
    """
    run = Path(run)
    found = [entry for entry in _checkpoints(run) if (entry[0] / TRAINING).is_file()]
    if not (run / CHECKPOINTS / LAST).is_dir():
        # A kill between the two renames that replace `last` leaves it only under its temporary names.
        found += _interrupted_swap(run / CHECKPOINTS)
    if not found:
        raise InputError(f"{run} cannot be resumed: its checkpoints hold no training state; start a new run")
    return max(found, key=lambda entry: (_step(entry), entry[0].name == LAST))[0]


def read_description(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint: format, dpcdvae (version), config, facts, sha256 (of the weights).

    Raises:
        InputError: missing, cut off, not a checkpoint's, or of a newer format.
    """
    path = Path(folder) / CONFIG
    description = read_json(path)
    if not isinstance(description.get("format"), int):
        raise InputError(f"{path} is not that of a dpcdvae checkpoint: it states no format")
    if description["format"] > FORMAT:
        version = description.get("dpcdvae", "unknown")
        raise InputError(
            f"{path} has format {description['format']}, written by a newer dpcdvae ({version}): upgrade dpcdvae "
            f"(this one reads up to format {FORMAT})"
        )
    for key, kind in (("config", dict), ("facts", dict), ("sha256", str)):
        if not isinstance(description.get(key), kind):
            raise InputError(f"{path} is damaged: it has no '{key}'; copy the checkpoint again")
    return description


def read_card(model: str | Path) -> dict[str, Any]:
    """The model card of a bundled name, run folder or checkpoint folder; raises InputError where there is none."""
    return find_model(model).card()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, at most ``MOST_NESTED`` deep; InputError where there is none."""
    try:
        refuse_device(path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no checkpoint in {path.parent}: {path.name} is missing") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not JSON: it is no text") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON or cut off ({one_line(error)}): copy the checkpoint again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not that of a checkpoint: it holds no JSON object")
    level: list[Any] = [value]
    for _ in range(MOST_NESTED):
        parts = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [inner for part in parts for inner in part]
    if level:
        raise InputError(f"{path} is not that of a checkpoint: it is nested more than {MOST_NESTED} deep")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


_Entry = tuple[Path, dict[str, Any]]  # a checkpoint folder with its description


def _stored(name: str, place: str, description: dict[str, Any]) -> StoredModel:
    return StoredModel(name, place, description["sha256"], description)


def _best(run: Path) -> _Entry:
    found = _checkpoints(run)
    best = min(found, key=lambda entry: (_criterion(entry), -_step(entry), entry[0].name))
    return best if math.isfinite(_criterion(best)) else max(found, key=_step)


def _checkpoints(run: Path) -> list[_Entry]:
    folders = _checkpoint_folders(run)
    if not folders:
        raise InputError(f"no checkpoint in {run / CHECKPOINTS}: the run has not finished an epoch")
    return [(folder, read_description(folder)) for folder in folders]


def _checkpoint_folders(run: Path) -> list[Path]:
    return sorted(path.parent for path in (run / CHECKPOINTS).glob(f"*/{CONFIG}") if path.parent.name[0] != ".")


def _interrupted_swap(folder: Path) -> list[_Entry]:
    found = []
    for path in sorted(folder.glob(f".{LAST}.*")):
        try:
            entry = path, read_description(path)
        except InputError:
            continue  # config.json is written last: this one was never complete
        if (path / TRAINING).is_file():
            found.append(entry)
    return found


def _criterion(entry: _Entry) -> float:
    """What the best checkpoint has least of, in earlier ones ``val_loss``; inf where it is not known or not finite."""
    value = entry[1]["facts"].get("criterion", entry[1]["facts"].get("val_loss"))
    return float(value) if isinstance(value, float | int) and -1e300 < value < 1e300 else math.inf


def _step(entry: _Entry) -> int:
    value = entry[1]["facts"].get("global_step")
    return value if isinstance(value, int) else 0
