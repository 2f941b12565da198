"""Your own texts and labels, in the forms people have them, as a checked `Dataset`: lists, Series, arrays, frames."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from .frames import Dataset, build, from_frame, joined_texts, shown

log = logging.getLogger(__name__)

TASKS = {"classification": "single", "multilabel": "multi", "regression": "regression"}
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


def class_name(value: Any) -> str:
    """A class as text: '1' for 1 and 1.0."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value)


def is_missing(value: Any) -> bool:
    """None, NaN, pandas' NA, or a text of blanks."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, (float, np.floating))
                                                                  and bool(np.isnan(value)))


# ------------------------------------------------------------------------------------------------------------- texts
def text_frame(texts: Any, columns: str | Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """Texts in any form as a frame, and its columns that hold them.

    A list, array or Series becomes the column 'text'. Of a frame, `columns` says which; without it, the only column,
    or the one called 'text'.
    """
    if isinstance(texts, str):
        raise ValueError("expected many texts, found one string: put it in a list")
    if isinstance(texts, pd.DataFrame):
        chosen = [columns] if isinstance(columns, str) else list(columns or _only_column(texts))
        absent = [name for name in chosen if name not in texts]
        if absent:
            raise ValueError(f"no column {shown(absent)}; the columns are {shown(list(texts.columns), 30)}")
        return texts, chosen
    if columns is not None and not isinstance(columns, str) and len(columns) > 1:
        raise ValueError(f"expected a DataFrame with the columns {shown(columns)}, found a {type(texts).__name__}")
    if isinstance(texts, pd.Series):
        index, values = texts.index, texts.tolist()
    else:
        array = np.asarray(texts) if hasattr(texts, "__array__") else None
        if array is not None and array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array is not None and array.ndim != 1:
            raise ValueError(f"expected one text a row, found an array of shape {array.shape}; put several fields of "
                             "a text into the columns of a DataFrame")
        values = list(texts) if array is None else array.tolist()
        index = pd.RangeIndex(len(values))
    strange = [row for row, value in enumerate(values) if not isinstance(value, str) and not is_missing(value)]
    if strange:
        raise ValueError(f"expected texts, found a {type(values[strange[0]]).__name__} in row {index[strange[0]]} "
                         f"({len(strange):,} rows are no text)")
    name = columns if isinstance(columns, str) else columns[0] if columns else "text"
    return pd.DataFrame({name: pd.Series(values, dtype=object, index=index)}), [name]


def is_frame(texts: Any) -> bool:
    """Whether texts come as columns of a frame."""
    return isinstance(texts, pd.DataFrame)


def _only_column(frame: pd.DataFrame) -> list[str]:
    if frame.shape[1] == 1:
        return [frame.columns[0]]
    if "text" in frame:
        return ["text"]
    raise ValueError(f"which column holds the texts? Give text=; the columns are {shown(list(frame.columns), 30)}")


def plain_texts(texts: Any, columns: str | Sequence[str] | None) -> list[str]:
    """One string a row, several columns joined as in training; ValueError naming the rows that hold nothing."""
    frame, chosen = text_frame(texts, columns)
    found = joined_texts(frame, chosen)
    empty = [frame.index[row] for row, text in enumerate(found) if not text]
    if empty:
        raise ValueError(f"row{'s' * (len(empty) > 1)} {shown(empty)} of column {' + '.join(map(str, chosen))} "
                         f"{'are' if len(empty) > 1 else 'is'} empty ({len(empty):,} of {len(found):,}): leave "
                         f"{'them' if len(empty) > 1 else 'it'} out")
    return found


# ------------------------------------------------------------------------------------------------------------ labels
def read_labels(labels: Any, task: str = "auto") -> OwnLabels:
    """Read labels of any form; to `task` 'auto', lists and rows of 0 and 1 are several classes, fractions are numbers.

    Whole numbers are classes, as in scikit-learn, unless `task` is 'regression'.
    """
    if task != "auto" and task not in TASKS:
        raise ValueError(f"task must be auto, {', '.join(TASKS)}; found {task!r}")
    if isinstance(labels, str):
        raise ValueError(f"expected one label for each text, found the string {labels!r}; a column is named by label=")
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
            raise ValueError(f"task multilabel expects a list of classes for each text, found {odd!r}")
        return _lists(values)
    if any(several):
        raise ValueError(f"task {task} expects one label a text, found {known[several.index(True)]!r}; use "
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
        raise ValueError(f"labels of shape {array.shape} are read as rows of 0 and 1, one column a class"
                         + (f", but task is {task}" if task != "auto" else "; found other values in them"))
    classes = tuple(labels.columns) if isinstance(labels, pd.DataFrame) else tuple(range(array.shape[1]))
    return OwnLabels("multi", classes, [tuple(np.flatnonzero(row).tolist()) for row in array], indicator=True)


def _numbers(values: list[Any]) -> OwnLabels:
    read: list[Any] = []
    for row, value in enumerate(values):
        try:
            read.append(None if is_missing(value) else float(value))
        except (TypeError, ValueError):
            raise ValueError(f"task regression expects numbers, found {value!r} in row {row}") from None
        if read[-1] is not None and not np.isfinite(read[-1]):
            raise ValueError(f"task regression expects finite numbers, found {value!r} in row {row}")
    return OwnLabels("regression", (), read)


# ----------------------------------------------------------------------------------------------------------- dataset
def own_dataset(texts: Any, labels: OwnLabels, *, columns: Sequence[str] | None, unlabelled: Any = None,
                drop_missing: bool = False, source: str | None = None) -> Dataset:
    """A `Dataset` of labelled training rows and unlabelled ones; what is missing is refused by row, or left out.

    Classes are in the order of `labels`. With `drop_missing`, rows without text are left out and rows without label
    join the unlabelled ones; the notes say which.
    """
    frame, chosen = text_frame(texts, columns)
    if len(labels.values) != len(frame):
        raise ValueError(f"expected one label for each of the {len(frame):,} texts, found {len(labels.values):,}")
    checked = from_frame(frame, text=chosen, label=None, drop_missing=drop_missing)
    more = [] if unlabelled is None else _unlabelled(unlabelled, chosen)
    kept = [row for row, text in enumerate(joined_texts(frame, chosen)) if text]
    bare = [row for row in kept if labels.values[row] is None]
    notes = list(checked.notes)
    if bare:
        which = f"row{'s' * (len(bare) > 1)} {shown(frame.index[row] for row in bare)} " \
                f"{'have' if len(bare) > 1 else 'has'} no label"
        if not drop_missing:
            raise ValueError(f"{which} ({len(bare):,} of {len(frame):,}). Fill them in, or give drop_missing=True to "
                             "use them as unlabelled texts")
        notes.append(f"{which}: used as unlabelled texts")
        log.warning("%s", notes[-1])
    delim = delimiter(labels.names) if labels.kind == "multi" else None
    written = [_written(labels, labels.values[row], delim) for row in kept]
    ids = [str(frame.index[row]) for row in kept]
    parts = {
        "id": [*(ids if len(set(ids)) == len(ids) else map(str, kept)),
               *(f"unlabelled-{i}" for i in range(len(more)))],
        "text": [*checked.df["text"], *more], "label": [*written, *[None] * len(more)],
        "split": [*("unsup" if label is None else "train" for label in written), *["unsup"] * len(more)],
    }
    _check_classes(labels, [labels.values[row] for row in kept])
    dataset = build("custom", parts, source or f"{len(frame):,} texts given in Python", notes=notes)
    return replace(dataset, classes=labels.names, label_delim=delim)


def _unlabelled(texts: Any, columns: list[str]) -> list[str]:
    """Texts for the language model alone; empty ones are left out."""
    same = isinstance(texts, pd.DataFrame) and set(columns) <= set(texts.columns)
    frame, chosen = text_frame(texts, columns if same or len(columns) > 1 else None)
    return from_frame(frame, text=chosen, label=None, drop_missing=True).df["text"].tolist() if len(frame) else []


def _written(labels: OwnLabels, value: Any, delim: str | None) -> str | None:
    if value is None:
        return None
    if labels.kind == "regression":
        return repr(value)
    return labels.names[value] if labels.kind == "single" else str(delim).join(labels.names[i] for i in value)


def delimiter(names: Sequence[str]) -> str:
    """A delimiter that no class has in its name."""
    return next(mark for mark in (";", "|", "\x1f") if not any(mark in name for name in names))


def _check_classes(labels: OwnLabels, values: list[Any]) -> None:
    """Refuse labels that nothing can be learnt from."""
    known = [value for value in values if value is not None]
    if labels.kind == "regression":
        if len(set(known)) < 2:
            raise ValueError(f"the labels are one number only ({shown(set(known))}): there is nothing to learn")
        return
    found = {i for value in known for i in (value if labels.kind == "multi" else (value,))}
    if labels.kind == "single" and len(found) < 2:
        raise ValueError(f"the labels are of one class only ({shown(labels.names[i] for i in found)}) in "
                         f"{len(known):,} rows: a classifier needs two or more")
    if not found:
        raise ValueError("no text has a class")
    if labels.kind == "single" and len(found) == len(known) >= 10:
        raise ValueError(f"each of the {len(known):,} labels is another ({shown(labels.names, 3)}): are they classes? "
                         "For numbers give task='regression'")


def class_weights(weights: str | Mapping[Any, float] | None, labels: OwnLabels) -> tuple[float, ...] | None:
    """A number for each class: given, or 'balanced', inverse to how often it occurs and 1 on average over the texts.

    For several classes a text, 'balanced' is texts without the class over texts with it (at most 100).
    """
    if weights is None:
        return None
    if labels.kind == "regression":
        raise ValueError("class_weight is given, but the labels are numbers, not classes")
    known = [value if labels.kind == "multi" else (value,) for value in labels.values if value is not None]
    counts = np.bincount([i for value in known for i in value], minlength=len(labels.classes))
    if isinstance(weights, str):
        if weights != "balanced":
            raise ValueError(f"class_weight must be 'balanced', a mapping from class to weight, or None; found "
                             f"{weights!r}")
        if labels.kind == "multi":
            return tuple(float(min((len(known) - n) / max(n, 1), 100.0)) or 0.01 for n in counts)
        return tuple(float(len(known) / (len(counts) * max(n, 1))) for n in counts)
    if not isinstance(weights, Mapping):
        raise ValueError(f"class_weight must be 'balanced', a mapping from class to weight, or None; found {weights!r}")
    given = {class_name(key): float(value) for key, value in weights.items()}
    unknown = sorted(set(given) - set(labels.names))
    if unknown:
        raise ValueError(f"class_weight names {shown(unknown)}; the classes are {shown(labels.names)}")
    return tuple(given.get(name, 1.0) for name in labels.names)
