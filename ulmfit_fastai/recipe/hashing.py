"""The short name of a recipe: a hash that a field which comes later leaves as it is.

Kept runs, and the shared language models of a grid, are filed under it. So it counts the fields of the first edition,
whatever they hold, and of all others those that are not at their default.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from .fields import default_of

FIRST_EDITION = {
    "Recipe": ("classifier", "lm", "pretrain", "weights", "model", "directions", "lm_texts", "protocol", "evaluate",
               "max_vocab", "min_freq", "valid_fraction", "n_labels", "seed", "precision", "fast"),
    "Model": ("emb_sz", "n_hid", "n_layers", "lm_dropouts", "classifier_dropouts", "pretrain_dropouts", "head_hidden",
              "head_dropout", "tie_weights", "pooling"),
    "Dropouts": ("embed", "input", "hidden", "weight", "output"),
    "Phase": ("stages", "optimizer", "bs", "bptt", "variable_bptt", "alpha", "beta", "max_len", "early_stopping",
              "max_docs", "backward_factor"),
    "Stage": ("name", "epochs", "lr", "trainable", "discriminative", "schedule", "span"),
    "Schedule": ("kind", "cut_frac", "ratio", "div", "div_final", "pct_start"),
    "Optimizer": ("moms", "sqr_mom", "eps", "wd", "decoupled_wd", "clip"),
}
"""Fields of the first edition, by class. Nothing is ever added here: a new field has a default, and that is enough."""


def short_hash(recipe: Any) -> str:
    """16 hexadecimal characters that change with any field but a recipe's name."""
    values = counted(recipe)
    values.pop("name", None)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def counted(value: Any) -> Any:
    """Frozen dataclasses as plain dicts of the fields that the hash counts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        first = next((FIRST_EDITION[c.__name__] for c in type(value).__mro__ if c.__name__ in FIRST_EDITION), ())
        return {item.name: counted(getattr(value, item.name)) for item in dataclasses.fields(value)
                if item.name in first or getattr(value, item.name) != default_of(item)}
    return [counted(item) for item in value] if isinstance(value, tuple) else value
