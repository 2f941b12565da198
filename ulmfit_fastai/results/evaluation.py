"""How right a model is on texts with known labels: one object to look at, with a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .intervals import wilson_interval
from .metrics import confusion_counts, error_metrics, multilabel_metrics, regression_metrics, scores_per_class


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Scores of a model on some texts; `print` it, or show it in a notebook.

    Attributes:
        metrics: error (%), accuracy (0 to 1), interval (95 %, of the error), n, wrong, macro_f1, loss; for multilabel
            also micro_f1, and a text is right when all its classes are. For regression: mae, rmse, r2, n.
        per_class: precision, recall, f1 (0 to 1) and n (support), a row a class; None for regression.
        confusion: counts, row = label, column = predicted; None but for one class a text.
    """

    metrics: dict[str, Any]
    per_class: pd.DataFrame | None = None
    confusion: pd.DataFrame | None = None

    @classmethod
    def of(cls, kind: str, outputs: np.ndarray, values: Sequence[Any], classes: Sequence[Any]) -> Evaluation:
        """Compare a model's outputs with labels.

        Args:
            kind: 'single', 'multi' or 'regression'.
            outputs: probabilities (texts, classes); for regression numbers (texts, 1).
            values: a label a text: a class number, a tuple of them (multilabel), or a number (regression).
            classes: their names, in the order of the columns of `outputs`.
        """
        if kind == "regression":
            return cls(regression_metrics(outputs[:, 0], np.asarray(values, dtype=np.float64)))
        if kind == "multi":
            truth = np.zeros_like(outputs)
            for row, several in enumerate(values):
                truth[row, list(several)] = 1
            scores = scores_per_class(truth >= 0.5, outputs >= 0.5, n_classes=len(classes))
            return cls(_completed(multilabel_metrics(outputs, truth)), pd.DataFrame(scores, index=list(classes)))
        codes, predicted = np.asarray(values, dtype=np.int64), outputs.argmax(axis=1)
        counts = confusion_counts(codes, predicted, n_classes=len(classes))
        names, scores = list(classes), scores_per_class(codes, predicted, n_classes=len(classes))
        return cls(_completed(error_metrics(outputs, codes)), pd.DataFrame(scores, index=names),
                   pd.DataFrame(counts, index=pd.Index(names, name="label"),
                                columns=pd.Index(names, name="predicted")))

    def __getitem__(self, name: str) -> Any:
        """One of `metrics` by its name."""
        return self.metrics[name]

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's own types.

        Returns:
            The metrics, `classes` (scores by name) and `confusion` (counts by label, then by prediction), as far as
            these apply; a score that is 0 / 0 is None.
        """
        found = dict(self.metrics)
        if self.per_class is not None:
            found["classes"] = _plain(self.per_class)
        if self.confusion is not None:
            found["confusion"] = _plain(self.confusion)
        return found

    @property
    def summary(self) -> str:
        """The main numbers in a line."""
        return self.summary_of(self.metrics)

    @staticmethod
    def summary_of(metrics: dict[str, Any]) -> str:
        """The main numbers of `metrics`, or of a part of run.json's, in a line."""
        if "mae" in metrics:
            r2 = "" if metrics["r2"] is None else f", R² {metrics['r2']:.3f}"
            return (f"mean absolute error {metrics['mae']:.4g}, RMSE {metrics['rmse']:.4g}{r2} on {metrics['n']:,} "
                    "texts")
        low, high = wilson_interval(metrics["wrong"], metrics["n"])
        return (f"error {metrics['error']:.2f} % (95 % interval {low:.2f} to {high:.2f}), {metrics['wrong']:,} of "
                f"{metrics['n']:,} texts wrong, macro F1 {metrics['macro_f1']:.3f}")

    def __repr__(self) -> str:
        parts = [self.summary]
        if self.per_class is not None:
            parts.append(self.per_class.round(3).to_string())
        if self.confusion is not None and len(self.confusion) <= 20:
            parts.append("row: label, column: predicted\n" + self.confusion.to_string())
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        tables = [t.round(3).to_html() for t in (self.per_class, self.confusion) if t is not None]
        return f"<p>{self.summary}</p>" + "".join(tables)


def _plain(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    plain = str if len(set(map(str, table.index))) == len(table) else repr  # the classes 1 and "1" are two
    named = table.rename(index=plain, columns=plain if table.columns.equals(table.index) else str).astype(object)
    return named.where(table.notna().to_numpy(), None).to_dict("index")  # type: ignore[return-value]


def _completed(metrics: dict[str, Any]) -> dict[str, Any]:
    return {**metrics, "accuracy": 1 - metrics["error"] / 100,
            "interval": wilson_interval(metrics["wrong"], metrics["n"])}
