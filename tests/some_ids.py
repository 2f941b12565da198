"""Numbered texts made at random, and learners small enough for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastai.text.learner import LMLearner, language_model_learner, text_classifier_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config

from ulmfit_fastai.tokens.ids import TokenIds

SPECIAL = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"]
TINY = dict(emb_sz=6, n_hid=8, n_layers=2)


def some_ids(lengths: Any, *, n_words: int = 100, seed: int = 0) -> TokenIds:
    """Texts of these lengths (xxbos first) of random words."""
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    dtype = np.uint16 if n_words <= 1 << 16 else np.uint32
    ids = rng.integers(len(SPECIAL), n_words, offsets[-1]).astype(dtype)
    ids[offsets[:-1]] = 2
    return TokenIds(ids, offsets, SPECIAL + [f"w{i}" for i in range(n_words - len(SPECIAL))])


def random_lengths(n: int, low: int = 2, high: int = 400, seed: int = 0) -> np.ndarray:
    """Lengths with a long tail, as reviews have it: one in thirty is above `high`, none above three times that."""
    return np.clip(np.random.default_rng(seed).lognormal(np.log(high) - 1.5, 0.8, n), low, 3 * high).astype(int)


def tiny_lm(dls: Any, **kwargs: Any) -> LMLearner:
    """fastai's own language-model learner with a model of a few hundred numbers."""
    return language_model_learner(dls, AWD_LSTM, config={**awd_lstm_lm_config, **TINY}, pretrained=False, **kwargs)


def tiny_classifier(dls: Any, *, bptt: int = 70, **kwargs: Any) -> Any:
    """fastai's own classifier learner with a model of a few hundred numbers."""
    config = {**awd_lstm_clas_config, **TINY}
    return text_classifier_learner(dls, AWD_LSTM, seq_len=bptt, config=config, pretrained=False, **kwargs)
