"""What a classifier said about the test set: probabilities in, errors and `predictions.csv` out.

Probabilities are arrays of shape (texts, classes), rows summing to 1; labels are class numbers or class names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._files import write_text_atomic
from .metrics import average, class_numbers


def write_predictions(
    path: str | os.PathLike, ids: Sequence, labels: Sequence | np.ndarray, classes: Sequence[str],
    probs_by_direction: Mapping[str, np.ndarray],
) -> Path:
    """Write predictions.csv, whole or not at all: id, label, predicted, averaged and per-direction probabilities.

    Its rows are those of `predictions_frame`, which takes the same.
    """
    frame = predictions_frame(ids, labels, classes, probs_by_direction)
    return write_text_atomic(path, frame.to_csv(index=False, float_format="%.8g", lineterminator="\n"))


def predictions_frame(ids: Sequence | np.ndarray, labels: Sequence | np.ndarray, classes: Sequence[str],
                      probs_by_direction: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A row a text, in the caller's order.

    `labels` are class numbers or names, -1 or None where unknown. Columns: id, label, predicted (names), prob_<class>
    (averaged), then <direction>_prob_<class>.
    """
    classes = [str(name) for name in classes]
    averaged = average(probs_by_direction)
    if averaged.shape[1] != len(classes):
        raise UlmfitError(f"Probabilities have {averaged.shape[1]} columns for {len(classes)} classes.")
    codes = class_numbers(labels, classes, n_classes=len(classes))
    if not len(ids) == len(codes) == len(averaged):
        raise UlmfitError(f"{len(ids)} ids, {len(codes)} labels, {len(averaged)} predictions: expected as many "
                          "of each.")
    columns: dict[str, Any] = {
        "id": [str(i) for i in ids],
        "label": [classes[code] if code >= 0 else "" for code in codes],
        "predicted": [classes[code] for code in averaged.argmax(axis=1)],
    }
    columns.update({f"prob_{name}": averaged[:, i] for i, name in enumerate(classes)})
    for direction, probs in probs_by_direction.items():
        columns.update({f"{direction}_prob_{name}": np.asarray(probs)[:, i] for i, name in enumerate(classes)})
    return pd.DataFrame(columns)


def read_predictions(path: str | os.PathLike) -> tuple[pd.DataFrame, list[str], dict[str, np.ndarray]]:
    """The frame of predictions.csv, its classes in order, and each direction's probabilities.

    Ids and class names stay text: a class called "NA", "null" or "007" is a name like any other.
    """
    path = Path(path)
    try:
        names = pd.read_csv(path, nrows=0, encoding="utf-8").columns
        text = {name: str for name in ("id", "label", "predicted")}
        frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[], encoding="utf-8")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UlmfitError(f"{path} cannot be read as predictions: {error}") from error
    missing = {"id", "label", "predicted"} - set(names)
    classes = [name[len("prob_"):] for name in names if name.startswith("prob_")]
    if missing or not classes:
        raise UlmfitError(f"{path} is not a predictions file: expected id, label, predicted and prob_<class> columns, "
                          f"found {', '.join(map(str, names[:8]))}.")
    numbers = [name for name in names if name not in text]
    if not all(pd.api.types.is_numeric_dtype(frame[name]) for name in numbers):
        raise UlmfitError(f"{path} is damaged: a probability is missing or is not a number.")
    directions = list(dict.fromkeys(name.split("_prob_")[0] for name in numbers if not name.startswith("prob_")))
    by_direction = {d: frame[[f"{d}_prob_{name}" for name in classes]].to_numpy(float) for d in directions}
    return frame, classes, by_direction
