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

from .._files import write_text_atomic

__all__ = ["average", "calibration_table", "confusion_counts", "error_metrics", "read_predictions",
           "scores_per_class", "write_predictions"]


def average(probs_by_direction: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean of the directions' probabilities, (texts, classes): how the paper joins both directions (section 4.4)."""
    if not probs_by_direction:
        raise ValueError("No probabilities to average: expected at least one direction.")
    arrays = {direction: _checked(probs, direction) for direction, probs in probs_by_direction.items()}
    shapes = {direction: probs.shape for direction, probs in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"The directions predicted different sets: {shapes}. Expected one shape (texts, classes).")
    return np.mean(list(arrays.values()), axis=0)


def error_metrics(probs: np.ndarray, labels: Sequence | np.ndarray, *, classes: Sequence[str] | None = None) -> dict:
    """Error (in %), n, wrong, macro_f1 (0 to 1) and loss (mean log loss, nats) of `probs` against `labels`.

    `labels` are class numbers, or names when `classes` is given. A class that is neither in the labels nor
    predicted does not count in macro_f1.
    """
    probs = _checked(probs, "probs")
    codes = _codes(labels, classes, n_classes=probs.shape[1])
    if len(codes) != len(probs):
        raise ValueError(f"{len(probs)} predictions for {len(codes)} labels: expected one each.")
    if len(codes) == 0:
        raise ValueError("No predictions to score: the set is empty.")
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum())} of {len(codes)} texts have no label: score only labelled ones.")
    predicted = probs.argmax(axis=1)
    wrong = int((predicted != codes).sum())
    chosen = probs[np.arange(len(codes)), codes]
    counts = confusion_counts(codes, predicted, n_classes=probs.shape[1])
    f1 = scores_per_class(counts)["f1"]
    return {
        "error": 100 * wrong / len(codes), "n": len(codes), "wrong": wrong,
        "macro_f1": float(np.nanmean(f1)),
        "loss": float(-np.log(np.clip(chosen, 1e-12, 1)).mean()),  # 1e-12: float32 softmax underflows to 0
    }


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Counts (n_classes, n_classes), row = label, column = predicted class; both given as class numbers."""
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(predicted)), 1)
    return counts


def scores_per_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, f1 (0 to 1) and n of each class from confusion counts; NaN where undefined."""
    hits, labelled, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"precision": hits / predicted, "recall": hits / labelled,
                "f1": 2 * hits / (labelled + predicted), "n": labelled}


