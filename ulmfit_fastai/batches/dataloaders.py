"""From numbered texts to fastai `TextDataLoaders`: for the language model, for the classifier, for prediction.

    ids = store.numericalize(store.vocab(rows))
    dls = lm_dataloaders(ids, train=splits.lm_train, valid=splits.lm_valid)
    dls = classifier_dataloaders(ids, labels, classes=classes, train=splits.train, valid=splits.valid)
    dls = classifier_dataloaders(ids, Targets.of(dataset, splits.train), train=splits.train, valid=splits.valid)

Everything drawn at random is a pure function of (seed, epoch), so that a run that was interrupted goes on with the very
batches it would have had. Nothing here needs spaCy until a new text is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.text.data import TextDataLoaders
from fastai.torch_core import default_device

from .._errors import UlmfitError
from .._words import shown
from ..texts.dataset import joined_texts
from ..tokens.ids import PAD, TokenIds
from .classifier import ClassifierLoader
from .documents import TokenDataset
from .lm import LMLoader
from .loader import TokenLoader
from .targets import Target, Targets, by_position

# Tokens of a batch, padding included, where no gradient is kept: 0.3 GB of activations on the CPU, 2 GB on a GPU.
EVAL_TOKENS, EVAL_TOKENS_CUDA = 32_768, 262_144
EVAL_TEXTS = 4096


class TokenDataLoaders(TextDataLoaders):
    """fastai's `TextDataLoaders` over stored tokens; `test_dl` splits new texts as the stored ones were split.

    Attributes:
        columns: those that texts are read from where `test_dl` gets a frame; None: the one called 'text', or the only
            one.
    """

    columns: tuple[str, ...] | None = None

    def test_dl(self, test_items: Iterable[object], rm_type_tfms: Any = None, with_labels: bool = False,
                **kwargs: Any) -> TokenLoader:
        """Make a loader of new texts; predictions keep their order.

        Args:
            test_items: a list, an array or a column of strings, or a DataFrame with the texts' columns.
                Whole numbers stand for texts of the validation set;
                that is how fastai's Interpretation asks for rows. It pairs them with losses without reordering, so they
                are given back in the order they are asked for.
            with_labels: keep the targets of such rows.

        Raises:
            UlmfitError: something else than texts was given, one string for example, or a DataFrame without their
                columns.
        """
        kwargs = {name: value for name, value in kwargs.items() if name not in ("num_workers", "process")}
        items = self._items(test_items)
        if items and all(isinstance(item, (int, np.integer)) for item in items):
            chosen = self.valid.dataset.from_positions(items)
            if not with_labels and chosen.target is not None:
                chosen.targets = None
            in_order = {"in_order": True} if isinstance(self.valid, ClassifierLoader) else {}
            return self.valid.new(chosen, **in_order, **kwargs)
        if any(not isinstance(item, str) for item in items):
            found = next(item for item in items if not isinstance(item, str))
            raise UlmfitError(f"test_dl takes texts, a list of strings, found {type(found).__name__} in it")
        return self.valid.new(self.valid.dataset.from_texts(items), **kwargs)

    def _items(self, test_items: Iterable[object]) -> list[Any]:
        if isinstance(test_items, str):
            raise UlmfitError("test_dl takes texts, a list of strings, found one string: put it in a list")
        if not isinstance(test_items, pd.DataFrame):
            return list(test_items)
        only = (test_items.columns[0],) if test_items.shape[1] == 1 else ("text",)
        columns = self.columns or only
        absent = [name for name in columns if name not in test_items]
        if absent:
            raise UlmfitError(f"which column holds the texts? No {shown(absent)} in {shown(list(test_items.columns))}",
                              advice="give that column alone: dls.test_dl(df[name])")
        return joined_texts(test_items, list(columns))


def lm_dataloaders(ids: TokenIds, *, train: Sequence[int] | np.ndarray, valid: Sequence[int] | np.ndarray,
                   direction: str = "forward", bs: int = 64, bptt: int = 70,
                   device: str | torch.device | None = None, seed: int = 0, variable_bptt: bool = False,
                   lang: str = "en") -> TokenDataLoaders:
    """Make language-model `DataLoaders` whose batches equal fastai's `LMDataLoader` for the same order of documents.

    Args:
        train: row numbers of `ids`. The documents are shuffled anew each epoch, a pure function of (seed, epoch).
        valid: row numbers too; with fewer than bs + 1 tokens they are read in fewer streams.
        direction: 'forward', or 'backward', which reverses each text, xxbos included.
        bs: streams that are read side by side.
        bptt: tokens of each stream in a batch.
        device: None is fastai's default device.
        variable_bptt: draw the length of each training batch (see `LMLoader`).
        lang: what splits new texts (`dls.test_dl`, `learn.predict`), as in `TokenStore.make`.

    Returns:
        `DataLoaders` whose batches are plain int64 tensors x, y of shape (bs, length), y one token ahead of x.

    Raises:
        UlmfitError: a row is not in `ids` or has no token, `train` has no more tokens than `bs` or `valid` fewer than
            two, or a size is out of range.

    Source: paper, section 3.2; variable lengths: Merity et al. 2018, section 5.
    """
    _check_sizes(bs=bs, bptt=bptt, seed=seed)
    _check_vocab(ids.vocab)
    where = default_device() if device is None else torch.device(device)
    sets = [TokenDataset.from_ids(ids, rows, name=name, direction=direction, split_idx=split, lang=lang)
            for split, (name, rows) in enumerate((("train", train), ("valid", valid)))]
    totals = [int(dataset.lengths.sum()) for dataset in sets]
    if totals[0] <= bs or totals[1] < 2:
        raise UlmfitError(f"train must have more tokens than bs, over {bs}, and valid at least 2, found {totals[0]} "
                          f"and {totals[1]}; give more texts or a smaller bs")
    loaders = [LMLoader(sets[0], bs=bs, bptt=bptt, seed=seed, shuffle=True, variable_bptt=variable_bptt),
               LMLoader(sets[1], bs=min(bs, totals[1] - 1), bptt=bptt, seed=seed)]
    return TokenDataLoaders(*loaders, device=where)


def classifier_dataloaders(ids: TokenIds, labels: Targets | Sequence[object] | np.ndarray, *,
                           classes: Sequence[str] | None = None, train: Sequence[int] | np.ndarray,
                           valid: Sequence[int] | np.ndarray, direction: str = "forward", bs: int = 64, bptt: int = 70,
                           max_len: int | None = None, device: str | torch.device | None = None, seed: int = 0,
                           token_budget: int | None = None, lang: str = "en") -> TokenDataLoaders:
    """Make classifier `DataLoaders` in which a text's result doesn't depend on the texts beside it.

    Args:
        labels: a data set's `Targets`, or one label per document of `ids`, in their order whatever index a Series has
            (those outside `train` and `valid` may be None): a class by its name or number, a list of classes for
            several at once (or rows of 0 and 1; a frame's columns go by their names), or a number when `classes` is
            None (regression).
        classes: in the order of the outputs.
        train: row numbers of `ids`.
        valid: row numbers too. These batches are longest first and bounded by tokens only; `learn.get_preds()` returns
            the caller's order.
        direction: 'forward', or 'backward', which reverses each text, xxbos included.
        bs: most texts of a training batch.
        bptt: the model's: texts are padded to its multiples.
        max_len: cut each text to its last `max_len` tokens in reading order. None keeps texts whole, as fastai does,
            whose own max_len says how much of a text the model *pools*.
        device: None is fastai's default device.
        token_budget: most tokens of a training batch, texts times length.
        lang: what splits new texts, as in `TokenStore.make`.

    Returns:
        `DataLoaders` with batches x int64 (texts, tokens) and y: int64 (texts,) for one class, float32 0 and 1 (texts,
        classes) for several, float32 (texts,) or (texts, numbers) for regression.

    Raises:
        UlmfitError: a label is missing or unknown, there is one training text only, `bs` is below 2, a row is not in
            `ids`, or a size is out of range.

    Source: paper, section 3.3.
    """
    _check_sizes(bs=bs, bptt=bptt, seed=seed, max_len=max_len, token_budget=token_budget)
    _check_vocab(ids.vocab)
    n_labels = labels.shape[0] if hasattr(labels, "shape") else len(labels)
    if n_labels != len(ids.offsets) - 1:
        raise UlmfitError(f"expected one label per text, {len(ids.offsets) - 1:,}, found {n_labels:,}")
    if bs < 2 or len(train) < 2:
        raise UlmfitError("the classifier's batch norm needs two texts at least in a training batch, "
                          f"found bs={bs} and {len(train)} training texts")
    sets = [TokenDataset.from_ids(ids, rows, name=name, max_len=max_len, direction=direction, split_idx=split,
                                  lang=lang) for split, (name, rows) in enumerate((("train", train), ("valid", valid)))]
    target, values = _target_and_values(by_position(labels, classes), classes, np.asarray(train))
    for dataset, rows in zip(sets, (train, valid)):
        dataset.target, dataset.targets = target, target.encode(values, np.asarray(rows))
    where = default_device() if device is None else torch.device(device)
    loaders = [ClassifierLoader(sets[0], bs=bs, bptt=bptt, seed=seed, token_budget=token_budget, shuffle=True),
               ClassifierLoader(sets[1], bs=EVAL_TEXTS, bptt=bptt, seed=seed, token_budget=_eval_tokens(where))]
    return TokenDataLoaders(*loaders, device=where)


def _target_and_values(labels: Targets | Sequence[object] | np.ndarray, classes: Sequence[str] | None,
                       train: np.ndarray) -> tuple[Target, Sequence[object] | np.ndarray]:
    if not isinstance(labels, Targets):
        return Target.infer([labels[row] for row in train.tolist()], classes), labels
    if classes is not None:
        raise UlmfitError("classes are given twice: by Targets, which have their own, and by classes=")
    return labels.target, labels.values


def inference_loader(ids: TokenIds | Sequence[Sequence[int] | np.ndarray], *,
                     rows: Sequence[int] | np.ndarray | None = None, direction: str = "forward", bptt: int = 70,
                     token_budget: int | None = None, device: str | torch.device | None = None) -> ClassifierLoader:
    """Make a loader of batches (x,) for prediction: longest text first, texts times length within `token_budget`.

    Args:
        ids: a `TokenIds`, or a list of texts given as word numbers.
        rows: which of them, in which order; None: all.
        direction: 'forward', or 'backward', which reverses each text, xxbos included.
        bptt: the model's: texts are padded to its multiples.
        token_budget: None is 32,768 tokens, on CUDA 262,144.
        device: None is fastai's default device.

    Returns:
        A loader whose `order[k]` is the position in `rows` of output k, so `restored[loader.order] = outputs` restores
        the caller's order; fastai's `get_preds(dl=loader)` does so by itself.

    Raises:
        UlmfitError: a row is not in `ids`, a text has no token, or a size is out of range.
    """
    _check_sizes(bptt=bptt, token_budget=token_budget)
    target = Target("regression")  # no targets are read; it only says that this is no language model
    if not isinstance(ids, Sequence):
        _check_vocab(ids.vocab)
        chosen = np.arange(len(ids.offsets) - 1) if rows is None else rows
        dataset = TokenDataset.from_ids(ids, chosen, direction=direction, target=target)
    else:
        none = np.empty(0, np.int64)
        empty = TokenDataset(none, none, none, [], direction=direction, target=target)
        dataset = empty.from_documents(ids if rows is None else [ids[row] for row in np.asarray(rows).tolist()])
    where = default_device() if device is None else torch.device(device)
    budget = _eval_tokens(where) if token_budget is None else token_budget
    return ClassifierLoader(dataset, bs=EVAL_TEXTS, bptt=bptt, token_budget=budget, device=where)


def _eval_tokens(device: torch.device) -> int:
    return EVAL_TOKENS_CUDA if device.type == "cuda" else EVAL_TOKENS


def _check_sizes(**sizes: int | None) -> None:
    for name, value in sizes.items():
        if value is not None and (value < 0 or (value == 0 and name != "seed")):
            raise UlmfitError(f"{name} must be {'0 or more' if name == 'seed' else 'at least 1'}, found {value}")


def _check_vocab(vocab: Sequence[str]) -> None:
    if len(vocab) <= PAD or vocab[PAD] != "xxpad":
        found = vocab[PAD] if len(vocab) > PAD else f"a vocabulary of {len(vocab)} words"
        raise UlmfitError(f"word {PAD} of the vocabulary must be 'xxpad', which fastai's models take for padding, "
                          f"found {found!r}")
