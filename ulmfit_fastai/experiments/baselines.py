"""What bags of words reach on the same rows: the figures that a neural model has to beat."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..texts.dataset import Dataset


def tfidf_baseline(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """TF-IDF over words and word pairs with logistic regression, scikit-learn's defaults.

    Args:
        train: row numbers to train on: for a run with few labels the rows of those labels, otherwise the validation
            rows too, since a bag of words needs none.
        test: row numbers to measure on.

    Returns:
        {'name', 'error' (%), 'n' (test texts), 'n_train', 'seconds'}.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels = dataset.df["text"].to_numpy(), dataset.df["label"].to_numpy()
    started = time.perf_counter()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit(texts[train], labels[train])
    return _record("TF-IDF(1,2) + logistic regression", model.predict(texts[test]), labels, train, test, started)


def nbsvm_baseline(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """NB-SVM over words and word pairs (Wang & Manning 2012), trained on these rows; the record is `tfidf_baseline`'s.

    Whether a word occurs, times its log-count ratio between a class and the rest, in a linear SVM whose weights are
    drawn towards their mean magnitude, with the paper's alpha = 1, C = 1 and beta = 0.25. With more than two classes,
    one class against the rest at a time.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    texts, labels = dataset.df["text"].to_numpy(), dataset.df["label"].to_numpy()
    started = time.perf_counter()
    words = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]", dtype=np.float32)
    seen, unseen = words.fit_transform(texts[train]), words.transform(texts[test])
    classes = sorted(set(labels[train]))
    if len(classes) == 2:
        scores = nbsvm_scores(seen, labels[train] == classes[1], unseen)
        predicted = np.array(classes, dtype=object)[(scores > 0).astype(int)]
    else:
        scores = np.stack([nbsvm_scores(seen, labels[train] == name, unseen) for name in classes], axis=1)
        predicted = np.array(classes, dtype=object)[scores.argmax(axis=1)]
    return _record("NB-SVM(1,2)", predicted, labels, train, test, started)


def log_count_ratio(counts: Any, positive: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    """log((p / |p|) / (q / |q|)) of each column, p and q being alpha plus its sums over positive and other rows."""
    p = alpha + np.asarray(counts[positive].sum(axis=0), dtype=np.float64).ravel()
    q = alpha + np.asarray(counts[~positive].sum(axis=0), dtype=np.float64).ravel()
    return np.log(p / p.sum()) - np.log(q / q.sum())


def nbsvm_scores(seen: Any, positive: np.ndarray, unseen: Any, *, beta: float = 0.25) -> np.ndarray:
    """Decision values of the unseen texts, (texts,), above 0 for the class that `positive` marks among the seen."""
    from sklearn.svm import LinearSVC

    ratio = log_count_ratio(seen, positive)
    model = LinearSVC(C=1.0, random_state=0, max_iter=5000).fit(seen.multiply(ratio).tocsr(), positive)
    weights = model.coef_.ravel()
    weights = (1 - beta) * np.abs(weights).mean() + beta * weights
    return np.asarray(unseen.multiply(ratio).tocsr() @ weights).ravel() + model.intercept_[0]


def _record(name: str, predicted: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray,
            started: float) -> dict[str, Any]:
    return {"name": name, "error": 100 * float(np.mean(predicted != labels[test])), "n": len(test),
            "n_train": len(train), "seconds": round(time.perf_counter() - started, 1)}
