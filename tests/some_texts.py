"""Short made-up reviews whose mood one word decides, and an estimator that reads them in a second."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulmfit_fastai.classifier.estimator import ULMFiT

GOOD, BAD = ("wonderful", "clever"), ("dreadful", "boring")
THINGS = ("film", "plot", "actor", "scene", "ending", "score")


def reviews(n: int = 48, seed: int = 0) -> tuple[list[str], list[str]]:
    """n texts and their labels 'bad' and 'good' in turn; lengths differ, so that sorting by length reorders them."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for i in range(n):
        moods = GOOD if i % 2 else BAD
        words = [f"the {rng.choice(moods)} {thing}" for thing in rng.choice(THINGS, 1 + int(rng.integers(0, 5)))]
        texts.append(f"{' and '.join(words).capitalize()}, {rng.choice(moods)}.")
        labels.append("good" if i % 2 else "bad")
    return texts, labels


def tiny(**changes: Any) -> ULMFiT:
    """The smallest estimator, without bars and without fine-tuning its language model."""
    return ULMFiT(**{"preset": "tiny", "progress": False, "lm_epochs": 0, **changes})


def able(**changes: Any) -> ULMFiT:
    """One that learns these reviews: everything trains at one rate, without dropout."""
    settings = {"classifier.stages.-1.lr": 0.02, "classifier.stages.-1.discriminative": 1.0, "model.head_dropout": 0.0}
    settings |= {f"model.classifier_dropouts.{name}": 0.0 for name in ("embed", "input", "hidden", "weight", "output")}
    return tiny(**{"epochs": 10, "settings": settings, **changes})
