"""The report's account of the mistakes: confusion, calibration, and the wrong answers given with most confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..results import figures
from ..results.result import Result
from .mistakes import Mistakes, Wrong, told
from .page import IN_PAGE, figure_html, share
from .ranked import ranked

if TYPE_CHECKING:
    from .words import Explain

FEW_CLASSES = 4  # up to which the confusion matrix fits half the page's width
MANY_CLASSES = 20  # beyond, the confusion matrix is no longer read as a whole: the worst pairs are listed


def where_it_errs(result: Result, texts: dict[str, str] | None, n: int, explain: Explain | None) -> dict[str, Any]:
    """What errors.html.jinja shows; `explain(text, class)` says which words led to the class, or None."""
    if not result.probs:
        return {}
    counts, many = result.confusion(), len(result.classes) > MANY_CLASSES
    return {
        **_calibration(result), "disagreement": _disagreement(result) if len(result.directions) > 1 else None,
        "few_classes": len(result.classes) <= FEW_CLASSES,
        "matrix": [] if many else _matrix(counts), "worst_pairs": _worst_pairs(counts) if many else [],
        "per_class": [(name, *(share(row[key]) for key in ("precision", "recall", "f1")), f"{int(row['n']):,}")
                      for name, row in result.per_class().iterrows()],
        **ranked(result), "mistakes": _mistakes(result, texts, n, explain),
    }


def _mistakes(result: Result, texts: dict[str, str] | None, n: int, explain: Explain | None) -> Mistakes | None:
    wrong = [Wrong(row["id"], row["label"], row["predicted"], f"{100 * row['confidence']:.2f} %", row["predicted"])
             for _, row in result.mistakes(n).iterrows()]
    return told("Most confident mistakes", "The wrong answers the classifier was surest of: hard cases, and sometimes "
                "wrong labels.", "Words in blue spoke for the answer given, words in orange against it; dotted ones "
                "the classifier doesn't know.", ("id", "label", "predicted", "probability"), wrong, texts, explain)


def _calibration(result: Result) -> dict[str, Any]:
    table, error = result.calibration(), result.calibration_error()
    alt = f"reliability diagram, expected calibration error {100 * error:.1f} %"
    drawing = figures.reliability_figure(table, error, palette=IN_PAGE, size=(4.6, 3.2))
    # Mean confidence minus accuracy.
    gap = float(((table["confidence"] - table["accuracy"]) * table["n"]).sum() / max(table["n"].sum(), 1))
    return {"calibration_error": error, "reliability": figure_html(drawing, "calibration", alt=alt),
            "modesty": "too sure of itself" if gap > 0.005 else "too modest" if gap < -0.005 else "about right"}


def _disagreement(result: Result) -> tuple[float, int]:
    """In % of the texts, how often the directions differ; and on how many they give the same wrong answer."""
    forward, backward = (result.probabilities(d).argmax(axis=1) for d in result.directions[:2])
    return (100 * float((forward != backward).mean()),
            int(((forward == backward) & (forward != result.labels)).sum()))


def _matrix(counts: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each true class with the cells of its row, shaded by their share of it."""
    numbers = counts.to_numpy(np.int64)
    shares = numbers / np.maximum(numbers.sum(axis=1, keepdims=True), 1)
    # Mistakes are rare: their shade grows with the root of the share, so that 1 % is not invisible.
    shades = np.where(np.eye(len(counts), dtype=bool), shares, np.sqrt(shares))
    return [(name, [{"n": int(numbers[i, j]), "share": 100 * shares[i, j], "shade": shades[i, j],
                     "kind": "right" if i == j else "wrong"} for j in range(len(counts))])
            for i, name in enumerate(counts.index)]


def _worst_pairs(counts: pd.DataFrame, most: int = 15) -> list[tuple[str, str, str]]:
    numbers = counts.to_numpy(np.int64)
    wrong = sorted(((int(numbers[i, j]), i, j) for i, j in np.argwhere(numbers) if i != j), reverse=True)
    return [(counts.index[i], counts.columns[j], f"{n:,}") for n, i, j in wrong[:most]]
