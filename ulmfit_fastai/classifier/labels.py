"""Your own labels, in the forms people have them: a class, several classes or a number for each text."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._words import shown
from ..batches.targets import class_name
from ..texts.dataset import is_na

log = logging.getLogger(__name__)

TASKS = {"classification": "single", "multilabel": "multi", "regression": "regression"}
"""What users call the kinds of labels in targets.py."""
MANY_NUMBERS = 20  # more distinct whole numbers than this look like a quantity rather than classes


@dataclass(frozen=True, eq=False)
class OwnLabels:
    """Labels as read: `kind` (see targets.py), the classes as the user wrote them, and one value for each row.

    A value is a class's number, a tuple of them, or a float; None where there is no label. `indicator`: several
    classes were given as rows of 0 and 1.
    """

    kind: str
    classes: tuple[Any, ...]
    values: list[Any]
    indicator: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as text, which is how files hold them."""
        return tuple(class_name(value) for value in self.classes)


def is_missing(value: Any) -> bool:
    """What is no value, or a text of blanks."""
    return not value.strip() if isinstance(value, str) else is_na(value)


def read_labels(labels: Any, task: str = "auto") -> OwnLabels:
    """Read labels of any form; to `task` 'auto', lists and rows of 0 and 1 are several classes, fractions are numbers.

    Whole numbers are classes, as in scikit-learn, unless `task` is 'regression'.
    """
    if task != "auto" and task not in TASKS:
        raise UlmfitError(f"task must be auto, {', '.join(TASKS)}; found {task!r}")
    if isinstance(labels, str):
        raise UlmfitError(f"expected one label for each text, found the string {labels!r}; a column is named by label=")
    if getattr(labels, "ndim", 1) == 2 and labels.shape[1] == 1 and task != "multilabel":
        labels = np.asarray(labels)[:, 0]
    if getattr(labels, "ndim", 1) == 2:
        return _indicator(labels, task)
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    known = [value for value in values if not is_missing(value)]
    several = [isinstance(value, (list, tuple, set, frozenset, np.ndarray)) for value in known]
    kind = TASKS.get(task) or _kind(known, any(several))
    if kind == "multi":
        if not all(several):
            odd = known[several.index(False)]
            raise UlmfitError(f"task multilabel expects a list of classes for each text, found {odd!r}")
        return _lists(values)
    if any(several):
        raise UlmfitError(f"task {task} expects one label a text, found {known[several.index(True)]!r}; use "
                          "task='multilabel'")
    return _numbers(values) if kind == "regression" else _single(values, known)


def _kind(known: list[Any], several: bool) -> str:
    if several:
        return "multi"
    numeric = [value for value in known if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)]
    if len(numeric) == len(known) and any(not float(value).is_integer() for value in numeric):
        return "regression"
    if len(numeric) == len(known) and len(set(numeric)) > MANY_NUMBERS:
        log.warning("the labels are %s different whole numbers, taken for as many classes; if they are quantities, "
                    "give task='regression'", f"{len(set(numeric)):,}")
    return "single"


def _classes(known: Iterable[Any]) -> tuple[Any, ...]:
    """Distinct classes in numpy's order, that of scikit-learn's `classes_`; of unlike types, in that of their names."""
    distinct = list({class_name(value): value for value in known}.items())
    try:
        return tuple(sorted((value for _, value in distinct)))
    except TypeError:
        return tuple(value for _, value in sorted(distinct, key=lambda pair: pair[0]))


def _single(values: list[Any], known: list[Any]) -> OwnLabels:
    classes = _classes(known)
    number = {class_name(value): i for i, value in enumerate(classes)}
    return OwnLabels("single", classes, [None if is_missing(v) else number[class_name(v)] for v in values])


def _lists(values: list[Any]) -> OwnLabels:
    classes = _classes(v for several in values if not is_missing_list(several) for v in several)
    number = {class_name(value): i for i, value in enumerate(classes)}
    read = [None if is_missing_list(several) else tuple(sorted({number[class_name(v)] for v in several}))
            for several in values]
    return OwnLabels("multi", classes, read)


def is_missing_list(value: Any) -> bool:
    """Missing where a list of classes should stand; an empty list is none: the text has no class."""
    return not isinstance(value, (list, tuple, set, frozenset, np.ndarray)) and is_missing(value)


def _indicator(labels: Any, task: str) -> OwnLabels:
    array = np.asarray(labels)
    if task not in ("auto", "multilabel") or not np.isin(array, (0, 1)).all():
        raise UlmfitError(f"labels of shape {array.shape} are read as rows of 0 and 1, one column a class"
                          + (f", but task is {task}" if task != "auto" else "; found other values in them"))
    classes = tuple(labels.columns) if isinstance(labels, pd.DataFrame) else tuple(range(array.shape[1]))
    return OwnLabels("multi", classes, [tuple(np.flatnonzero(row).tolist()) for row in array], indicator=True)


