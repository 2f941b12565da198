"""Your own labels, in the forms people have them: a class, several classes or a number for each text."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._words import shown
from ..batches.targets import LISTS, TASKS, Target, by_position, kind_of
from ..texts.classes import NUMBER, Spellings, class_name, plain_class, written_lists
from ..texts.values import is_missing

log = logging.getLogger(__name__)

MANY_NUMBERS = 20  # more distinct whole numbers than this look like a quantity rather than classes
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class OwnLabels:
    """Labels as read: what they are, with the classes as the user wrote them, and one value for each row.

    A value is a class's number, a tuple of them, or a float; None where there is no label. `indicator`: several
    classes were given as rows of 0 and 1; `named`: whose columns have names.
    """

    target: Target
    values: list[Any]
    indicator: bool = False
    named: bool = False

    @property
    def kind(self) -> str:
        """As in `Target`."""
        return self.target.kind

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as text."""
        return self.target.names


def read_labels(labels: Any, task: str = "auto") -> OwnLabels:
    """Read labels of any form; to `task` 'auto', lists and rows of 0 and 1 are several classes, fractions are numbers.

    Whole numbers are classes, as in scikit-learn, unless `task` is 'regression'.
    """
    if task != "auto" and task not in TASKS:
        raise UlmfitError(f"task must be auto, {', '.join(TASKS)}; found {task!r}")
    if isinstance(labels, str):
        raise UlmfitError(f"expected one label for each text, found the string {labels!r}", field="label",
                          advice="name a column by `label=`")
    if isinstance(labels, (Mapping, set, frozenset)):
        raise UlmfitError(f"expected one label for each text in their order, found a {type(labels).__name__}, which "
                          "has no order of its own: give a list")
    if getattr(labels, "ndim", 1) == 2 and labels.shape[1] == 1 and task != "multilabel":
        labels = np.asarray(by_position(labels))[:, 0]
    if getattr(labels, "ndim", 1) == 2:
        return _indicator(labels, task)
    values = _listed(labels)
    values = (written_lists(values) if task in ("auto", "multilabel") else None) or values
    known = [value for value in values if not is_missing(value)]
    several = [isinstance(value, LISTS) for value in known]
    kind = TASKS.get(task) or _kind(known, any(several))
    if kind == "multi":
        if not all(several):
            odd = known[several.index(False)]
            raise UlmfitError(f"task multilabel expects a list of classes for each text, found {odd!r}")
        return _lists(values)
    if any(several):
        raise UlmfitError(f"task {task} expects one label a text, found {known[several.index(True)]!r}", field="task",
                          advice="use `task='multilabel'`")
    return _numbers(values) if kind == "regression" else _single(values, known)


def _listed(labels: Any) -> list[Any]:
    """Labels of a Series, an array or anything else in a list; of numpy's dates, which would be whole numbers."""
    if getattr(getattr(labels, "dtype", None), "kind", None) in ("m", "M"):
        labels = pd.Series(np.asarray(labels))
    listed = labels.tolist() if hasattr(labels, "tolist") else labels
    if not isinstance(listed, Iterable):
        raise UlmfitError(f"expected one label for each text, found {labels!r}", field="label",
                          advice="name a column by `label=`")
    return list(listed)


def _kind(known: list[Any], several: bool) -> str:
    """Fractions are numbers, anything else is a class."""
    plain = [] if several else [plain_class(value) for value in known]
    numeric = [value for value in plain if isinstance(value, (int, float)) and not isinstance(value, bool)]
    all_numeric = not several and len(numeric) == len(known)
    fractions = all_numeric and any(not float(value).is_integer() for value in numeric)
    written = not several and len(plain) > 0 and all(isinstance(v, str) and NUMBER.fullmatch(v) for v in plain)
    if (all_numeric and not fractions or written) and len(set(plain)) > MANY_NUMBERS:
        log.warning("the labels are %s different %snumbers, taken for as many classes; if they are quantities, "
                    "give task='regression'", f"{len(set(plain)):,}", "" if written else "whole ")
    if all_numeric and not fractions and min(numeric, default=0) == -1 and len(set(numeric)) > 2:
        log.warning("the label -1 is a class like the others; if it stands for no label, give None there")
    return kind_of(classes=not fractions, several=several)


