"""Which rows to draw: in proportion to the classes, or the same number of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._errors import UlmfitError


def stratified(labels: Sequence[str], fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Draw about `fraction` of the positions of `labels`, each class in proportion.

    The number drawn is the nearest whole one. A class with five or more gives at least one, none gives all.

    Returns:
        Positions, ascending (int64).
    """
    values = np.asarray(labels, dtype=object)
    classes = sorted(set(labels))
    where = {c: np.flatnonzero(values == c) for c in classes}
    exact = {c: len(where[c]) * fraction for c in classes}
    take = {c: int(exact[c]) for c in classes}
    short = max(0, round(len(values) * fraction) - sum(take.values()))
    for c in sorted(classes, key=lambda c: (take[c] - exact[c], c))[:short]:  # largest remainder first
        take[c] += 1
    drawn = []
    for c in classes:
        n = min(take[c], len(where[c]) - 1)
        n = max(n, 1) if len(where[c]) >= 5 and fraction > 0 else n
        drawn.append(rng.permutation(where[c])[:n])
    return np.sort(np.concatenate(drawn)).astype(np.int64) if drawn else np.empty(0, np.int64)


def balanced(rows: np.ndarray, labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `n` of `rows` (numbers into `labels`), the classes in turn, so that each has its equal share or all it has.

    A larger draw with the same `rng` contains the smaller ones.

    Returns:
        Row numbers, ascending, (n,).

    Raises:
        UlmfitError: `n` is not between the number of classes and the number of rows.
    """
    classes = sorted(set(labels[rows]))
    if not len(classes) <= n <= len(rows):
        raise UlmfitError(f"n_labels must lie between {len(classes)} (one for each class) and {len(rows):,} (the "
                          f"labelled rows beside the validation part), found {n:,}")
    queues = [rng.permutation(rows[labels[rows] == c]) for c in classes]
    place = np.concatenate([np.arange(len(queue)) for queue in queues])  # a row's turn within its class
    order = np.argsort(place, kind="stable")
    return np.sort(np.concatenate(queues)[order[:n]])
