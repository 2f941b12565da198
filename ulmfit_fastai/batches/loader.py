"""What both loaders share: epochs that can be named, and read again from any batch on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from fastai.data.core import TfmdDL

from .._errors import UlmfitError
from .documents import TokenDataset

Batch = tuple[torch.Tensor, ...]


class TokenLoader(TfmdDL):
    """A fastai `TfmdDL` over a `TokenDataset` whose batches are a pure function of (seed, epoch).

    `epoch` numbers the epoch that is read next; it goes up by itself once an epoch is read to its end. `start_batch`
    skips that many batches of the next reading and is then 0 again: so an interrupted epoch goes on where it was.
    `len()` and `n_batches` count a whole epoch, skipped batches included. Batches are plain tensors; the types that
    fastai shows them by are put on when they are shown. Reading draws nothing from torch's or Python's random state.
    """

    share = 0, 1
    """(number, of how many): the part of every batch's rows that this process reads, where several read one epoch."""
    rows_of_batch = 0
    """Rows of the batch last given in all processes together."""
    _settings: tuple[str, ...] = ()  # names of a subclass's arguments that `new` hands on

    def __init__(self, dataset: TokenDataset, *, num_workers: int = 0, drop_last: bool = False, **kwargs: Any) -> None:
        self.epoch, self.start_batch = 0, 0
        # Worker processes would only copy what are slices already, and every batch counts: neither is handed on.
        super().__init__(dataset, num_workers=0, **kwargs)

    @property
    @abstractmethod
    def n_batches(self) -> int:
        """Batches of the whole epoch that `epoch` names."""

    @abstractmethod
    def read(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches of an epoch from number `first` on."""

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, self.start_batch = self.epoch, self.start_batch, 0
        self.before_iter()
        for batch in self.read(epoch, first):
            yield self.after_batch(batch)
        self.after_iter()
        if self.epoch == epoch:
            self.epoch = epoch + 1

    def one_batch(self) -> Batch:
        """Return the batch that would be read next and leave `epoch` and `start_batch` as they are."""
        first = self.start_batch
        batch = super().one_batch()
        self.start_batch = first
        return batch

    def create_batches(self, samps: Iterable[int]) -> Iterator[Batch]:
        """Refuse: only fastai's `DistributedDL` asks for this, to deal single items out to several processes.

        Raises:
            UlmfitError: always.
        """
        raise UlmfitError("these batches cannot be dealt out by fastai's DistributedDL, which would take texts out of "
                          "their order (the language model's) or make unequal numbers of batches (the classifier's); "
                          "train in one process")

    def _one_pass(self) -> None:
        self._n_inp, self._types = 1, self.dataset.batch_types  # fastai would make a batch to find these

    def new(self, dataset: TokenDataset | Sequence[str] | None = None, cls: type | None = None,
            **kwargs: Any) -> TokenLoader:
        """Make a loader like this one with some settings changed.

        Args:
            dataset: other documents, or a list of texts; None: the same documents.
        """
        if dataset is not None and not isinstance(dataset, TokenDataset):
            dataset = self.dataset.from_texts(dataset)
        loader = super().new(dataset, cls, **{**{name: getattr(self, name) for name in self._settings}, **kwargs})
        loader._one_pass()
        loader.epoch = self.epoch
        return loader