def _classes(known: Iterable[Any]) -> tuple[Any, ...]:
    """Distinct classes in numpy's order, that of scikit-learn's `classes_`; of unlike types, in that of their names."""
    distinct: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for value in known:
        name = class_name(value)
        distinct.setdefault(name, plain_class(value))
        if type(value) in (str, np.str_) and value != name:
            spelt[value] = name
    if spelt:
        log.warning("blanks around classes, and how accents are composed, don't tell them apart: %s",
                    shown((f"{given!r} is read as {name!r}" for given, name in spelt.items()), 3))
    try:
        return tuple(sorted(distinct.values()))
    except TypeError:
        return tuple(value for _, value in sorted(distinct.items()))


def _single(values: list[Any], known: list[Any]) -> OwnLabels:
    classes = _classes(known)
    number = {class_name(value): i for i, value in enumerate(classes)}
    return OwnLabels(Target("single", classes), [None if is_missing(v) else number[class_name(v)] for v in values])


def _lists(values: list[Any]) -> OwnLabels:
    """Several classes a text; a gap in a list is no class."""
    filled = [None if is_missing_list(several) else [v for v in several if not is_missing(v)] for several in values]
    classes = _classes(v for several in filled if several is not None for v in several)
    number = {class_name(value): i for i, value in enumerate(classes)}
    read = [None if several is None else tuple(sorted({number[class_name(v)] for v in several})) for several in filled]
    return OwnLabels(Target("multi", classes), read)


def is_missing_list(value: Any) -> bool:
    """Missing where a list of classes should stand; an empty list is none: the text has no class."""
    return not isinstance(value, LISTS) and is_missing(value)


def _indicator(labels: Any, task: str) -> OwnLabels:
    array = np.asarray(by_position(labels))
    if task not in ("auto", "multilabel") or bool(pd.isna(array).any()) or not np.isin(array, (0, 1)).all():
        raise UlmfitError(f"labels of shape {array.shape} are read as rows of 0 and 1, one column a class"
                          + (f", but task is {task}" if task != "auto" else "; found other values in them"))
    named = isinstance(labels, pd.DataFrame) and not isinstance(labels.columns, pd.RangeIndex)
    classes = tuple(map(plain_class, labels.columns.tolist())) if named else tuple(range(array.shape[1]))
    if len(set(map(class_name, classes))) < len(classes):
        raise UlmfitError(f"two columns of the labels are called alike: {shown(classes)}")
    values: list[Any] = [tuple(np.flatnonzero(row).tolist()) for row in array.astype(bool)]
    return OwnLabels(Target("multi", classes), values, indicator=True, named=named)


def _numbers(values: list[Any]) -> OwnLabels:
    read: list[Any] = []
    for row, value in enumerate(values):
        try:
            read.append(None if is_missing(value) else float(value))
        except (TypeError, ValueError):
            raise UlmfitError(f"task regression expects numbers, found {value!r} in row {row}") from None
        if read[-1] is not None and not np.isfinite(read[-1]):
            raise UlmfitError(f"task regression expects finite numbers, found {value!r} in row {row}")
        if read[-1] is not None and abs(read[-1]) > FLOAT32_MAX:
            raise UlmfitError(f"task regression expects numbers up to {FLOAT32_MAX:.1e}, which float32 can hold, found "
                              f"{value!r} in row {row}: give them in another unit, or their logarithms")
    return OwnLabels(Target("regression"), read)


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
        raise UlmfitError(f"each of the {len(known):,} labels is another ({shown(labels.names, 3)}): are they classes?",
                          field="label", advice="for numbers give `task='regression'`")


