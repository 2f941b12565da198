"""The report's account of labels of several classes, and of numbers: what takes the place of a confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..results.curve_figures import residuals_figure, scatter_figure
from ..results.held_out import HeldOut
from ..results.metrics import scores_per_class
from ..results.ranking import rankings, thresholds_of_all
from ..results.result import Result
from .mistakes import Mistakes, Wrong, told
from .page import IN_PAGE, figure_html, number, share
from .ranked import ranking_cards

if TYPE_CHECKING:
    from .words import Explain


def of_several_classes(result: Result, texts: dict[str, str] | None, n: int, explain: Explain | None) -> dict[str, Any]:
    """What several_classes.html.jinja shows of a run whose texts may have several classes; nothing of another."""
    held = result.held_out
    if held is None or held.kind != "multi":
        return {}
    outputs, truth = held.outputs, held.truth >= 0.5
    found = rankings(truth, outputs, held.classes)
    scores = scores_per_class(truth, outputs >= 0.5, n_classes=len(held.classes))
    micro = rankings(truth.reshape(-1, 1), outputs.reshape(-1, 1), ["all classes"])
    return {
        **ranking_cards(found), "micro": next((one.average_precision for one in micro.values()), None),
        "per_class": [
            (name, *(share(scores[key][i]) for key in ("precision", "recall", "f1")),
             number(one.average_precision if (one := found.get(name)) else None, 3),
             number(one.auc if one else None, 3), number(one.best if one else None, 3), f"{int(scores['n'][i]):,}")
            for i, name in enumerate(held.classes)],
        "thresholds": [(f"{row.threshold:.2f}", number(row.per_text, 2), share(row.precision), share(row.recall),
                        share(row.micro_f1), share(row.macro_f1), f"{row.error:.2f} %")
                       for row in thresholds_of_all(truth, outputs).itertuples()],
        "mistakes": _wrong_classes(held, texts, n, explain),
    }


def _wrong_classes(held: HeldOut, texts: dict[str, str] | None, n: int, explain: Explain | None) -> Mistakes | None:
    """The classes that were given or missed with most confidence, at most one of a text."""
    outputs, truth = held.outputs, held.truth >= 0.5
    away = np.where((outputs >= 0.5) != truth, np.abs(outputs - truth), 0.0)
    worst = [row for row in np.argsort(-away.max(axis=1), kind="stable")[:n] if away[row].max() > 0]
    wrong = []
    for row in worst:
        i = int(away[row].argmax())
        name, p = held.classes[i], float(outputs[row, i])
        label = ", ".join(held.classes[k] for k in np.flatnonzero(truth[row])) or "none"
        said = (name, f"{100 * p:.2f} %") if p >= 0.5 else (f"not {name}", f"{100 * (1 - p):.2f} %")
        wrong.append(Wrong(str(held.ids[row]), label, *said, name))
    return told("Most confident mistakes", "The classes that were given wrongly, or missed, with most confidence.",
                "Words in blue spoke for the class, words in orange against it; dotted ones the classifier doesn't "
                "know.",
                ("id", "labels", "predicted", "probability"), wrong, texts, explain)


def of_numbers(result: Result, texts: dict[str, str] | None, n: int, explain: Explain | None) -> dict[str, Any]:
    """What numbers.html.jinja shows of a run whose labels are numbers; nothing of another."""
    held = result.held_out
    if held is None or held.kind != "regression":
        return {}
    predicted, truth = held.outputs[:, 0], held.truth.astype(float)
    off = predicted - truth
    drawings = (("Predicted and label", scatter_figure, "scatter", "predicted numbers against labels"),
                ("Residuals", residuals_figure, "residuals", "how far off predictions are"))
    spread = [float(np.quantile(np.abs(off), share_of)) for share_of in (0.5, 0.9)]
    alt = f"mean residual {off.mean():.4g}, half of them within {spread[0]:.4g}"
    return {
        "drawings": [(title, figure_html(draw(truth, predicted, palette=IN_PAGE), name, alt=f"{what}: {alt}"))
                     for title, draw, name, what in drawings],
        "bias": float(off.mean()), "half_within": spread[0], "most_within": spread[1],
        "mean_alone": float(np.abs(truth - truth.mean()).mean()),
        "mistakes": _far_off(held, predicted, truth, texts, n, explain),
    }


def _far_off(held: HeldOut, predicted: np.ndarray, truth: np.ndarray, texts: dict[str, str] | None, n: int,
             explain: Explain | None) -> Mistakes | None:
    rows = np.argsort(-np.abs(predicted - truth), kind="stable")[:n]
    wrong = [Wrong(str(held.ids[row]), f"{truth[row]:.4g}", f"{predicted[row]:.4g}",
                   f"{predicted[row] - truth[row]:+.4g}", None) for row in rows]
    return told("Farthest off", "The predictions that are farthest from their labels.",
                "Words in blue raised the number, words in orange lowered it; dotted ones the model doesn't know.",
                ("id", "label", "predicted", "residual"), wrong, texts, explain)


def mean_error_interval(held: HeldOut) -> tuple[float, float]:
    """95 % interval of the mean absolute error, by the spread of the absolute errors (normal approximation)."""
    off = np.abs(held.outputs[:, 0] - held.truth)
    half = 1.96 * float(off.std(ddof=1)) / len(off) ** 0.5 if len(off) > 1 else float("nan")
    return max(0.0, float(off.mean()) - half), float(off.mean()) + half
