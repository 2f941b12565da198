"""fastai's AWD-LSTM without its waste: same parameters under the same names, same numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from fastai.text.models.awdlstm import AWD_LSTM, EmbeddingDropout, WeightDropout
from torch import Tensor, nn

from ..devices import cudnn_has_bf16_lstm
from .bf16_lstm import Bf16LSTM
from .draws import of_the_batch

# cuDNN copies weights that don't lie in one piece, and warns at every call; stock catches it with catch_warnings, which
# is slow and not thread-safe. While training they do (`_in_one_piece`); elsewhere the copy is small.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk of memory")


def weight_mask(weight: Tensor, p: float, *, stock_stream: bool = False) -> Tensor:
    """A dropout mask for `weight`: 0 with probability p, 1 / (1 - p) otherwise.

    On the CPU torch draws 5 million Bernoulli numbers in 46 ms; here two random bytes decide for each weight, in 10 ms
    (so p is met to 1 / 131,072). The numbers come from torch's generator, but are others than `F.dropout`'s for
    the same seed; `stock_stream=True` gives exactly those.
    """
    if stock_stream or weight.device.type != "cpu":
        return torch.empty_like(weight).bernoulli_(1 - p, generator=of_the_batch(weight.device)).div_(1 - p)
    dropped = min(round(p * 65536), 65535)  # of the 65,536 values of two bytes
    words = torch.empty((weight.numel() + 3) // 4, dtype=torch.int64)
    words.random_(-(2**63), None, generator=of_the_batch(weight.device))
    kept = words.view(torch.int16)[: weight.numel()] >= dropped - 32768
    return kept.view(weight.shape).to(weight.dtype).mul_(65536 / (65536 - dropped))


def lstm_dtype_in_autocast(device: torch.device) -> torch.dtype | None:
    """The type an LSTM has to run in under autocast, out of its reach; None where torch may choose.

    On CUDA torch gives cuDNN's LSTM fp16, whatever autocast was asked for (ATen/cudnn/AutocastRNN.cpp), from a new copy
    of the weights at every call, which is kept for backward. Under bf16 nobody scales the loss, so that small gradients
    (fp16 ends at 6e-8) would be lost: here it gets bf16, or fp32 where cuDNN's LSTM does not take that.
    """
    if device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return None
    if torch.get_autocast_dtype("cuda") is not torch.bfloat16:
        return torch.get_autocast_dtype("cuda")
    return torch.bfloat16 if cudnn_has_bf16_lstm(device) else torch.float32


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
    the call, output and state come back as they were); without it, autocast decides (`lstm_dtype_in_autocast`).
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
        self._cast_held: list[Tensor] | None = None

    def weights(self) -> list[Tensor]:
        """The LSTM's weights in its own order, the recurrent one dropped out when training."""
        if self._held is not None:
            return self._held
        raw = self.weight_hh_l0_raw
        if self.training and self.weight_p > 0:
            raw = raw * weight_mask(raw.detach(), self.weight_p, stock_stream=self.stock_stream)
        return [raw if name == "weight_hh_l0" else getattr(self.module, name) for name in self.names]

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Use the same dropped weights for every call inside the `with` block."""
        self._held = self.weights()
        dtype = self._dtype_on(self._held[0].device)
        if wants_one_piece(self._held[0].device):
            self._held = _in_one_piece(self._held, dtype)
        self._cast_held = _cast(dtype, *(weight.detach() for weight in self._held))
        if not any(w.requires_grad for w in self._held):
            self._held = self._cast_held
        try:
            yield
        finally:
            self._held = self._cast_held = None

    def _dtype_on(self, device: torch.device) -> torch.dtype | None:
        return self.dtype or lstm_dtype_in_autocast(device)

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        weights, dtype = self.weights(), self._dtype_on(x.device)
        if dtype is None:
            return self.module(x, hidden, weights)
        if self._trains_in_bf16(x, weights, dtype):
            cast = self._cast_held or _cast(dtype, *(weight.detach() for weight in weights[:2]))
            output, h, c = Bf16LSTM.apply(x, hidden[0][0], hidden[1][0], *weights, *cast[:2])
            return output, (h[None], c[None])
        cast_x, h, c = _cast(dtype, x, *hidden)
        held = None if torch.is_grad_enabled() else self._cast_held
        if held is not None and held[0].dtype != dtype:  # held outside of the autocast that it is used in
            held = None
        with torch.autocast(x.device.type, enabled=False):
            output, state = self.module(cast_x, (h, c), held or _cast(dtype, *weights))
        if dtype is torch.float16:  # as under autocast, where the next layer takes halves
            return output, state
        return output.to(x.dtype), (state[0].to(x.dtype), state[1].to(x.dtype))

    def _trains_in_bf16(self, x: Tensor, weights: list[Tensor], dtype: torch.dtype) -> bool:
        """Whether a backward pass will follow, on a CPU: without one torch's own LSTM is faster."""
        return (dtype is torch.bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled()
                and not self.module.bidirectional and x.shape[1] > 0
                and any(each.requires_grad for each in (x, *weights)))

    def reset(self) -> None:
        """Nothing to undo: no dropped weight outlives its call."""


def wants_one_piece(device: torch.device) -> bool:
    """Whether a device's LSTM copies weights that don't lie one behind the other: cuDNN's does."""
    return device.type == "cuda"


def _in_one_piece(weights: list[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    """The same weights one behind the other, as cuDNN wants them; else it copies them at each call, for backward too.

    Over a batch of 20 chunks with gradients those copies are 0.8 GB in halves and 1.6 GB in fp32 (400/1152/3).
    """
    flat = torch.cat([weight.to(dtype or weight.dtype).flatten() for weight in weights])
    parts = flat.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def _cast(dtype: torch.dtype | None, *tensors: Tensor) -> list[Tensor]:
    return list(tensors) if dtype is None else [tensor.to(dtype) for tensor in tensors]


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
            mask = emb.weight.new_empty(emb.num_embeddings)
            mask.bernoulli_(kept, generator=of_the_batch(mask.device)).div_(kept)
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
