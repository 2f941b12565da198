"""What a bag of words reaches on the same rows: the figure that a neural model has to beat."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .datasets import Dataset


def tfidf_baseline(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """TF-IDF over words and word pairs with logistic regression, scikit-learn's defaults, trained on these rows.

    Returns {'name', 'error' (%), 'n' (test texts), 'n_train', 'seconds'}. `train` and `test` are row numbers; give the
    training rows together with the validation rows, since a bag of words needs none held out.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels = dataset.df["text"].to_numpy(), dataset.df["label"].to_numpy()
    started = time.perf_counter()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit(texts[train], labels[train])
    error = 100 * float(np.mean(model.predict(texts[test]) != labels[test]))
    return {"name": "TF-IDF(1,2) + logistic regression", "error": error, "n": len(test), "n_train": len(train),
            "seconds": round(time.perf_counter() - started, 1)}
