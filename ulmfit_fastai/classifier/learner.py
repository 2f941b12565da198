"""A fastai Learner around a trained model, for what fastai does with one: predict, interpret, export, train on."""

from __future__ import annotations

import numpy as np
from fastai.text.learner import TextLearner

from .._errors import UlmfitError
from ..batches.dataloaders import classifier_dataloaders
from ..batches.documents import TextTokenizer
from ..batches.targets import Targets
from ..model.learners import classifier_learner
from ..predict.text_model import TextModel
from ..texts.dataset import Dataset
from ..tokens.ids import TokenIds
from ..training.prepare import rows_for


def fastai_learner(model: TextModel, direction: str, dataset: Dataset | None = None,
                   ids: TokenIds | None = None) -> TextLearner:
    """A `TextLearner` that shares the model's weights of one direction, on the texts it was trained on.

    Without `dataset` and `ids`, as after loading, its DataLoaders hold two texts without words instead: `predict`,
    `dls.test_dl(texts)` and `export` work, training needs DataLoaders of your own.
    """
    if direction not in model.models:
        raise UlmfitError(f"direction: this model has {', '.join(model.models)}, found {direction!r}")
    module = model.as_trained("a fastai Learner")[direction]
    config, recipe = model.config, model.recipe
    if dataset is not None and ids is not None:
        rows = rows_for(recipe, dataset)
        targets, train, valid = Targets.of(dataset, rows.train), rows.train, rows.valid
        loss = targets.loss(recipe.class_weights, model.device)
    else:
        shape = (2, config.n_out) if config.kind == "multi" else (2,)
        kind_of_number = np.int64 if config.kind == "single" else np.float32
        targets = Targets(config.kind, np.zeros(shape, kind_of_number), config.names)
        ids, train, valid = TokenIds(np.full(2, 2, np.uint16), np.arange(3), model.vocab), np.arange(2), np.arange(2)
        loss = targets.loss(None, model.device)
    dls = classifier_dataloaders(ids, targets.values, classes=list(config.names) or None, train=train, valid=valid,
                                 direction=direction, bs=recipe.classifier.bs, bptt=model.bptt, device=model.device,
                                 seed=recipe.seed)
    for loader in dls.loaders:
        loader.dataset.tokenizer = TextTokenizer(config.lang)
    learn = classifier_learner(dls, recipe.model, recipe.classifier, loss_func=loss, fast=recipe.fast)
    learn.model = module
    return learn
