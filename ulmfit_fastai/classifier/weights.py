"""How much each text counts: scikit-learn's `sample_weight`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import r2_score

from .._errors import UlmfitError
from .._words import shown
from ..texts.dataset import Dataset, joined_texts
from .texts import text_frame


def checked_weights(weights: Any, n: int) -> np.ndarray:
    """Weights of n texts as float64 (n,); UlmfitError unless each is 0 or more, and some above 0."""
    try:
        found = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UlmfitError(f"expected numbers, found {shown(weights, 3)}", field="sample_weight") from error
    if found.shape != (n,):
        raise UlmfitError(f"expected one weight for each of the {n:,} texts, found the shape {found.shape}",
                          field="sample_weight", expected=(n,), found=found.shape)
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(wrong) or not found.any():
        raise UlmfitError("expected weights of 0 or more, some above 0, found "
                          f"{found[wrong[0]] if len(wrong) else 'none above 0'}", field="sample_weight")
    return found


def weights_of_rows(weights: Any, X: Any, text: str | Sequence[str] | None, dataset: Dataset) -> np.ndarray:
    """The weight of each row of the data set that was made of the texts `X`: without those that are empty, and with
    others behind that have no label, which no classifier reads."""
    frame, columns = text_frame(X, text)
    given = checked_weights(weights, len(frame))
    kept = given[[bool(value) for value in joined_texts(frame, columns)]]
    return np.concatenate([kept, np.ones(len(dataset) - len(kept))])


def weighted_score(kind: str, outputs: np.ndarray, values: Sequence[Any], weights: np.ndarray) -> float:
    """R² of numbers, or the share of texts that have the right class (or exactly the right classes)."""
    if kind == "regression":
        return float(r2_score(values, outputs[:, 0], sample_weight=weights))
    if kind == "single":
        return float(np.average(outputs.argmax(axis=1) == values, weights=weights))
    right = [tuple(np.flatnonzero(row >= 0.5)) == value for row, value in zip(outputs, values, strict=True)]
    return float(np.average(right, weights=weights))
