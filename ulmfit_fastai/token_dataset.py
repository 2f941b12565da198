"""The documents of a loader: numbers in one flat array, with what fastai asks of a dataset (vocab, decode, new_empty).

Both loaders read a `TokenDataset`. It never makes a tensor in the hot path: the loaders take slices of its flat array.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastai.data.transforms import Category, MultiCategory
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.text.data import LMTensorText, Numericalize, TensorText
from fastai.torch_core import TensorBase, TensorCategory, TensorMultiCategory, TitledFloat, TitledStr, TitledTuple
from fastcore.foundation import L

UNK, PAD = 0, 1  # xxunk and xxpad: the first two words of every fastai vocabulary
DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class Labels:
    """How labels become numbers and come back: one class, several classes, or numbers.

    `kind` is 'single' (a class name per text), 'multi' (a list of class names per text, or a row of 0 and 1) or
    'regression' (a number, or a row of them, per text).
    """

    kind: str
    classes: tuple[str, ...] = ()
    n_targets: int = 1  # numbers per text, regression only

    @classmethod
    def infer(cls, labels: Sequence[Any], classes: Sequence[str] | None) -> Labels:
        """Read the kind off the labels: without `classes` they are numbers, with them names or lists of names."""
        first = next((label for label in labels if label is not None), None)
        several = isinstance(first, (list, tuple, set, frozenset, np.ndarray))
        if classes is None:
            return cls("regression", n_targets=len(first) if several else 1)  # type: ignore[arg-type]
        if len(set(classes)) != len(classes):
            raise ValueError(f"classes must differ from one another, found {list(classes)}")
        return cls("multi" if several else "single", tuple(classes))

    @property
    def c(self) -> int:
        """Outputs that a classifier for these labels has."""
        return self.n_targets if self.kind == "regression" else len(self.classes)

    @property
    def loss_func(self) -> Any:
        """fastai's loss for these labels, as its own label blocks choose it."""
        return {"single": CrossEntropyLossFlat, "multi": BCEWithLogitsLossFlat, "regression": MSELossFlat}[self.kind]()

    @property
    def tensor_type(self) -> type:
        """Tensor type that fastai gives such targets; used for display only, batches hold plain tensors."""
        return {"single": TensorCategory, "multi": TensorMultiCategory, "regression": TensorBase}[self.kind]

    def encode(self, labels: Sequence[Any], rows: np.ndarray) -> torch.Tensor:
        """Targets of `rows`: int64 (n,) for one class, float32 (n, c) for several, float32 (n,) or (n, k) for numbers.

        Raises ValueError when a row has no label or one that is not in `classes`.
        """
        chosen = [labels[row] for row in rows.tolist()]
        missing = [row for row, label in zip(rows.tolist(), chosen) if _is_missing(label)]
        if missing:
            raise ValueError(f"every text needs a label, rows {_some(missing)} have none; leave them out of train and valid")
        if self.kind == "regression":
            return torch.tensor(np.asarray(chosen, dtype=np.float32))
        number = {name: i for i, name in enumerate(self.classes)}
        wanted = [self._names(label) for label in chosen]
        unknown = sorted({str(name) for names in wanted for name in names if name not in number})
        if unknown:
            raise ValueError(f"labels must be among the classes {list(self.classes)}, found also {_some(unknown)}")
        if self.kind == "single":
            return torch.tensor([number[names[0]] for names in wanted], dtype=torch.long)
        targets = torch.zeros(len(chosen), self.c)
        for i, names in enumerate(wanted):
            targets[i, [number[name] for name in names]] = 1.0
        return targets

    def _names(self, label: Any) -> list[Any]:
        if self.kind == "single":
            return [label]
        if isinstance(label, np.ndarray) and label.dtype.kind in "biuf":  # a row of 0 and 1
            if label.shape != (self.c,):
                raise ValueError(f"a row of 0 and 1 has one entry per class, expected {self.c}, found {label.shape}")
            return [self.classes[i] for i in np.flatnonzero(label)]
        return list(label)

    def decode(self, target: torch.Tensor) -> Any:
        """What a target or a decoded prediction means, as an object fastai can show."""
        if self.kind == "single":
            return Category(self.classes[int(target)])
        if self.kind == "multi":
            return MultiCategory(self.classes[i] for i in torch.nonzero(target).flatten().tolist())
        return TitledFloat(target.item()) if target.ndim == 0 else TitledTuple(target.tolist())


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, float) and label != label)


