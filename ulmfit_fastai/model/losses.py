"""The language model's head: fastai's decoder, and its cross entropy without a tokens x vocabulary tensor."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fastai.callback.core import Callback, GatherPredsCallback
from fastai.learner import AvgLoss
from fastai.losses import CrossEntropyLossFlat
from fastai.text.models.core import LinearDecoder
from torch import Tensor, nn

from .._errors import UlmfitError
from .fast.sampled_softmax import MadeInForward, sampled_cross_entropy

CHUNK_TOKENS = 512
"""Rows of logits that exist at a time on a CPU: 512 x 30,000 words x 4 bytes = 61 MB, where stock keeps 4,608 rows
three times over (logits, log-softmax, gradient)."""
GPU_CHUNK_TOKENS = 4096
"""The same on a GPU, where few large kernels are faster: 1 GB at 60,000 words."""
PIECE_TOKENS = 256
"""Rows whose softmax a CPU makes at a time: few, to stay in its cache from one pass over them to the next (64 rows are
2 % faster), but not so few that its threads wait for each other on a busy machine (64 rows are 3 times slower)."""

ON_CPU = ("cpu",)
"""Devices whose passes over a few rows of logits stay in a cache; elsewhere each pass costs what its bytes cost."""


class FusedDecoder(LinearDecoder):
    """fastai's LinearDecoder that can leave the product with the vocabulary to the loss.

    `fused=False` (the default): exactly stock. `fused=True`: for `FusedCrossEntropy`; the callback `FusedLoss` switches
    it on while a Learner trains or validates.

    Args:
        n_out: words.
        n_hid: features of the encoder's states.
        matmul_dtype: torch.bfloat16 does the loss's matrix products in that type, with softmax, loss and accumulation
            over chunks in fp32.
    """

    def __init__(self, n_out: int, n_hid: int, output_p: float = 0.1, tie_encoder: nn.Module | None = None,
                 bias: bool = True, *, matmul_dtype: torch.dtype | None = None):
        super().__init__(n_out, n_hid, output_p, tie_encoder, bias)
        self.matmul_dtype = matmul_dtype
        self.fused = False

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode the encoder's states.

        Args:
            input: (batch, length, n_hid).

        Returns:
            Logits (batch, length, n_out), or the dropped states while `fused`; then the raw and the dropped states
            (batch, length, n_hid).
        """
        if not self.fused:
            return super().forward(input)
        dropped = self.output_dp(input)
        return dropped, input, dropped


class FusedCrossEntropy(CrossEntropyLossFlat):
    """Cross entropy of a FusedDecoder's words, in chunks of tokens; on plain logits it is CrossEntropyLossFlat.

    Called with the decoder's first output (hidden states (batch, length, n_hid) while `decoder.fused`, logits (batch,
    length, vocabulary) otherwise) and word numbers (batch, length). `reduction` is 'mean', 'sum' or 'none' (one loss a
    token, flat), as in fastai.

    Args:
        chunk: rows of logits at a time; None: what suits the device.

    Raises:
        UlmfitError: when called with logits while `decoder.fused`.
    """

    def __init__(self, decoder: FusedDecoder, *, chunk: int | None = None):
        super().__init__()
        self.decoder, self.chunk = decoder, chunk
        self.sampled_words: int | None = None
        """So many frequent words, and as many drawn ones, compete while the model trains (`SampledLoss` sets it)."""

    def __call__(self, inp: Tensor, targ: Tensor, **kwargs: Any) -> Tensor:
        if not self.decoder.fused:
            return super().__call__(inp, targ, **kwargs)
        linear = self.decoder.decoder
        if inp.shape[-1] != linear.in_features:
            raise UlmfitError(
                f"expected the decoder's hidden states with {linear.in_features} features, found {inp.shape[-1]}; "
                "pass the model's own first output, or set decoder.fused = False to work with logits"
            )
        hidden = inp.as_subclass(Tensor).flatten(0, -2)  # type: ignore[arg-type]
        target = targ.as_subclass(Tensor).reshape(-1).long()  # type: ignore[arg-type]
        if self.sampled_words is not None and self.decoder.training and torch.is_grad_enabled():
            return sampled_cross_entropy(hidden, linear.weight, linear.bias, target, frequent=self.sampled_words,
                                         drawn=self.sampled_words, matmul_dtype=self.decoder.matmul_dtype)
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
    chunk: int | None = None,
) -> Tensor:
    """Cross entropy of `hidden @ weight.T + bias` without ever holding all its rows.

    The gradients are made in the forward pass, chunk by chunk, where the logits are at hand; so it can be
    back-propagated once. torch 2.13's function of this name does the same, on the CPU 4 % slower with its chunk set to
    512 rows and no faster than stock with its default, and with bf16 input it returns the loss in bf16.

    Args:
        hidden: (tokens, n_hid).
        weight: (vocabulary, n_hid).
        bias: (vocabulary,) or None.
        target: word numbers (tokens,); every one counts.
        reduction: 'mean', 'sum' or 'none'.
        matmul_dtype: of the matrix products; None: that of `hidden`, or autocast's.
        chunk: rows of logits at a time; None: what suits the device.

    Returns:
        A number, or (tokens,) for 'none'.

    Raises:
        UlmfitError: `reduction` is none of these.
    """
    if reduction not in ("mean", "sum", "none"):
        raise UlmfitError(f"reduction: expected 'mean', 'sum' or 'none', found {reduction!r}")
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        matmul_dtype = torch.get_autocast_dtype(device)
    chunk = chunk or (CHUNK_TOKENS if device == "cpu" else GPU_CHUNK_TOKENS)
    if reduction == "none":
        parts = zip(hidden.split(chunk), target.split(chunk), strict=True)
        return torch.cat([F.cross_entropy(F.linear(h, weight, bias), t, reduction="none") for h, t in parts])
    dtype = matmul_dtype or hidden.dtype
    total = _ChunkedCrossEntropy.apply(hidden, weight, bias, target, dtype, chunk, torch.is_grad_enabled())
    return total / target.numel() if reduction == "mean" else total