def class_weights(weights: str | Mapping[Any, float] | None, labels: OwnLabels) -> tuple[float, ...] | None:
    """A number for each class: given, or 'balanced', inverse to how often it occurs and 1 on average over the texts.

    For several classes a text, 'balanced' is texts without the class over texts with it (at most 100).
    """
    if weights is None:
        return None
    if labels.kind == "regression":
        raise UlmfitError("weights of classes are given, but the labels are numbers, not classes",
                          field="class_weight", advice="leave `class_weight=` out")
    known = [value if labels.kind == "multi" else (value,) for value in labels.values if value is not None]
    counts = np.bincount([i for value in known for i in value], minlength=len(labels.target.classes))
    if isinstance(weights, str):
        if weights != "balanced":
            raise _wrong_weights(weights)
        if labels.kind == "multi":
            return tuple(float(min((len(known) - n) / max(n, 1), 100.0)) or 0.01 for n in counts)
        return tuple(float(len(known) / (len(counts) * max(n, 1))) for n in counts)
    if not isinstance(weights, (Mapping, pd.Series)):
        raise _wrong_weights(weights)
    own = Spellings(labels.target.classes)
    given = {own.find(key): float(value) for key, value in weights.items()}
    unknown = sorted(class_name(key) for key in weights.keys() if own.find(key) is None)
    if unknown:
        raise UlmfitError(f"weights are given for {shown(unknown)}; the classes are {shown(labels.names)}",
                          field="class_weight", found=unknown, advice="name these in `class_weight=`")
    return tuple(given.get(number, 1.0) for number in range(len(labels.names)))


def _wrong_weights(found: Any) -> UlmfitError:
    return UlmfitError(f"expected 'balanced', a weight for each class, or none, found {found!r}", field="class_weight",
                       found=found, advice="give another `class_weight=`")


def known_values(labels: OwnLabels, target: Target) -> tuple[list[Any], tuple[Any, ...]]:
    """Labels as numbers into a model's classes, and those classes, behind which stand any that it doesn't know.

    Such a class can only be answered wrongly; a fold of a cross-validation may well hold one. ValueError for a missing
    label, and where the model knows none of the classes.
    """
    missing = [row for row, value in enumerate(labels.values) if value is None]
    if missing:
        raise UlmfitError(f"row{'s' * (len(missing) > 1)} {shown(missing)} {'have' if len(missing) > 1 else 'has'} no "
                          f"label: leave {'them' if len(missing) > 1 else 'it'} out")
    own, classes = labels.target.classes, target.classes
    unnamed = labels.indicator and not (labels.named and classes != tuple(range(len(classes))))
    if target.kind == "regression" or (unnamed and len(own) == len(classes)):
        return labels.values, classes
    spellings = Spellings(classes)
    unknown = list({class_name(value): value for value in own if spellings.find(value) is None}.values())
    if unknown and len(unknown) == len(own):
        raise UlmfitError(f"the labels {shown(unknown)} are none of the model's classes ({shown(target.names)})")
    if unknown:
        log.warning("the model doesn't know the class %s: every such text counts as wrong", shown(unknown))
    number = {class_name(value): i for i, value in enumerate(unknown, len(classes))}
    place = [number[class_name(value)] if (found := spellings.find(value)) is None else found for value in own]
    return [tuple(place[i] for i in v) if isinstance(v, tuple) else place[v] for v in labels.values
            ], (*classes, *unknown)


def aligned(labels: Any, texts: Any) -> Any:
    """Labels in the order of the texts: by their index where both are of pandas and have one, else by position.

    An index of other values than the texts' has no such order, unless one of the two is a plain count of rows.

    Raises:
        UlmfitError: the labels' index is of other values than the texts'.
    """
    of_pandas = (pd.Series, pd.DataFrame)
    if not isinstance(labels, of_pandas) or not isinstance(texts, of_pandas) or labels.index.equals(texts.index):
        return labels
    ours, theirs = texts.index, labels.index
    if len(ours) == len(theirs) and ours.is_unique and theirs.is_unique and theirs.isin(ours).all():
        log.warning("the labels have the texts' index in another order: they are put into theirs (if their order is "
                    "that of the texts already, give a list)")
        return labels.reindex(ours)
    if len(ours) != len(theirs) or any(index.equals(pd.RangeIndex(len(index))) for index in (ours, theirs)):
        return labels  # counted, or of another length, which is refused by its number
    raise UlmfitError(f"the labels' index ({shown(theirs, 3)}) has other values than the texts' ({shown(ours, 3)}), "
                      "and neither is a plain count of rows: which label is whose? Give both the same index, or "
                      "reset_index(drop=True) where their order is the same", field="label")
