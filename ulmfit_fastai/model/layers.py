"""The two models of ULMFiT from a recipe's Model, with fastai's sentence encoder and concat pooling corrected."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.text.models.core import (
    PoolingLinearClassifier,
    SentenceEncoder,
    SequentialRNN,
    get_language_model,
    get_text_classifier,
)
from torch import Tensor, nn

from .._errors import UlmfitError
from ..batches.classifier import Reads
from ..recipe.parts import Dropouts, Model
from .fast.awd_lstm import FastAWDLSTM
from .losses import FusedDecoder


def first_pooled_chunk(length: int, bptt: int, max_len: int | None) -> int:
    """The number of the first chunk that is pooled, of a batch `length` tokens long; 0 where all are (None: all)."""
    return 0 if max_len is None else max(0, -(-length // bptt) - -(-max_len // bptt))


class FixedSentenceEncoder(SentenceEncoder):
    """fastai's SentenceEncoder that gives each text of a batch what it would get alone.

    Stock drops a text's last chunk where the batch's length is no multiple of `bptt` (fastai issue 3379), and mixes
    up rows of an unsorted batch; here a row stays in once it has started, and an unsorted batch is refused.

    Args:
        bptt: tokens of a chunk; the state is detached after each.
        module: the AWD-LSTM.
        max_len: tokens at the end of a batch that are pooled and get gradients (BPT3C), in whole chunks, rounded up:
            otherwise what is pooled of a text would depend on its batch. None: all.
        mask_per_chunk: False draws each LSTM's weight-drop mask once a batch (stock: once a chunk).

    Raises:
        UlmfitError: `max_len` is less than a chunk; or, in `forward`, a batch is unsorted or has a text without words.

    Source: paper, section 3.3 (BPT3C).
    """

    def __init__(self, bptt: int, module: nn.Module, pad_idx: int = 1, max_len: int | None = None, *,
                 mask_per_chunk: bool = True):
        if max_len is not None and max_len < bptt:
            raise UlmfitError(f"max_len: expected at least one chunk of bptt = {bptt} tokens, found {max_len}")
        super().__init__(bptt, module, pad_idx, max_len)
        self.mask_per_chunk = mask_per_chunk

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """States of the pooled chunks.

        Args:
            input: word numbers (batch, length), each text starting at a multiple of `bptt`, those that start first on
                top (so longest first in fastai's `pad_chunk` layout).

        Returns:
            States (batch, pooled, emb_sz) and the padding mask (batch, pooled), where `pooled` is the chunks of the
            last `max_len` tokens up to the last word of the batch: columns of nothing but padding at its end, which a
            multiple of `bptt` needs, are not read.
        """
        x: Tensor = input.as_subclass(Tensor)  # type: ignore[arg-type]
        padding = x == self.pad_idx
        starts = range(0, x.shape[1], self.bptt)
        first_pooled = first_pooled_chunk(x.shape[1], self.bptt, self.max_len)
        reads: Reads | None = getattr(input, "reads", None)
        if reads is not None and reads.bptt == self.bptt and len(reads.rows) == len(starts):
            rows, end = reads.rows, reads.end
        else:
            rows, end = self._rows_of_chunks(padding, first_pooled)
        x, padding = x[:, :end], padding[:, :end]
        self.reset()
        one_mask = not self.mask_per_chunk and self.training and hasattr(self.module, "hold_masks")
        outputs, before = [], 0
        with self.module.hold_masks() if one_mask else nullcontext():
            for chunk, (start, n) in enumerate(zip(starts, rows, strict=True)):
                pooled = chunk >= first_pooled
                if n == 0:  # the texts that start here are read by another process
                    before += self.bptt if pooled else 0
                    continue
                # The state is detached after every chunk, so chunks before the pooled ones never get a gradient.
                with torch.set_grad_enabled(pooled and torch.is_grad_enabled()):
                    out = self.module(x[:n, start : start + self.bptt])
                if pooled:
                    outputs.append(out if n == len(x) else F.pad(out, (0, 0, 0, 0, 0, len(x) - n)))
        states = torch.cat(outputs, dim=1)
        if before:
            states = F.pad(states, (0, 0, before, 0))
        return states, padding[:, -states.shape[1]:]

    def _rows_of_chunks(self, padding: Tensor, first_pooled: int) -> tuple[list[int], int]:
        """`Reads.rows` and `Reads.end` of a batch that doesn't say so itself; one transfer from the device a batch.

        At least one word of the last chunk is kept, so that the number of chunks stays.
        """
        firsts = padding[:, :: self.bptt]  # whether a row has a word at a chunk's start
        asked = torch.cat([firsts.flatten(), padding.all(0)]).logical_not().cpu()
        words, columns = asked[: firsts.numel()].view(firsts.shape), asked[firsts.numel() :]
        nothing = words[:, first_pooled:].any(1).logical_not().nonzero()
        if len(nothing):
            raise UlmfitError(f"row {int(nothing[0])} of the batch has no word where a pooled chunk of {self.bptt} "
                              "starts; pad in fastai's pad_chunk layout and leave out empty texts")
        first = words.int().argmax(1)
        late = (first[1:] < first[:-1]).nonzero()
        if len(late):
            row = int(late[0]) + 1
            raise UlmfitError(f"expected the longest text first: row {row} starts in chunk {int(first[row])}, "
                              f"the row above it in chunk {int(first[row - 1])}; sort it by length")
        end = max(len(columns) - int(columns.flip(0).int().argmax()), (words.shape[1] - 1) * self.bptt + 1)
        return [int((first <= chunk).sum()) for chunk in range(words.shape[1])], end


def concat_pool(output: Tensor, padding: Tensor) -> Tensor:
    """[last state, maximum, mean] of each text's own positions: fastai's masked_concat_pool wherever padding lies.

    Args:
        output: (batch, length, n).
        padding: (batch, length), True where there is no word.

    Returns:
        (batch, 3 n).

    Source: paper, section 3.3.
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
        """Pool the encoder's states and classify.

        Args:
            input: states (batch, length, n) and their padding mask (batch, length).

        Returns:
            Logits (batch, n_out), and the states twice, where fastai's regulariser looks for them.
        """
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
        raise UlmfitError(f"compute_dtype={compute_dtype}: fastai's own layers (fast=False) compute in their weights' "
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

    The state dict is fastai's either way.

    Args:
        vocab_sz: words.
        dropouts: others than `model.lm_dropouts` (for stage 1).
        compute_dtype: torch.bfloat16: the LSTMs and the loss's products in bf16, weights and loss in fp32.

    Returns:
        A module: word numbers (batch, length) -> logits (batch, length, vocab_sz) and the LSTM's states (batch, length,
        emb_sz), raw and dropped out.

    Raises:
        UlmfitError: `compute_dtype` with `fast=False`.

    Source: Merity et al. 2017; paper, section 3.1.
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

    Args:
        vocab_sz: words.
        n_out: outputs.
        bptt: tokens of a chunk.
        max_len: tokens at the end of a text that are pooled and get gradients; None is 20 * bptt.
        dropouts: others than `model.classifier_dropouts`.
        fast: False takes fastai's AWD_LSTM, still inside the corrected sentence encoder and pooling.
        mask_per_chunk: draw weight-drop masks anew for every chunk of a text, as stock does, and not once a batch.
        compute_dtype: torch.bfloat16: the LSTMs' products in bf16, weights in fp32.

    Returns:
        A module: word numbers (batch, length), as `FixedSentenceEncoder` takes them -> logits (batch, n_out) and the
        encoder's states twice.

    Raises:
        UlmfitError: `compute_dtype` with `fast=False`, or `max_len` of less than a chunk.

    Source: paper, section 3.3.
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
