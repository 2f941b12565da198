"""LSTMs in 8-bit integers: nearly the same states, the same classes, for prediction on the CPU only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ulmfit_fastai.model.layers import build_classifier, build_language_model
from ulmfit_fastai.predict.int8 import Int8LSTM, int8_copy, quantized
from ulmfit_fastai.predict.outputs import predict_rows
from ulmfit_fastai.recipe.parts import Model

MODEL = Model(emb_sz=24, n_hid=40, n_layers=2, head_hidden=8)


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = build_classifier(50, 2, MODEL, bptt=10).eval()
    with torch.no_grad():  # fresh weights say nearly the same of every text
        for name, parameter in model.named_parameters():
            parameter.mul_(8 if "encoder" in name else 3 if "weight_" in name else 5 if "layers" in name else 1)
    return model


def texts(n: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(2, 50, length) for length in rng.integers(3, 45, n)]


def probabilities(model: nn.Module) -> np.ndarray:
    docs = texts()
    return predict_rows(model, docs, np.arange(len(docs)), direction="forward", bptt=10, device=torch.device("cpu"))


def test_numbers_and_scales_give_back_each_row_to_half_a_step():
    torch.manual_seed(0)
    x = torch.randn(5, 30) * torch.tensor([1e-3, 1.0, 50.0, 1.0, 0.0])[:, None]
    numbers, scale = quantized(x)
    assert numbers.dtype == torch.int8 and numbers.abs().amax(1).tolist() == [127, 127, 127, 127, 0]
    assert ((numbers * scale - x).abs() <= 0.5001 * scale).all()


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_an_int8_lstm_reads_as_the_lstm_does_and_carries_its_state(batch):
    rnn = build_language_model(50, MODEL).eval()[0].rnns[0]
    x, state = torch.randn(batch, 13, 24), (0.1 * torch.randn(1, batch, 40), 0.1 * torch.randn(1, batch, 40))
    expected, (h, c) = rnn(x, state)
    output, (our_h, our_c) = Int8LSTM(rnn)(x, state)
    for ours, theirs in ((output, expected), (our_h, h), (our_c, c)):
        assert ours.shape == theirs.shape
        assert float(((ours - theirs).abs().mean() / theirs.abs().mean()).detach()) < 0.02
    assert torch.equal(our_h[0], output[:, -1])


def test_blocks_of_steps_change_nothing(monkeypatch):
    rnn = build_language_model(50, MODEL).eval()[0].rnns[0]
    x, state = torch.randn(3, 13, 24), (torch.zeros(1, 3, 40), torch.zeros(1, 3, 40))
    whole = Int8LSTM(rnn)(x, state)[0]
    monkeypatch.setattr("ulmfit_fastai.predict.int8.BLOCK", 7)
    torch.testing.assert_close(Int8LSTM(rnn)(x, state)[0], whole, rtol=0, atol=1e-6)


def test_predictions_are_nearly_the_models_and_differ_between_texts():
    model = classifier()
    exact, ours = probabilities(model), probabilities(int8_copy(model))
    assert exact[:, 0].std() > 0.03
    assert 0 < np.abs(exact - ours).max() < 0.2 * exact[:, 0].std()
    assert np.corrcoef(exact[:, 0], ours[:, 0])[0, 1] > 0.99


def test_the_model_itself_stays_as_it_was_and_shares_its_embedding():
    model = classifier()
    before, twin = {k: v.clone() for k, v in model.state_dict().items()}, int8_copy(model)
    probabilities(twin)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert twin[0].module.encoder.weight is model[0].module.encoder.weight
    assert not any("weight_hh" in name for name, _ in twin.named_parameters())


def test_the_matrices_take_a_quarter_of_the_memory():
    rnn = build_language_model(50, MODEL)[0].rnns[0]
    matrices = rnn.weight_hh_l0_raw.nbytes + rnn.module.weight_ih_l0.nbytes
    ours = Int8LSTM(rnn)
    assert (ours.input.nbytes + ours.recurrent.nbytes) * 4 == matrices


def test_a_language_model_gives_nearly_the_same_words():
    torch.manual_seed(0)
    model = build_language_model(50, MODEL).eval()
    twin, x = int8_copy(model), torch.randint(2, 50, (4, 20))
    with torch.inference_mode():
        exact, ours = model(x)[0], twin(x)[0]
    assert float((exact - ours).std() / exact.std()) < 0.02


def test_fastais_own_model_is_taken_too_after_training():
    torch.manual_seed(0)
    model = build_language_model(50, MODEL, fast=False)
    x = torch.randint(2, 50, (4, 20))
    model(x)[0].sum().backward()  # from now on fastai's model cannot be copied
    model.eval()
    model.reset()
    twin = int8_copy(model)
    with torch.inference_mode():
        exact, ours = model(x)[0], twin(x)[0]
    assert 0 < float((exact - ours).std() / exact.std()) < 0.02


def test_what_has_no_lstm_to_quantise_is_refused():
    with pytest.raises(ValueError, match="found Linear"):
        int8_copy(nn.Linear(2, 2))
