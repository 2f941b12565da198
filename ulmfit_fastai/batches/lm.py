"""Batches for the language model: fastai's, token for token, as slices of one flat array.

Stock `LMDataLoader` goes through every document in Python for every batch; here an epoch's documents are laid out once
in a row, and a batch is a slice of a 2-D view of that row, on the GPU when that is where the model is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from .documents import TokenDataset
from .loader import Batch, TokenLoader

ORDER, LENGTHS = 0, 1  # salts: the two things drawn at random in an epoch don't share random numbers


class LMLoader(TokenLoader):
    """Language-model batches (x, y), both int64 (bs, seq_len), y one token ahead of x.

    The documents, in order or shuffled by (seed, epoch), form one row of tokens, cut into `bs` streams of equal length
    that the batches walk along: batch k goes on where batch k-1 stopped, in every row. The few tokens (at most bs)
    that would make the streams uneven are left out at the end, as in fastai; the last batch is shorter.

    Args:
        bs: streams.
        bptt: tokens of each stream in a batch.
        seed: draws the order of the documents, and the lengths, with the number of the epoch.
        variable_bptt: draw each batch's length: bptt, or bptt / 2 with probability 0.05, plus normal noise of standard
            deviation 5, at least 5. The training loop scales the learning rate by seq_len / bptt: `current_seq_len` is
            that of the batch last given, as is `x.shape[1]`. So that schedules can count steps, every epoch has the
            same number of batches: what the drawn lengths miss of the streams' length is spread evenly over the
            batches, a token here and there.
        shuffle: read the documents in another order each epoch.

    Source: Merity et al. 2018, section 5; paper, section 4.1.
    """

    _settings = ("bptt", "seed", "variable_bptt")

    def __init__(self, dataset: TokenDataset, bs: int = 64, bptt: int = 70, seed: int = 0, variable_bptt: bool = False,
                 shuffle: bool = False, **kwargs: Any) -> None:
        self.bptt, self.seed, self.variable_bptt, self.current_seq_len = bptt, seed, variable_bptt, bptt
        self._row: torch.Tensor | None = None
        self._row_epoch = -1
        super().__init__(dataset, bs=bs, shuffle=shuffle, **kwargs)
        self.bl = max(0, (int(dataset.lengths.sum()) - 1) // bs)  # tokens of one stream, as fastai counts them
        self.n = self.n_batches * bs

    @property
    def n_batches(self) -> int:
        """Batches of a whole epoch, the same in every epoch."""
        if not self.variable_bptt:
            return -(-self.bl // self.bptt)
        return max(1, round(self.bl / (0.975 * self.bptt))) if self.bl else 0  # 0.95 bptt + 0.05 bptt / 2

    @property
    def rows(self) -> slice:
        """The streams that this process reads: all, or its share of them, one beside the other."""
        number, of = self.share
        return slice(number * self.bs // of, (number + 1) * self.bs // of)

    def seq_lens(self, epoch: int) -> np.ndarray:
        """Lengths of the epoch's batches (int64, n_batches), a pure function of (seed, epoch)."""
        n = self.n_batches
        if not self.variable_bptt:
            return np.minimum(self.bptt, self.bl - self.bptt * np.arange(n, dtype=np.int64))
        rng = np.random.default_rng((self.seed, epoch, LENGTHS))
        base = np.where(rng.random(n) < 0.95, float(self.bptt), self.bptt / 2)
        shortest = min(5, self.bl // max(n, 1))
        lengths = np.maximum(shortest, rng.normal(base, 5.0).astype(np.int64))
        while (missing := self.bl - int(lengths.sum())) != 0:
            each, rest = divmod(abs(missing), n)
            lengths += np.sign(missing) * each
            lengths[rng.permutation(n)[:rest]] += np.sign(missing)
            np.maximum(lengths, shortest, out=lengths)
        return lengths

    def order(self, epoch: int) -> np.ndarray:
        """Positions of the documents in the order in which the epoch reads them, a pure function of (seed, epoch)."""
        n = len(self.dataset)
        return np.random.default_rng((self.seed, epoch, ORDER)).permutation(n) if self.shuffle else np.arange(n)

    def streams(self, epoch: int) -> Batch:
        """The epoch's inputs and targets, two views (bs, bl) of one row of 16- or 32-bit numbers on the device."""
        if self._row is None or (self.shuffle and self._row_epoch != epoch):
            self._row = None  # frees the previous epoch's row before the next one is made
            self._row, self._row_epoch = self._lay_out(self.order(epoch)), epoch
        if self.device is not None and self._row.device != self.device:
            self._row = self._row.to(self.device)
        n = self.bs * self.bl
        return self._row[:n].view(self.bs, self.bl), self._row[1:n + 1].view(self.bs, self.bl)

    def _lay_out(self, order: np.ndarray) -> torch.Tensor:
        dataset = self.dataset
        # torch has signed 16- and 32-bit integers on every device; _widen puts the sign right again.
        dtype, signed = (np.uint16, np.int16) if len(dataset.words) <= 1 << 16 else (np.uint32, np.int32)
        row = np.empty(int(dataset.lengths.sum()), dtype)
        flat, step, at = dataset.flat, -1 if dataset.direction == "backward" else 1, 0
        for start, length in zip(dataset.starts[order].tolist(), dataset.lengths[order].tolist()):
            row[at:at + length] = flat[start:start + length][::step]
            at += length
        return torch.from_numpy(row.view(signed))

    def _widen(self, numbers: torch.Tensor) -> torch.Tensor:
        wide = numbers.long()
        return wide.bitwise_and_(0xFFFF) if numbers.dtype == torch.int16 and len(self.dataset.words) > 1 << 15 else wide

    def read(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches (x, y) of an epoch from number `first` on."""
        rows, self.rows_of_batch = self.rows, self.bs
        if self.n_batches == 0 or rows.start == rows.stop:
            return
        inputs, targets = (part[rows] for part in self.streams(epoch))
        lengths = self.seq_lens(epoch)
        for length, end in zip(lengths[first:].tolist(), np.cumsum(lengths)[first:].tolist()):
            self.current_seq_len = length
            yield self._widen(inputs[:, end - length:end]), self._widen(targets[:, end - length:end])

    def get_idxs(self) -> list[int]:
        """The streams' numbers: each is one row of `learn.get_preds()`, which puts rows back by this list."""
        return list(range(self.bs))

    @property
    def items(self) -> list[torch.Tensor]:
        """The documents as int64 tensors in reading order (`LMLearner.predict` takes the first)."""
        return [torch.from_numpy(self.dataset.doc(i).astype(np.int64)) for i in range(len(self.dataset))]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_row": None, "_row_epoch": -1}  # the row is made again when it is needed
