"""The language model's head: fastai's decoder, and its cross entropy without a tokens x vocabulary tensor."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fastai.callback.core import Callback, GatherPredsCallback
from fastai.callback.rnn import RNNRegularizer
from fastai.learner import AvgLoss
from fastai.losses import CrossEntropyLossFlat
from fastai.text.models.core import LinearDecoder
from torch import Tensor, nn

CHUNK_TOKENS = 512
"""Rows of logits that exist at a time on the CPU: 512 x 30,000 words x 4 bytes = 61 MB, where stock keeps 4,608 rows
three times over (logits, log-softmax, gradient)."""


class FusedDecoder(LinearDecoder):
    """fastai's LinearDecoder that can leave the product with the vocabulary to the loss.

    `fused=False` (the default): exactly stock, (logits, raw, dropped) with logits (batch, length, vocabulary).
    `fused=True`: (dropped, raw, dropped), for `FusedCrossEntropy`; the callback `FusedLoss` switches it on while
    a Learner trains or validates. `matmul_dtype=torch.bfloat16` does the loss's matrix products in that type, with
    softmax, loss and accumulation over chunks in fp32.
    """

    def __init__(self, n_out: int, n_hid: int, output_p: float = 0.1, tie_encoder: nn.Module | None = None,
                 bias: bool = True, *, matmul_dtype: torch.dtype | None = None):
        super().__init__(n_out, n_hid, output_p, tie_encoder, bias)
        self.matmul_dtype = matmul_dtype
        self.fused = False

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.fused:
            return super().forward(input)
        dropped = self.output_dp(input)
        return dropped, input, dropped


class FusedCrossEntropy(CrossEntropyLossFlat):
    """Cross entropy of a FusedDecoder's words, in chunks of tokens; on plain logits it is CrossEntropyLossFlat.

    `predictions` are the decoder's first output: hidden states (batch, length, n_hid) while `decoder.fused`, logits
    (batch, length, vocabulary) otherwise. `targets`: word numbers (batch, length). `reduction`: 'mean', 'sum' or 'none'
    (one loss a token, flat), as in fastai.
    """

    def __init__(self, decoder: FusedDecoder, *, chunk: int = CHUNK_TOKENS):
        super().__init__()
        self.decoder, self.chunk = decoder, chunk

    def __call__(self, inp: Tensor, targ: Tensor, **kwargs: Any) -> Tensor:
        if not self.decoder.fused:
            return super().__call__(inp, targ, **kwargs)
        linear = self.decoder.decoder
        if inp.shape[-1] != linear.in_features:
            raise ValueError(
                f"expected the decoder's hidden states with {linear.in_features} features, found {inp.shape[-1]}; "
                "pass the model's own first output, or set decoder.fused = False to work with logits"
            )
        hidden = inp.as_subclass(Tensor).flatten(0, -2)  # type: ignore[arg-type]
        target = targ.as_subclass(Tensor).reshape(-1).long()  # type: ignore[arg-type]
        return linear_cross_entropy(
            hidden, linear.weight, linear.bias, target, reduction=str(kwargs.get("reduction", self.reduction)),
            matmul_dtype=self.decoder.matmul_dtype, chunk=self.chunk,
        )

    def to(self, device: torch.device) -> None:
        """Nothing to move: the decoder moves with its model."""


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    reduction: str = "mean",
    matmul_dtype: torch.dtype | None = None,
    chunk: int = CHUNK_TOKENS,
) -> Tensor:
    """Cross entropy of `hidden @ weight.T + bias` without ever holding all its rows.

    `hidden` (tokens, n_hid), `weight` (vocabulary, n_hid), `target` (tokens,). The gradients are computed in the
    forward pass, chunk by chunk, where the logits are at hand.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', found {reduction!r}")
    if torch.is_autocast_enabled(hidden.device.type):
        matmul_dtype = torch.get_autocast_dtype(hidden.device.type)
    if reduction == "none":
        rows = [
            F.cross_entropy(F.linear(h, weight, bias), t, reduction="none")
            for h, t in zip(hidden.split(chunk), target.split(chunk), strict=True)
        ]
        return torch.cat(rows)
    total = _ChunkedCrossEntropy.apply(
        hidden, weight, bias, target, matmul_dtype or hidden.dtype, chunk, torch.is_grad_enabled()
    )
    return total / target.numel() if reduction == "mean" else total


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross entropy, its gradients made in forward and scaled in backward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
                dtype: torch.dtype, chunk: int, with_grad: bool) -> Tensor:
        need_h, need_w, need_b = (with_grad and need for need in ctx.needs_input_grad[:3])
        grad_h = torch.empty_like(hidden) if need_h else None
        grad_w = torch.zeros_like(weight) if need_w else None
        grad_b = torch.zeros_like(bias) if need_b and bias is not None else None
        matrix = weight.to(dtype)
        loss = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(target), chunk):
            rows = slice(start, start + chunk)
            h, t = hidden[rows].to(dtype), target[rows, None]
            logits = F.linear(h, matrix).float()
            if bias is not None:
                logits += bias
            log_sum = logits.logsumexp(1, keepdim=True)
            loss += (log_sum - logits.gather(1, t)).sum()
            if not (need_h or need_w or need_b):
                continue
            probability = logits.sub_(log_sum).exp_()
            probability.scatter_add_(1, t, probability.new_full((1, 1), -1.0).expand_as(t))
            if grad_b is not None:
                grad_b += probability.sum(0)
            probability = probability.to(dtype)
            if grad_h is not None:
                grad_h[rows] = (probability @ matrix).to(grad_h.dtype)
            if grad_w is not None:
                if dtype == grad_w.dtype:
                    grad_w.addmm_(probability.t(), h)
                else:
                    grad_w += (probability.t() @ h).to(grad_w.dtype)
        ctx.grads = (grad_h, grad_w, grad_b)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("this loss was back-propagated twice; its gradients were made once, in the forward pass")
        grads, ctx.grads = ctx.grads, None
        return tuple(None if g is None else g.mul_(grad_outputs[0].to(g.dtype)) for g in grads) + (None,) * 4


