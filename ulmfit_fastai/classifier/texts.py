"""Your own texts, in lists, Series, arrays or frames, with their labels as a checked `Dataset`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._words import rows_named, shown
from ..texts.classes import delimiter
from ..texts.dataset import Dataset, build, from_frame, joined_texts, report_missing
from ..texts.values import column_names, columns_shown, is_missing, refuse_absent
from .doubts import doubts
from .labels import OwnLabels, check_classes

log = logging.getLogger(__name__)


def text_frame(texts: Any, columns: Any) -> tuple[pd.DataFrame, list[Any]]:
    """Texts in any form as a frame, and its columns that hold them.

    A list, array or Series becomes the column 'text'. Of a frame, `columns` says which; without it, the only column,
    or the one called 'text'.
    """
    if isinstance(texts, str):
        raise UlmfitError("expected many texts, found one string: put it in a list")
    if isinstance(texts, pd.DataFrame):
        chosen = _only_column(texts) if columns is None else column_names(columns, texts)
        refuse_absent(texts, chosen)
        return texts, chosen
    if isinstance(texts, (Mapping, set, frozenset)):
        raise UlmfitError(f"expected texts in their order, found a {type(texts).__name__}, which has no order of its "
                          "own: give a list, or a DataFrame")
    names = [] if columns is None else column_names(columns, pd.DataFrame())
    if len(names) > 1:
        raise UlmfitError(f"expected a DataFrame with the columns {shown(names)}, found a {type(texts).__name__}")
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
    name = names[0] if names else "text"
    return pd.DataFrame({"text": pd.Series(values, dtype=object, index=index)}).set_axis(
        pd.Index([name], tupleize_cols=False), axis=1), [name]


def is_frame(texts: Any) -> bool:
    """Whether texts come as columns of a frame."""
    return isinstance(texts, pd.DataFrame)


def _only_column(frame: pd.DataFrame) -> list[Any]:
    if frame.shape[1] == 1:
        return frame.columns.tolist()
    if "text" in frame:
        return ["text"]
    raise UlmfitError(f"which column holds the texts? The columns are {columns_shown(frame)}", field="text",
                      advice="name it by `text=`")


def plain_texts(texts: Any, columns: Any, *, strict: bool = True) -> list[str]:
    """One string a row, several columns joined as in training; '' for a row that holds nothing, counted in a warning.

    Raises:
        UlmfitError: `strict`, and a row holds nothing; the message names it.
    """
    frame, chosen = text_frame(texts, columns)
    found = joined_texts(frame, chosen)
    empty = [row for row, text in enumerate(found) if not text]
    if not empty:
        return found
    which = (f"{rows_named(frame.index, empty)} of column {' + '.join(map(str, chosen))} "
             f"{'are' if len(empty) > 1 else 'is'} empty ({len(empty):,} of {len(found):,})")
    if strict:
        raise UlmfitError(f"{which}: leave {'them' if len(empty) > 1 else 'it'} out")
    log.warning("%s: nothing is predicted for %s", which, "them" if len(empty) > 1 else "it")
    return found


def own_dataset(texts: Any, labels: OwnLabels, *, columns: Any, unlabelled: Any = None,
                drop_missing: bool = False, source: str | None = None, lang: str = "en") -> Dataset:
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
    notes += _alone(labels, values)
    notes += doubts([*found.values(), *more], lang, " + ".join(map(str, chosen)))
    for note in notes:
        log.warning("%s", note)
    dataset = build("custom", parts, source or f"{len(frame):,} texts given in Python", notes=notes)
    return replace(dataset, classes=labels.names, label_delim=delim)


def _filled(frame: pd.DataFrame, columns: list[Any], *, drop_missing: bool, notes: list[str]) -> dict[int, str]:
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


def _alone(labels: OwnLabels, values: list[Any]) -> list[str]:
    """Which classes have a single text."""
    count = Counter(values) if labels.kind == "single" else Counter()
    alone = [name for i, name in enumerate(labels.names) if count[i] == 1]
    return [f"class{'es' * (len(alone) > 1)} {shown(alone)}: one text only, so that none can be held out to see "
            "whether it is learnt"] if alone else []


def _unlabelled(texts: Any, columns: list[Any]) -> list[str]:
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


def labels_of(X: Any, y: Any, label: Any) -> tuple[Any, Any]:
    """The name of the label column, if it is one, and the labels."""
    if y is not None:
        if label is not None:
            raise UlmfitError("labels are given twice", field="label",
                              advice="give them as the second argument or by `label=`")
        return None, y
    if not is_frame(X):
        raise UlmfitError("expected labels: fit(texts, labels), or fit(frame, text=..., label=...)")
    if isinstance(label, list):
        raise UlmfitError(f"label names one column, found {shown(label)}", field="label",
                          advice="give columns of 0 and 1 as the second argument: fit(df, df[[...]], text=...)")
    if label is None and "label" not in X or label is not None and label not in X:
        raise UlmfitError(f"no column {'label' if label is None else label}; the columns are {columns_shown(X)}",
                          field="label", advice="give `label=`, or the labels as the second argument")
    label = "label" if label is None else label
    refuse_absent(X, [label])
    return label, X[label]
