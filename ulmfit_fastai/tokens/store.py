"""Texts -> TokenStore on disk -> TokenIds: tokenise once, then any vocabulary is one gather.

A store holds every distinct token once (`words`) and the texts as numbers into it, memory-mapped. A vocabulary is a
count over those numbers, and `numericalize` a look-up; neither needs spaCy nor the texts.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import UlmfitError
from .._files import move
from .._progress import Bar
from .._schema import read_checked
from .ids import TokenIds, Vocabulary
from .pieces import FILE_NAME as MODEL_FILE
from .pieces import Pieces, is_model
from .store_files import (
    cache_root,
    finish,
    load_array,
    read_meta,
    settings,
    store_name,
    token_folder,
    writable,
    write_header,
    write_json,
)
from .stream import WordTable, encode_batches
from .workers import Encoded

log = logging.getLogger(__name__)

Rows = Sequence[int] | np.ndarray
_GATHER = 1 << 22  # tokens looked up at a time: bounds what a pass over a memory-mapped store holds


class TokenStore:
    """Tokenised texts in a folder, memory-mapped.

    Args:
        folder: of a finished store (`make` makes one).

    Attributes:
        words: all distinct tokens, in the order of their first occurrence.
        tokens: (tokens,) uint32 into `words`, the documents one after another.
        offsets: (documents + 1,) int64: document i is `tokens[offsets[i]:offsets[i + 1]]`.
        fingerprint: identifies the texts and all settings and versions that the tokens depend on.

    Raises:
        UlmfitError: the store is missing, broken or of another format.
    """

    _temporary: tempfile.TemporaryDirectory | None = None

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.meta = read_meta(self.folder, "store")
        self.fingerprint: str = self.meta["fingerprint"]
        self.tokens = load_array(self.folder / "tokens.npy", mmap_mode="r")
        self.offsets = load_array(self.folder / "offsets.npy")
        if "digests" not in self.meta:  # of an earlier version: what can be seen without them
            refuse_broken(self)

    @classmethod
    def open(cls, folder: str | Path) -> TokenStore:
        """Open a finished store, without spaCy: the same as `TokenStore(folder)`."""
        return cls(folder)

    @classmethod
    def make(
        cls,
        texts: Iterable[str],
        *,
        cache: str | Path | None = None,
        n_workers: int | None = None,
        progress: bool = True,
        lang: str = "en",
        key: str | None = None,
        total: int | None = None,
    ) -> TokenStore:
        """Tokenise `texts` into a store, or open the one made earlier of the same texts, settings and versions.

        Args:
            texts: str in a list, array or Series, or an iterator of them, read once in bounded memory.
            cache: folder for stores; default `tokens` in $ULMFIT_CACHE, else in ~/.cache/ulmfit_fastai.
            n_workers: processes; None takes all cores (this process alone for little text), 1 works in this process.
            progress: show a bar.
            lang: spaCy's code of the language, or a SentencePiece model (a `.model` file, see `pieces.train_pieces`),
                of which the store keeps a copy.
            key: stands for the texts in the store's name, and the caller vouches for it. An iterator without a key is
                always read to its end, since only then it is known what it holds.
            total: number of texts an iterator will give, for the bar only.

        Raises:
            UlmfitError: a text is empty or no str (says which rows), or there is none.
            OSError: the disk is full; what was written is removed.
        """
        if isinstance(texts, str):
            raise UlmfitError("expected many texts, found one: put it in a list")
        root = cache_root(cache)
        if hasattr(texts, "__len__"):
            texts = texts if isinstance(texts, (list, tuple)) else list(texts)
            total = len(texts)
            key = _content(texts) if key is None else key
        if key is not None and (root / store_name(key, lang)).exists():
            try:
                return cls(root / store_name(key, lang))
            except ValueError as error:
                log.warning("%s", error)
        temporary: tempfile.TemporaryDirectory | None = None
        if cache is None and not writable(root):
            temporary = tempfile.TemporaryDirectory(prefix="ulmfit-tokens-", ignore_cleanup_errors=True)
            log.warning("%s can't be written to: the tokens are kept for this time only. Another folder may be given "
                        "by the environment variable ULMFIT_CACHE", root)
            root = Path(temporary.name)
        made = cls(_build(texts, root, key=key, lang=lang, n_workers=n_workers, total=total, progress=progress))
        made._temporary = temporary  # lives as long as what is read from it
        return made

    @cached_property
    def words(self) -> list[str]:
        """All distinct tokens, in the order of their first occurrence."""
        return read_checked(self.folder / "words.json", [str])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> list[str]:
        if i < 0:
            i += len(self)
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        return [self.words[t] for t in self.tokens[self.offsets[i] : self.offsets[i + 1]]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, (documents,) int64."""
        return np.diff(self.offsets)

    def vocab(self, rows: Rows | None = None, *, max_vocab: int = 60000, min_freq: int = 3) -> Vocabulary:
        """fastai's `make_vocab` on the tokens of some documents: most frequent first.

        The nine special tokens come first; `xxfake` pads to the next multiple of 8 (by 8 when it is one already).
        For a SentencePiece model it is all its pieces, whatever the arguments: none of them is too rare to be known.

        Args:
            rows: the documents that are counted; None: all.
            max_vocab: most words, the most frequent ones.
            min_freq: times that a word has to be seen.
        """
        if "pieces" in self.meta:
            return Vocabulary.of_pieces(self.words[: self.meta["n_pieces"]], self.meta["pieces"])
        from fastai.text.data import make_vocab

        counts = np.zeros(len(self.words), np.int64)
        order = [np.zeros(0, np.int64)]  # words in the order of their first occurrence, which decides between equals
        for part in self._parts(rows):
            here = np.bincount(part, minlength=len(counts))
            new = np.flatnonzero((here > 0) & (counts == 0))
            if len(new):
                first = np.zeros(len(counts), np.int64)
                first[part[::-1]] = np.arange(len(part))[::-1]  # the last assignment, i.e. the first place, stays
                order.append(new[np.argsort(first[new])])
            counts += here
        count = Counter({self.words[i]: int(counts[i]) for i in np.concatenate(order)})
        return Vocabulary(make_vocab(count, min_freq=min_freq, max_vocab=max_vocab))

    def numericalize(self, vocab: Sequence[str], rows: Rows | None = None) -> TokenIds:
        """Number the tokens of some documents as the words of a vocabulary.

        Args:
            vocab: tokens outside it become 0 (xxunk).
            rows: documents, in the order in which they are wanted; None: all.

        Raises:
            UlmfitError: a row is not in the store.
        """
        vocab = Vocabulary(vocab)
        dtype = np.uint16 if len(vocab) <= 1 << 16 else np.uint32
        table = np.array(vocab.encode(self.words), dtype)
        lengths = self.lengths if rows is None else self.lengths[self._rows(rows)]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids, done = np.empty(int(offsets[-1]), dtype), 0
        for part in self._parts(rows):
            ids[done : done + len(part)] = table[part]
            done += len(part)
        return TokenIds(ids, offsets, vocab)

    def _rows(self, rows: Rows) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        if len(rows) and not (0 <= rows.min() and rows.max() < len(self)):
            raise UlmfitError(f"expected rows of 0 to {len(self) - 1}, found {rows.min()} to {rows.max()}")
        return rows

    def _parts(self, rows: Rows | None) -> Iterator[np.ndarray]:
        """The tokens of `rows`, in order, some millions at a time."""
        if rows is None:
            for start in range(0, len(self.tokens), _GATHER):
                yield np.asarray(self.tokens[start : start + _GATHER])
            return
        rows = self._rows(rows)
        group = np.cumsum(self.lengths[rows]) // _GATHER
        for part in np.split(rows, np.flatnonzero(np.diff(group)) + 1):
            if len(part):
                yield np.concatenate([self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in part])


