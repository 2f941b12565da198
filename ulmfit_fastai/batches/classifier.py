"""Batches for the classifier: padded so that a text's result doesn't depend on the texts beside it.

fastai's `SentenceEncoder` reads a batch in chunks of bptt tokens and expects that every text starts at a multiple of
bptt and that longer texts stand first. Stock `Pad_Chunk` breaks the first unless the longest text is itself such a
multiple (fastai issue 3379: 15 % of rows wrong in batches of random lengths); here the padded length always is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from types import MethodType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from fastai.text.data import Pad_Chunk, TensorText
from fastai.torch_core import display_df

from .._errors import UlmfitError
from ..tokens.ids import PAD, UNK
from .documents import TokenDataset
from .loader import Batch, TokenLoader

POOL_BATCHES = 50  # texts of so many batches are sorted together, as in fastai's SortedDL


class Reads(NamedTuple):
    """What of a batch in `pad_batch`'s layout an encoder reads; travels with it as `batch.reads`.

    An encoder would have to ask the device for it, and wait for an answer, before each batch.
    """

    bptt: int
    rows: list[int]
    """How many texts have started by each chunk."""
    end: int
    """Where the last word ends: columns of nothing but padding behind it needn't be read."""

    @classmethod
    def of(cls, lengths: Sequence[int], bptt: int, part: slice = slice(None)) -> Reads:
        """For texts of these lengths, longest first, none of them empty; `part`: for some rows of their batch."""
        chunks = [-(-length // bptt) for length in lengths]
        starts = [chunks[0] - n for n in chunks]
        rows = [sum(start <= chunk for start in starts[part]) for chunk in range(chunks[0])]
        return cls(bptt, rows, max(start * bptt + length for start, length in zip(starts, lengths, strict=True)))


def pad_batch(documents: list[np.ndarray], bptt: int) -> np.ndarray:
    """Pad documents, longest first, to one length.

    The layout is that of fastai's `pad_chunk`: padding stands in front in whole chunks of bptt, the rest of it at the
    end, so that every text starts at a multiple of bptt and ends in the last chunk. The length is a multiple of bptt,
    without which stock fastai's encoder loses words (its issue 3379); texts of less than one chunk are padded to the
    longest of them only. A padding word within a text would make the encoder skip its row, so it becomes xxunk.

    Returns:
        int64 (documents, length).
    """
    chunks = [-(-len(document) // bptt) for document in documents]
    assert all(a >= b for a, b in zip(chunks, chunks[1:])), "texts must come longest first"
    starts = [(chunks[0] - n) * bptt for n in chunks]
    length = chunks[0] * bptt if chunks[0] > 1 else max(map(len, documents))
    batch = np.full((len(documents), length), PAD, dtype=np.int64)
    for i, (start, document) in enumerate(zip(starts, documents, strict=True)):
        row = batch[i, start:start + len(document)]
        row[:] = document
        row[row == PAD] = UNK
    return batch


class JoinableText(TensorText):
    """Batch of texts that joins others of another width, with padding in front, as fastai's Interpretation needs it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.cat:
            width = max(part.shape[1] for part in args[0])
            padded = [torch.nn.functional.pad(part, (width - part.shape[1], 0), value=PAD) for part in args[0]]
            args = (padded, *args[1:])
        return super().__torch_function__(func, types, args, kwargs or {})


class ClassifierLoader(TokenLoader):
    """Classifier batches (x, y), or (x,) without targets, in which a text's result doesn't depend on its neighbours.

    x is int64 (texts, tokens), where tokens are up to bptt or a multiple of it; y are plain targets. Every text is in
    every epoch. Sizes differ by one text at most, and none is a single text, which batch norm cannot train on.

    Args:
        bs: most texts of a batch (one more where that avoids a single text).
        bptt: tokens of a chunk, which must be the model's.
        seed: draws the batches, with the number of the epoch.
        token_budget: most tokens of a batch, padding included, but for a text longer than that; sizes then vary, and
            with `shuffle` the number of batches may differ between epochs.
        in_order: keep the caller's order instead of sorting, and start a new batch wherever a longer text follows.
        shuffle: False: texts come longest first, and fastai's `get_preds` puts predictions back in the caller's order.
            True: the batches are a pure function of (seed, epoch): random, of texts of like length, the longest text
            of all in the first batch, so that too large a batch runs out of memory at once and not after an hour.
    """

    _settings = ("bptt", "seed", "token_budget", "in_order")

    def __init__(self, dataset: TokenDataset, bs: int = 64, bptt: int = 70, seed: int = 0,
                 token_budget: int | None = None, in_order: bool = False, shuffle: bool = False, **kwargs: Any) -> None:
        self.bptt, self.seed, self.token_budget, self.in_order = bptt, seed, token_budget, in_order
        self._plan: tuple[int, list[np.ndarray]] | None = None
        self.batch: np.ndarray = np.empty(0, np.int64)  # positions of the batch last given, in all processes together
        # Pad_Chunk takes padding off when a batch is shown; no batch passes it on its way to the model.
        kwargs.setdefault("before_batch", Pad_Chunk(pad_idx=PAD, seq_len=bptt))
        super().__init__(dataset, bs=bs, shuffle=shuffle, **kwargs)

    def batches(self, epoch: int | None = None) -> list[np.ndarray]:
        """Positions of each batch's texts, longest first; with `shuffle` a pure function of (seed, epoch).

        Args:
            epoch: None: the one that is read next.
        """
        if not isinstance(self.get_idxs, MethodType):  # fastai's get_preds fixes the order by replacing this method
            return self._cut(np.fromiter(islice(self.get_idxs(), len(self.dataset)), dtype=np.int64))
        key = (self.epoch if epoch is None else epoch) if self.shuffle else -1
        if self._plan is None or self._plan[0] != key:
            self._plan = key, self._random_batches(key) if self.shuffle else self._cut(self._eval_order())
        return self._plan[1]

    def _eval_order(self) -> np.ndarray:
        lengths = self.dataset.lengths
        return np.arange(len(lengths)) if self.in_order else np.argsort(-lengths, kind="stable")

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut an order into batches: a new one when full, over budget, or where a longer text follows a shorter."""
        chunks = (-(-self.dataset.lengths[order] // self.bptt)).tolist()
        most_chunks = float("inf") if self.token_budget is None else self.token_budget // self.bptt
        batches, first = [], 0
        for i in range(1, len(order) + 1):
            if (i == len(order) or i - first >= self.bs or (i - first + 1) * chunks[first] > most_chunks
                    or chunks[i] > chunks[i - 1]):
                batches.append(order[first:i])
                first = i
        return batches

    def _random_batches(self, epoch: int) -> list[np.ndarray]:
        lengths = self.dataset.lengths
        if len(lengths) == 0:
            return []
        rng = np.random.default_rng((self.seed, epoch))
        batches = self._pools(rng)
        longest = int(np.argmax(lengths))
        leader = next(i for i, batch in enumerate(batches) if longest in batch)
        order = [leader, *(i for i in rng.permutation(len(batches)).tolist() if i != leader)]
        return [batches[i][np.argsort(-lengths[batches[i]], kind="stable")] for i in order]

    def _pools(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Shuffle, sort pools of some batches by length, cut each into batches."""
        n = len(self.dataset)
        n_batches = max(1, min(-(-n // self.bs), n // 2))
        sizes = np.full(n_batches, n // n_batches)
        sizes[rng.permutation(n_batches)[:n % n_batches]] += 1
        # A pool is a quarter of the epoch at most: if it were all of a small set (in SortedDL it is), the batches would
        # be the same in every epoch. Within it eighths of a chunk count; ties stay random.
        per_pool = max(1, min(POOL_BATCHES, n_batches // 4))
        lengths = self.dataset.lengths
        near = np.ceil(8 * lengths / self.bptt)
        shuffled, ends = rng.permutation(n), np.cumsum(sizes)
        batches: list[np.ndarray] = []
        for first in range(0, n_batches, per_pool):
            start, in_pool = ends[first] - sizes[first], ends[first:first + per_pool]
            pool = shuffled[start:in_pool[-1]]
            pool = pool[np.argsort(-near[pool], kind="stable")]
            batches += np.split(pool, in_pool[:-1] - start) if self.token_budget is None else self._cut(pool)
        return batches if self.token_budget is None else _without_singles(batches)

    @property
    def n_batches(self) -> int:
        """Batches of the whole epoch that `epoch` names."""
        return len(self.batches())

    def get_idxs(self) -> list[int]:
        """Positions of the texts in the order the batches give them: row k of the outputs is text `get_idxs()[k]`."""
        batches = self.batches()
        return np.concatenate(batches).tolist() if batches else []

    @property
    def order(self) -> np.ndarray:
        """`get_idxs()` as an array: `restored[loader.order] = outputs` puts outputs back in the caller's order."""
        return np.asarray(self.get_idxs(), dtype=np.int64)

    def make_batch(self, positions: np.ndarray, rows: slice = slice(None)) -> Batch:
        """Batch of the texts at these positions, longest first, on the loader's device; `rows`: of some of its rows."""
        documents = [self.dataset.doc(i) for i in positions.tolist()]
        x = torch.from_numpy(pad_batch(documents, self.bptt)[rows])
        if self.in_order:
            x = x.as_subclass(JoinableText)
        targets = self.dataset.targets
        batch: Batch = (x,) if targets is None else (x, targets[positions[rows]])
        if self.device is not None and self.device.type == "cuda":
            # From pinned memory the copy doesn't wait for the model: a step needs no synchronisation.
            batch = tuple(part.pin_memory().to(self.device, non_blocking=True) for part in batch)
        elif self.device is not None:
            batch = tuple(part.to(self.device) for part in batch)
        if all(map(len, documents)):
            batch[0].reads = Reads.of([len(one) for one in documents], self.bptt, rows)  # type: ignore[attr-defined]
        return batch

    def read(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches of an epoch from number `first` on."""
        number, of = self.share
        batches = self.batches(epoch)
        if self.shuffle and min(map(len, batches), default=of) < of:
            raise UlmfitError(f"batches of {min(map(len, batches))} texts can't be dealt out to {of} processes; start "
                              "fewer, or give larger batches (classifier.bs)", field="classifier.bs")
        for positions in batches[first:]:
            self.batch, self.rows_of_batch = positions, len(positions)
            if number < len(positions):
                # Rows of the whole batch's layout: the penalties on activations are means over its padding too.
                yield self.make_batch(positions, slice(number, None, of))

    def show_results(self, b: Any, out: Any, max_n: int = 9, ctxs: Any = None, show: bool = True, trunc_at: int = 150,
                     **kwargs: Any) -> Any:
        """Show texts, targets and predictions of a batch as a table (fastai's own raises TypeError with plum 2.9)."""
        result = super().show_results(b, out, max_n=max_n, show=False)
        if not show:
            return result
        rows = [(sample[0].truncate(trunc_at), *map(str, (*sample[1:], *predicted)))
                for sample, predicted in zip(result[2], result[3])]
        display_df(pd.DataFrame(rows, columns=["text", "target", "predicted"][:len(rows[0])]))


def _without_singles(batches: list[np.ndarray]) -> list[np.ndarray]:
    """Join every batch of one text to the next one, the last to the one before: batch norm cannot train on one row."""
    joined: list[np.ndarray] = []
    for i, batch in enumerate(batches):
        if joined and (len(joined[-1]) == 1 or (len(batch) == 1 and i == len(batches) - 1)):
            joined[-1] = np.concatenate([joined[-1], batch])
        else:
            joined.append(batch)
    return joined
