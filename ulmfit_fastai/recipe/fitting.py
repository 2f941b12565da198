"""A preset fitted to how much text there is: batches and epochs for few labels."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from .._errors import UlmfitError
from .freezing import Stage
from .parts import AWD_LM, Dropouts, Phase
from .presets import SHORT
from .recipe import Recipe

FEW_LABELS = 2_000
"""With fewer labelled texts than this the preset is `few-labels`, unless another was asked for. On IMDb with 500 labels
that was better than `quick` on held-out reviews: see `presets.FEW_LABELS_EPOCHS`."""
RARE_WORDS = ((200_000, 1), (1_000_000, 2))
"""With fewer tokens than this, words seen so often are kept: among few texts most words are rare."""
DEFAULT_PRESETS = ("few-labels", "quick")
"""What is taken with fewer labelled texts than `FEW_LABELS`, and with more."""
LM_STEPS, LM_EPOCHS = 250, 4
"""Steps that fine-tuning a language model should have, and the most epochs that are given for them. On TREC-6's 4,400
questions four epochs lost less on held-out ones than two, and far less than fifteen (the paper's number, for a model
that knows more), whatever the dropout: `python -m benchmarks.choices short`, data/results/choices/trec6-short.json."""
CLASSIFIER_STEPS, CLASSIFIER_EPOCHS = 250, 15
"""Steps that a classifier should have, and the most epochs that are added for them."""
STEPS_AN_EPOCH = 16
"""Fewest steps of an epoch: batches are made smaller until there are so many."""


def default_preset(n_train: int) -> str:
    """The preset for so many labelled texts where none was asked for; a small model either way."""
    few, many = DEFAULT_PRESETS
    return few if n_train < FEW_LABELS else many


def fitted(recipe: Recipe, *, n_train: int, n_tokens: int) -> Recipe:
    """The recipe with batches, epochs and vocabulary for `n_train` labelled texts and `n_tokens` tokens in all.

    On a large set it comes back as it was. Epochs are added to the last stage of a phase, and none to the preset
    'tiny', which is there to be quick.
    """
    changes: dict[str, Any] = {"min_freq": min([recipe.min_freq, *(n for most, n in RARE_WORDS if n_tokens < most)])}
    if recipe.lm is not None:
        bs = max(2, min(recipe.lm.bs, n_tokens // (recipe.lm.bptt * STEPS_AN_EPOCH)))
        steps = max(1, n_tokens // (bs * recipe.lm.bptt))
        changes["lm"] = lm = replace(recipe.lm, bs=bs)
        if may_be_longer(recipe):
            changes |= regularised(recipe, longer(lm, steps, LM_STEPS, LM_EPOCHS))
    changes["classifier"] = classifier_for(recipe, n_train)
    return replace(recipe, **changes)


def regularised(recipe: Recipe, lm: Phase) -> dict[str, Any]:
    """`lm` and `model` of a recipe whose language model is fine-tuned so: regularised if in more epochs than it has.

    Dropout, AR and TAR are then those of `presets.SHORT` at the least, rate and batch at the most: without the first
    three, and with twice the rate, the language model lost more (data/results/choices/trec6-short.json).
    """
    if recipe.lm is None or lm.epochs <= recipe.lm.epochs:
        return {"lm": lm}
    least, had = AWD_LM.scaled(SHORT.lm_drop), recipe.model.lm_dropouts
    dropouts = Dropouts(**{f.name: max(getattr(had, f.name), getattr(least, f.name)) for f in fields(Dropouts)})
    last = replace(lm.stages[-1], lr=min(lm.stages[-1].lr, SHORT.lm_lr))
    lm = replace(lm, stages=(*lm.stages[:-1], last), bs=min(lm.bs, SHORT.bs),
                 alpha=max(lm.alpha, SHORT.alpha), beta=max(lm.beta, SHORT.beta))
    return {"lm": lm, "model": replace(recipe.model, lm_dropouts=dropouts)}


def may_be_longer(recipe: Recipe) -> bool:
    """Whether few texts earn a preset more epochs: any but `tiny`, which is there to be quick."""
    return recipe.name != "tiny"


def classifier_for(recipe: Recipe, n_texts: int) -> Phase:
    """A preset's classifier with batches for `n_texts` labelled texts and, where these are few, more epochs.

    Epochs are added to the last stage; with many texts the phase comes back as it was.
    """
    phase = recipe.classifier
    fitted = replace(phase, bs=max(4, min(phase.bs, n_texts // STEPS_AN_EPOCH)))
    steps = max(1, n_texts // fitted.bs)
    return longer(fitted, steps, CLASSIFIER_STEPS, CLASSIFIER_EPOCHS) if may_be_longer(recipe) else fitted


def longer(phase: Phase, steps: int, wanted: int, most: int) -> Phase:
    """The phase with more epochs in its last stage, so many that it takes `wanted` steps, or `most` epochs."""
    missing = -(-wanted // steps) - phase.epochs
    added = min(missing, most - phase.epochs)
    return with_epochs(phase, phase.stages[-1].epochs + added) if added > 0 else phase


def with_epochs(phase: Phase, epochs: int) -> Phase:
    """The phase with so many epochs in its last stage, the one that trains every group."""
    if epochs < 1:
        raise UlmfitError(f"epochs must be at least 1, found {epochs}")
    last: Stage = replace(phase.stages[-1], epochs=epochs)
    return replace(phase, stages=(*phase.stages[:-1], last))
