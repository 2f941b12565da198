"""What a GPU computes in. The decisions are tested anywhere, the numbers where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from fastai.callback.fp16 import AMPMode, MixedPrecision

from ulmfit_fastai.model import precision
from ulmfit_fastai.model.autocast import autocast_of, precision_callbacks
from ulmfit_fastai.model.fast import awd_lstm
from ulmfit_fastai.model.fast.awd_lstm import FastWeightDropout, FunctionalLSTM, lstm_dtype_in_autocast
from ulmfit_fastai.model.layers import build_language_model
from ulmfit_fastai.model.losses import FusedCrossEntropy
from ulmfit_fastai.recipe.parts import Dropouts, Model

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


@pytest.fixture
def autocast(monkeypatch):
    """Says that autocast to a type is on for CUDA, whether this machine has a GPU or not."""
    def on(dtype, *, cudnn):
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda" and dtype is not None)
        monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: dtype)
        monkeypatch.setattr(awd_lstm, "cudnn_has_bf16_lstm", lambda device: cudnn)
    return on


@pytest.mark.parametrize(("asked", "cudnn", "expected"), [
    (None, True, None), (torch.float16, True, torch.float16), (torch.bfloat16, True, torch.bfloat16),
    (torch.bfloat16, False, torch.float32)])
def test_an_lstm_is_never_left_in_fp16_where_the_loss_is_not_scaled(asked, cudnn, expected, autocast):
    autocast(asked, cudnn=cudnn)
    assert lstm_dtype_in_autocast(CUDA) is expected and lstm_dtype_in_autocast(CPU) is None


@pytest.mark.parametrize("held", [False, True])
def test_a_layer_under_autocast_computes_as_one_of_that_type(held, monkeypatch):
    torch.manual_seed(0)
    told = FastWeightDropout(FunctionalLSTM(6, 5, 1, batch_first=True), 0.0, dtype=torch.bfloat16)
    left = FastWeightDropout(FunctionalLSTM(6, 5, 1, batch_first=True), 0.0)
    left.load_state_dict(told.state_dict())
    monkeypatch.setattr(awd_lstm, "lstm_dtype_in_autocast", lambda device: torch.bfloat16)
    x, state = torch.randn(3, 4, 6), (torch.zeros(1, 3, 5), torch.zeros(1, 3, 5))
    found = []
    for layer in (told, left):
        with torch.no_grad():
            if held:
                with layer.hold():
                    found.append(layer(x, state))
            else:
                found.append(layer(x, state))
        loss = layer(x, state)[0].sum()
        found.append(torch.autograd.grad(loss, list(layer.parameters())))
    torch.testing.assert_close(found[2:], found[:2], rtol=0, atol=0)
    assert found[0][0].dtype == torch.float32


def test_autocast_does_not_reach_the_lstm(monkeypatch):
    torch.manual_seed(0)
    layer = FastWeightDropout(FunctionalLSTM(6, 5, 1, batch_first=True), 0.0)
    x, state = torch.randn(3, 4, 6), (torch.zeros(1, 3, 5), torch.zeros(1, 3, 5))
    exact = layer(x, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = layer(x, state)  # as torch has it
        monkeypatch.setattr(awd_lstm, "lstm_dtype_in_autocast", lambda device: torch.float32)
        found = layer(x, state)
        with torch.no_grad():
            held_outside = layer.hold()
            with torch.autocast("cpu", enabled=False):
                monkeypatch.setattr(awd_lstm, "lstm_dtype_in_autocast", lambda device: None)
                held_outside.__enter__()
            monkeypatch.setattr(awd_lstm, "lstm_dtype_in_autocast", lambda device: torch.bfloat16)
            layer(x, state)  # the held weights are of another type
            held_outside.__exit__(None, None, None)
    torch.testing.assert_close(found, exact, rtol=0, atol=0)
    assert (rounded[0] - exact[0]).abs().max() > 1e-4


def test_a_device_without_a_bf16_lstm_of_its_own_is_told_in_any_mode():
    with torch.inference_mode():
        assert not awd_lstm.cudnn_has_bf16_lstm(CPU)


@pytest.mark.parametrize(("hardware", "cudnn", "expected"), [
    (True, True, "bf16"), (True, False, "fp16"), (False, True, "fp16")])
def test_auto_is_bf16_where_hardware_and_cudnn_have_it(hardware, cudnn, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: hardware)
    monkeypatch.setattr(precision, "cudnn_has_bf16_lstm", lambda device: cudnn)
    assert precision.resolve("auto", CUDA) == expected
    callback, = precision_callbacks("auto", CUDA)
    assert callback.amp_mode == (AMPMode.BF16 if expected == "bf16" else AMPMode.FP16)
    assert precision.resolve("bf16", CUDA) == "bf16", "what is asked for by name is taken"


@pytest.mark.parametrize(("mode", "dtype"), [(AMPMode.BF16, torch.bfloat16), (AMPMode.FP16, torch.float16)])
def test_a_plan_times_batches_in_the_type_of_training(mode, dtype, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: asked.append((kind, dtype)))
    learner = type("Learner", (), {"cbs": [MixedPrecision(amp_mode=mode)]})()
    autocast_of(learner)
    learner.cbs = []
    with autocast_of(learner):
        pass
    assert asked == [("cuda", dtype)]


@needs_gpu
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 1.0), (torch.float16, 2.0**14)])
def test_gradients_of_lstms_in_half_precision_are_those_of_fp32(dtype, scale):
    """Of a loss over 8,960 tokens, made in fp32: what is apart is the LSTMs' doing."""
    torch.manual_seed(0)
    model = Model(emb_sz=64, n_hid=96, n_layers=3, lm_dropouts=Dropouts(0, 0, 0, 0, 0))
    net = build_language_model(2000, model).cuda().train()
    net[1].fused, loss = True, FusedCrossEntropy(net[1])
    x = torch.randint(2, 2000, (128, 71), device="cuda")
    grads = []
    for enabled in (False, True):
        net.reset()
        net.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=dtype, enabled=enabled):
            hidden = net(x[:, :-1])[0]
        (loss(hidden.float(), x[:, 1:]) * scale).backward()
        grads.append({name: p.grad / scale for name, p in net.named_parameters()})
    for name, exact in grads[0].items():
        assert (grads[1][name] - exact).norm() < 0.02 * exact.norm(), name
