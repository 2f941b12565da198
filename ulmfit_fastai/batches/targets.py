"""What a classifier learns of labels, and what its outputs mean: one class, several classes, or a number.

    kind        a text's label                  the model's output        loss
    single      one class                       softmax over classes      cross-entropy
    multi       any number of classes, or none  a sigmoid for each        binary cross-entropy
    regression  a number                        the number, standardised  squared error
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from fastai.data.transforms import Category, MultiCategory
from fastai.losses import BaseLoss, BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.torch_core import TensorBase, TensorCategory, TensorMultiCategory, TitledFloat, TitledTuple
from torch import Tensor

from .._errors import UlmfitError
from .._words import shown
from ..texts.classes import class_name
from ..texts.dataset import Dataset
from ..texts.values import LISTS, is_missing

TASKS = {"classification": "single", "multilabel": "multi", "regression": "regression"}
"""What users call each kind of labels."""
KINDS = tuple(TASKS.values())

Values = TypeVar("Values", Tensor, np.ndarray, float)


def kind_of(*, classes: bool, several: bool) -> str:
    """The kind of labels that are classes or else numbers, of which a text may have several or has one."""
    return "regression" if not classes else "multi" if several else "single"


def by_position(labels: Any, classes: Sequence[Any] | None = None) -> Any:
    """Labels as rows that are counted: what has an index, a Series or a frame, by its order; a sparse matrix whole.

    Args:
        classes: columns of 0 and 1 that have names are put into their order.

    Raises:
        UlmfitError: the names of the columns are not those of the classes.
    """
    if hasattr(labels, "toarray"):
        return np.asarray(labels.toarray())
    if classes and getattr(labels, "ndim", 1) == 2 and labels.shape[1] == 1 < len(classes):
        labels = labels.iloc[:, 0] if hasattr(labels, "iloc") else labels[:, 0]  # a column of classes
    if not hasattr(labels, "iloc"):
        return labels
    return _by_name(labels, classes).to_numpy() if labels.ndim == 2 else labels.tolist()


def _by_name(labels: Any, classes: Sequence[Any] | None) -> Any:
    names = labels.columns.tolist()
    if not classes or names == [*range(len(names))]:
        return labels
    own, wanted = [*map(class_name, names)], [*map(class_name, classes)]
    if sorted(own) != sorted(wanted):
        raise UlmfitError(f"the columns of the labels are called {shown(own)}: expected the classes {shown(wanted)}, "
                          "each once", field="labels", expected=wanted, found=own)
    return labels.iloc[:, [own.index(name) for name in wanted]]


@dataclass(frozen=True)
class Target:
    """What a classifier's outputs are: classes, in the order of the outputs, or numbers.

    Raises:
        UlmfitError: `kind` is none of those there are.
    """

    kind: str = "single"
    """single (one class a text), multi (any number of them) or regression (a number)."""
    classes: tuple[Any, ...] = ()
    """The classes as their owner wrote them (text or numbers)."""
    mean: float = 0.0
    scale: float = 1.0
    """Regression: the model's output times `scale` plus `mean` is the number."""
    n_numbers: int = 1
    """Regression: numbers of a text."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UlmfitError(f"kind: expected one of {', '.join(KINDS)}, found {self.kind!r}")

    @classmethod
    def infer(cls, labels: Iterable[object], classes: Sequence[object] | None) -> Target:
        """Read the kind off labels of any form.

        Args:
            classes: None: the labels are numbers; otherwise one class a text, or several where a label is a list.

        Raises:
            UlmfitError: `classes` is empty or names one twice.
        """
        first = next((label for label in labels if not is_missing(label)), None)
        length = len(first) if isinstance(first, LISTS) else None
        if classes is not None and (len(classes) == 0 or len(set(classes)) != len(classes)):
            raise UlmfitError(f"classes must be names that differ from one another, found {list(classes)}")
        kind = kind_of(classes=classes is not None, several=length is not None)
        return cls(kind, tuple(classes or ()), n_numbers=1 if classes is not None or length is None else length)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], classes: Iterable[Any]) -> Target:
        """What a config.json, or a run.json under 'labels', says of its outputs.

        Args:
            record: 'kind', 'centre' (the mean), 'spread' (the scale).
        """
        return cls(record.get("kind", "single"), tuple(classes), record.get("centre", 0.0), record.get("spread", 1.0))

    def to_record(self) -> dict[str, Any]:
        """What `from_record` reads; the classes stand by themselves."""
        return {"kind": self.kind, "centre": self.mean, "spread": self.scale}

    @property
    def task(self) -> str:
        """The kind in users' words: 'classification', 'multilabel' or 'regression'."""
        return next(task for task, kind in TASKS.items() if kind == self.kind)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as text, which is how files hold them."""
        return tuple(class_name(value) for value in self.classes)

    @property
    def n_out(self) -> int:
        """Outputs of a classifier."""
        return self.n_numbers if self.kind == "regression" else len(self.classes)

    def loss(self, class_weights: Sequence[float] | None = None, device: torch.device | str | None = None) -> BaseLoss:
        """fastai's loss for such labels, as its own label blocks choose it.

        Args:
            class_weights: (classes,) how much a text counts, by its class; None: all alike.

        Raises:
            UlmfitError: there is not one weight for each class.
        """
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32, device=device)
        if weights is not None and len(weights) != len(self.classes):
            raise UlmfitError(f"class_weights must be one number for each of the {len(self.classes)} classes, found "
                              f"{len(weights)}")
        if self.kind == "single":
            return CrossEntropyLossFlat(weight=weights)
        return BCEWithLogitsLossFlat(pos_weight=weights) if self.kind == "multi" else MSELossFlat()

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each class; for regression the outputs as they are.

        Args:
            logits: (texts, n_out).

        Returns:
            (texts, n_out); softmax where a text has one class, a sigmoid for each where it may have several.
        """
        if self.kind == "regression":
            return logits
        return torch.softmax(logits, -1) if self.kind == "single" else torch.sigmoid(logits)

    def in_own_unit(self, values: Values) -> Values:
        """Standardised numbers in the unit of the labels; for classes nothing changes.

        Float32 numbers that are far from zero would lose what tells them apart: give float64.
        """
        return values * self.scale + self.mean if self.kind == "regression" else values

    def outputs(self, logits: Tensor) -> np.ndarray:
        """What a batch's last layer says: probabilities, or numbers in their own unit.

        Args:
            logits: (texts, n_out).

        Returns:
            float32 (texts, n_out), of numbers float64.
        """
        found = self.probabilities(logits.float()).cpu().numpy()
        return self.in_own_unit(found.astype(np.float64)) if self.kind == "regression" else found

    @property
    def tensor_type(self) -> type:
        """Tensor type that fastai gives such targets; used for display only, batches hold plain tensors."""
        return {"single": TensorCategory, "multi": TensorMultiCategory, "regression": TensorBase}[self.kind]

    def encode(self, labels: Sequence[object] | np.ndarray, rows: np.ndarray) -> Tensor:
        """Labels as the targets that a loss takes.

        Args:
            labels: of all rows. A class is given by its name or its number, several as a list or as a row of 0 and 1.
            rows: the n rows whose targets are wanted.

        Returns:
            int64 (n,) for one class, float32 (n, classes) for several, float32 (n,) or (n, numbers) for regression.

        Raises:
            UlmfitError: a row has no label, or one that is not among the classes.
        """
        labels = by_position(labels, self.classes)
        chosen = [labels[row] for row in rows.tolist()]
        missing = [row for row, label in zip(rows.tolist(), chosen) if is_missing(label)]
        if missing:
            raise UlmfitError(f"every text of train and valid needs a label, rows {shown(missing)} have none; "
                              "leave them out")
        if self.kind == "regression":
            return _as_numbers(chosen)
        numbers = self._class_numbers()
        if self.kind == "single":
            self._refuse_unknown(chosen, numbers)
            return torch.tensor([numbers[label] for label in chosen], dtype=torch.long)
        if isinstance(chosen[0], np.ndarray) and chosen[0].dtype.kind in "biuf":
            return self._rows_of_0_and_1(cast("list[np.ndarray]", chosen))
        lists = cast("list[Iterable[object]]", chosen)
        self._refuse_unknown([label for several in lists for label in several], numbers)
        targets = torch.zeros(len(lists), self.n_out)
        for target, several in zip(targets, lists):
            target[[numbers[label] for label in several]] = 1.0
        return targets

    def _class_numbers(self) -> dict[object, int]:
        """Number of each class by its name and, where no name is a number itself, by its number."""
        numbers: dict[object, int] = {name: i for i, name in enumerate(self.classes)}
        if all(isinstance(name, str) for name in self.classes):
            numbers.update({i: i for i in range(self.n_out)})
        return numbers

    def _refuse_unknown(self, found: Iterable[object], numbers: Mapping[object, int]) -> None:
        unknown = sorted({str(label) for label in found if label not in numbers})
        if unknown:
            raise UlmfitError(f"labels must be among the classes {shown(self.classes)}, found also {shown(unknown)}")

    def _rows_of_0_and_1(self, chosen: list[np.ndarray]) -> Tensor:
        rows = np.asarray(chosen, dtype=np.float32)
        if rows.shape != (len(chosen), self.n_out) or not np.isin(rows, (0, 1)).all():
            raise UlmfitError(f"a text's label must be {self.n_out} numbers 0 or 1, one a class, found for the first "
                              f"{chosen[0].tolist()}")
        return torch.from_numpy(rows)

    def decode(self, target: Tensor) -> Category | MultiCategory | TitledFloat | TitledTuple:
        """What a target or a decoded prediction means, as an object fastai can show."""
        if self.kind == "single":
            return Category(self.classes[int(target)])
        if self.kind == "multi":
            return MultiCategory(self.classes[i] for i in torch.nonzero(target).flatten().tolist())
        return TitledFloat(target.item()) if target.numel() == 1 else TitledTuple(target.tolist())


