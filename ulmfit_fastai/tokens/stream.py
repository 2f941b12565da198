"""A stream of texts -> batches -> tokens in order, in this process or on all cores; few texts straight into memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import numpy as np

from .._errors import UlmfitError
from .languages import WholeTextTokenizer, make_tokenizer
from .pieces import is_model, model_digest
from .tokenizer import FastTokenizer
from .workers import Encoded, Sender, in_workers, start_workers

BATCH_CHARS = 1_000_000
FEW_BATCHES = 6  # up to here (6 million characters, a second or two of work) starting workers costs what it saves


def cores() -> int:
    """Cores this process may use, at most 16 (beyond that the process that collects is the limit)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 16)


def encode_batches(
    texts: Iterable[str], *, lang: str = "en", n_workers: int | None = None
) -> Generator[Encoded, None, None]:
    """Tokenise texts in order, in batches, with at most two batches a worker in memory.

    Args:
        lang: as in `make_tokenizer`.
        n_workers: processes; None takes all cores (this process alone for little text), 1 works in this process.
    """
    batches: Iterator[list[str]] = checked_batches(texts)
    count = cores() if n_workers is None else n_workers
    if count > 1:
        first = list(islice(batches, FEW_BATCHES))
        batches = chain(first, batches)
        workers = start_workers(count, lang) if len(first) == FEW_BATCHES else []
        if workers:
            yield from in_workers(workers, batches)
            return
    sender = Sender(0, lang)
    for batch in batches:
        yield sender.encode(batch)


def tokenize(texts: Iterable[str], lang: str = "en", *, n_workers: int | None = None) -> list[list[str]]:
    """fastai's training-time tokens of `texts`, in memory: what a store made of the same texts holds.

    The first call imports spaCy.

    Args:
        lang: as in `make_tokenizer`.
        n_workers: processes; None takes all cores (this process alone for little text), 1 works in this process.

    Returns:
        The tokens of each text, xxbos first.

    Raises:
        UlmfitError: a text is empty or no string (says which rows).
    """
    if isinstance(texts, str):
        raise UlmfitError("expected many texts, found one: put it in a list")
    texts = list(texts)
    result: list[list[str]] = []
    if n_workers == 1 or sum(map(len, filter(_is_text, texts))) < FEW_BATCHES * BATCH_CHARS:
        with _lock:
            tokenizer = _tokenizer(lang)
            for batch in checked_batches(texts):
                tokens, counts = tokenizer.encode(batch)
                result += _split(tokenizer.words, tokens, counts)  # its words now: it may just have forgotten others
        return result
    table = WordTable()
    for encoded in encode_batches(texts, lang=lang, n_workers=n_workers):
        result += _split(table.words, table.merge(encoded), encoded.counts)
    return result


_lock = threading.Lock()


def _tokenizer(lang: str) -> FastTokenizer | WholeTextTokenizer:
    """This process's tokenizer for few texts, kept from call to call."""
    return _kept(lang, model_digest(lang) if is_model(lang) else None)


@lru_cache(maxsize=2)
def _kept(lang: str, digest: str | None) -> FastTokenizer | WholeTextTokenizer:
    return make_tokenizer(lang, max_tokens=500_000)


def _split(words: list[str], tokens: np.ndarray, counts: np.ndarray) -> list[list[str]]:
    flat = [words[i] for i in tokens.tolist()]
    return [flat[end - count : end] for end, count in zip(np.cumsum(counts).tolist(), counts.tolist())]


class WordTable:
    """All distinct tokens over all sources, numbered by first occurrence in the stream, behind the `first` words."""

    def __init__(self, first: Sequence[str] = ()) -> None:
        self.words: list[str] = list(first)
        self._numbers: dict[str, int] = {word: i for i, word in enumerate(first)}
        self._sources: dict[int, tuple[int, list[str], np.ndarray]] = {}  # worker -> generation, its words, our numbers

    def merge(self, encoded: Encoded) -> np.ndarray:
        """A batch's tokens as numbers into `words` (int64)."""
        worker, generation = encoded.source
        known, theirs, ours = self._sources.get(worker, (-1, [], np.zeros(0, np.int64)))
        if known != generation:
            theirs, ours = [], np.zeros(0, np.int64)
        if encoded.new_words:
            theirs.extend(encoded.new_words)
            ours = np.concatenate([ours, np.full(len(encoded.new_words), -1, np.int64)])
        tokens = ours[encoded.tokens]
        missing = encoded.tokens[tokens < 0]
        if len(missing):
            new, first = np.unique(missing, return_index=True)
            for number in new[np.argsort(first)].tolist():
                word, theirs[number] = theirs[number], ""  # not needed again
                ours[number] = self._numbers.setdefault(word, len(self.words))
                if ours[number] == len(self.words):
                    self.words.append(word)
            tokens = ours[encoded.tokens]
        self._sources[worker] = generation, theirs, ours
        return tokens


def checked_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in batches of about a million characters; ValueError with the rows of what is no text."""
    batch: list[str] = []
    bad: list[int] = []
    size = 0
    for row, text in enumerate(texts):
        if not _is_text(text):
            bad.append(row)
            if len(bad) == 10:
                break
        if bad:
            continue  # nothing will come of these texts; only find the other rows
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARS:
            yield _encodable(batch, row + 1 - len(batch))
            batch, size = [], 0
    if bad:
        rows = ", ".join(map(str, bad)) + (" ..." if len(bad) == 10 else "")
        raise UlmfitError(f"expected a text in every row, found none (empty, or no str) in rows {rows}: drop "
                          "these rows")
    if batch:
        yield _encodable(batch, row + 1 - len(batch))


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and bool(text) and not text.isspace()


def _encodable(batch: list[str], first_row: int) -> list[str]:
    try:
        "".join(batch).encode("utf8")
    except UnicodeEncodeError as error:
        ends = np.cumsum([len(text) for text in batch])
        row = first_row + int(np.searchsorted(ends, error.start, side="right"))
        raise UlmfitError(
            f"row {row} is no valid text, it holds half a character (a lone surrogate): read the file as UTF-8"
        ) from None
    return batch