def _some(items: Sequence[Any], n: int = 10) -> str:
    return ", ".join(map(str, items[:n])) + (f" and {len(items) - n:,} more" if len(items) > n else "")


class TextTokenizer:
    """Splits new texts as the stored ones were split; loads spaCy on first use. `sep` is what fastai joins words with."""

    sep = " "

    def __init__(self, lang: str = "en") -> None:
        self.lang = lang

    def __call__(self, texts: list[str]) -> list[list[str]]:
        from .tokens import tokenize  # late: training needs neither the tokeniser nor spaCy

        return tokenize(texts, self.lang)


class TokenDataset:
    """Some documents of a flat array of word numbers, and their targets.

    Args: `flat` all the numbers (1-D, any integer type, may be memory-mapped); document i is
    `flat[starts[i] : starts[i] + lengths[i]]`; `rows` is the number each document has for the caller; `direction`
    'backward' reverses each document as it is read; `targets` a tensor with a first dimension of len(self), or None;
    `labels` None for a language model; `split_idx` 0 for training texts, 1 otherwise, as in fastai.
    """

    n_inp = 1

    def __init__(self, flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray, vocab: Sequence[str], *,
                 rows: np.ndarray, direction: str = "forward", targets: torch.Tensor | None = None,
                 labels: Labels | None = None, lang: str = "en", split_idx: int = 1) -> None:
        self.flat, self.starts, self.lengths, self.words = flat, starts, lengths, list(vocab)
        self.rows, self.direction, self.targets, self.labels = rows, check_direction(direction), targets, labels
        self.split_idx, self.tokenizer = split_idx, TextTokenizer(lang)

    @classmethod
    def from_ids(cls, ids: Any, rows: Sequence[int] | np.ndarray, *, name: str = "rows", max_len: int | None = None,
                 **kwargs: Any) -> TokenDataset:
        """Take `rows` of a `TokenIds`; with `max_len` only the last `max_len` tokens of each text, in reading order."""
        chosen = check_rows(rows, len(ids.offsets) - 1, name)
        starts, ends = ids.offsets[:-1][chosen], ids.offsets[1:][chosen]
        lengths = ends - starts
        if (lengths == 0).any():
            raise ValueError(f"a text has at least one token, rows {_some(chosen[lengths == 0].tolist())} of {name} have none")
        if max_len is not None and kwargs.get("direction") == "backward":
            lengths = np.minimum(lengths, max_len)  # the end of the reversed text is the start of the text
        elif max_len is not None:
            starts, lengths = np.maximum(starts, ends - max_len), np.minimum(lengths, max_len)
        return cls(ids.ids, starts, lengths, ids.vocab, rows=chosen, **kwargs)

    def _with(self, flat: np.ndarray, lengths: np.ndarray, targets: torch.Tensor | None = None) -> TokenDataset:
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if len(lengths) else lengths
        return TokenDataset(flat, starts, lengths, self.words, rows=np.arange(len(lengths)), direction=self.direction,
                            targets=targets, labels=self.labels, lang=self.tokenizer.lang)

    def from_documents(self, documents: Iterable[Sequence[int] | np.ndarray]) -> TokenDataset:
        """Unlabelled documents given as word numbers, read as this dataset's are."""
        arrays = [np.asarray(document, dtype=np.int64) for document in documents]
        lengths = np.array([len(array) for array in arrays], dtype=np.int64)
        return self._with(np.concatenate(arrays) if arrays else np.empty(0, np.int64), lengths)

    def from_texts(self, texts: Sequence[str]) -> TokenDataset:
        """Unlabelled texts, split and numbered as the stored ones were; unknown words become xxunk."""
        number = {word: i for i, word in enumerate(self.words) if word != "xxfake"}
        return self.from_documents([number.get(token, UNK) for token in tokens] for tokens in self.tokenizer(list(texts)))

    def from_positions(self, positions: Sequence[int] | np.ndarray) -> TokenDataset:
        """Some documents of this dataset with their targets, in the order given."""
        at = np.asarray(positions, dtype=np.int64)
        return TokenDataset(self.flat, self.starts[at], self.lengths[at], self.words, rows=self.rows[at],
                            direction=self.direction, targets=None if self.targets is None else self.targets[at],
                            labels=self.labels, lang=self.tokenizer.lang)

    def new_empty(self) -> TokenDataset:
        """The same without documents: what `learn.export()` keeps."""
        none = None if self.targets is None else self.targets[:0].clone()
        return self._with(np.empty(0, self.flat.dtype), np.empty(0, np.int64), none)

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
        if self.targets is None:
            return (text,)
        assert self.labels is not None
        return text, self.labels.tensor_type(self.targets[i])

    @property
    def items(self) -> range:
        """Positions of the documents; `dls.test_dl` takes them back, which is how fastai's Interpretation asks for rows."""
        return range(len(self))

    @property
    def vocab(self) -> Any:
        """The words, or for class labels `L(words, classes)` as a fastai classifier's `dls.vocab` is."""
        if self.labels is None or not self.labels.classes:
            return self.words
        return L(self.words, list(self.labels.classes))

    @property
    def numericalize(self) -> Numericalize:
        """fastai's own transform over this vocabulary (`LMLearner.predict` reads its `vocab`)."""
        return Numericalize(self.words)

    @property
    def c(self) -> int:
        """Outputs a model needs; 0 for a language model, so that fastai counts the words instead."""
        return 0 if self.labels is None else self.labels.c

    @property
    def loss_func(self) -> Any:
        """The loss fastai's learners pick up when none is given."""
        return CrossEntropyLossFlat() if self.labels is None else self.labels.loss_func

    @property
    def batch_types(self) -> dict[type, list[type]]:
        """Types of a batch's members for display, in the form of fastai's `explode_types`."""
        if self.labels is None:
            return {tuple: [LMTensorText, TensorText]}
        return {tuple: [TensorText] if self.targets is None else [TensorText, self.labels.tensor_type]}

    def decode(self, sample: tuple[Any, ...], full: bool = True) -> tuple[Any, ...]:
        """Words and class names of one sample of a batch, as objects fastai can show."""
        return tuple(self._text(o) if i == 0 or self.labels is None else self.labels.decode(o)
                     for i, o in enumerate(sample))

    def _text(self, numbers: torch.Tensor) -> TitledStr:
        return TitledStr(self.tokenizer.sep.join(self.words[i] for i in numbers.tolist()))


def check_direction(direction: str) -> str:
    """Return `direction`, or raise ValueError when it is neither 'forward' nor 'backward'."""
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be 'forward' or 'backward', found {direction!r}")
    return direction


def check_rows(rows: Sequence[int] | np.ndarray, n: int, name: str) -> np.ndarray:
    """Row numbers as an int64 array; raises ValueError unless they are whole numbers from 0 to n-1, at least one."""
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or len(chosen) == 0 or chosen.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a list of row numbers with at least one in it, found shape {chosen.shape} "
                         f"of type {chosen.dtype}")
    if chosen.min() < 0 or chosen.max() >= n:
        raise ValueError(f"{name} must hold row numbers from 0 to {n - 1:,}, found {chosen.min():,} to {chosen.max():,}")
    return chosen.astype(np.int64)
