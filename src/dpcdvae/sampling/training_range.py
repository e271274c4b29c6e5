"""The elements, numbers of atoms and values that a model has seen in training, as its card says. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dpcdvae.config import config_from_dict
from dpcdvae.errors import InputError, listed
from dpcdvae.model_store import CARD, StoredModel
from dpcdvae.structures.elements import SYMBOLS, atomic_number
from dpcdvae.structures.summary import ReferenceStatistics

if TYPE_CHECKING:
    from dpcdvae.interfaces import Trainable
    from dpcdvae.structures.table import CrystalTable

ANYWAY = "give --anyway to try all the same"


@dataclass(frozen=True)
class Subject:
    """The model that is asked for crystals.

    Attributes:
        name: for messages.
        max_atoms: most atoms that it holds.
        head: the property that it predicts from z, "" for none.
        card: its model card, empty where it has none.
    """

    name: str
    max_atoms: int
    head: str
    card: Mapping[str, Any] = field(repr=False)

    @classmethod
    def stored(cls, model: StoredModel) -> Subject:
        options = config_from_dict(model.description["config"], where=model.where).model
        return cls(model.name, options.max_atoms, options.property, _card(model))

    @classmethod
    def loaded(cls, model: Trainable) -> Subject:
        options = model.config.model
        card = {} if model.source is None else _card(model.source)
        return cls("the model", options.max_atoms, options.property, card)

    def check_seen(self, numbers: Sequence[int], sizes: Sequence[int], what: str) -> None:
        """Raises InputError for elements or numbers of atoms that were not in the training set.

        Where the card says nothing of them, a note on standard error does.
        """
        elements, known_sizes = self._elements(), self._sizes()
        unknown = [
            name
            for name, asked, known in (("elements", numbers, elements), ("sizes", sizes, known_sizes))
            if asked and known is None
        ]
        if unknown:
            print(f"note: which {' and '.join(unknown)} {self.name} was trained on is not known", file=sys.stderr)
        if elements is not None and (new := [SYMBOLS[z] for z in numbers if z not in elements]):
            raise InputError(f"{what}: {self.name} was trained without {listed(new)}; {ANYWAY}")
        if known_sizes is not None and (odd := [size for size in sizes if size not in known_sizes]):
            raise InputError(
                f"{what}: {self.name} was trained without cells of {listed(odd)} atoms, only of "
                f"{_ranges(sorted(known_sizes))}; {ANYWAY}"
            )

    def tell_unseen(self, table: CrystalTable) -> None:
        """A note on standard error of the elements, and numbers of atoms, of crystals that were not in training."""
        elements, sizes = self._elements(), self._sizes()
        new = [] if elements is None else [SYMBOLS[z] for z in sorted(set(table.atomic_numbers.tolist()) - elements)]
        odd = [] if sizes is None else sorted(set(table.num_atoms.tolist()) - sizes)
        what = [f"without {listed(new)}"] if new else []
        what += [f"without cells of {listed(odd)} atoms"] if odd else []
        if what:
            print(
                f"note: {self.name} was trained {' and '.join(what)}: such crystals may come back as others",
                file=sys.stderr,
            )

    def _elements(self) -> set[int] | None:
        symbols = self.card.get("elements")
        return {atomic_number(str(symbol)) for symbol in symbols} if isinstance(symbols, list) else None

    def _sizes(self) -> set[int] | None:
        statistics = self.card.get("training_statistics")
        return set(ReferenceStatistics.from_json(statistics).num_atoms) if statistics else None


def _card(model: StoredModel) -> Mapping[str, Any]:
    return model.card() if (model.folder / CARD).is_file() else {}


def _ranges(numbers: Sequence[int]) -> str:
    """``2, 4-6 and 8`` for 2, 4, 5, 6, 8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
