"""fastai's AWD-LSTM, sentence encoder and pooling, corrected and without their waste; same parameters, same names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from fastai.text.models.awdlstm import AWD_LSTM, EmbeddingDropout, WeightDropout
from fastai.text.models.core import (
    PoolingLinearClassifier,
    SentenceEncoder,
    SequentialRNN,
    get_language_model,
    get_text_classifier,
)
from torch import Tensor, nn

from .lm_loss import FusedCrossEntropy, FusedDecoder, FusedLoss, MaskedRNNRegularizer
from .recipe import Dropouts, Model

__all__ = [
    "FastAWDLSTM", "FastEmbeddingDropout", "FastWeightDropout", "FixedSentenceEncoder", "FusedCrossEntropy",
    "FusedDecoder", "FusedLoss", "MaskedRNNRegularizer", "PoolingClassifier", "build_classifier",
    "build_language_model", "concat_pool", "weight_mask",
]

# cuDNN copies weights that don't lie in one piece, and warns at every call; stock catches it with catch_warnings, which
# is slow and not thread-safe. The copy is small beside the recurrence.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk of memory")


def weight_mask(weight: Tensor, p: float, *, stock_stream: bool = False) -> Tensor:
    """A dropout mask for `weight`: 0 with probability p, 1 / (1 - p) otherwise.

    On the CPU torch draws 5 million Bernoulli numbers in 46 ms; here two random bytes decide for each weight, in 10 ms
    (so p is met to 1 / 131,072). The numbers come from torch's generator, but are others than `F.dropout`'s for
    the same seed; `stock_stream=True` gives exactly those.
    """
    if stock_stream or weight.device.type != "cpu":
        return torch.empty_like(weight).bernoulli_(1 - p).div_(1 - p)
    dropped = min(round(p * 65536), 65535)  # of the 65,536 values of two bytes
    words = torch.empty((weight.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: weight.numel()] >= dropped - 32768
    return kept.view(weight.shape).to(weight.dtype).mul_(65536 / (65536 - dropped))


class FunctionalLSTM(nn.LSTM):
    """An nn.LSTM that is given its weights at each call."""

    def forward(  # type: ignore[override]
        self, x: Tensor, hidden: tuple[Tensor, Tensor], weights: list[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, h, c = torch.lstm(x, hidden, weights, self.bias, self.num_layers, self.dropout, self.training,
                                  self.bidirectional, self.batch_first)
        return output, (h, c)


class FastWeightDropout(WeightDropout):
    """fastai's WeightDropout around an LSTM, with the dropped matrix alive only while the LSTM runs.

    Stock keeps a clone of the matrix in the LSTM after every call and reset, which costs time and breaks `deepcopy`.
    `hold()` draws one mask for all calls inside it. `dtype` runs the LSTM in that type (weights and input are cast for
    the call, output and state come back as they were).
    """

    def __init__(self, module: FunctionalLSTM, weight_p: float, *, dtype: torch.dtype | None = None,
                 stock_stream: bool = False):
        super().__init__(module, weight_p)
        self.names = list(module._flat_weights_names)
        # No reference may stay to stock's clone; an nn.RNNBase that knows no names keeps none.
        del module.weight_hh_l0
        module._flat_weights_names, module._flat_weights, module._flat_weight_refs = [], [], []
        self.dtype, self.stock_stream = dtype, stock_stream
        self._held: list[Tensor] | None = None

    def weights(self) -> list[Tensor]:
        """The LSTM's weights in its own order, the recurrent one dropped out when training."""
        if self._held is not None:
            return self._held
        raw = self.weight_hh_l0_raw
        if self.training and self.weight_p > 0:
            raw = raw * weight_mask(raw.detach(), self.weight_p, stock_stream=self.stock_stream)
        flat = [raw if name == "weight_hh_l0" else getattr(self.module, name) for name in self.names]
        return flat if self.dtype is None else [w.to(self.dtype) for w in flat]

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Use the same dropped weights for every call inside the `with` block."""
        self._held = self.weights()
        try:
            yield
        finally:
            self._held = None

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if self.dtype is None:
            return self.module(x, hidden, self.weights())
        h, c = hidden
        output, state = self.module(x.to(self.dtype), (h.to(self.dtype), c.to(self.dtype)), self.weights())
        return output.to(x.dtype), (state[0].to(h.dtype), state[1].to(c.dtype))

    def reset(self) -> None:
        """Nothing to undo: no dropped weight outlives its call."""


class FastEmbeddingDropout(EmbeddingDropout):
    """fastai's EmbeddingDropout on the rows looked up, instead of on a dropped copy of the whole matrix.

    One draw for each word of the vocabulary, as in stock (and the same draws for the same seed), so all places of a
    word in a batch are kept or dropped together. Stock's `scale` multiplies the weights themselves when not training.
    """

    def forward(self, words: Tensor, scale: float | None = None) -> Tensor:
        emb = self.emb
        rows = F.embedding(words, emb.weight, emb.padding_idx, emb.max_norm, emb.norm_type, emb.scale_grad_by_freq,
                           emb.sparse)
        if self.training and self.embed_p > 0:
            kept = 1 - self.embed_p
            mask = emb.weight.new_empty(emb.num_embeddings).bernoulli_(kept).div_(kept)
            rows = rows * mask[words][..., None]
        return rows * scale if scale else rows


class FastAWDLSTM(AWD_LSTM):
    """fastai's AWD_LSTM with the two dropouts above and plain tensors throughout; same state dict, same numbers.

    `lstm_dtype=torch.bfloat16` runs the LSTMs in bf16 with fp32 weights and states. `stock_stream=True` draws the
    weight masks by `F.dropout`'s stream, so that a seed gives stock's very numbers.
    """

    def __init__(
        self, vocab_sz: int, emb_sz: int, n_hid: int, n_layers: int, pad_token: int = 1, hidden_p: float = 0.2,
        input_p: float = 0.6, embed_p: float = 0.1, weight_p: float = 0.5, bidir: bool = False, *,
        lstm_dtype: torch.dtype | None = None, stock_stream: bool = False,
    ):
        self._lstm_dtype, self._stock_stream = lstm_dtype, stock_stream
        super().__init__(vocab_sz, emb_sz, n_hid, n_layers, pad_token, hidden_p, input_p, embed_p, weight_p, bidir)
        self.encoder_dp = FastEmbeddingDropout(self.encoder, embed_p)

    def _one_rnn(self, n_in: int, n_out: int, bidir: bool, weight_p: float, l: int) -> FastWeightDropout:  # noqa: E741
        lstm = FunctionalLSTM(n_in, n_out, 1, batch_first=True, bidirectional=bidir)
        return FastWeightDropout(lstm, weight_p, dtype=self._lstm_dtype, stock_stream=self._stock_stream)

    def forward(self, inp: Tensor, from_embeds: bool = False) -> Tensor:
        # fastai's TensorText would send every operation below through Python.
        return super().forward(inp.as_subclass(Tensor), from_embeds)  # type: ignore[arg-type]

    @contextmanager
    def hold_masks(self) -> Iterator[None]:
        """One weight-drop mask a layer for all calls inside the `with` block."""
        with ExitStack() as stack:
            for rnn in self.rnns:
                stack.enter_context(rnn.hold())
            yield


class FixedSentenceEncoder(SentenceEncoder):
    """fastai's SentenceEncoder that gives each text of a batch what it would get alone.

    Input: word numbers (batch, length), each text starting at a multiple of `bptt`, those that start first on top (so
    longest first in fastai's `pad_chunk` layout). Output: states (batch, pooled, emb_sz) and the padding mask (batch,
    pooled), where `pooled` is the chunks of the last `max_len` tokens; only they receive gradients (BPT3C).

    Stock drops a text's last chunk where the batch's length is no multiple of `bptt` (fastai issue 3379), and mixes
    up rows of an unsorted batch; here a row stays in once it has started, and an unsorted batch raises ValueError.
    `mask_per_chunk=False` draws each LSTM's weight-drop mask once a batch (stock: once a chunk).
    """

    def __init__(self, bptt: int, module: nn.Module, pad_idx: int = 1, max_len: int | None = None, *,
                 mask_per_chunk: bool = True):
        super().__init__(bptt, module, pad_idx, max_len)
        self.mask_per_chunk = mask_per_chunk

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        x: Tensor = input.as_subclass(Tensor)  # type: ignore[arg-type]
        length = x.shape[1]
        padding = x == self.pad_idx
        rows = self._rows_of_chunks(padding)
        self.reset()
        one_mask = not self.mask_per_chunk and self.training and hasattr(self.module, "hold_masks")
        outputs = []
        with self.module.hold_masks() if one_mask else nullcontext():
            for start, n in zip(range(0, length, self.bptt), rows, strict=True):
                pooled = self.max_len is None or length - start <= self.max_len
                # The state is detached after every chunk, so chunks before the pooled ones never get a gradient.
                with torch.set_grad_enabled(pooled and torch.is_grad_enabled()):
                    out = self.module(x[:n, start : start + self.bptt])
                if pooled:
                    outputs.append(out if n == len(x) else F.pad(out, (0, 0, 0, 0, 0, len(x) - n)))
        states = torch.cat(outputs, dim=1)
        return states, padding[:, -states.shape[1]:]

    def _rows_of_chunks(self, padding: Tensor) -> list[int]:
        """How many rows have started by each chunk; one transfer from the device a batch."""
        starts = padding[:, :: self.bptt].logical_not().cpu()
        if not starts.any(1).all():
            row = int(starts.any(1).logical_not().nonzero()[0])
            raise ValueError(f"row {row} of the batch has no word at the start of any chunk of {self.bptt}; "
                             "pad with fastai's pad_chunk layout and leave out empty texts")
        first = starts.int().argmax(1)
        late = (first[1:] < first[:-1]).nonzero()
        if len(late):
            row = int(late[0]) + 1
            raise ValueError(f"expected the longest text first: row {row} starts in chunk {int(first[row])}, "
                             f"the row above it in chunk {int(first[row - 1])}; sort it by length")
        return [int((first <= chunk).sum()) for chunk in range(starts.shape[1])]


def concat_pool(output: Tensor, padding: Tensor) -> Tensor:
    """[last state, maximum, mean] of each text's own positions: fastai's masked_concat_pool wherever padding lies.

    `output` (batch, length, n), `padding` (batch, length) True where there is no word -> (batch, 3 n).
    Source: paper section 3.3.
    """
    real = padding.logical_not()
    lengths = real.sum(1)
    last = padding.shape[1] - 1 - real.flip(1).int().argmax(1)
    mean = output.masked_fill(padding[..., None], 0).sum(1) / lengths[:, None].to(output.dtype)
    maximum = output.masked_fill(padding[..., None], -float("inf")).amax(1)
    return torch.cat([output[torch.arange(len(output), device=output.device), last], maximum, mean], 1)


class PoolingClassifier(PoolingLinearClassifier):
    """fastai's PoolingLinearClassifier over `concat_pool`, which finds each text's last word in any padding."""

    def forward(self, input: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        output, padding = input
        return self.layers(concat_pool(output, padding)), output, output


def _config(model: Model, dropouts: Dropouts, *, fast: bool) -> dict[str, Any]:
    # At exactly 0 stock's F.dropout returns the parameter itself, which setattr then registers a second time in the
    # LSTM; the next reset raises TypeError.
    weight_p = dropouts.weight if fast else max(dropouts.weight, 1e-12)
    return dict(emb_sz=model.emb_sz, n_hid=model.n_hid, n_layers=model.n_layers, pad_token=1, bidir=False,
                hidden_p=dropouts.hidden, input_p=dropouts.input, embed_p=dropouts.embed, weight_p=weight_p)


def _expect_no_dtype(compute_dtype: torch.dtype | None) -> None:
    if compute_dtype is not None:
        raise ValueError(f"compute_dtype={compute_dtype}: fastai's own layers (fast=False) compute in their weights' "
                         "type; leave it out, or take fast=True")


def build_language_model(
    vocab_sz: int,
    model: Model,
    *,
    dropouts: Dropouts | None = None,
    fast: bool = True,
    compute_dtype: torch.dtype | None = None,
) -> SequentialRNN:
    """An AWD-LSTM language model: FastAWDLSTM and FusedDecoder, or with `fast=False` fastai's own.

    `dropouts`: others than `model.lm_dropouts` (for stage 1). `compute_dtype=torch.bfloat16`: the LSTMs and the loss's
    products in bf16, weights and loss in fp32. The state dict is fastai's either way.
    """
    drop = dropouts or model.lm_dropouts
    config = _config(model, drop, fast=fast)
    if not fast:
        _expect_no_dtype(compute_dtype)
        extra = dict(output_p=drop.output, tie_weights=model.tie_weights, out_bias=True)
        return get_language_model(AWD_LSTM, vocab_sz, config=config | extra)
    encoder = FastAWDLSTM(vocab_sz, lstm_dtype=compute_dtype, **config)
    tied = encoder.encoder if model.tie_weights else None
    return SequentialRNN(
        encoder, FusedDecoder(vocab_sz, model.emb_sz, drop.output, tie_encoder=tied, matmul_dtype=compute_dtype)
    )


def build_classifier(
    vocab_sz: int,
    n_out: int,
    model: Model,
    *,
    bptt: int = 72,
    max_len: int | None = None,
    dropouts: Dropouts | None = None,
    fast: bool = True,
    mask_per_chunk: bool = True,
    compute_dtype: torch.dtype | None = None,
) -> SequentialRNN:
    """A text classifier: sentence encoder, concat pooling, two linear blocks; the state dict is fastai's.

    `max_len`: tokens at the end of a text that are pooled and get gradients; None is 20 * bptt. `fast=False` takes
    fastai's AWD_LSTM, still inside the corrected sentence encoder and pooling.
    """
    drop = dropouts or model.classifier_dropouts
    max_len = 20 * bptt if max_len is None else max_len
    config = _config(model, drop, fast=fast)
    if fast:
        encoder: AWD_LSTM = FastAWDLSTM(vocab_sz, lstm_dtype=compute_dtype, **config)
    else:
        _expect_no_dtype(compute_dtype)
        stock = get_text_classifier(AWD_LSTM, vocab_sz, n_out, seq_len=bptt, max_len=max_len,
                                    config=config | dict(output_p=drop.output), lin_ftrs=[model.head_hidden],
                                    ps=[model.head_dropout])
        encoder = stock[0].module
    sizes, dropped = [3 * model.emb_sz, model.head_hidden, n_out], [drop.output, model.head_dropout]
    pooling = PoolingClassifier(sizes, dropped, bptt=bptt)
    if not fast:
        pooling.load_state_dict(stock[1].state_dict())
    return SequentialRNN(FixedSentenceEncoder(bptt, encoder, max_len=max_len, mask_per_chunk=mask_per_chunk), pooling)
