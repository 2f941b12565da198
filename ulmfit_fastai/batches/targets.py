"""What a classifier learns of a data set's labels, and what its outputs mean: one class, several classes, or a number.

    kind        a text's label                  the model's output        loss
    single      one class                       softmax over classes      cross-entropy
    multi       any number of classes, or none  a sigmoid for each        binary cross-entropy
    regression  a number                        the number, standardised  squared error
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat

from .._errors import UlmfitError
from ..texts.dataset import Dataset

KINDS = ("single", "multi", "regression")


@dataclass(frozen=True, eq=False)
class Targets:
    """The labels of all rows of a data set, in the form `classifier_dataloaders` takes.

    `values`: class numbers (n,), -1 without a label; for several classes float32 0 and 1 (n, classes); for numbers
    float32 (n,), less `centre` and divided by `spread` (those of the training rows), NaN without a label.
    """

    kind: str
    values: np.ndarray
    classes: tuple[str, ...] = ()
    centre: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, dataset: Dataset, train: np.ndarray) -> Targets:
        """Read the labels of `dataset`; `train` are the rows that give a number its scale."""
        kind = kind_of(dataset)
        labels = dataset.df["label"].tolist()
        number = {name: i for i, name in enumerate(dataset.classes)}
        if kind == "single":
            return cls(kind, np.array([number.get(label, -1) for label in labels], dtype=np.int64), dataset.classes)
        if kind == "multi":
            values = np.zeros((len(labels), len(dataset.classes)), dtype=np.float32)
            for row, label in enumerate(labels):
                values[row, [number[name] for name in (label or "").split(dataset.label_delim) if name]] = 1.0
            return cls(kind, values, dataset.classes)
        numbers = np.array([np.nan if label is None else float(label) for label in labels])
        centre, spread = float(numbers[train].mean()), float(numbers[train].std()) or 1.0
        return cls(kind, ((numbers - centre) / spread).astype(np.float32), (), centre, spread)

    def loss(self, class_weights: Sequence[float] | None, device: torch.device) -> Any:
        """fastai's loss for these labels; a text counts with the weight of its class."""
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32, device=device)
        if weights is not None and len(weights) != len(self.classes):
            raise UlmfitError(f"class_weights must be one number for each of the {len(self.classes)} classes, found "
                              f"{len(weights)}")
        if self.kind == "single":
            return CrossEntropyLossFlat(weight=weights)
        return BCEWithLogitsLossFlat(pos_weight=weights) if self.kind == "multi" else MSELossFlat()

    def truth(self, rows: np.ndarray) -> np.ndarray:
        """The labels of these rows as outputs are compared with them: numbers in their own unit."""
        return self.values[rows] * self.spread + self.centre if self.kind == "regression" else self.values[rows]


def kind_of(dataset: Dataset) -> str:
    """'multi' where labels are joined by a delimiter, 'regression' where there are no classes, else 'single'."""
    return "multi" if dataset.label_delim else "single" if dataset.classes else "regression"


def class_name(value: Any) -> str:
    """A class as text: '1' for 1 and 1.0."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value)
