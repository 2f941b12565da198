"""What a table's columns become: labels of their type, texts for the language model, and what a model says of them."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from .._errors import UlmfitError
from .._words import rows_named, shown
from ..batches.targets import LISTS
from ..classifier.labels import is_missing_list
from ..classifier.texts import text_frame
from ..texts.classes import NUMBER, WHOLE, delimiter, written_lists
from ..texts.corpora import read_corpus
from ..texts.dataset import joined_texts
from ..texts.files import bare_suffix, existing
from ..texts.tables import TABLES, Layout, encoding_of, read_table
from ..texts.values import columns_shown, is_missing, refuse_absent

if TYPE_CHECKING:
    from ..classifier.estimator import ULMFiT

log = logging.getLogger(__name__)

WITH_A_COMMA = re.compile(r"-?\d+,\d+")


def column_named(frame: pd.DataFrame, name: str) -> Any:
    """The column that a word of the shell means: by its name, by its number, or but for blanks around its name.

    Raises:
        UlmfitError: there is none, or there are several.
    """
    number = int(name) if name.isdecimal() else None
    stripped = [column for column in frame.columns if str(column).strip() == name.strip()]
    found = name if name in frame else number if number is not None and number in frame else (
        stripped[0] if len(stripped) == 1 else name)
    refuse_absent(frame, [found])
    return found


def predicted_columns(model: ULMFiT, frame: pd.DataFrame, text: list[str] | None, *,
                      strict: bool = False) -> tuple[dict[str, Any], int]:
    """The new columns of some rows, missing where there is no text, and the number of those rows.

    Raises:
        UlmfitError: `strict`, and a row has no text.
    """
    target, config = model.model_.target, model.model_.config
    texts = _texts(model, frame, text) if len(frame.columns) else []
    empty = [row for row, value in enumerate(texts) if not value]
    if empty and strict:
        raise UlmfitError(f"{rows_named(frame.index, empty)} {'have' if len(empty) > 1 else 'has'} no text "
                          "(--strict refuses them)")
    outputs = model.model_.outputs(texts)
    if target.kind == "regression":
        return {"predicted": outputs[:, 0]}, len(empty)
    if target.kind == "multi":
        mark = config.label_delim or delimiter(target.names)
        decided = [mark.join(name for name, prob in zip(target.names, row) if prob >= 0.5) for row in outputs]
    else:
        decided = [target.names[i] for i in outputs.argmax(axis=1)]
    gone = set(empty)
    predicted = pd.array([None if row in gone else name for row, name in enumerate(decided)], dtype="string")
    probs = {f"prob_{name}": outputs[:, i].round(6) for i, name in enumerate(target.names)}
    return {"predicted": predicted, **probs}, len(empty)


def _texts(model: ULMFiT, frame: pd.DataFrame, text: list[str] | None) -> list[str]:
    """The text of each row, of the columns that are named or the model's own; '' where there is none."""
    named = None if text is None else [column_named(frame, name) for name in text]
    columns = model.columns(frame, named)
    return joined_texts(*text_frame(frame, None if columns is None else [_own_column(frame, name) for name in columns]))


def _own_column(frame: pd.DataFrame, name: Any) -> Any:
    """A column of the model's training table in a file, which may hold names that are no text as text.

    Raises:
        UlmfitError: columns went by their numbers, and those of the frame have names.
    """
    if name in frame or isinstance(name, str):
        return name
    if isinstance(name, int) and not all(str(column).isdecimal() for column in frame.columns):
        raise UlmfitError(f"no column {name}: the model's own table has numbers for names, the columns are "
                          f"{columns_shown(frame)}; give --no-header if that is a row like the others, or --text")
    return column_named(frame, str(name))


def with_text_and_label(model: ULMFiT, frame: pd.DataFrame, text: list[str] | None, label: Any) -> pd.DataFrame:
    """The rows that can be judged; the others are counted in a warning."""
    texts = _texts(model, frame, text)
    keep = [bool(text) and not is_missing_list(value) for text, value in zip(texts, frame[label].tolist())]
    if not any(keep):
        raise UlmfitError(f"no row has both a text and a label (column {label})")
    if not all(keep):
        log.warning("rows without text or label, left out: %s", f"{len(keep) - sum(keep):,}")
    return frame[keep]


def typed(labels: pd.Series, delim: str | None, task: str, *, known: bool = False) -> list[Any]:
    """Labels of a table as lists (with a delimiter), whole numbers, numbers or text: what all of them can be.

    CSV holds only text. `007` is no number; an empty cell is no label, with a delimiter a text without any class. Text
    becomes a number only where that keeps what tells it apart, and not where classes are asked for.

    Args:
        known: the labels are of a model's classes, which say themselves how they are written.
    """
    values = [None if is_missing(value) else value for value in labels.tolist()]
    if delim is not None:
        if task not in ("auto", "multilabel"):
            raise UlmfitError(f"--label-delim is for several classes a text, and --task is {task}: give one of them")
        if empty := sum(value is None for value in values):
            log.warning("%s of %s labels are empty: with --label-delim such a text has none of the classes",
                        f"{empty:,}", f"{len(values):,}")
        return [_several(value, delim) for value in written_lists(values) or values]
    if task == "multilabel" and any(isinstance(value, str) for value in values) and written_lists(values) is None:
        raise UlmfitError("--task multilabel needs --label-delim, the mark between the classes of a text")
    if known or task == "classification" or any(not isinstance(value, str) for value in values if value is not None):
        return values  # as they are written, or the file has types of its own
    written = [None if value is None else value.strip() for value in values]
    every = {value for value in written if value is not None}
    if all(map(WHOLE.fullmatch, every)):
        return [None if value is None else int(value) for value in written]
    if all(map(NUMBER.fullmatch, every)) and (task == "regression" or _are_quantities(every)):
        return [None if value is None else float(value) for value in written]
    if every and all(map(WITH_A_COMMA.fullmatch, every)):
        log.warning("the labels (%s) are read as classes; if they are quantities, write them with a point",
                    shown(sorted(every), 3))
    return written


def _are_quantities(written: set[str]) -> bool:
    """Whether numbers are fractions, each written in one way: otherwise they may be codes, and stay as they are."""
    numbers: dict[float, str] = {}
    for value in sorted(written):
        other = numbers.setdefault(float(value), value)
        if other != value:
            log.warning("the labels %s and %s are one number, and are read as two classes; for quantities give "
                        "--task regression", other, value)
            return False
    return any(not number.is_integer() for number in numbers)


def _several(value: Any, delim: str) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(delim) if part.strip()]
    return [] if value is None else list(value) if isinstance(value, LISTS) else [value]


def unlabelled_of(path: str | None, text: list[Any], layout: Layout) -> Any:
    """More texts for the language model: the text columns of a table, or the articles of any file of text.

    Args:
        layout: of the table that it belongs to; a file in UTF-8 is read as that all the same.
    """
    if path is None:
        return None
    found = existing(path)
    layout = replace(layout, suffix=None, encoding=encoding_of(found, layout.encoding))
    if found.is_file() and bare_suffix(found) in TABLES:
        frame = read_table(found, layout=layout)
        if set(text) <= set(frame.columns):
            return frame[text]
        if len(text) > 1 or "text" not in frame:
            absent = [name for name in text if name not in frame]
            raise UlmfitError(f"{path}: no column {shown(absent)}; the columns are {columns_shown(frame)}")
        return frame["text"].tolist()
    if len(text) > 1:
        raise UlmfitError(f"{path}: expected a table with the columns {shown(text)}")
    return list(read_corpus(found, encoding=layout.encoding))
