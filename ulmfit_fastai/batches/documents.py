"""The documents of a loader: numbers in one flat array, with what fastai asks of a dataset (vocab, decode, new_empty).

Both loaders read a `TokenDataset`. It makes no tensor in the hot path: the loaders take slices of its flat array.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from fastai.data.transforms import CategoryMap
from fastai.losses import BaseLoss, CrossEntropyLossFlat
from fastai.text.data import LMTensorText, Numericalize, TensorText
from fastai.torch_core import TitledStr
from fastcore.foundation import L

from .._errors import UlmfitError
from .._words import shown
from ..tokens.ids import TokenIds, Vocabulary
from .targets import Target


class TextTokenizer:
    """Splits new texts as the stored ones were split; loads spaCy on first use.

    `sep` is what fastai joins words with when it shows a text.
    """

    sep = " "

    def __init__(self, lang: str = "en") -> None:
        self.lang = lang

    def __call__(self, texts: list[str]) -> list[list[str]]:
        from ..tokens.stream import tokenize

        return tokenize(texts, self.lang)


class TokenDataset:
    """Some documents of a flat array of word numbers, and their targets.

    Document i is `flat[starts[i] : starts[i] + lengths[i]]`.

    Args:
        flat: (tokens,) all the numbers, of any integer type, may be memory-mapped.
        starts: (documents,) where each document starts.
        lengths: (documents,) how many tokens it has.
        vocab: the words that the numbers stand for.
        direction: 'backward' reverses each document as it is read.
        targets: a tensor with a first dimension of len(self), or None.
        target: what they mean; None for a language model.
        lang: of the texts.
        split_idx: 0 for training texts, 1 otherwise, as in fastai.
    """

    n_inp = 1

    def __init__(self, flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray, vocab: Sequence[str], *,
                 direction: str = "forward", targets: torch.Tensor | None = None, target: Target | None = None,
                 lang: str = "en", split_idx: int = 1) -> None:
        self.flat = np.asarray(flat)  # still memory-mapped, but slices are plain arrays, made three times as fast
        self.starts, self.lengths, self.words = starts, lengths, Vocabulary(vocab)
        self.direction, self.targets, self.target = check_direction(direction), targets, target
        self.tokenizer, self.split_idx = TextTokenizer(lang), split_idx

    @classmethod
    def from_ids(cls, ids: TokenIds, rows: Sequence[int] | np.ndarray, *, name: str = "rows",
                 max_len: int | None = None, **kwargs: Any) -> TokenDataset:
        """Take `rows` of a `TokenIds`.

        Args:
            name: what the rows are called in an error.
            max_len: only so many tokens of each text, its last ones in reading order.

        Raises:
            UlmfitError: a row is not in `ids`, or its text has no token.
        """
        chosen = check_rows(rows, len(ids.offsets) - 1, name)
        starts, ends = ids.offsets[:-1][chosen], ids.offsets[1:][chosen]
        lengths = ends - starts
        if (lengths == 0).any():
            raise UlmfitError(f"a text has one token at least, rows {shown(chosen[lengths == 0].tolist())} of {name} "
                              "have none; leave them out")
        if max_len is not None and kwargs.get("direction") != "backward":  # backward, a text ends where it started
            starts = np.maximum(starts, ends - max_len)
        if max_len is not None:
            lengths = np.minimum(lengths, max_len)
        return cls(ids.ids, starts, lengths, ids.vocab, **kwargs)

    def _like(self, flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray,
              targets: torch.Tensor | None = None) -> TokenDataset:
        return TokenDataset(flat, starts, lengths, self.words, direction=self.direction, targets=targets,
                            target=self.target, lang=self.tokenizer.lang)

    def from_documents(self, documents: Iterable[Sequence[int] | np.ndarray]) -> TokenDataset:
        """Make unlabelled documents of word numbers, to be read as this dataset's are."""
        arrays = [np.asarray(document, dtype=np.int64) for document in documents]
        lengths = np.array([len(array) for array in arrays], dtype=np.int64)
        if (lengths == 0).any():
            raise UlmfitError("a text has one token at least, texts "
                              f"{shown(np.flatnonzero(lengths == 0).tolist())} have none; leave them out")
        flat = np.concatenate(arrays) if arrays else np.empty(0, np.int64)
        return self._like(flat, np.cumsum(lengths) - lengths, lengths)

    def from_texts(self, texts: Sequence[str]) -> TokenDataset:
        """Split and number unlabelled texts as the stored ones were; unknown words become xxunk."""
        split = self.tokenizer(list(texts)) if len(texts) else []
        return self.from_documents(map(self.words.encode, split))

    def from_positions(self, positions: Sequence[int] | np.ndarray) -> TokenDataset:
        """Take some documents of this dataset with their targets, in the order given."""
        at = np.asarray(positions, dtype=np.int64)
        return self._like(self.flat, self.starts[at], self.lengths[at],
                          None if self.targets is None else self.targets[at])

    def new_empty(self) -> TokenDataset:
        """The same without documents: what `learn.export()` keeps."""
        none = np.empty(0, np.int64)
        return self._like(none, none, none, None if self.targets is None else self.targets[:0].clone())

    def doc(self, i: int) -> np.ndarray:
        """Word numbers of document i in reading order (1-D view)."""
        start, length = int(self.starts[i]), int(self.lengths[i])
        document = self.flat[start:start + length]
        return document[::-1] if self.direction == "backward" else document

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        text = TensorText(torch.from_numpy(self.doc(i).astype(np.int64)))
        if self.targets is None or self.target is None:
            return (text,)
        return text, self.target.tensor_type(self.targets[i])

    @property
    def items(self) -> range:
        """Positions of the documents; `dls.test_dl` takes them back: so fastai's Interpretation asks for rows."""
        return range(len(self))

    @property
    def vocab(self) -> list[str] | L:
        """The words in a list, or for class labels `L(words, classes)` as a fastai classifier's `dls.vocab` is."""
        if self.target is None or not self.target.classes:
            return list(self.words)
        return L(list(self.words), CategoryMap(list(self.target.classes), sort=False))

    def set_split_idx(self, i: int) -> None:
        """Refuse: fastai's `tta` asks for it, to see every text several times, each time otherwise transformed.

        Raises:
            UlmfitError: always.
        """
        raise UlmfitError("tta has nothing to average over: texts are not augmented, so that every look at one gives "
                          "the same; use get_preds, or average the forward and the backward model")

    @property
    def numericalize(self) -> Numericalize:
        """fastai's own transform over these words (`LMLearner.predict` reads its `vocab`)."""
        return Numericalize(list(self.words))

    @property
    def c(self) -> int:
        """Outputs a classifier needs; 0 for a language model, so that fastai counts the words instead."""
        return 0 if self.target is None else self.target.n_out

    @property
    def loss_func(self) -> BaseLoss:
        """The loss fastai's learners pick up when none is given."""
        return CrossEntropyLossFlat() if self.target is None else self.target.loss()

    @property
    def batch_types(self) -> dict[type, list[type]]:
        """Types of a batch's members for display, in the form of fastai's `explode_types`."""
        if self.target is None:
            return {tuple: [LMTensorText, TensorText]}
        return {tuple: [TensorText] if self.targets is None else [TensorText, self.target.tensor_type]}

    def decode(self, sample: tuple[Any, ...], full: bool = True) -> tuple[Any, ...]:
        """Words and classes of one sample of a batch, as objects fastai can show."""
        return tuple(self._text(part) if i == 0 or self.target is None else self.target.decode(part)
                     for i, part in enumerate(sample))

    def _text(self, numbers: torch.Tensor) -> TitledStr:
        return TitledStr(self.tokenizer.sep.join(self.words[i] for i in numbers.tolist()))


def check_direction(direction: str) -> str:
    """Return `direction`.

    Raises:
        UlmfitError: it is neither 'forward' nor 'backward'.
    """
    if direction not in ("forward", "backward"):
        raise UlmfitError(f"direction must be 'forward' or 'backward', found {direction!r}")
    return direction


def check_rows(rows: Sequence[int] | np.ndarray, n: int, name: str) -> np.ndarray:
    """Row numbers as an int64 array.

    Raises:
        UlmfitError: they are not whole numbers from 0 to n-1, or there is none.
    """
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or len(chosen) == 0 or chosen.dtype.kind not in "iu":
        raise UlmfitError(f"{name} must be a list of row numbers with at least one in it, found shape {chosen.shape} "
                          f"of type {chosen.dtype}")
    if chosen.min() < 0 or chosen.max() >= n:
        raise UlmfitError(f"{name} must hold row numbers from 0 to {n - 1:,}, found {chosen.min():,} to "
                          f"{chosen.max():,}")
    return chosen.astype(np.int64)