class FusedLoss(Callback):
    """Switches a FusedDecoder's `fused` on while the Learner trains or validates, off everywhere else.

    Off too where logits are wanted: `get_preds` (and so `predict`, `show_results`), and validation with metrics other
    than those of the loss (Perplexity).
    """

    order = -3

    @property
    def decoder(self) -> FusedDecoder | None:
        return next((m for m in self.learn.model.modules() if isinstance(m, FusedDecoder)), None)

    def _set(self, on: bool) -> None:
        if self.decoder is not None and isinstance(self.learn.loss_func, FusedCrossEntropy):
            self.decoder.fused = on

    def before_train(self) -> None:
        recorder = getattr(self.learn, "recorder", None)
        self._set(recorder is None or not recorder.train_metrics or self._loss_only())

    def before_validate(self) -> None:
        gathers = any(isinstance(cb, GatherPredsCallback) for cb in self.learn.cbs)
        self._set(not gathers and self._loss_only())

    def _loss_only(self) -> bool:
        return all(isinstance(metric, AvgLoss) for metric in self.learn.metrics)

    def after_train(self) -> None:
        self._set(False)

    def after_validate(self) -> None:
        self._set(False)

    def after_fit(self) -> None:
        self._set(False)


class MaskedRNNRegularizer(RNNRegularizer):
    """fastai's AR and TAR, which can leave padding out of their means (`pad_idx`; None: stock's, padding counted).

    Nothing is added when the encoder is frozen: the penalty would be a constant.
    Source: Merity et al. 2017, section 4.6.
    """

    order = RNNRegularizer.order

    def __init__(self, alpha: float = 0.0, beta: float = 0.0, *, pad_idx: int | None = None):
        super().__init__(alpha=alpha, beta=beta)
        self.pad_idx = pad_idx

    def after_loss(self) -> None:
        raw, dropped = self.learn.rnn.raw_out, self.learn.rnn.out
        if not self.learn.training or not dropped.requires_grad:
            return
        if self.pad_idx is None:
            super().after_loss()
            return
        real = self.learn.xb[0].as_subclass(Tensor)[:, -dropped.shape[1]:] != self.pad_idx
        if self.alpha:
            self.learn.loss_grad += self.alpha * _masked_mean_square(dropped, real)
        if self.beta and raw.shape[1] > 1:
            both = real[:, 1:] & real[:, :-1]
            self.learn.loss_grad += self.beta * _masked_mean_square(raw[:, 1:] - raw[:, :-1], both)


def _masked_mean_square(x: Tensor, real: Tensor) -> Tensor:
    squares = x.float().pow(2) * real[..., None]
    return squares.sum() / (real.sum().clamp(min=1) * x.shape[-1])
