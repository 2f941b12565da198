"""What a classifier learns of a data set's labels, and what its outputs mean: one class, several classes, or a number.

    kind        a text's label                  the model's output        loss
    single      one class                       softmax over classes      cross-entropy
    multi       any number of classes, or none  a sigmoid for each        binary cross-entropy
    regression  a number                        the number, standardised  squared error
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from torch import Tensor

from ..results.predictions import average, error_metrics
from ..texts.sources import Dataset

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
            raise ValueError(f"class_weights must be one number for each of the {len(self.classes)} classes, found "
                             f"{len(weights)}")
        if self.kind == "single":
            return CrossEntropyLossFlat(weight=weights)
        return BCEWithLogitsLossFlat(pos_weight=weights) if self.kind == "multi" else MSELossFlat()

    def metrics(self, outputs: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        """How right `outputs`, given for these rows in the labels' own unit, are."""
        if self.kind == "regression":
            return number_metrics(outputs[:, 0], self.values[rows] * self.spread + self.centre)
        return error_metrics(outputs, self.values[rows]) if self.kind == "single" else \
            several_metrics(outputs, self.values[rows])


def kind_of(dataset: Dataset) -> str:
    """'multi' where labels are joined by a delimiter, 'regression' where there are no classes, else 'single'."""
    return "multi" if dataset.label_delim else "single" if dataset.classes else "regression"


def outputs_of(logits: Tensor, kind: str, *, centre: float = 0.0, spread: float = 1.0) -> np.ndarray:
    """What a batch's last layer says (texts, outputs): probabilities, or the number in its own unit; float32."""
    values = logits.float()
    if kind == "regression":
        values = values * spread + centre
    else:
        values = torch.softmax(values, -1) if kind == "single" else torch.sigmoid(values)
    return values.cpu().numpy()


def joined(by_direction: Mapping[str, np.ndarray], kind: str) -> np.ndarray:
    """Both directions' outputs as one: their mean."""
    if kind == "single":
        return average(by_direction)
    return np.mean(list(by_direction.values()), axis=0)


def several_metrics(outputs: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Scores of several classes a text; `outputs` probabilities and `truth` 0 and 1, both (texts, classes).

    A text is right when all its classes are; error in %, micro and macro F1 (0 to 1; a class that is neither there
    nor predicted is left out), loss: mean binary log loss, nats.
    """
    predicted, truth = outputs >= 0.5, truth >= 0.5
    hits, given, there = (predicted & truth).sum(0), predicted.sum(0), truth.sum(0)
    wrong = int((predicted != truth).any(axis=1).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * hits / (given + there)
    clipped = np.clip(outputs, 1e-7, 1 - 1e-7)
    return {"error": 100 * wrong / len(truth), "n": len(truth), "wrong": wrong,
            "macro_f1": float(np.nanmean(f1)) if np.isfinite(f1).any() else 0.0,
            "micro_f1": float(2 * hits.sum() / max(given.sum() + there.sum(), 1)),
            "loss": float(-np.where(truth, np.log(clipped), np.log1p(-clipped)).mean())}


def number_metrics(outputs: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Mean absolute error and root mean squared error in the numbers' unit, r2 (None if the truth never varies), n."""
    difference = outputs.astype(np.float64) - truth
    varied = float(((truth - truth.mean()) ** 2).sum())
    return {"mae": float(np.abs(difference).mean()), "rmse": float(np.sqrt((difference**2).mean())),
            "r2": 1 - float((difference**2).sum()) / varied if varied else None, "n": len(truth)}
