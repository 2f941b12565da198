"""A fastai Learner around a trained model, for what fastai does with one: predict, interpret, export, train on."""

from __future__ import annotations

from dataclasses import replace

import fastai.callback.schedule  # noqa: F401 - by it a Learner has lr_find and fit_one_cycle, a Recorder plot_sched
import numpy as np
from fastai.text.learner import TextLearner

from .._errors import UlmfitError
from ..batches.dataloaders import classifier_dataloaders
from ..batches.targets import Targets
from ..model.learners import classifier_learner
from ..predict.text_model import TextModel
from ..texts.dataset import Dataset
from ..tokens.ids import TokenIds
from ..training.prepare import rows_for

WITHOUT = np.arange(2)
"""Rows of the two texts without words that stand in for those that a model was trained on."""


def fastai_learner(model: TextModel, direction: str, dataset: Dataset | None = None,
                   ids: TokenIds | None = None) -> TextLearner:
    """A `TextLearner` that shares the model's weights of one direction, on the texts it was trained on.

    Args:
        direction: 'forward' or 'backward'.
        dataset: those texts. Without them, as after loading, its DataLoaders hold two texts without words instead:
            `predict`, `dls.test_dl(texts)` and `export` work, training needs DataLoaders of your own.
        ids: the same as numbers of the model's words.

    Raises:
        UlmfitError: the model lacks that direction, or is in int8.
    """
    if direction not in model.models:
        raise UlmfitError(f"direction: this model has {', '.join(model.models)}, found {direction!r}")
    module = model.as_trained("a fastai Learner")[direction]
    recipe, weights = model.recipe, None
    if dataset is not None and ids is not None:
        rows = rows_for(recipe, dataset)
        targets, train, valid, weights = Targets.of(dataset, rows.train), rows.train, rows.valid, recipe.class_weights
    else:
        targets, train, valid = Targets.blank(replace(model.target, classes=model.target.names), 2), WITHOUT, WITHOUT
        ids = TokenIds(np.full(2, 2, np.uint16), np.arange(3), model.vocab)
    dls = classifier_dataloaders(ids, targets, train=train, valid=valid, direction=direction, bs=recipe.classifier.bs,
                                 bptt=model.bptt, device=model.device, seed=recipe.seed, lang=model.config.lang)
    dls.columns = model.config.text
    learn = classifier_learner(dls, recipe.model, recipe.classifier, fast=recipe.fast,
                               loss_func=targets.target.loss(weights, model.device))
    learn.model = module
    return learn
