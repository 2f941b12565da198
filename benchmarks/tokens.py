"""Texts to numbers: tokenise and numericalise, and the second start, when the tokens are on disk already."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ulmfit_fastai.tokens.ids import TokenIds
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.tokens.stream import cores

from .measure import Record, alternate, expect, row

if TYPE_CHECKING:
    from .material import Setup


def stock_numbers(texts: list[str]) -> tuple[list[Any], list[str]]:
    """fastai's way from texts to word numbers, on all cores: `tokenize_df`, `make_vocab`, `Numericalize`."""
    import pandas as pd  # late, here and below: a process that measures ours has no fastai
    from fastai.text.core import tokenize_df
    from fastai.text.data import Numericalize, make_vocab

    frame, count = tokenize_df(pd.DataFrame({"text": texts}), "text", n_workers=cores())
    vocab = make_vocab(count)
    numericalize = Numericalize(vocab)
    return [numericalize(tokens) for tokens in frame["text"]], vocab


def our_numbers(texts: list[str], cache: Path) -> TokenIds:
    """Ours, on all cores: a store on disk, then a vocabulary and a look-up."""
    store = TokenStore.make(texts, cache=cache, progress=False)
    return store.numericalize(store.vocab())


def same_numbers(stock: tuple[list[Any], list[str]], ours: TokenIds) -> str:
    """Refuse numbers or words that differ anywhere."""
    numbers, vocab = stock
    expect(list(vocab) == list(ours.vocab), "the vocabularies")
    expect(len(numbers) == len(ours), f"{len(numbers)} and {len(ours)} documents")
    for i, document in enumerate(numbers):
        expect(np.array_equal(np.asarray(document), ours.doc(i)), f"the tokens of document {i}")
    return f"identical tokens and vocabulary on all {len(numbers):,} documents"


def same_words(stock: tuple[list[Any], list[str]], ours: TokenIds) -> str:
    """Refuse words that differ anywhere; words of equal frequency may be numbered otherwise.

    fastai counts the files of a folder as its processes finish them, so its order of equally frequent words is chance.
    """
    numbers, vocab = stock
    expect(sorted(vocab) == sorted(ours.vocab), "the vocabularies")
    expect(len(numbers) == len(ours), f"{len(numbers)} and {len(ours)} documents")
    words, our_words = np.array(vocab, object), np.array(ours.vocab, object)
    for i, document in enumerate(numbers):
        expect(np.array_equal(words[np.asarray(document)], our_words[ours.doc(i)]), f"the words of document {i}")
    return f"identical words in all {len(numbers):,} documents"


def tokens(setup: Setup) -> list[Record]:
    """Tokenise and numericalise on all cores, each time from nothing."""
    texts, cache = setup.some_texts(setup.sizes.token_docs), setup.work / "cold"
    kept: dict[str, Any] = {}

    def stock() -> None:
        kept["stock"] = stock_numbers(texts)

    def ours() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        kept["ours"] = our_numbers(texts, cache)

    repeats = min(3, setup.sizes.repeats)
    times = alternate({"stock": stock, "ours": ours}, repeats=repeats, device=setup.device, warm=False)
    check = same_numbers(kept["stock"], kept["ours"])
    return [row("tokenise and numericalise", times, work=len(texts), target={"ours": 8.0}, check=check,
                work_unit="documents", workers=cores(), note=f"{len(texts):,} reviews, no warm-up: both start cold")]


def second_start(setup: Setup) -> list[Record]:
    """From tokens on disk to numbers in memory: fastai's folder of tokenised files, our store."""
    from fastai.text.core import Tokenizer, tokenize_folder
    from fastai.text.data import Numericalize, make_vocab

    texts = [text for text in setup.some_texts(2 * setup.sizes.second_docs) if text.isprintable()]
    texts = texts[: setup.sizes.second_docs]  # printable: a line end of another system changes when a file is read
    folder, cache = setup.work / "files" / "texts", setup.work / "second"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [folder / f"{i:06d}.txt" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf8", newline="")
    tokenize_folder(folder, n_workers=cores())
    our_numbers(texts, cache)
    kept: dict[str, Any] = {}

    def stock() -> None:
        tokenizer = Tokenizer.from_folder(folder)
        vocab = make_vocab(tokenizer.counter)
        numericalize = Numericalize(vocab)
        kept["stock"] = [numericalize(tokenizer(path)) for path in paths], vocab

    def ours() -> None:
        kept["ours"] = our_numbers(texts, cache)

    times = alternate({"stock": stock, "ours": ours}, repeats=setup.sizes.repeats, device=setup.device)
    check = same_words(kept["stock"], kept["ours"])
    shutil.rmtree(folder.parent, ignore_errors=True)
    all_texts = setup.some_texts(setup.sizes.token_docs)
    our_numbers(all_texts, setup.work / "cold")  # there already when the stage `tokens` has run
    alone = alternate({"ours": lambda: our_numbers(all_texts, setup.work / "cold")}, repeats=setup.sizes.repeats,
                      device=setup.device)
    return [
        row("second start", times, work=len(texts), work_unit="documents", check=check,
            note=f"{len(texts):,} reviews; stock reads the folder of its tokenised files"),
        row(f"second start, {len(all_texts):,} reviews", alone, limit_s=2.0, work=len(all_texts),
            work_unit="documents", note="the texts are hashed to see that they are the same"),
    ]
