"""A text model's embeddings, heard and shifted chunk by chunk: what adversarial training needs of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from fastai.text.models.awdlstm import EmbeddingDropout
from torch import Tensor, nn

from .._errors import UlmfitError
from ..batches.documents import TokenDataset
from ..results.checkpoint import random_state, set_random_state

Shifts = Sequence[Tensor | None]
"""What is added to the embeddings of each chunk of a batch, (texts, words, emb_sz); None: nothing."""


class Chunk(NamedTuple):
    """Some columns of a batch on their way through the embeddings: its first rows, as its encoder reads them."""

    words: Tensor
    """(texts, words)"""
    embedded: Tensor | None
    """(texts, words, emb_sz); None where no gradient is wanted: chunks of a long text that aren't pooled."""


def embedding_of(model: nn.Module) -> nn.Module:
    """The module that turns word numbers into embeddings: AWD-LSTM's embedding dropout, or the one `nn.Embedding`.

    Raises:
        UlmfitError: there is none, or there are several.
    """
    dropouts = [module for module in model.modules() if isinstance(module, EmbeddingDropout)]
    found = dropouts or [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if len(found) != 1:
        raise UlmfitError(f"expected a model with one embedding of words, found {len(found)}", field="embedding",
                          found=len(found), advice="say which one by `embedding=`, a module of the model")
    return found[0]


def weight_of(embedding: nn.Module) -> Tensor:
    """The matrix of an embedding, (words, emb_sz)."""
    return cast(Tensor, getattr(embedding, "emb", embedding).weight)


def word_counts(datasets: Sequence[Any], n_words: int) -> Tensor:
    """How often each word stands in the texts of some fastai datasets, (words,)."""
    counts = np.zeros(n_words, np.int64)
    for dataset in datasets:
        numbers = dataset.doc if isinstance(dataset, TokenDataset) else lambda i, of=dataset: np.asarray(of[i][0])
        for start in range(0, len(dataset), 1000):
            some = [numbers(i) for i in range(start, min(start + 1000, len(dataset)))]
            counts += np.bincount(np.concatenate(some), minlength=n_words)
    return torch.from_numpy(counts)


def deviation(weight: Tensor, counts: Tensor) -> Tensor:
    """Standard deviation of each component of the embedding over the running words of some texts, (emb_sz,).

    Source: Miyato, Dai & Goodfellow 2017, equation 1.
    """
    share = (counts / counts.sum())[:, None].to(weight.dtype)
    mean = (share * weight).sum(0)
    return ((share * (weight - mean).square()).sum(0) + 1e-6).sqrt()


class Perturbed:
    """A model whose embeddings can be heard in one pass and shifted in another, with the dropouts of the first.

    Args:
        model: its forward gets word numbers, and hands them to `embedding` at once or in chunks.
        pad_idx: the number of padding, which is never shifted.
    """

    def __init__(self, model: nn.Module, embedding: nn.Module, pad_idx: int = 1) -> None:
        self.model, self.embedding, self.pad_idx = model, embedding, pad_idx
        self.chunks: list[Chunk] = []
        self._added: Shifts | None = None  # None: listen
        self._number = 0
        self._hooks: list[Any] = []

    @property
    def device(self) -> torch.device:
        """That of the embeddings."""
        return weight_of(self.embedding).device

    def listen(self) -> None:
        """From now on every pass is heard, the last one is kept."""
        self.stop()
        self._hooks = [self.model.register_forward_pre_hook(self._begin),
                       self.embedding.register_forward_hook(self._embedded)]

    def stop(self) -> None:
        """Leave the model alone, and forget."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self.chunks = [], []

    def _begin(self, *_: Any) -> None:
        self._number = 0
        if self._added is None:
            self.chunks = []
            self.random = random_state(self.device)

    def _embedded(self, _: nn.Module, words: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self._added is not None:
            added, self._number = self._added[self._number], self._number + 1
            return output if added is None else output + added
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.model.parameters()):
            output.retain_grad()
        self.chunks.append(Chunk(words[0].as_subclass(Tensor), output if torch.is_grad_enabled() else None))
        return output

    def gradients(self, deviation: Tensor) -> Shifts:
        """After backward: the gradient of each chunk's embeddings, counted in deviations; padding has none."""
        found = [None if chunk.embedded is None else chunk.embedded.grad for chunk in self.chunks]
        return self.real([None if each is None else each.as_subclass(Tensor).float() * deviation for each in found])

    def directions(self, seed: int) -> Shifts:
        """Normal numbers for every embedding that has a gradient, none for padding."""
        device = weight_of(self.embedding).device
        generator = torch.Generator(device).manual_seed(seed)
        return self.real([None if chunk.embedded is None else torch.randn(
            chunk.embedded.shape, generator=generator, device=device) for chunk in self.chunks])

    def real(self, values: Shifts) -> Shifts:
        """The same for each chunk of the pass that was heard, with nothing for padding."""
        return [None if each is None else each * (chunk.words != self.pad_idx)[..., None]
                for chunk, each in zip(self.chunks, values, strict=True)]

    @contextmanager
    def shifted(self, added: Shifts, deviation: Tensor) -> Iterator[None]:
        """Within it the pass that was heard can be made again: its dropouts, other embeddings.

        Batch norm leaves its running statistics as they are, and random numbers go on from where they went on then.

        Args:
            added: in deviations.
        """
        norms = [m for m in self.model.modules()
                 if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
        set_random_state(self.random, self.device)
        self._added = [None if each is None else each * deviation for each in added]
        for norm in norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            self._added = None
            for norm in norms:
                norm.track_running_stats = True


def of_norm(values: Shifts, norm: float) -> list[Tensor | None]:
    """The same directions with this norm over all the words of a text; a text without any stays where it is."""
    parts = [part for part in values if part is not None]
    if not parts:
        return [None for _ in values]
    largest = parts[0].new_zeros(max(len(part) for part in parts))
    squares = largest.clone()
    for part in parts:
        largest[: len(part)] = torch.maximum(largest[: len(part)], part.abs().amax((1, 2)))
    safe = largest.clamp(min=torch.finfo(largest.dtype).tiny)[:, None, None]
    for part in parts:  # as shares of the largest, whose squares don't vanish
        squares[: len(part)] += (part / safe[: len(part)]).square().sum((1, 2))
    factor = norm / squares.clamp(min=1.0).sqrt()[:, None, None]
    return [None if part is None else part / safe[: len(part)] * factor[: len(part)] for part in values]


@contextmanager
def held_still(model: nn.Module) -> Iterator[None]:
    """Within it no weight of the model asks for a gradient, so that one of the embeddings alone costs half as much."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
