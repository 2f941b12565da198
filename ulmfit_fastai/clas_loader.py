"""Batches for the classifier: padded so that a text's result doesn't depend on the texts beside it.

fastai's `SentenceEncoder` reads a batch in chunks of bptt tokens and expects that every text starts at a multiple of
bptt and that longer texts stand first. Stock `Pad_Chunk` breaks the first unless the longest text is itself such a
multiple (fastai issue 3379: 15 % of rows wrong); here the padded length always is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import MethodType
from typing import Any

import numpy as np
import torch
from fastai.data.core import TfmdDL
from fastai.text.data import Pad_Chunk

from .token_dataset import PAD, UNK, TokenDataset

POOL_BATCHES = 50  # texts of so many batches are sorted together, as in fastai's SortedDL


def pad_batch(documents: list[np.ndarray], bptt: int, pad: int = PAD) -> np.ndarray:
    """Pad documents, longest first, to one length that is a multiple of bptt; int64 (n, length).

    Layout of fastai's `pad_chunk`: padding stands in front in whole chunks of bptt, the rest of it at the end, so that
    every text starts at a multiple of bptt and ends in the last chunk. A padding word inside a text would make the
    encoder skip the text's row, so it becomes xxunk.
    """
    chunks = [-(-len(document) // bptt) for document in documents]
    assert all(a >= b for a, b in zip(chunks, chunks[1:])), "texts must come longest first"
    batch = np.full((len(documents), chunks[0] * bptt), pad, dtype=np.int64)
    for i, document in enumerate(documents):
        start = (chunks[0] - chunks[i]) * bptt
        row = batch[i, start:start + len(document)]
        row[:] = document
        row[row == pad] = UNK
    return batch


class ClassifierLoader(TfmdDL):
    """Classifier batches (x, y), or (x,) without targets: x int64 (texts, multiple of bptt), y plain targets.

    Without `shuffle` texts come longest first, and fastai's `get_preds` puts predictions back in the caller's order.
    With it the batches are a pure function of (seed, epoch): random, of texts of like length, the longest text of all
    in the first batch, so that too large a batch runs out of memory at once and not after an hour. Every text is in
    every epoch. Sizes differ by at most one text, and none is a single text, which batch norm cannot train on.

    `bs` is the most texts of a batch. With `token_budget` a batch is also kept to so many tokens, padding included;
    then the number of batches may change from epoch to epoch.

    `epoch` numbers the epoch that is read next; it goes up by itself once an epoch is read to its end. `start_batch`
    skips that many batches of the next reading and is then 0 again.
    """

    def __init__(self, dataset: TokenDataset, bs: int = 64, bptt: int = 70, seed: int = 0,
                 token_budget: int | None = None, in_order: bool = False, shuffle: bool = False, num_workers: int = 0,
                 drop_last: bool = False, **kwargs: Any) -> None:
        self.bptt, self.seed, self.token_budget, self.in_order = bptt, seed, token_budget, in_order
        self.epoch, self.start_batch = 0, 0
        self._plan: tuple[int, list[np.ndarray]] | None = None
        # Pad_Chunk takes padding off again when a batch is shown; it never sees one on its way in.
        kwargs.setdefault("before_batch", Pad_Chunk(pad_idx=PAD, seq_len=bptt))
        super().__init__(dataset, bs=bs, shuffle=shuffle, num_workers=0, **kwargs)

    @property
    def chunks(self) -> np.ndarray:
        """Chunks of bptt tokens that each text takes."""
        return -(-self.dataset.lengths // self.bptt)

    def batches(self, epoch: int | None = None) -> list[np.ndarray]:
        """Positions of each batch's texts, longest first; with shuffle a pure function of (seed, epoch)."""
        if not isinstance(self.get_idxs, MethodType):  # fastai fixed the order, as get_preds does
            return self._cut(np.fromiter(islice(self.get_idxs(), len(self.dataset)), dtype=np.int64))
        epoch = self.epoch if epoch is None else epoch
        key = epoch if self.shuffle else -1
        if self._plan is None or self._plan[0] != key:
            self._plan = key, self._random_batches(epoch) if self.shuffle else self._cut(self._sorted())
        return self._plan[1]

    def _sorted(self) -> np.ndarray:
        n = len(self.dataset)
        return np.arange(n) if self.in_order else np.argsort(-self.dataset.lengths, kind="stable")

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut an order into batches: a new one when full, over budget, or where a text is longer than the one before."""
        chunks, batches, first = self.chunks[order].tolist(), [], 0
        budget = float("inf") if self.token_budget is None else self.token_budget / self.bptt
        for i in range(1, len(order) + 1):
            if (i == len(order) or i - first >= self.bs or (i - first + 1) * chunks[first] > budget
                    or chunks[i] > chunks[i - 1]):
                batches.append(order[first:i])
                first = i
        return batches

    def _random_batches(self, epoch: int) -> list[np.ndarray]:
        n, lengths, chunks = len(self.dataset), self.dataset.lengths, self.chunks
        if n == 0:
            return []
        rng = np.random.default_rng((self.seed, epoch))
        n_batches = max(1, min(-(-n // self.bs), n // 2))
        sizes = np.full(n_batches, n // n_batches)
        sizes[rng.permutation(n_batches)[:n % n_batches]] += 1
        # A quarter of the batches at most are sorted together: in one large pool a small set's batches would be the
        # same in every epoch. Within it only chunks count, as tokens within one cost nothing: ties stay random.
        per_pool = max(1, min(POOL_BATCHES, n_batches // 4))
        ends, shuffled = np.cumsum(sizes), rng.permutation(n)
        batches: list[np.ndarray] = []
        for first in range(0, n_batches, per_pool):
            in_pool = ends[first:first + per_pool]
            start = ends[first] - sizes[first]
            pool = shuffled[start:in_pool[-1]]
            pool = pool[np.argsort(-chunks[pool], kind="stable")]
            batches += np.split(pool, in_pool[:-1] - start) if self.token_budget is None else _no_singles(self._cut(pool))
        longest = int(np.argmax(lengths))
        leader = next(i for i, batch in enumerate(batches) if longest in batch)
        others = [i for i in rng.permutation(len(batches)).tolist() if i != leader]
        return [batch[np.argsort(-lengths[batch], kind="stable")] for batch in (batches[i] for i in [leader, *others])]

    @property
    def n_batches(self) -> int:
        """Batches of the epoch that `epoch` names, skipped ones included."""
        return len(self.batches())

    def __len__(self) -> int:
        return self.n_batches

    def get_idxs(self) -> list[int]:
        """Positions of the texts in the order the batches give them: row k of the outputs is text `get_idxs()[k]`."""
        batches = self.batches()
        return np.concatenate(batches).tolist() if batches else []

    @property
    def order(self) -> np.ndarray:
        """`get_idxs()` as an array: `restored[loader.order] = outputs` puts outputs back in the caller's order."""
        return np.asarray(self.get_idxs(), dtype=np.int64)

    def make_batch(self, positions: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Batch of the texts at these positions, longest first, on the device."""
        x = torch.from_numpy(pad_batch([self.dataset.doc(i) for i in positions.tolist()], self.bptt))
        targets = self.dataset.targets
        batch = (x,) if targets is None else (x, targets[positions])
        if self.device is None or self.device.type != "cuda":
            return batch if self.device is None else tuple(t.to(self.device) for t in batch)
        # From pinned memory the copy doesn't wait for the model: the step needs no synchronisation.
        return tuple(t.pin_memory().to(self.device, non_blocking=True) for t in batch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        epoch, first, self.start_batch = self.epoch, self.start_batch, 0
        self.before_iter()
        for positions in self.batches(epoch)[first:]:
            yield self.after_batch(self.make_batch(positions))
        self.after_iter()
        if self.epoch == epoch:
            self.epoch = epoch + 1

    def one_batch(self) -> Any:
        """Return the next epoch's first batch and leave `epoch` and `start_batch` as they are."""
        first = self.start_batch
        batch = super().one_batch()
        self.start_batch = first
        return batch

    def _one_pass(self) -> None:
        self._n_inp, self._types = 1, self.dataset.batch_types  # fastai would make a batch to find these

    def new(self, dataset: Any = None, cls: type | None = None, **kwargs: Any) -> ClassifierLoader:
        """Make a loader like this one with some settings changed; `dataset` may be a list of texts."""
        own = {name: getattr(self, name) for name in ("bptt", "seed", "token_budget", "in_order")}
        if dataset is not None and not isinstance(dataset, TokenDataset):
            dataset = self.dataset.from_texts(dataset)
        loader = super().new(dataset, cls, **{**own, **kwargs})
        loader._one_pass()
        loader.epoch = self.epoch
        return loader


def _no_singles(batches: list[np.ndarray]) -> list[np.ndarray]:
    """Join every batch of one text to the next one, the last to the one before: batch norm cannot train on one row."""
    joined: list[np.ndarray] = []
    for batch in batches:
        if joined and (len(joined[-1]) == 1 or (len(batch) == 1 and batch is batches[-1])):
            joined[-1] = np.concatenate([joined[-1], batch])
        else:
            joined.append(batch)
    return joined