def _as_numbers(labels: Sequence[object]) -> Tensor:
    try:
        return torch.tensor(np.asarray(labels, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise UlmfitError(f"without classes= labels must be numbers, found {shown(labels, 3)}") from error


@dataclass(frozen=True, eq=False)
class Targets:
    """The labels of all rows of a data set, as `classifier_dataloaders` takes them.

    Attributes:
        target: what they mean.
        values: class numbers int64 (rows,), -1 without a label; for several classes float32 0 and 1 (rows, classes);
            for numbers float32 (rows,), less `target.mean` and divided by `target.scale` (those of the training rows),
            NaN without a label.
    """

    target: Target
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, dataset: Dataset, train: np.ndarray) -> Targets:
        """Read the labels of a data set.

        Args:
            train: the rows that give a number its mean and scale.
        """
        kind = kind_of(classes=bool(dataset.classes), several=bool(dataset.label_delim))
        labels = dataset.df["label"].tolist()
        number = {name: i for i, name in enumerate(dataset.classes)}
        target = Target(kind, dataset.classes)
        if kind == "single":
            return cls(target, np.array([number.get(label, -1) for label in labels], dtype=np.int64))
        if kind == "multi":
            values = np.zeros((len(labels), len(dataset.classes)), dtype=np.float32)
            for row, label in enumerate(labels):
                values[row, [number[name] for name in (label or "").split(dataset.label_delim) if name]] = 1.0
            return cls(target, values)
        numbers = np.array([np.nan if label is None else float(label) for label in labels])
        known = numbers[train] if len(train) else np.zeros(1)  # without labels, for a language model alone
        mean, scale = float(known.mean()), float(known.std()) or 1.0
        return cls(Target(kind, (), mean, scale), ((numbers - mean) / scale).astype(np.float32))

    @classmethod
    def blank(cls, target: Target, n: int) -> Targets:
        """`n` labels that say nothing, where texts without words stand in for those that a model was trained on."""
        if target.kind == "single":
            return cls(target, np.zeros(n, np.int64))
        return cls(target, np.zeros((n, target.n_out) if target.kind == "multi" else n, np.float32))

    def truth(self, rows: np.ndarray) -> np.ndarray:
        """The labels of these rows as outputs are compared with them: numbers in their own unit."""
        values = self.values[rows]
        return self.target.in_own_unit(values.astype(np.float64)) if self.target.kind == "regression" else values
