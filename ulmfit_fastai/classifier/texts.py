"""Your own texts, in lists, Series, arrays or frames, with their labels as a checked `Dataset`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._words import rows_named, shown
from ..texts.dataset import Dataset, build, from_frame, joined_texts, report_missing
from .labels import OwnLabels, check_classes, delimiter, is_missing

log = logging.getLogger(__name__)


def text_frame(texts: Any, columns: str | Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """Texts in any form as a frame, and its columns that hold them.

    A list, array or Series becomes the column 'text'. Of a frame, `columns` says which; without it, the only column,
    or the one called 'text'.
    """
    if isinstance(texts, str):
        raise UlmfitError("expected many texts, found one string: put it in a list")
    if isinstance(texts, pd.DataFrame):
        chosen = [columns] if isinstance(columns, str) else list(columns or _only_column(texts))
        absent = [name for name in chosen if name not in texts]
        if absent:
            raise UlmfitError(f"no column {shown(absent)}; the columns are {shown(list(texts.columns), 30)}")
        return texts, chosen
    if columns is not None and not isinstance(columns, str) and len(columns) > 1:
        raise UlmfitError(f"expected a DataFrame with the columns {shown(columns)}, found a {type(texts).__name__}")
    if isinstance(texts, pd.Series):
        index, values = texts.index, texts.tolist()
    else:
        array = np.asarray(texts) if hasattr(texts, "__array__") else None
        if array is not None and array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array is not None and array.ndim != 1:
            raise UlmfitError(f"expected one text a row, found an array of shape {array.shape}; put several fields of "
                              "a text into the columns of a DataFrame")
        if array is None and not isinstance(texts, Iterable):
            raise UlmfitError(f"expected a list of texts, found {texts!r}")
        values = list(texts) if array is None else array.tolist()
        index = pd.RangeIndex(len(values))
    strange = [row for row, value in enumerate(values) if not isinstance(value, str) and not is_missing(value)]
    if strange:
        raise UlmfitError(f"expected texts, found {str(values[strange[0]])[:40]} in "
                          f"{rows_named(index, strange[:1])}; {len(strange):,} of {len(values):,} are no text")
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
    raise UlmfitError(f"which column holds the texts? The columns are {shown(list(frame.columns), 30)}", field="text",
                      advice="name it by `text=`")


def plain_texts(texts: Any, columns: str | Sequence[str] | None) -> list[str]:
    """One string a row, several columns joined as in training; ValueError naming the rows that hold nothing."""
    frame, chosen = text_frame(texts, columns)
    found = joined_texts(frame, chosen)
    empty = [row for row, text in enumerate(found) if not text]
    if empty:
        raise UlmfitError(f"{rows_named(frame.index, empty)} of column {' + '.join(map(str, chosen))} "
                          f"{'are' if len(empty) > 1 else 'is'} empty ({len(empty):,} of {len(found):,}): leave "
                          f"{'them' if len(empty) > 1 else 'it'} out")
    return found


def own_dataset(texts: Any, labels: OwnLabels, *, columns: Sequence[str] | None, unlabelled: Any = None,
                drop_missing: bool = False, source: str | None = None) -> Dataset:
    """A `Dataset` of labelled training rows and unlabelled ones; what is missing is refused by row, or left out.

    Classes are in the order of `labels`. With `drop_missing`, rows without text are left out and rows without label
    join the unlabelled ones; the notes say which.
    """
    frame, chosen = text_frame(texts, columns)
    if len(labels.values) != len(frame):
        raise UlmfitError(f"expected one label for each of the {len(frame):,} texts, found {len(labels.values):,}")
    notes: list[str] = []
    found = _filled(frame, chosen, drop_missing=drop_missing, notes=notes)
    more = [] if unlabelled is None else _unlabelled(unlabelled, chosen)
    kept = list(found)
    _report_bare(frame, [row for row in kept if labels.values[row] is None], drop_missing=drop_missing, notes=notes)
    delim = delimiter(labels.names) if labels.kind == "multi" else None
    written = [_written(labels, labels.values[row], delim) for row in kept]
    ids = [str(frame.index[row]) for row in kept]
    parts = {
        "id": [*(ids if len(set(ids)) == len(ids) else map(str, kept)),
               *(f"unlabelled-{i}" for i in range(len(more)))],
        "text": [*found.values(), *more], "label": [*written, *[None] * len(more)],
        "split": [*("unsup" if label is None else "train" for label in written), *["unsup"] * len(more)],
    }
    values = [labels.values[row] for row in kept]
    check_classes(labels, values)
    notes += _strange(labels, values, list(found.values()), chosen)
    for note in notes:
        log.warning("%s", note)
    dataset = build("custom", parts, source or f"{len(frame):,} texts given in Python", notes=notes)
    return replace(dataset, classes=labels.names, label_delim=delim)


def _filled(frame: pd.DataFrame, columns: list[str], *, drop_missing: bool, notes: list[str]) -> dict[int, str]:
    """Row number -> text, of the rows that have one; the others are refused, or noted."""
    texts = joined_texts(frame, columns)
    empty = [row for row, text in enumerate(texts) if not text]
    report_missing(frame, empty, f"column {' + '.join(map(str, columns))}", "empty", drop_missing, notes)
    return {row: text for row, text in enumerate(texts) if text}


def _report_bare(frame: pd.DataFrame, rows: list[int], *, drop_missing: bool, notes: list[str]) -> None:
    """Refuse rows without label, or note that they are used without."""
    if not rows:
        return
    which = f"{rows_named(frame.index, rows)} {'have' if len(rows) > 1 else 'has'} no label"
    if not drop_missing:
        raise UlmfitError(f"{which} ({len(rows):,} of {len(frame):,})", field="label",
                          advice="fill them in, or give `drop_missing=True` to use them as unlabelled texts")
    notes.append(f"{which}: used as unlabelled texts")


def _strange(labels: OwnLabels, values: list[Any], texts: list[str], columns: list[str]) -> list[str]:
    """What is odd about texts and labels, though something can be learnt from them."""
    notes = []
    if labels.kind == "single":
        count = Counter(values)
        alone = [name for i, name in enumerate(labels.names) if count[i] == 1]
        if alone:
            notes.append(f"class{'es' * (len(alone) > 1)} {shown(alone)}: one text only, so that none can be held out "
                         "to see whether it is learnt")
    if not any(letter.isalpha() for text in texts for letter in text):
        notes.append(f"no row of column {' + '.join(map(str, columns))} has a letter in it: are these the texts?")
    return notes


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


def labels_of(X: Any, y: Any, label: str | None) -> tuple[str | None, Any]:
    """The name of the label column, if it is one, and the labels."""
    if y is not None:
        if label is not None:
            raise UlmfitError("labels are given twice", field="label",
                              advice="give them as the second argument or by `label=`")
        return None, y
    if not is_frame(X):
        raise UlmfitError("expected labels: fit(texts, labels), or fit(frame, text=..., label=...)")
    label = label or ("label" if "label" in X else None)
    if label is None or label not in X:
        raise UlmfitError(f"no column {label or 'label'}; the columns are {shown(list(X.columns), 30)}", field="label",
                          advice="give `label=`, or the labels as the second argument")
    return label, X[label]
