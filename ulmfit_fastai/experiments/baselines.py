"""A stronger bag of words on the same rows, NB-SVM, beside `training.baseline`'s TF-IDF."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..texts.dataset import Dataset
from ..training.baseline import record
from ..training.baseline import tfidf_baseline as tfidf_baseline  # its public place


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
    return record("NB-SVM(1,2)", predicted, labels, train, test, started)


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
