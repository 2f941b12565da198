"""A preset fitted to how much text there is: smaller batches and more epochs where a preset made for IMDb would starve.

A preset's numbers suit a large set. With 300 sentences its batches would make one step an epoch, and its single
epoch of the language model would teach it nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .datasets import Dataset
from .freezing import Stage
from .recipe import Phase, Recipe

LM_STEPS, LM_EPOCHS = 250, 15
"""Steps that fine-tuning a language model should have, and the most epochs for it (the paper's number for TREC-6)."""
CLASSIFIER_STEPS, CLASSIFIER_EPOCHS = 250, 15
STEPS_AN_EPOCH = 16
RARE_WORDS = ((200_000, 1), (1_000_000, 2))
"""With fewer tokens than this, words seen so often are kept: among few texts most words are rare."""


def fitted(recipe: Recipe, *, n_train: int, n_tokens: int) -> Recipe:
    """The recipe with batches, epochs and vocabulary for `n_train` labelled texts and `n_tokens` tokens in all.

    On a large set it comes back as it was. Epochs are added to the last stage of a phase, and none to the preset
    'tiny', which is there to be quick.
    """
    changes: dict[str, Any] = {"min_freq": min([recipe.min_freq, *(n for most, n in RARE_WORDS if n_tokens < most)])}
    more = recipe.name != "tiny"
    if recipe.lm is not None:
        bs = max(2, min(recipe.lm.bs, n_tokens // (recipe.lm.bptt * STEPS_AN_EPOCH)))
        steps = max(1, n_tokens // (bs * recipe.lm.bptt))
        lm = replace(recipe.lm, bs=bs)
        changes["lm"] = _longer(lm, steps, LM_STEPS, LM_EPOCHS) if more else lm
    bs = max(4, min(recipe.classifier.bs, n_train // STEPS_AN_EPOCH))
    classifier = replace(recipe.classifier, bs=bs)
    steps = max(1, n_train // bs)
    changes["classifier"] = _longer(classifier, steps, CLASSIFIER_STEPS, CLASSIFIER_EPOCHS) if more else classifier
    return replace(recipe, **changes)


def _longer(phase: Phase, steps: int, wanted: int, most: int) -> Phase:
    """The phase with more epochs in its last stage, so many that it takes `wanted` steps, or `most` epochs."""
    missing = -(-wanted // steps) - phase.epochs
    added = min(missing, most - phase.epochs)
    return with_epochs(phase, phase.stages[-1].epochs + added) if added > 0 else phase


def with_epochs(phase: Phase, epochs: int) -> Phase:
    """The phase with so many epochs in its last stage, the one that trains every group."""
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, found {epochs}")
    last: Stage = replace(phase.stages[-1], epochs=epochs)
    return replace(phase, stages=(*phase.stages[:-1], last))


def valid_fraction(wanted: float, dataset: Dataset) -> float:
    """The share to hold out: what was wanted, or more where that would be less than two texts."""
    if not 0 < wanted <= 0.5:
        raise ValueError(f"validation_fraction must be above 0 and at most 0.5, found {wanted}")
    n = len(dataset.rows("train"))
    if n < 4:
        raise ValueError(f"{n} labelled texts: at least 4 are needed to train on some and validate on others")
    return max(wanted, min(2 / n + 1e-9, 0.5))


def refuse_no_validation(valid: np.ndarray) -> None:
    """ValueError where no text could be held out, since each class has one only."""
    if not len(valid):
        raise ValueError("every class has one text only: give at least two of some class, so that one can be held out "
                         "to see how well the others are learnt")
