"""A classifier for prediction on a CPU with its LSTMs in 8-bit integers: a quarter of the memory, and faster.

Every row of a weight matrix has a scale of its own, and so has every text at every step; products are exact sums of
integers (torch's `_int_mm`, which torchao builds on). torch's own `quantize_dynamic` has one scale for a whole matrix,
is twice as far off, and warns of its removal. Embedding, pooling and head stay in fp32: they take no time.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from fastai.text.models.awdlstm import AWD_LSTM, WeightDropout
from torch import Tensor, nn

from .._errors import UlmfitError

BLOCK = 512
"""Input rows multiplied at a time: the gates' inputs, 512 x 4 n_hid numbers, 9 MB at 1,152 units, stay in the cache."""


def quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 numbers and a scale for each row, so that their product is nearly `x` (rows, n)."""
    scale = torch.linalg.vector_norm(x, float("inf"), 1, True).mul_(1 / 127).clamp_min_(1e-20)
    return (x / scale).round_().to(torch.int8), scale


class Int8LSTM(nn.Module):
    """One LSTM layer with int8 matrices, for prediction only; takes and gives what fastai's WeightDropout does.

    Input (batch, length, n_in) and a state (h, c) of (1, batch, n) each -> output (batch, length, n) and the new state.
    """

    input: Tensor
    input_scale: Tensor
    recurrent: Tensor
    recurrent_scale: Tensor
    bias: Tensor

    def __init__(self, rnn: WeightDropout) -> None:
        super().__init__()
        lstm, recurrent = rnn.module, rnn.weight_hh_l0_raw.detach()
        self.size = lstm.hidden_size
        order = self._order(recurrent.device)
        for name, matrix in (("input", lstm.weight_ih_l0.detach()), ("recurrent", recurrent)):
            numbers, scale = quantized(matrix.float()[order])
            self.register_buffer(name, numbers.contiguous())
            self.register_buffer(f"{name}_scale", scale.t().contiguous())
        self.register_buffer("bias", (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().float()[order])

    def _order(self, device: torch.device) -> Tensor:
        """torch's gates are input, forget, cell, output; here cell is last, so that one call does the sigmoids."""
        i, f, g, o = torch.arange(4 * self.size, device=device).split(self.size)
        return torch.cat([i, f, o, g])

    def _inputs(self, x: Tensor) -> Tensor:
        """What the words give the gates, (rows, 4 n)."""
        numbers, scale = quantized(x)
        product = torch._int_mm(numbers, self.input.t()).float()
        return product.mul_(scale).mul_(self.input_scale).add_(self.bias)

    @torch.inference_mode()
    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read the texts step by step."""
        batch, length, _ = x.shape
        h, c = hidden[0][0], hidden[1][0].clone()
        recurrent, scales, words = self.recurrent.t(), self.recurrent_scale, x.transpose(0, 1)
        output = x.new_empty(length, batch, self.size)
        for some, out in zip(words.split(max(1, BLOCK // batch)), output.split(max(1, BLOCK // batch)), strict=True):
            inputs = self._inputs(some.reshape(-1, some.shape[2])).view(-1, batch, 4 * self.size)
            # All views are made beforehand: a text alone is small work, in which every call counts.
            parts = [inputs, inputs[..., : 3 * self.size], *inputs.view(-1, batch, 4, self.size).unbind(2), out]
            for gates, sigmoids, i, f, o, g, here in zip(*(part.unbind(0) for part in parts), strict=True):
                numbers, scale = quantized(h)
                gates.addcmul_(torch._int_mm(numbers, recurrent) * scales, scale)
                sigmoids.sigmoid_()
                c.mul_(f).addcmul_(i, g.tanh_())
                h = torch.mul(o, c.tanh(), out=here)
        return output.transpose(0, 1), (h[None].clone(), c[None])

    def reset(self) -> None:
        """Nothing to undo: no weight is dropped in prediction."""


def int8_copy(model: nn.Module) -> nn.Module:
    """A copy of a model for prediction on the CPU, its LSTMs in int8; what it doesn't change it shares with the model.

    `model`: one that `build_classifier` or `build_language_model` made, or fastai's own. Raises ValueError for a model
    without an AWD-LSTM, with a bidirectional one, or on a GPU.
    """
    encoders = [module for module in model.modules() if isinstance(module, AWD_LSTM)]
    if not encoders or encoders[0].n_dir != 1:
        raise UlmfitError("int8: expected a model with an AWD-LSTM that reads in one direction, found "
                          f"{'a bidirectional one' if encoders else type(model).__name__}")
    if encoders[0].encoder.weight.device.type != "cpu":
        raise UlmfitError("int8 is for prediction on the CPU; use bf16 on a GPU")
    # What `deepcopy` finds in its memo it takes from there: the weights themselves, and for an LSTM its replacement.
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    memo |= {id(rnn): Int8LSTM(rnn) for encoder in encoders for rnn in encoder.rnns}
    twin = copy.deepcopy(model, memo).eval()
    for module in twin.modules():
        if isinstance(module, AWD_LSTM):
            module.reset()
    return twin