def refuse_broken(store: TokenStore) -> None:
    """UlmfitError where the parts of a store can't be of one whole."""
    ends, tokens = store.offsets, store.tokens
    whole = (ends.ndim == 1 and ends.dtype == np.int64 and len(ends) > 1 and tokens.ndim == 1 and ends[0] == 0
             and tokens.dtype == np.uint32 and bool((np.diff(ends) >= 0).all()) and ends[-1] == len(tokens))
    if not whole or (len(tokens) and max(int(part.max()) for part in store._parts(None)) >= len(store.words)):
        raise UlmfitError(f"{store.folder} is broken: its tokens, documents and words don't belong together; make it "
                          "anew", path=store.folder)


def _opens(folder: Path) -> bool:
    try:
        TokenStore(folder)
    except ValueError:
        return False
    return True


def _build(
    texts: Iterable[str],
    root: Path,
    *,
    key: str | None,
    lang: str,
    n_workers: int | None,
    total: int | None,
    progress: bool,
) -> Path:
    """Tokenise into a temporary folder and give it the store's name at the end."""
    digest = hashlib.blake2b(digest_size=16)
    pieces = Pieces(lang).words if is_model(lang) else []
    words = WordTable(pieces)
    with token_folder(root, "store" if key is None else store_name(key, lang)) as temporary:
        with (closing(encode_batches(_hashed(texts, digest), lang=lang, n_workers=n_workers)) as batches,
              closing(Bar("tokens", total, shown=progress)) as bar):
            offsets = _write_tokens(temporary / "tokens.npy", batches, words, bar)
        np.save(temporary / "offsets.npy", offsets)
        write_json(temporary / "words.json", words.words)
        content = digest.hexdigest()
        meta = {
            "kind": "store",
            "fingerprint": store_name(content, lang),
            "content": content,
            "key": key,
            "documents": len(offsets) - 1,
            "tokens": int(offsets[-1]),
            "words": len(words.words),
            **settings(lang),
        }
        files = ["tokens.npy", "offsets.npy", "words.json"]
        if pieces:
            meta["n_pieces"] = len(pieces)
            shutil.copy(lang, temporary / MODEL_FILE)
            files.append(MODEL_FILE)
        finish(temporary, files, meta)
        folder = root / store_name(content if key is None else key, lang)
        if not _opens(folder):  # else another process was first: its store is the same
            move(temporary, folder)
    return folder


def _write_tokens(path: Path, batches: Iterable[Encoded], words: WordTable, bar: Bar) -> np.ndarray:
    """Write all tokens as they come; returns the offsets of the documents."""
    counts: list[np.ndarray] = []
    done = 0
    with open(path, "wb") as file:
        write_header(file, 0)
        for encoded in batches:
            file.write(words.merge(encoded).astype("<u4").tobytes())
            counts.append(encoded.counts)
            done += len(encoded.counts)
            bar.show(done, f"{done:,} texts")
        if not counts:
            raise UlmfitError("expected at least one text, found none")
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
        write_header(file, int(offsets[-1]))
    return offsets


def _hashed(texts: Iterable[str], digest: Any) -> Iterator[str]:
    """The texts as they come, each added to `digest`."""
    for text in texts:
        _hash(text, digest)
        yield text


def _hash(text: Any, digest: Any) -> None:
    data = text.encode("utf8", "surrogatepass") if isinstance(text, str) else b""  # such are refused later, with rows
    digest.update(len(data).to_bytes(8, "little") + data)


def _content(texts: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        _hash(text, digest)
    return digest.hexdigest()
