"""What a training step is calculated to hold on a GPU."""

from __future__ import annotations

from benchmarks.gpu.memory import peak
from ulmfit_fastai.model.fast import awd_lstm
from ulmfit_fastai.recipe.presets import preset

RECIPE = preset("fastai")


def classifier(tokens, bs):
    return peak(RECIPE, "classifier", True, words=2000, tokens=tokens, bs=bs)


def test_a_step_grows_with_texts_and_tokens():
    small, more, longer = classifier(160, 8), classifier(160, 64), classifier(640, 8)
    assert 0.2 < small < longer < 1.5 and small < more < 1.5


def test_an_lstm_s_weights_are_held_once_a_batch_and_not_once_a_chunk(monkeypatch):
    chunks, weights = 10, 20.3e6 * 2 / 2**30  # three LSTMs in halves
    # Without it they are cast at each call, and kept for backward.
    held = classifier(80 * chunks, 2)
    monkeypatch.setattr(awd_lstm, "_in_one_piece", lambda weights, dtype: weights)
    assert classifier(80 * chunks, 2) - held > 0.7 * (chunks - 1) * weights
