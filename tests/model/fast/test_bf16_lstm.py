"""The LSTM that trains in bf16: fp32's output and gradients as nearly as torch's own bf16, whatever asks for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ulmfit_fastai.model.fast import awd_lstm
from ulmfit_fastai.model.fast.awd_lstm import FastWeightDropout, FunctionalLSTM
from ulmfit_fastai.model.fast.bf16_lstm import Bf16LSTM

BATCH, STEPS, N_IN, N = 6, 11, 24, 40
NAMES = ("output", "h", "c", "d x", "d h", "d c", "d w_ih", "d w_hh", "d b_ih", "d b_hh")


def material(seed: int = 0) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Input and state, weights, and what the loss makes of output, h and c."""
    torch.manual_seed(seed)
    weights = [p.detach().mul(3).requires_grad_() for p in nn.LSTM(N_IN, N).parameters()]
    given = [torch.randn(shape).requires_grad_() for shape in ((BATCH, STEPS, N_IN), (BATCH, N), (BATCH, N))]
    return given, weights, [torch.randn(BATCH, STEPS, N), torch.randn(BATCH, N), torch.randn(BATCH, N)]


def by_torch(given: list[Tensor], weights: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    x, h, c = (each.to(dtype) for each in given)
    output, h, c = torch.lstm(x, (h[None], c[None]), [w.to(dtype) for w in weights], True, 1, 0.0, True, False, True)
    return output.float(), h[0].float(), c[0].float()


def by_us(given: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
    return Bf16LSTM.apply(*given, *weights, *(w.detach().bfloat16() for w in weights[:2]))


def with_gradients(made: tuple[Tensor, ...], inputs: list[Tensor], loss: list[Tensor]) -> list[Tensor]:
    return [*(each.detach() for each in made), *torch.autograd.grad(made, inputs, loss)]


def off(found: list[Tensor], right: list[Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, right, strict=True)]


@pytest.mark.parametrize("seed", [0, 1])
def test_output_state_and_every_gradient_are_nearly_fp32s_and_no_further_off_than_torchs_bf16(seed):
    given, weights, loss = material(seed)
    inputs = [*given, *weights]
    right = with_gradients(by_torch(given, weights, torch.float32), inputs, loss)
    ours = off(with_gradients(by_us(given, weights), inputs, loss), right)
    torchs = off(with_gradients(by_torch(given, weights, torch.bfloat16), inputs, loss), right)
    for name, mine, theirs in zip(NAMES, ours, torchs, strict=True):
        assert 0 < mine < 0.02 and mine < 1.3 * theirs, f"{name}: {mine:.4f}, torch {theirs:.4f}"


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 2)])
def test_a_loss_may_use_any_part_of_what_comes_out(used):
    given, weights, loss = material()
    right, ours = (torch.autograd.grad([made[i] for i in used], weights, [loss[i] for i in used])
                   for made in (by_torch(given, weights, torch.float32), by_us(given, weights)))
    assert max(off(list(ours), list(right))) < 0.02


@pytest.mark.parametrize("asked", [(0,), (3, 4), (4,), (5, 6), (1, 2)])
def test_only_what_is_asked_for_gets_a_gradient(asked):
    given, weights, loss = material()
    everything = [*given, *weights]
    right = torch.autograd.grad(by_us(given, weights), everything, loss)
    for i, each in enumerate(everything):
        each.requires_grad_(i in asked)
    made = by_us(given, weights)
    made[0].backward(loss[0], retain_graph=True)
    torch.autograd.backward(made[1:], loss[1:])
    for i, each in enumerate(everything):
        assert (each.grad is not None) == (i in asked)
        if i in asked:  # two passes instead of one: the rounding differs
            torch.testing.assert_close(each.grad, right[i], rtol=0.02, atol=0.02 * float(right[i].abs().max()))


def test_gradients_of_gradients_are_refused():
    given, weights, loss = material()
    first = torch.autograd.grad(by_us(given, weights)[0], given[0], loss[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()


class Counted(Bf16LSTM):
    calls = 0

    @classmethod
    def apply(cls, *args):
        cls.calls += 1
        return Bf16LSTM.apply(*args)


@pytest.fixture
def layer(monkeypatch):
    monkeypatch.setattr(awd_lstm, "Bf16LSTM", Counted)
    monkeypatch.setattr(Counted, "calls", 0)
    torch.manual_seed(0)
    return FastWeightDropout(FunctionalLSTM(N_IN, N, 1, batch_first=True), 0.5, dtype=torch.bfloat16)


def test_a_layer_uses_it_where_a_backward_pass_follows(layer):
    x, state = torch.randn(BATCH, STEPS, N_IN), (torch.zeros(1, BATCH, N), torch.zeros(1, BATCH, N))
    output, (h, c) = layer(x, state)
    assert Counted.calls == 1 and output.dtype == torch.float32 and h.shape == c.shape == (1, BATCH, N)
    with torch.no_grad():
        layer(x, state)
    layer.requires_grad_(False)
    layer(x, state)
    assert Counted.calls == 1
    layer(x.requires_grad_(), state)[0].sum().backward()  # frozen, below others that are not
    assert Counted.calls == 2 and x.grad is not None and layer.weight_hh_l0_raw.grad is None
    layer.dtype = None
    layer(x, state)
    assert Counted.calls == 2


def test_held_weights_are_cast_once_and_their_gradients_add_up_behind_the_mask(layer, monkeypatch):
    x, state = torch.randn(BATCH, STEPS, N_IN), (torch.zeros(1, BATCH, N), torch.zeros(1, BATCH, N))
    casts = []
    original = awd_lstm._cast
    monkeypatch.setattr(awd_lstm, "_cast", lambda dtype, *tensors: casts.append(len(tensors)) or original(
        dtype, *tensors))
    with layer.hold():
        dropped = layer._held[1].detach() == 0
        outputs = [layer(x, state)[0] for _ in range(3)]
        with torch.no_grad():  # the very weights, in torch's own LSTM
            torch.testing.assert_close(layer(x, state)[0], outputs[0], rtol=0.02, atol=0.01)
    assert Counted.calls == 3 and casts == [4, 3] and 0.4 < dropped.float().mean() < 0.6
    one = torch.autograd.grad(outputs[0].sum(), layer.weight_hh_l0_raw, retain_graph=True)[0]
    sum(output.sum() for output in outputs).backward()
    torch.testing.assert_close(layer.weight_hh_l0_raw.grad, 3 * one, rtol=1e-5, atol=1e-5)
    assert (layer.weight_hh_l0_raw.grad[dropped] == 0).all() and (layer.weight_hh_l0_raw.grad != 0).any()
    assert layer._held is None and layer._cast_held is None
