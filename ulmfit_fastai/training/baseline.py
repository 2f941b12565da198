"""What a bag of words reaches on the same rows: the figure that a neural model has to beat."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from ..batches.targets import kind_of
from ..results.metrics import multilabel_metrics, regression_metrics
from ..texts.dataset import Dataset

MOST_WEIGHTS = 10_000_000
"""Of the linear model, over all classes: with many classes the rarest words are left out, to spare the memory."""


def tfidf_baseline(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """TF-IDF over words and word pairs with logistic regression, scikit-learn's defaults; ridge regression for numbers.

    Where a text may have several classes, each class has a logistic regression of its own.

    Args:
        train: row numbers to train on: for a run with few labels the rows of those labels, otherwise the validation
            rows too unless they are what is measured, since a bag of words needs none.
        test: row numbers to measure on.

    Returns:
        {'name', 'error' (%), 'n' (test texts), 'n_train', 'seconds'}; of several classes also macro_f1 and micro_f1, of
        numbers mae, rmse and r2 in place of the error.
    """
    kind = kind_of(classes=bool(dataset.classes), several=bool(dataset.label_delim))
    texts, labels = dataset.df["text"].to_numpy(), dataset.df["label"].to_numpy()
    started = time.perf_counter()
    if kind == "single":
        found = _linear(dataset).fit(texts[train], labels[train]).predict(texts[test])
        return record("TF-IDF(1,2) + logistic regression", found, labels, train, test, started)
    if kind == "multi":
        name, scores = "TF-IDF(1,2) + logistic regressions", _several(dataset, train, test)
    else:
        outputs = _linear(dataset).fit(texts[train], labels[train].astype(float)).predict(texts[test])
        name, scores = "TF-IDF(1,2) + ridge regression", regression_metrics(outputs, labels[test].astype(float))
    kept = ("error", "macro_f1", "micro_f1", "mae", "rmse", "r2")
    return {"name": name, **{key: scores[key] for key in kept if key in scores}, "n": len(test),
            "n_train": len(train), "seconds": round(time.perf_counter() - started, 1)}


def _linear(dataset: Dataset) -> Any:
    """The vectoriser and the linear model behind it, untrained."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    model: Any = LogisticRegression(max_iter=1000) if dataset.classes else Ridge()
    if dataset.label_delim:
        model = OneVsRestClassifier(model)
    most = MOST_WEIGHTS // max(1, len(dataset.classes))
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), max_features=most), model)


def _several(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """Scores where a text may have several classes."""
    from sklearn.preprocessing import MultiLabelBinarizer

    texts = dataset.df["text"].to_numpy()
    named = [[name for name in (label or "").split(dataset.label_delim) if name] for label in dataset.df["label"]]
    truth = MultiLabelBinarizer(classes=list(dataset.classes)).fit_transform(named)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that all or no texts have
        outputs = _linear(dataset).fit(texts[train], truth[train]).predict_proba(texts[test])
    return multilabel_metrics(outputs, truth[test])


def record(name: str, predicted: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray,
           started: float) -> dict[str, Any]:
    """What is kept of a baseline that gives one class a text; `started` as `time.perf_counter` had it."""
    return {"name": name, "error": 100 * float(np.mean(predicted != labels[test])), "n": len(test),
            "n_train": len(train), "seconds": round(time.perf_counter() - started, 1)}
