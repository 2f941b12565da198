"""How labels become a classifier's targets and come back: one class, several classes, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastai.data.transforms import Category, MultiCategory
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.torch_core import TensorBase, TensorCategory, TensorMultiCategory, TitledFloat, TitledTuple

from .._errors import UlmfitError
from .._words import shown


@dataclass(frozen=True)
class Labels:
    """The kind of a task's labels, and its classes in the order of the model's outputs.

    `kind` is 'single' (a class per text), 'multi' (a list of classes per text, or a row of 0 and 1) or 'regression'
    (a number, or a row of them, per text). A class is given by its name, or by its number in `classes`.
    """

    kind: str
    classes: tuple[Any, ...] = ()
    n_targets: int = 1  # numbers per text, regression only

    @classmethod
    def infer(cls, labels: Sequence[Any], classes: Sequence[Any] | None) -> Labels:
        """Read the kind off the labels: without `classes` they are numbers, with them one class or several."""
        first = next((label for label in labels if not is_missing(label)), None)
        several = isinstance(first, (list, tuple, set, frozenset, np.ndarray))
        if classes is None:
            return cls("regression", n_targets=len(first) if several else 1)  # type: ignore[arg-type]
        if len(classes) == 0 or len(set(classes)) != len(classes):
            raise UlmfitError(f"classes must be names that differ from one another, found {list(classes)}")
        return cls("multi" if several else "single", tuple(classes))

    @property
    def c(self) -> int:
        """Outputs that a classifier for these labels has."""
        return self.n_targets if self.kind == "regression" else len(self.classes)

    @property
    def loss_func(self) -> Any:
        """fastai's loss for these labels, as its own label blocks choose it."""
        return {"single": CrossEntropyLossFlat, "multi": BCEWithLogitsLossFlat, "regression": MSELossFlat}[self.kind]()

    @property
    def tensor_type(self) -> type:
        """Tensor type that fastai gives such targets; used for display only, batches hold plain tensors."""
        return {"single": TensorCategory, "multi": TensorMultiCategory, "regression": TensorBase}[self.kind]

    def encode(self, labels: Sequence[Any] | np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """Targets of `rows`: int64 (n,) for one class, float32 (n, c) for several, float32 (n,) or (n, k) for numbers.

        Raises ValueError when a row has no label or one that is not among the classes.
        """
        chosen = [labels[row] for row in rows.tolist()]
        missing = [row for row, label in zip(rows.tolist(), chosen) if is_missing(label)]
        if missing:
            raise UlmfitError(f"every text of train and valid needs a label, rows {shown(missing)} have none; "
                              "leave them out")
        if self.kind == "regression":
            return torch.tensor(np.asarray(chosen, dtype=np.float32))
        numbers = self._numbers()
        if self.kind == "single":
            self._refuse_unknown(chosen, numbers)
            return torch.tensor([numbers[label] for label in chosen], dtype=torch.long)
        if isinstance(chosen[0], np.ndarray):
            return self._rows_of_0_and_1(chosen)
        self._refuse_unknown([label for several in chosen for label in several], numbers)
        targets = torch.zeros(len(chosen), self.c)
        for target, several in zip(targets, chosen):
            target[[numbers[label] for label in several]] = 1.0
        return targets

    def _numbers(self) -> dict[Any, int]:
        """Number of each class by its name and, where no name is a number itself, by its number."""
        numbers: dict[Any, int] = {name: i for i, name in enumerate(self.classes)}
        if all(isinstance(name, str) for name in self.classes):
            numbers.update({i: i for i in range(self.c)})
        return numbers

    def _refuse_unknown(self, found: list[Any], numbers: dict[Any, int]) -> None:
        unknown = sorted({str(label) for label in found if label not in numbers})
        if unknown:
            raise UlmfitError(f"labels must be among the classes {shown(self.classes)}, found also {shown(unknown)}")

    def _rows_of_0_and_1(self, chosen: list[np.ndarray]) -> torch.Tensor:
        rows = np.asarray(chosen, dtype=np.float32)
        if rows.shape != (len(chosen), self.c) or not np.isin(rows, (0, 1)).all():
            raise UlmfitError(f"a text's label must be {self.c} numbers 0 or 1, one a class, found for the first "
                              f"{chosen[0].tolist()}")
        return torch.from_numpy(rows)

    def decode(self, target: torch.Tensor) -> Any:
        """What a target or a decoded prediction means, as an object fastai can show."""
        if self.kind == "single":
            return Category(self.classes[int(target)])
        if self.kind == "multi":
            return MultiCategory(self.classes[i] for i in torch.nonzero(target).flatten().tolist())
        return TitledFloat(target.item()) if target.numel() == 1 else TitledTuple(target.tolist())


def is_missing(label: Any) -> bool:
    """True for None and NaN."""
    if isinstance(label, float):
        return label != label
    return label is None
