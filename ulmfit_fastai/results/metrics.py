"""Errors, scores per class and calibration, from probabilities and labels.

scikit-learn's counts and scores, which take a second to import: only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError


def average(probs_by_direction: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean of the directions' probabilities, (texts, classes): how the paper joins both directions (section 4.4)."""
    if not probs_by_direction:
        raise UlmfitError("No probabilities to average: expected at least one direction.")
    arrays = {direction: _checked(probs, direction) for direction, probs in probs_by_direction.items()}
    shapes = {direction: probs.shape for direction, probs in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise UlmfitError(f"The directions predicted different sets: {shapes}. Expected one shape (texts, classes).")
    return np.mean(list(arrays.values()), axis=0)


def error_metrics(probs: np.ndarray, labels: Sequence | np.ndarray, *, classes: Sequence[str] | None = None) -> dict:
    """Error (in %), n, wrong, macro_f1 (0 to 1) and loss (mean log loss, nats) of `probs` against `labels`.

    `labels` are class numbers, or names when `classes` is given. A class that is neither in the labels nor
    predicted does not count in macro_f1.
    """
    probs = _checked(probs, "probs")
    codes = class_numbers(labels, classes, n_classes=probs.shape[1])
    if len(codes) != len(probs):
        raise UlmfitError(f"{len(probs)} predictions for {len(codes)} labels: expected one each.")
    if len(codes) == 0:
        raise UlmfitError("No predictions to score: the set is empty.")
    if (codes < 0).any():
        raise UlmfitError(f"{int((codes < 0).sum())} of {len(codes)} texts have no label: score only labelled ones.")
    predicted = probs.argmax(axis=1)
    wrong = int((predicted != codes).sum())
    chosen = probs[np.arange(len(codes)), codes]
    return {
        "error": 100 * wrong / len(codes), "n": len(codes), "wrong": wrong,
        "macro_f1": float(np.nanmean(scores_per_class(codes, predicted, n_classes=probs.shape[1])["f1"])),
        # not sklearn's log_loss, which warns of float32: such probabilities sum to 1 to seven digits
        "loss": float(-np.log(np.clip(chosen, 1e-12, 1)).mean()),  # 1e-12: float32 softmax underflows to 0
    }


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Counts (n_classes, n_classes), row = label, column = predicted class; both given as class numbers."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predicted, labels=range(n_classes))


def scores_per_class(labels: np.ndarray, predicted: np.ndarray, *, n_classes: int) -> dict[str, np.ndarray]:
    """Precision, recall, f1 (0 to 1) and support, here `n`, of each class; NaN where it is 0 / 0.

    Both are class numbers (texts,), or 0 and 1 (texts, classes) where a text may have several.
    """
    from sklearn.metrics import precision_recall_fscore_support

    numbers = _class_numbers(np.asarray(labels), n_classes)
    scores = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=np.nan)
    return dict(zip(("precision", "recall", "f1", "n"), scores))


def _class_numbers(labels: np.ndarray, n_classes: int) -> Sequence[int]:
    """What scikit-learn calls the classes: to it, a column of 0 and 1 has two classes, of which we mean the class 1."""
    return [1] if labels.ndim == 2 and n_classes == 1 else range(n_classes)


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


def _checked(probs: Any, name: str) -> np.ndarray:
    """`probs` as a float64 array (texts, classes), refused when it is no array of probabilities."""
    array = np.asarray(probs, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 2:
        raise UlmfitError(f"{name}: expected probabilities of shape (texts, classes), found {array.shape}.")
    if not np.isfinite(array).all():
        raise UlmfitError(f"{name}: {int((~np.isfinite(array)).any(axis=1).sum())} of {len(array)} rows hold NaN or "
                          "infinity: the training diverged. Lower the learning rate or use full precision.")
    if len(array) and np.abs(array.sum(axis=1) - 1).max() > 0.02:  # bf16 softmax sums to 1 within about 0.01
        raise UlmfitError(f"{name}: rows should sum to 1, found up to {array.sum(axis=1).max():.3f}: are these logits?")
    return array


def class_numbers(labels: Any, classes: Sequence[str] | None, *, n_classes: int) -> np.ndarray:
    """`labels` as class numbers, -1 where unknown; names are looked up in `classes`."""
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if any(isinstance(value, str) for value in values):
        if classes is None:
            raise UlmfitError("Labels are names: expected class numbers, or the class names as `classes`.")
        number = {str(name): i for i, name in enumerate(classes)}
        unknown = sorted({str(v) for v in values if isinstance(v, str) and v not in number})
        if unknown:
            raise UlmfitError(f"Labels {', '.join(unknown[:5])} are not among the classes {', '.join(number)}.")
        return np.array([number[v] if isinstance(v, str) else -1 for v in values], dtype=np.int64)
    codes = np.array([-1 if value is None or value != value else int(value) for value in values], dtype=np.int64)
    if len(codes) and (codes.max() >= n_classes or codes.min() < -1):
        raise UlmfitError(f"Class numbers run from {codes.min()} to {codes.max()}: expected 0 to {n_classes - 1}.")
    return codes


def mean_over_directions(by_direction: Mapping[str, np.ndarray], kind: str) -> np.ndarray:
    """Both directions' outputs as one: their mean."""
    if kind == "single":
        return average(by_direction)
    return np.mean(list(by_direction.values()), axis=0)


def multilabel_metrics(outputs: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Scores of several classes a text; `outputs` probabilities and `truth` 0 and 1, both (texts, classes).

    A text is right when all its classes are; error in %, micro and macro F1 (0 to 1; a class that is neither a label
    nor predicted is left out), loss: mean binary log loss, nats.
    """
    from sklearn.metrics import f1_score

    predicted, truth = outputs >= 0.5, truth >= 0.5
    wrong = int((predicted != truth).any(axis=1).sum())
    f1 = scores_per_class(truth, predicted, n_classes=truth.shape[1])["f1"]
    clipped = np.clip(outputs, 1e-7, 1 - 1e-7)
    return {"error": 100 * wrong / len(truth), "n": len(truth), "wrong": wrong,
            "macro_f1": float(np.nanmean(f1)) if np.isfinite(f1).any() else 0.0,
            "micro_f1": float(f1_score(truth, predicted, labels=_class_numbers(truth, truth.shape[1]), average="micro",
                                       zero_division=0)),
            "loss": float(-np.where(truth, np.log(clipped), np.log1p(-clipped)).mean())}


def regression_metrics(outputs: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Mean absolute error and root mean squared error in the numbers' unit, r2 (None if the truth never varies), n."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    outputs, truth = outputs.astype(np.float64), np.asarray(truth, np.float64)
    varies = len(truth) > 0 and (truth != truth[0]).any()
    return {"mae": float(mean_absolute_error(truth, outputs)), "rmse": float(root_mean_squared_error(truth, outputs)),
            "r2": float(r2_score(truth, outputs)) if varies else None, "n": len(truth)}


def metrics_of(kind: str, outputs: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """How right outputs are, by the kind of label; shapes as for the functions of each kind above."""
    if kind == "regression":
        return regression_metrics(outputs[:, 0], truth)
    return error_metrics(outputs, truth) if kind == "single" else multilabel_metrics(outputs, truth)
