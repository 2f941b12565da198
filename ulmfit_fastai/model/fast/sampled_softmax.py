"""Cross entropy over a sample of the words, for language models on a CPU, where the decoder is half of the work."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..._errors import UlmfitError
from .draws import of_the_batch

CHUNK_TOKENS = 512
"""Rows of logits that exist at a time, as in the loss over all words."""
GPU_CHUNK_TOKENS = 16_384
"""The same on a GPU, where a chunk is some twenty kernels: 16,384 rows of 4,096 competitors are 256 MB in fp32."""
FULL_FROM = 0.9
"""The part of a stage after which all words count, so that the model ends on the loss it is measured by."""


def sampled_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    frequent: int,
    drawn: int,
    matmul_dtype: torch.dtype | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Mean cross entropy in which the most frequent words always compete and some of the others at random.

    A drawn word stands for (vocabulary - frequent) / drawn words, so that the sum of exponentials is right on average
    (Horvitz-Thompson); the same words are drawn for all tokens, from torch's random numbers. With `frequent + drawn` as
    large as the vocabulary it is the exact loss. Gradients are made in the forward pass: it can be back-propagated
    once.

    Args:
        hidden: (tokens, n_hid).
        weight: (vocabulary, n_hid), the most frequent words first.
        bias: (vocabulary,) or None.
        target: word numbers (tokens,). Every token's own word competes too.
        frequent: words that always compete.
        drawn: words that are drawn from the others.
        matmul_dtype: of the matrix products; None: that of `hidden`.
        chunk: rows of logits at a time; None: what suits the device.

    Raises:
        UlmfitError: `frequent` is below 0 or `drawn` below 1.

    Source: importance sampling for softmax, Bengio & Senecal 2003; one sample for a whole batch, Jean et al. 2015.
    """
    words = len(weight)
    if frequent < 0 or drawn < 1:
        raise UlmfitError(f"expected frequent >= 0 and drawn >= 1, found frequent={frequent}, drawn={drawn}")
    frequent = min(frequent, words)
    drawn = min(drawn, words - frequent)
    order = torch.randperm(words - frequent, generator=of_the_batch(torch.device("cpu")))
    chosen = _on(weight.device, frequent + order[:drawn])
    dtype = matmul_dtype or hidden.dtype
    chunk = chunk or (CHUNK_TOKENS if hidden.device.type == "cpu" else GPU_CHUNK_TOKENS)
    total = _Sampled.apply(hidden, weight, bias, target, chosen, frequent, dtype, chunk, torch.is_grad_enabled())
    return total / target.numel()


class MadeInForward(torch.autograd.Function):
    """A loss whose `forward` leaves the gradients of its first inputs in `ctx.grads`, to be scaled in backward."""

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("this loss was back-propagated twice; its gradients were made once, in the forward pass")
        grads, ctx.grads = ctx.grads, None
        scaled = tuple(None if g is None else g.mul_(grad_outputs[0].to(g.dtype)) for g in grads)
        return scaled + (None,) * (len(ctx.needs_input_grad) - len(scaled))


class _Sampled(MadeInForward):
    """The summed loss over a sample of the words."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, chosen: Tensor,
                frequent: int, dtype: torch.dtype, chunk: int, with_grad: bool) -> Tensor:
        exact = torch.promote_types(dtype, torch.float32)
        words, kept = len(weight), frequent + len(chosen)
        column = weight.new_full((words,), -1, dtype=torch.long)  # where a word is among the competitors
        column[:frequent] = torch.arange(frequent, device=weight.device)
        column[chosen] = torch.arange(frequent, kept, device=weight.device)
        matrix = torch.cat([weight[:frequent], weight[chosen]]).to(dtype)
        offset = weight.new_zeros(kept, dtype=exact)  # bias, and how many words each competitor stands for
        if len(chosen):
            offset[frequent:] = math.log((words - frequent) / len(chosen))
        if bias is not None:
            offset += torch.cat([bias[:frequent], bias[chosen]])
        grad_h = torch.empty_like(hidden)
        grad_matrix = torch.zeros_like(matrix, dtype=exact)
        grad_offset = torch.zeros_like(offset)
        grad_own = hidden.new_empty(len(target), 1)  # of the logit of each token's own word
        loss = hidden.new_zeros((), dtype=exact)
        for start in range(0, len(target), chunk):
            rows = slice(start, start + chunk)
            h, own = hidden[rows], target[rows]
            small = h.to(dtype)
            logits = (small @ matrix.t()).to(exact).add_(offset)
            place = column[own]
            _leave_out(logits, place)  # the own word has a logit of its own: not twice
            hit = (h * weight[own]).sum(1, keepdim=True).to(exact)
            if bias is not None:
                hit += bias[own, None]
            top = torch.maximum(logits.amax(1, keepdim=True) if kept else hit, hit)
            own_part = (hit - top).exp_()
            sums = logits.sub_(top).exp_().sum(1, keepdim=True).add_(own_part)
            loss += (sums.log() + top - hit).sum()
            if with_grad:
                logits.div_(sums)
                slope = (own_part / sums).sub_(1.0)
                grad_own[rows] = slope
                grad_offset += logits.sum(0)
                scaled = logits.to(dtype)
                grad_h[rows] = (scaled @ matrix).to(hidden.dtype).add_(slope.to(hidden.dtype) * weight[own])
                grad_matrix += scaled.t() @ small
        ctx.grads = None
        if with_grad:
            ctx.grads = (grad_h, _spread(weight, grad_matrix, chosen, frequent, target, grad_own * hidden),
                         None if bias is None else _spread(bias, grad_offset, chosen, frequent, target, grad_own[:, 0]))
        return loss


def _on(device: torch.device, numbers: Tensor) -> Tensor:
    """Numbers drawn on the CPU, the same for every device; from pinned memory the copy doesn't wait for a GPU."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def _leave_out(logits: Tensor, place: Tensor) -> None:
    """Put -inf into column `place` of each row, where that isn't -1; without asking the device how many those are."""
    if not logits.shape[1]:
        return
    column = place.clamp_min(0)[:, None]
    logits.scatter_(1, column, logits.gather(1, column).masked_fill_(place[:, None] >= 0, -math.inf))


def _spread(like: Tensor, competitors: Tensor, chosen: Tensor, frequent: int, target: Tensor, own: Tensor) -> Tensor:
    """The competitors' gradients and those of the tokens' own words, each at its word."""
    grad = torch.zeros_like(like)
    grad[:frequent] = competitors[:frequent].to(like.dtype)
    grad[chosen] = competitors[frequent:].to(like.dtype)
    return grad.index_add_(0, target, own.to(like.dtype))