class _ChunkedCrossEntropy(MadeInForward):
    """Summed cross entropy."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
                dtype: torch.dtype, chunk: int, with_grad: bool) -> Tensor:
        inputs = zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
        grads = [torch.zeros_like(t) if with_grad and need and t is not None else None for t, need in inputs]
        grad_h, grad_w, grad_b = grads
        exact_type = torch.promote_types(dtype, torch.float32)
        matrix, loss = weight.to(dtype), hidden.new_zeros((), dtype=exact_type)
        on_cpu = hidden.device.type in ON_CPU
        buffer = hidden.new_empty(min(chunk, len(target)), len(weight), dtype=dtype)
        exact = None if dtype == exact_type or not on_cpu else torch.empty_like(buffer[:PIECE_TOKENS], dtype=exact_type)
        for start in range(0, len(target), chunk):
            rows = slice(start, start + chunk)
            h = hidden[rows].to(dtype)
            logits = buffer[: len(h)]
            if on_cpu:
                torch.mm(h, matrix.t(), out=logits)
                for few, right in zip(logits.split(PIECE_TOKENS), target[rows].split(PIECE_TOKENS), strict=True):
                    loss += _loss_and_gradient_(few, bias, right, grad_b, exact)
            else:
                _logits(h, matrix, bias, out=logits)
                loss += _loss_and_gradient_in_few_passes_(logits, target[rows], grad_b)
            if grad_h is not None:
                grad_h[rows] = logits @ matrix
            if grad_w is not None:
                _add_product_(grad_w, logits.t(), h)
        ctx.grads = grads
        return loss


def _loss_and_gradient_(logits: Tensor, bias: Tensor | None, target: Tensor, grad_bias: Tensor | None,
                        exact: Tensor | None) -> Tensor:
    """Summed cross entropy of a few rows of logits, which become its gradient, softmax minus one-hot, in place.

    `exact`: fp32 room to compute in, if the logits are of a smaller type.
    """
    rows = logits if exact is None else exact[: len(logits)].copy_(logits)
    if bias is not None:
        rows += bias
    words = target[:, None]
    top, hit = rows.amax(1, keepdim=True), rows.gather(1, words)
    total = rows.sub_(top).exp_().sum(1, keepdim=True)
    rows.div_(total).scatter_add_(1, words, rows.new_full((1, 1), -1.0).expand_as(words))
    if grad_bias is not None:
        grad_bias += rows.sum(0)
    if rows is not logits:
        logits.copy_(rows)
    return (total.log() + top - hit).sum()


def _logits(h: Tensor, matrix: Tensor, bias: Tensor | None, *, out: Tensor) -> None:
    """The product with the vocabulary; a GPU adds the bias on the way, in fp32."""
    if bias is None:
        torch.mm(h, matrix.t(), out=out)
    else:
        torch.addmm(bias.to(out.dtype), h, matrix.t(), out=out)


def _loss_and_gradient_in_few_passes_(logits: Tensor, target: Tensor, grad_bias: Tensor | None) -> Tensor:
    """`_loss_and_gradient_` on a GPU, where a pass over the logits costs what its bytes cost: as few as can be.

    The sum of exponentials is made in fp32, in the kernel that also casts.
    """
    words = target[:, None]
    logs = torch.log_softmax(logits, 1, dtype=torch.promote_types(logits.dtype, torch.float32))
    hit = logs.gather(1, words)
    torch.exp(logs, out=logits)
    logits.scatter_(1, words, hit.expm1().to(logits.dtype))  # p - 1 without the rounding of p to a half
    if grad_bias is not None:
        grad_bias += logits.sum(0, dtype=logs.dtype)
    return -hit.sum()


def _add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b; sums over chunks stay in the type of `total` where the product is in a smaller one."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


class FusedLoss(Callback):
    """Switches a FusedDecoder's `fused` on while the Learner trains or validates, off everywhere else.

    Off too where logits are wanted: `get_preds` (and so `predict`, `show_results`), and validation with metrics other
    than those of the loss (Perplexity). A fit that ends by an error leaves it as it was; the next fit, validation or
    prediction of the Learner sets it anew.
    """

    order = -3

    @property
    def decoder(self) -> FusedDecoder | None:
        """The model's FusedDecoder, or None."""
        return next((m for m in self.learn.model.modules() if isinstance(m, FusedDecoder)), None)

    def _set(self, on: bool) -> None:
        if self.decoder is not None and isinstance(self.learn.loss_func, FusedCrossEntropy):
            self.decoder.fused = on

    def before_train(self) -> None:
        """Fuse, unless the Learner measures on logits while it trains."""
        recorder = getattr(self.learn, "recorder", None)
        self._set(recorder is None or not recorder.train_metrics or self._loss_only())

    def before_validate(self) -> None:
        """Fuse, unless somebody asks for logits."""
        gathers = any(isinstance(cb, GatherPredsCallback) for cb in self.learn.cbs)
        self._set(not gathers and self._loss_only())

    def _loss_only(self) -> bool:
        return all(isinstance(metric, AvgLoss) for metric in self.learn.metrics)

    def after_validate(self) -> None:
        """Give logits again."""
        self._set(False)

    def after_fit(self) -> None:
        """Give logits again."""
        self._set(False)
