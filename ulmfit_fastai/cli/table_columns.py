"""What a table's columns become: labels of their type, texts for the language model, and what a model says of them."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from ..classifier.labels import is_missing_list
from ..classifier.texts import text_frame
from ..texts.corpora import read_corpus
from ..texts.dataset import joined_texts
from ..texts.files import bare_suffix, existing
from ..texts.tables import TABLES, read_table

if TYPE_CHECKING:
    from ..classifier.estimator import ULMFiT

log = logging.getLogger(__name__)


def predicted_columns(model: ULMFiT, frame: pd.DataFrame, text: list[str] | None) -> tuple[dict[str, Any], int]:
    """The new columns of some rows, missing where there is no text, and the number of those rows."""
    target = model.model_.target
    frame, chosen = text_frame(frame, model.columns(frame, text))
    texts = joined_texts(frame, chosen)
    filled = [row for row, value in enumerate(texts) if value]
    some = model.model_.outputs([texts[row] for row in filled])
    outputs = np.full((len(texts), target.n_out), np.nan)
    outputs[filled] = some
    if target.kind == "regression":
        return {"predicted": outputs[:, 0]}, len(texts) - len(filled)
    if target.kind == "multi":
        decided = [";".join(name for name, prob in zip(target.names, row) if prob >= 0.5) for row in some]
    else:
        decided = [target.names[i] for i in some.argmax(axis=1)]
    place = dict(zip(filled, decided))
    predicted = pd.array([place.get(row) for row in range(len(texts))], dtype="string")
    probs = {f"prob_{name}": outputs[:, i].round(6) for i, name in enumerate(target.names)}
    return {"predicted": predicted, **probs}, len(texts) - len(filled)


def with_text_and_label(model: ULMFiT, frame: pd.DataFrame, text: list[str] | None, label: str) -> pd.DataFrame:
    """The rows that can be judged; the others are counted in a warning."""
    texts = joined_texts(*text_frame(frame, model.columns(frame, text)))
    keep = [bool(text) and not is_missing_list(value) for text, value in zip(texts, frame[label].tolist())]
    if not any(keep):
        raise UlmfitError(f"no row has both a text and a label (column {label})")
    if not all(keep):
        log.warning("rows without text or label, left out: %s", f"{len(keep) - sum(keep):,}")
    return frame[keep]


WHOLE, NUMBER = re.compile(r"-?(0|[1-9]\d*)"), re.compile(r"-?(0|[1-9]\d*)?(\.\d+)?([eE][-+]?\d+)?")


def typed(labels: pd.Series, delim: str | None, task: str) -> list[Any]:
    """Labels of a table as lists (with a delimiter), whole numbers, numbers or text: what all of them can be.

    CSV holds only text. `007` is no number; an empty cell is no label, with a delimiter a text without any class.
    """
    values = [None if value is None or value != value else value for value in labels.tolist()]
    if delim is not None:
        if task not in ("auto", "multilabel"):
            raise UlmfitError(f"--label-delim is for several classes a text, and --task is {task}: give one of them")
        return [_several(value, delim) for value in values]
    if task == "multilabel" and any(isinstance(value, str) for value in values):
        raise UlmfitError("--task multilabel needs --label-delim, the mark between the classes of a text")
    if any(not isinstance(value, str) for value in values if value is not None):
        return values  # the file has types of its own
    written = [None if value is None or not value.strip() else value.strip() for value in values]
    for pattern, kind in ((WHOLE, int), (NUMBER, float)):
        if all(pattern.fullmatch(value) for value in written if value is not None):
            return [None if value is None else kind(value) for value in written]
    return written


def _several(value: Any, delim: str) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(delim) if part.strip()]
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def unlabelled_of(path: str | None, text: list[str]) -> Any:
    """More texts for the language model: the text columns of a table, or the articles of any file of text."""
    if path is None:
        return None
    found = existing(path)
    if found.is_file() and bare_suffix(found) in TABLES:
        frame = read_table(found)
        if set(text) <= set(frame.columns):
            return frame[text]
        if len(text) > 1 or "text" not in frame:
            raise UlmfitError(f"{path}: no column {', '.join(name for name in text if name not in frame)}; the columns "
                              f"are {', '.join(map(str, frame.columns))}")
        return frame["text"].tolist()
    if len(text) > 1:
        raise UlmfitError(f"{path}: expected a table with the columns {', '.join(text)}")
    return list(read_corpus(found))
