"""Batches for the language model: fastai's, token for token, as slices of one flat array.

Stock `LMDataLoader` goes through every document in Python for every batch; here an epoch's documents are laid out once
in a row, and a batch is a slice of a 2-D view of that row, on the GPU when that is where the model is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from fastai.data.core import TfmdDL

from .token_dataset import TokenDataset

ORDER, LENGTHS = 0, 1  # salts: the two things drawn at random in an epoch don't share random numbers


class LMLoader(TfmdDL):
    """Language-model batches (x, y), both int64 (bs, seq_len), y one token ahead of x.

    The documents, in order or shuffled by (seed, epoch), form one row of tokens, cut into `bs` streams of equal length
    that the batches walk along: batch k continues where batch k-1 stopped, in every row. The few tokens (fewer than
    bs + 1) that would make the streams uneven are left out at the end, as in fastai; the last batch is shorter.

    `epoch` numbers the epoch that is read next; it goes up by itself once an epoch is read to its end. `start_batch`
    skips that many batches of the next reading and is then 0 again. `current_seq_len` is that of the batch last given.

    With `variable_bptt` (Merity et al. 2018; paper section 4.1) each batch's length is drawn: bptt, or bptt / 2 with
    probability 0.05, plus normal noise of standard deviation 5, at least 5. The training loop scales the learning rate
    by seq_len / bptt. Every epoch has the same number of batches: the difference between the drawn lengths' sum and the
    streams' length is spread evenly over the batches, a token here and there.
    """

    def __init__(self, dataset: TokenDataset, bs: int = 64, bptt: int = 70, seed: int = 0, variable_bptt: bool = False,
                 shuffle: bool = False, num_workers: int = 0, drop_last: bool = False, **kwargs: Any) -> None:
        self.bptt, self.seed, self.variable_bptt = bptt, seed, variable_bptt
        self.epoch, self.start_batch, self.current_seq_len = 0, 0, bptt
        self._row: torch.Tensor | None = None
        self._row_epoch = -1
        # Workers would only copy what is a view already; every batch is whole, so there is nothing to drop.
        super().__init__(dataset, bs=bs, shuffle=shuffle, num_workers=0, **kwargs)
        self.bl = max(0, (int(dataset.lengths.sum()) - 1) // bs)  # tokens of one stream, as fastai counts them
        self.n = self.n_batches * bs

    @property
    def n_batches(self) -> int:
        """Batches of a whole epoch, the same in every epoch."""
        mean = 0.975 * self.bptt if self.variable_bptt else self.bptt  # 0.95 bptt + 0.05 bptt / 2
        return max(1, round(self.bl / mean)) if self.variable_bptt and self.bl else -(-self.bl // self.bptt)

    def __len__(self) -> int:
        return self.n_batches

    def seq_lens(self, epoch: int) -> np.ndarray:
        """Lengths of the epoch's batches (int64, n_batches); a pure function of (seed, epoch)."""
        n = self.n_batches
        if not self.variable_bptt:
            return np.minimum(self.bptt, self.bl - self.bptt * np.arange(n, dtype=np.int64))
        rng = np.random.default_rng((self.seed, epoch, LENGTHS))
        base = np.where(rng.random(n) < 0.95, float(self.bptt), self.bptt / 2)
        shortest = min(5, self.bl // max(n, 1))
        lengths = np.maximum(shortest, rng.normal(base, 5.0).astype(np.int64))
        while (off := self.bl - int(lengths.sum())) != 0:
            step, rest = divmod(abs(off), n)
            lengths += np.sign(off) * step
            lengths[rng.permutation(n)[:rest]] += np.sign(off)
            np.maximum(lengths, shortest, out=lengths)
        return lengths

    def order(self, epoch: int) -> np.ndarray:
        """Positions of the documents in the order in which the epoch reads them; a pure function of (seed, epoch)."""
        n = len(self.dataset)
        return np.random.default_rng((self.seed, epoch, ORDER)).permutation(n) if self.shuffle else np.arange(n)

    def streams(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
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

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch, first, self.start_batch = self.epoch, self.start_batch, 0
        self.before_iter()
        if self.n_batches:
            inputs, targets = self.streams(epoch)
            ends = np.cumsum(self.seq_lens(epoch))
            for end, length in zip(ends[first:].tolist(), np.diff(ends, prepend=0)[first:].tolist()):
                self.current_seq_len = length
                yield self.after_batch((self._widen(inputs[:, end - length:end]), self._widen(targets[:, end - length:end])))
        self.after_iter()
        if self.epoch == epoch:
            self.epoch = epoch + 1

    def one_batch(self) -> Any:
        """Return the next epoch's first batch and leave `epoch` and `start_batch` as they are."""
        first = self.start_batch
        batch = super().one_batch()
        self.start_batch = first
        return batch

    def get_idxs(self) -> list[int]:
        """The streams' numbers: each is one row of `learn.get_preds()`, which puts rows back by this list."""
        return list(range(self.bs))

    @property
    def items(self) -> list[torch.Tensor]:
        """The documents as int64 tensors in reading order (`LMLearner.predict` takes the first)."""
        return [torch.from_numpy(self.dataset.doc(i).astype(np.int64)) for i in range(len(self.dataset))]

    def _one_pass(self) -> None:
        self._n_inp, self._types = 1, self.dataset.batch_types  # fastai would make a batch to find these

    def new(self, dataset: Any = None, cls: type | None = None, **kwargs: Any) -> LMLoader:
        """Make a loader like this one with some settings changed; `dataset` may be a list of texts."""
        own = {name: getattr(self, name) for name in ("bptt", "seed", "variable_bptt")}
        if dataset is not None and not isinstance(dataset, TokenDataset):
            dataset = self.dataset.from_texts(dataset)
        loader = super().new(dataset, cls, **{**own, **kwargs})
        loader.epoch = self.epoch
        return loader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_row": None, "_row_epoch": -1}  # the row is made again when it is needed
