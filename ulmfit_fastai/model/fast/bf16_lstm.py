"""An LSTM layer that trains in bf16 on the CPU, its backward pass a few large matrix products.

torch's own (oneDNN's) backward in bf16 is hardly faster than in fp32: it takes up the steps of a text one after the
other. Only the state has to wait for the step after it. The gradients of the weights and of the input are here one
product each for all steps, which runs at the full speed of the hardware; and sums of gates are rounded less often.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BF16 = torch.bfloat16
KEPT = torch.float16
"""What is kept of the gates for the backward pass: they lie between -1 and 1, where fp16 is eight times finer."""
_sigmoid_backward, _tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward


class Bf16LSTM(torch.autograd.Function):
    """One layer in one direction: fp32 in and out, matrix products in bf16, gates and cells in fp32.

    apply(x (batch, steps, n_in), h (batch, n), c (batch, n), w_ih (4 n, n_in), w_hh (4 n, n), b_ih, b_hh, and w_ih and
    w_hh in bf16) -> output (batch, steps, n), h, c. Gates in torch's order: input, forget, cell, output. Source:
    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor,
                cast_ih: Tensor, cast_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, steps, n_in = x.shape
        n = w_hh.shape[1]
        words = x.transpose(0, 1).to(BF16).reshape(steps * batch, n_in)
        inputs = torch.addmm((b_ih + b_hh).to(BF16), words, cast_ih.t()).view(steps, batch, 4 * n)
        kept = x.new_empty(steps, batch, 4 * n, dtype=KEPT)
        cells, states = x.new_empty(steps + 1, batch, n), x.new_empty(steps + 1, batch, n, dtype=BF16)
        cells[0], states[0] = c, h
        output, gates = x.new_empty(steps, batch, n), x.new_empty(batch, 4 * n)
        i, f, g, o = gates.chunk(4, 1)
        recurrent, both = cast_hh.t(), gates[:, : 2 * n]
        for given, state, before, cell, out, after, keep in _steps(inputs, states[:-1], cells[:-1], cells[1:], output,
                                                                   states[1:], kept):
            gates.copy_(torch.addmm(given, state, recurrent))
            both.sigmoid_()
            _tanh(g, out=g)
            o.sigmoid_()
            keep.copy_(gates)
            torch.mul(f, before, out=cell).addcmul_(i, g)
            _tanh(cell, out=out).mul_(o)
            after.copy_(out)
        ctx.save_for_backward(words, states, cells, kept, cast_ih, cast_hh)
        ctx.set_materialize_grads(False)
        return output.transpose(0, 1), output[-1].clone(), cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor | None, d_h: Tensor | None,
                 d_c: Tensor | None) -> tuple[Tensor | None, ...]:
        words, states, cells, kept, cast_ih, cast_hh = ctx.saved_tensors
        steps, batch, n = kept.shape[0], kept.shape[1], cast_hh.shape[1]
        needs = ctx.needs_input_grad
        wanted = cells.new_zeros(steps, batch, n) if d_output is None else d_output.transpose(0, 1)
        d_gates = kept.new_empty(steps, batch, 4 * n, dtype=BF16)
        d_state = cells.new_zeros(batch, n) if d_h is None else d_h
        d_cell = cells.new_zeros(batch, n) if d_c is None else d_c.clone()
        gates, grads, tanh = cells.new_empty(batch, 4 * n), cells.new_empty(batch, 4 * n), cells.new_empty(batch, n)
        (i, f, g, o), (d_i, d_f, d_g, d_o) = gates.chunk(4, 1), grads.chunk(4, 1)
        both, d_both = gates[:, : 2 * n], grads[:, : 2 * n]
        for want, keep, before, cell, d_gate in _steps(wanted, kept, cells[:-1], cells[1:], d_gates, last_first=True):
            gates.copy_(keep)
            d_state = d_state + want
            _tanh(cell, out=tanh)
            d_cell.add_(_tanh_backward(d_state * o, tanh))
            torch.mul(d_cell, g, out=d_i)
            torch.mul(d_cell, before, out=d_f)
            torch.mul(d_cell, i, out=d_g)
            torch.mul(d_state, tanh, out=d_o)
            _sigmoid_backward.grad_input(d_both, both, grad_input=d_both)
            _tanh_backward.grad_input(d_g, g, grad_input=d_g)
            _sigmoid_backward.grad_input(d_o, o, grad_input=d_o)
            d_gate.copy_(grads)
            d_cell.mul_(f)
            d_state = torch.mm(d_gate, cast_hh)
        flat = d_gates.view(steps * batch, 4 * n)
        d_x = torch.mm(flat, cast_ih).view(steps, batch, -1).transpose(0, 1).float() if needs[0] else None
        d_ih = torch.mm(flat.t(), words).float() if needs[3] else None
        d_hh = torch.mm(flat.t(), states[:-1].view(steps * batch, n)).float() if needs[4] else None
        d_bias = flat.sum(0, dtype=torch.float32) if needs[5] or needs[6] else None
        d_h, d_c = d_state.float() if needs[1] else None, d_cell if needs[2] else None
        return d_x, d_h, d_c, d_ih, d_hh, d_bias, d_bias, None, None


def _steps(*tensors: Tensor, last_first: bool = False) -> Iterator[tuple[Tensor, ...]]:
    """Views of each step, made beforehand: a step is small work, in which every call counts."""
    parts = [each.unbind(0) for each in tensors]
    return zip(*([each[::-1] for each in parts] if last_first else parts), strict=True)


def _tanh(x: Tensor, *, out: Tensor) -> Tensor:
    """tanh by way of sigmoid, which torch computes in a third of the time on a CPU."""
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)
