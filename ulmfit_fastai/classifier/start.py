"""The recipe for your own texts: where the language model starts, and a preset fitted to how much text there is.

A preset's numbers suit a large set. With 300 sentences its batches would make one step an epoch, and its single
epoch of the language model would teach it nothing.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..model import weights as weight_files
from ..recipe.presets import STEPS_AN_EPOCH, classifier_for, longer, may_be_longer
from ..recipe.recipe import Recipe
from ..texts.sources import Dataset
from ..tokens.pieces import is_model, model_of
from ..tokens.store import TokenStore

log = logging.getLogger(__name__)

FEW_LABELS = 2_000
"""With fewer labelled texts than this the preset is `few-labels`, unless another was asked for. On IMDb with 500 labels
that was better than `quick` on held-out reviews: see `presets.FEW_LABELS_EPOCHS`."""
LM_STEPS, LM_EPOCHS = 250, 15
"""Steps that fine-tuning a language model should have, and the most epochs for it (the paper's number for TREC-6)."""
RARE_WORDS = ((200_000, 1), (1_000_000, 2))
"""With fewer tokens than this, words seen so often are kept: among few texts most words are rare."""


def default_preset(n_train: int) -> str:
    """The preset for so many labelled texts where none was asked for; a small model either way."""
    return "few-labels" if n_train < FEW_LABELS else "quick"


def fitted(recipe: Recipe, *, n_train: int, n_tokens: int) -> Recipe:
    """The recipe with batches, epochs and vocabulary for `n_train` labelled texts and `n_tokens` tokens in all.

    On a large set it comes back as it was. Epochs are added to the last stage of a phase, and none to the preset
    'tiny', which is there to be quick.
    """
    changes: dict[str, Any] = {"min_freq": min([recipe.min_freq, *(n for most, n in RARE_WORDS if n_tokens < most)])}
    if recipe.lm is not None:
        bs = max(2, min(recipe.lm.bs, n_tokens // (recipe.lm.bptt * STEPS_AN_EPOCH)))
        steps = max(1, n_tokens // (bs * recipe.lm.bptt))
        lm = replace(recipe.lm, bs=bs)
        changes["lm"] = longer(lm, steps, LM_STEPS, LM_EPOCHS) if may_be_longer(recipe) else lm
    changes["classifier"] = classifier_for(recipe, n_train)
    return replace(recipe, **changes)


def vocabulary(recipe: Recipe, store: TokenStore, rows: np.ndarray) -> list[str]:
    """The words of the texts in `rows`; of few texts, also those that only the pretrained language model knows.

    A few hundred texts have few of the words that are met later. The pretrained model's vectors of the others are no
    worse for that: on TREC-6, trained on 300 questions, the test error falls from 29.2 to 25.6 %.
    """
    own = store.vocab(rows, max_vocab=recipe.max_vocab, min_freq=recipe.min_freq)
    if recipe.weights == "none" or model_of(own) or store.offsets[-1] >= RARE_WORDS[0][0]:
        return own
    loaded = weight_files.load(recipe.weights, recipe.directions[0])
    words = list(dict.fromkeys(word for word in (*own, *(loaded.vocab if loaded else ())) if word != "xxfake"))
    return padded(words[: max(recipe.max_vocab, len(own))])


def padded(words: list[str]) -> list[str]:
    """A vocabulary filled up with `xxfake` to a multiple of 8 words, as fastai's are."""
    return words + ["xxfake"] * (-len(words) % 8)


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


def with_weights(recipe: Recipe, weights: str | Path | None, lang: str) -> Recipe:
    """The recipe with its starting weights decided, and the sizes of its model taken from them.

    None takes the bundled weights where they fit and are installed; nothing is downloaded that wasn't asked for.
    """
    chosen = str(weights) if weights is not None else _default_weights(recipe, lang)
    if chosen in ("none", "pretrain"):
        if chosen == "pretrain":
            raise ValueError("weights='pretrain' needs a corpus: pretrain first (`ulmfit-fastai pretrain CORPUS --out "
                             "FOLDER`), then give weights='FOLDER'")
        return replace(recipe, weights="none", pretrain=None)
    found = weight_files.load(chosen, recipe.directions[0])
    assert found is not None, "only 'none' gives no weights"
    if not is_model(lang) and found.lang != lang:  # a SentencePiece model that isn't theirs is refused later
        log.warning("the weights %s are of texts with lang=%r, yours have lang=%r: few of their words will be known",
                    chosen, found.lang, lang)
    model = replace(recipe.model, emb_sz=found.emb_sz, n_hid=found.n_hid, n_layers=found.n_layers)
    return replace(recipe, weights=chosen, pretrain=None, model=model)


def _default_weights(recipe: Recipe, lang: str) -> str:
    if recipe.weights == "wt103" and lang == "en":
        missing = [d for d in recipe.directions if not weight_files.have_wt103(d)]
        if missing:
            raise ValueError(f"preset {recipe.name!r} starts from fastai's WikiText-103 weights, which are not in its "
                             f"cache ({' and '.join(missing)}). Give weights='wt103' to download them (180 MB each), "
                             "weights='none', a path, or preset='quick'")
        return "wt103"
    if recipe.weights not in ("wt103", "pretrain", "none", "wiki-small"):
        return recipe.weights
    bundled = [weight_files.BUNDLED / f"wiki-small-{d}.safetensors" for d in recipe.directions]
    if lang == "en" and recipe.name != "tiny" and all(path.exists() for path in bundled):
        return "wiki-small"
    if recipe.name != "tiny":
        log.warning("no pretrained language model for lang=%r is installed: starting from random numbers, which costs "
                    "accuracy with few texts. Give weights= a run folder, or 'wt103' for fastai's English one", lang)
    return "none"
