"""The report's account of thresholds: ROC, precision and recall, and what each threshold gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..results.curve_figures import MOST_LINES, precision_recall_figure, roc_figure
from ..results.ranking import Ranking, answers_when_sure, matthews, rankings, thresholds_of_class
from ..results.result import Result
from .page import IN_PAGE, figure_html, number, share


def ranked(result: Result) -> dict[str, Any]:
    """What ranked.html.jinja shows where a text has one class.

    Of two classes, the second is the one that is looked for; of more, each is set against the others.
    """
    probs, labels = result.probabilities(), result.labels
    if len(result.classes) == 2:
        found = rankings(labels[:, None] == 1, probs[:, 1:], result.classes[1:])
    else:
        found = rankings(labels[:, None] == np.arange(len(result.classes)), probs, result.classes)
    sure = answers_when_sure(probs.max(axis=1), probs.argmax(axis=1) == labels)
    return {
        **ranking_cards(found), "looked_for": result.classes[1] if len(result.classes) == 2 else None,
        "mcc": matthews(labels, probs.argmax(axis=1)), "thresholds": _thresholds(result, found, probs, labels),
        "sure": [(f"{row.threshold:.2f}", share(row.answered), f"{row.wrong:,}", share(row.error))
                 for row in sure.itertuples()],
    }


def ranking_cards(found: Mapping[str, Ranking]) -> dict[str, Any]:
    """Both drawings, of the classes that are hardest to tell from the others, and the areas of all."""
    if not found:
        return {"curves": [], "areas": [], "auc": None, "average_precision": None}
    worst = dict(sorted(found.items(), key=lambda item: item[1].auc)[:MOST_LINES])
    worst = {name: one for name, one in found.items() if name in worst}  # in the order of the classes
    draw = {"roc": roc_figure(worst, palette=IN_PAGE), "pr": precision_recall_figure(worst, palette=IN_PAGE)}
    alt = "; ".join(f"{name}: AUC {one.auc:.3f}, average precision {one.average_precision:.3f}"
                    for name, one in worst.items())
    several = f", the {len(worst)} hardest of {len(found)} classes" if len(found) > len(worst) else ""
    return {
        "curves": [(f"ROC{several}", figure_html(draw["roc"], "roc", alt=f"ROC. {alt}")),
                   (f"Precision and recall{several}",
                    figure_html(draw["pr"], "pr", alt=f"Precision and recall. {alt}"))],
        "areas": [(name, number(one.auc, 3), number(one.average_precision, 3), share(one.share))
                  for name, one in found.items()],
        "auc": float(np.mean([one.auc for one in found.values()])),
        "average_precision": float(np.mean([one.average_precision for one in found.values()])),
    }


def _thresholds(result: Result, found: Mapping[str, Ranking], probs: np.ndarray, labels: np.ndarray) -> list[Any]:
    """Rows of two classes' thresholds; the one with the highest F1 is among them."""
    if len(result.classes) != 2 or not found:
        return []
    table, best = thresholds_of_class(labels == 1, probs[:, 1]), next(iter(found.values())).best
    own = thresholds_of_class(labels == 1, probs[:, 1], [best])
    table = pd.concat([table, own]).sort_values("threshold", kind="stable")
    return [(number(row.threshold, 3 if row.threshold == best else 2), f"{row.chosen:,}", share(row.precision),
             share(row.recall), share(row.f1), share(row.false_alarms), number(row.mcc, 3))
            for row in table.itertuples()]
