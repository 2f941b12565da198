"""How well scores put the texts of a class before the others: ROC, precision and recall, and what a threshold gives.

scikit-learn's metrics, which take a second to import: only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .metrics import multilabel_metrics

THRESHOLDS = (0.05, *(n / 10 for n in range(1, 10)), 0.95)


@dataclass(frozen=True, eq=False)
class Ranking:
    """A class against all others, at every threshold.

    Attributes:
        roc: false positive rate and true positive rate, each (points,), from 0 to 1.
        precision_recall: recall and precision, each (points,).
        auc: area under the ROC curve.
        average_precision: area under the other, in steps.
        share: of the texts that have the class: what a guess has for a precision.
        best: the threshold with the highest F1 on these texts.
    """

    roc: tuple[np.ndarray, np.ndarray]
    precision_recall: tuple[np.ndarray, np.ndarray]
    auc: float
    average_precision: float
    share: float
    best: float


def ranking(truth: np.ndarray, scores: np.ndarray) -> Ranking | None:
    """Rank texts by their score.

    Args:
        truth: whether each text has the class, (texts,).
        scores: of the class, (texts,).

    Returns:
        None where all texts have the class, or none has: there is nothing to tell apart.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    truth = np.asarray(truth, dtype=bool)
    if truth.all() or not truth.any():
        return None
    wrongly, rightly, _ = roc_curve(truth, scores)
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return Ranking((wrongly, rightly), (recall, precision), float(roc_auc_score(truth, scores)),
                   float(average_precision_score(truth, scores)), float(truth.mean()),
                   float(thresholds[f1[:-1].argmax()]))


def rankings(truth: np.ndarray, scores: np.ndarray, classes: Iterable[str]) -> dict[str, Ranking]:
    """Each class against the others; both (texts, classes). Classes that all texts have, or none, are left out."""
    found = {name: ranking(truth[:, i], scores[:, i]) for i, name in enumerate(classes)}
    return {name: one for name, one in found.items() if one is not None}


def matthews(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews' correlation coefficient of class numbers (texts,): 1 all right, 0 as a guess."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def thresholds_of_class(truth: np.ndarray, scores: np.ndarray,
                        thresholds: Iterable[float] = THRESHOLDS) -> pd.DataFrame:
    """What follows if a text gets the class from a score on.

    Returns:
        A row a threshold: threshold, chosen (texts that get the class), precision, recall, f1 (NaN: 0 / 0),
        false_alarms (share of the texts without the class that get it) and mcc.
    """
    truth, rows = np.asarray(truth, dtype=bool), []
    for threshold in thresholds:
        chosen = scores >= threshold
        hits, n, of = int((chosen & truth).sum()), int(chosen.sum()), int(truth.sum())
        rows.append((threshold, n, _share(hits, n), _share(hits, of), _share(2 * hits, n + of),
                     _share(n - hits, len(truth) - of), matthews(truth, chosen)))
    return pd.DataFrame(rows, columns=["threshold", "chosen", "precision", "recall", "f1", "false_alarms", "mcc"])


def answers_when_sure(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """What follows if the classifier answers only from a confidence on and leaves the other texts to people.

    Args:
        confidence: probability of the predicted class, (texts,).
        right: whether that is the label, (texts,).

    Returns:
        A row a threshold: threshold, answered (share of the texts), wrong (texts), error (share of the answers, NaN
        without any).
    """
    levels = [level for level in (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99) if level == 0 or level > confidence.min()]
    rows = []
    for level in levels:
        sure = confidence >= level
        wrong = int((sure & ~right).sum())
        rows.append((level, _share(int(sure.sum()), len(sure)), wrong, _share(wrong, int(sure.sum()))))
    return pd.DataFrame(rows, columns=["threshold", "answered", "wrong", "error"])


def thresholds_of_all(truth: np.ndarray, scores: np.ndarray,
                      thresholds: Iterable[float] = THRESHOLDS) -> pd.DataFrame:
    """What one threshold for all classes gives where a text may have several; both (texts, classes).

    Returns:
        A row a threshold: threshold, per_text (classes a text gets), precision, recall, micro_f1, macro_f1 and error
        (% of the texts whose classes are not all right).
    """
    truth, rows = truth >= 0.5, []
    for threshold in thresholds:
        chosen = scores >= threshold
        hits, n = int((chosen & truth).sum()), int(chosen.sum())
        found = multilabel_metrics(chosen.astype(float), truth)
        rows.append((threshold, n / max(len(truth), 1), _share(hits, n), _share(hits, int(truth.sum())),
                     found["micro_f1"], found["macro_f1"], found["error"]))
    return pd.DataFrame(rows, columns=["threshold", "per_text", "precision", "recall", "micro_f1", "macro_f1", "error"])


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
