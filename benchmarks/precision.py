"""What a number format costs in accuracy: a trained classifier on real test reviews, in fp32, bf16 and int8."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ulmfit_fastai._files import read_json
from ulmfit_fastai.model import weights
from ulmfit_fastai.model.layers import build_classifier
from ulmfit_fastai.predict.int8 import int8_copy
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.tokens.store import TokenStore

from .classifier import our_predictions
from .material import Setup
from .measure import Record

MOST = 0.1
"""Points of error that a format may cost."""


def precision(setup: Setup) -> list[Record]:
    """The error of a finished run's classifier on the same test reviews in each number format."""
    if setup.model is None:
        return []
    recipe = Recipe.from_dict(read_json(setup.model / "run.json")["recipe"])
    direction = recipe.directions[0]
    saved = weights.Classifier.load(setup.model / f"classifier_{direction}.safetensors",
                                    vocab=setup.model / "vocab.json")
    test = setup.dataset.rows("test")
    n = min(setup.sizes.precision_docs, len(test))
    rows = np.sort(np.random.default_rng(0).choice(test, n, replace=False))
    store = TokenStore.make([setup.dataset.df["text"].iloc[i] for i in rows.tolist()], cache=setup.work / "tokens",
                            progress=False)
    ids = store.numericalize(saved.vocab)
    labels = np.array([saved.classes.index(label) for label in setup.dataset.df["label"].iloc[rows]])
    models: dict[str, Any] = {}
    for kind, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        model = build_classifier(len(saved.vocab), len(saved.classes), recipe.model, bptt=recipe.classifier.bptt,
                                 max_len=recipe.classifier.max_len, compute_dtype=dtype)
        model.load_state_dict(saved.state)
        models[kind] = model.eval()
    models["int8"] = int8_copy(models["fp32"])
    found: dict[str, Record] = {}
    predicted = {}
    for kind, model in models.items():
        started = time.perf_counter()
        predicted[kind] = our_predictions(model, ids, np.arange(n), bptt=recipe.classifier.bptt,
                                          device=torch.device("cpu")).numpy()
        found[kind] = {"seconds": time.perf_counter() - started}
    for kind, record in found.items():
        wrong = predicted[kind].argmax(1) != labels
        first = predicted["fp32"].argmax(1) != labels
        record |= {"error": 100 * float(wrong.mean()), "points_more": 100 * float(wrong.mean() - first.mean()),
                   "other_classes": int((predicted[kind].argmax(1) != predicted["fp32"].argmax(1)).sum()),
                   "mean_change": float(np.abs(predicted[kind] - predicted["fp32"]).mean()),
                   "largest_change": float(np.abs(predicted[kind] - predicted["fp32"]).max()),
                   "loss": float(-np.log(np.maximum(predicted[kind][np.arange(n), labels], 1e-12)).mean())}
        record["reached"] = record["points_more"] <= MOST
    model_size = recipe.model
    return [{"name": "cost of a number format", "n": n, "run": setup.model.name, "formats": found,
             "model": [model_size.emb_sz, model_size.n_hid, model_size.n_layers], "most_points": MOST}]