def _numbers(values: list[Any]) -> OwnLabels:
    read: list[Any] = []
    for row, value in enumerate(values):
        try:
            read.append(None if is_missing(value) else float(value))
        except (TypeError, ValueError):
            raise UlmfitError(f"task regression expects numbers, found {value!r} in row {row}") from None
        if read[-1] is not None and not np.isfinite(read[-1]):
            raise UlmfitError(f"task regression expects finite numbers, found {value!r} in row {row}")
    return OwnLabels("regression", (), read)


def delimiter(names: Sequence[str]) -> str:
    """A delimiter that no class has in its name."""
    return next(mark for mark in (";", "|", "\x1f") if not any(mark in name for name in names))


def check_classes(labels: OwnLabels, values: list[Any]) -> None:
    """Refuse labels that nothing can be learnt from."""
    known = [value for value in values if value is not None]
    if not known:
        raise UlmfitError(f"expected texts with labels, found none in {len(values):,} rows")
    if labels.kind == "regression":
        if len(set(known)) < 2:
            raise UlmfitError(f"the labels are one number only ({shown(set(known))}): there is nothing to learn")
        return
    found = {i for value in known for i in (value if labels.kind == "multi" else (value,))}
    if labels.kind == "single" and len(found) < 2:
        raise UlmfitError(f"the labels are of one class only ({shown(labels.names[i] for i in found)}) in "
                          f"{len(known):,} rows: a classifier needs two or more")
    if not found:
        raise UlmfitError("no text has a class")
    if labels.kind == "single" and len(found) == len(known) >= 10:
        raise UlmfitError(f"each of the {len(known):,} labels is another ({shown(labels.names, 3)}): are they classes? "
                          "For numbers give task='regression'")


def class_weights(weights: str | Mapping[Any, float] | None, labels: OwnLabels) -> tuple[float, ...] | None:
    """A number for each class: given, or 'balanced', inverse to how often it occurs and 1 on average over the texts.

    For several classes a text, 'balanced' is texts without the class over texts with it (at most 100).
    """
    if weights is None:
        return None
    if labels.kind == "regression":
        raise UlmfitError("class_weight is given, but the labels are numbers, not classes")
    known = [value if labels.kind == "multi" else (value,) for value in labels.values if value is not None]
    counts = np.bincount([i for value in known for i in value], minlength=len(labels.classes))
    if isinstance(weights, str):
        if weights != "balanced":
            raise UlmfitError(f"class_weight must be 'balanced', a mapping from class to weight, or None; found "
                              f"{weights!r}")
        if labels.kind == "multi":
            return tuple(float(min((len(known) - n) / max(n, 1), 100.0)) or 0.01 for n in counts)
        return tuple(float(len(known) / (len(counts) * max(n, 1))) for n in counts)
    if not isinstance(weights, Mapping):
        raise UlmfitError(f"class_weight must be 'balanced', a mapping from class to weight, or None; found "
                          f"{weights!r}")
    given = {class_name(key): float(value) for key, value in weights.items()}
    unknown = sorted(set(given) - set(labels.names))
    if unknown:
        raise UlmfitError(f"class_weight names {shown(unknown)}; the classes are {shown(labels.names)}")
    return tuple(given.get(name, 1.0) for name in labels.names)


def known_values(labels: OwnLabels, kind: str, classes: Sequence[Any]) -> tuple[list[Any], tuple[Any, ...]]:
    """Labels as numbers into a model's classes, and those classes, behind which stand any that it doesn't know.

    Such a class can only be answered wrongly; a fold of a cross-validation may well hold one. ValueError for a missing
    label, and where the model knows none of the classes.
    """
    missing = [row for row, value in enumerate(labels.values) if value is None]
    if missing:
        raise UlmfitError(f"row{'s' * (len(missing) > 1)} {shown(missing)} {'have' if len(missing) > 1 else 'has'} no "
                          f"label: leave {'them' if len(missing) > 1 else 'it'} out")
    if kind == "regression" or (labels.indicator and len(labels.classes) == len(classes)):
        return labels.values, tuple(classes)
    number = {class_name(name): i for i, name in enumerate(classes)}
    unknown = [name for name in labels.classes if class_name(name) not in number]
    if unknown and len(unknown) == len(labels.classes):
        raise UlmfitError(f"the labels {shown(unknown)} are none of the model's classes ({shown(number)})")
    if unknown:
        log.warning("the model doesn't know the class %s: every such text counts as wrong", shown(unknown))
    every = (*classes, *unknown)
    number = {class_name(name): i for i, name in enumerate(every)}
    place = [number[name] for name in labels.names]
    return [tuple(place[i] for i in v) if isinstance(v, tuple) else place[v] for v in labels.values], every