def calibration_table(probs: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> tuple[pd.DataFrame, float]:
    """How often the classifier is right at each confidence, and the expected calibration error (0 to 1).

    Equal-width bins of the predicted class's probability as in Guo et al. 2017; empty bins are left out. Columns:
    low, high (edges of the bin), n, confidence (mean probability), accuracy, wrong.
    """
    probs, labels = _checked(probs, "probs"), np.asarray(labels)
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # bins are (low, high]
    frame = pd.DataFrame({"bin": which, "confidence": confidence, "right": right})
    groups = frame.groupby("bin")
    table = pd.DataFrame({
        "n": groups.size(), "confidence": groups["confidence"].mean(), "accuracy": groups["right"].mean(),
        "wrong": groups.size() - groups["right"].sum(),
    }).reset_index()
    table.insert(0, "low", table["bin"] / bins)
    table.insert(1, "high", (table["bin"] + 1) / bins)
    ece = float((table["n"] / max(len(frame), 1) * (table["accuracy"] - table["confidence"]).abs()).sum())
    return table.drop(columns="bin"), ece


def write_predictions(
    path: str | os.PathLike, ids: Sequence, labels: Sequence | np.ndarray, classes: Sequence[str],
    probs_by_direction: Mapping[str, np.ndarray],
) -> Path:
    """Write predictions.csv, whole or not at all: id, label, predicted, averaged and per-direction probabilities.

    Rows stay in the caller's order. `labels` are class numbers or names, -1 or None where unknown. Columns:
    id, label, predicted (names), prob_<class> (averaged), then <direction>_prob_<class>.
    """
    classes = [str(name) for name in classes]
    averaged = average(probs_by_direction)
    if averaged.shape[1] != len(classes):
        raise ValueError(f"Probabilities have {averaged.shape[1]} columns for {len(classes)} classes.")
    codes = _codes(labels, classes, n_classes=len(classes))
    if not len(ids) == len(codes) == len(averaged):
        raise ValueError(f"{len(ids)} ids, {len(codes)} labels, {len(averaged)} predictions: expected as many of each.")
    columns: dict[str, Any] = {
        "id": [str(i) for i in ids],
        "label": [classes[code] if code >= 0 else "" for code in codes],
        "predicted": [classes[code] for code in averaged.argmax(axis=1)],
    }
    columns.update({f"prob_{name}": averaged[:, i] for i, name in enumerate(classes)})
    for direction, probs in probs_by_direction.items():
        columns.update({f"{direction}_prob_{name}": np.asarray(probs)[:, i] for i, name in enumerate(classes)})
    text = pd.DataFrame(columns).to_csv(index=False, float_format="%.8g", lineterminator="\n")
    return write_text_atomic(path, text)


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
        raise ValueError(f"{path} cannot be read as predictions: {error}") from error
    missing = {"id", "label", "predicted"} - set(names)
    classes = [name[len("prob_"):] for name in names if name.startswith("prob_")]
    if missing or not classes:
        raise ValueError(f"{path} is not a predictions file: expected id, label, predicted and prob_<class> columns, "
                         f"found {', '.join(map(str, names[:8]))}.")
    numbers = [name for name in names if name not in text]
    if not all(pd.api.types.is_numeric_dtype(frame[name]) for name in numbers):
        raise ValueError(f"{path} is damaged: a probability is missing or is not a number.")
    directions = list(dict.fromkeys(name.split("_prob_")[0] for name in numbers if not name.startswith("prob_")))
    by_direction = {d: frame[[f"{d}_prob_{name}" for name in classes]].to_numpy(float) for d in directions}
    return frame, classes, by_direction


def _checked(probs: Any, name: str) -> np.ndarray:
    """`probs` as a float64 array (texts, classes), refused when it is no array of probabilities."""
    array = np.asarray(probs, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(f"{name}: expected probabilities of shape (texts, classes), found {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {int((~np.isfinite(array)).any(axis=1).sum())} of {len(array)} rows hold NaN or "
                         "infinity: the training diverged. Lower the learning rate or use full precision.")
    if len(array) and np.abs(array.sum(axis=1) - 1).max() > 0.02:  # bf16 softmax sums to 1 within about 0.01
        raise ValueError(f"{name}: rows should sum to 1, found up to {array.sum(axis=1).max():.3f}: are these logits?")
    return array


def _codes(labels: Any, classes: Sequence[str] | None, *, n_classes: int) -> np.ndarray:
    """`labels` as class numbers, -1 where unknown; names are looked up in `classes`."""
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if any(isinstance(value, str) for value in values):
        if classes is None:
            raise ValueError("Labels are names: expected class numbers, or the class names as `classes`.")
        number = {str(name): i for i, name in enumerate(classes)}
        unknown = sorted({str(v) for v in values if isinstance(v, str) and v not in number})
        if unknown:
            raise ValueError(f"Labels {', '.join(unknown[:5])} are not among the classes {', '.join(number)}.")
        return np.array([number[v] if isinstance(v, str) else -1 for v in values], dtype=np.int64)
    codes = np.array([-1 if value is None or value != value else int(value) for value in values], dtype=np.int64)
    if len(codes) and (codes.max() >= n_classes or codes.min() < -1):
        raise ValueError(f"Class numbers run from {codes.min()} to {codes.max()}: expected 0 to {n_classes - 1}.")
    return codes
