"""Texts -> TokenStore on disk -> TokenIds: tokenise once, then any vocabulary is one gather.

A store holds every distinct token once (`words`) and the texts as numbers into it, memory-mapped. A vocabulary is a
count over those numbers, and `numericalize` a look-up; neither needs spaCy nor the texts.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .token_workers import Encoded, encode_batches

log = logging.getLogger(__name__)

FORMAT = 1  # of the files, and of the tokeniser: raise it when either changes, and old stores are made anew
BATCH_CHARS = 1_000_000
_GATHER = 1 << 22  # tokens looked up at a time: bounds what a pass over a memory-mapped store holds
_LEFT_BEHIND = 3600  # seconds without a write after which a temporary folder is taken for a killed run's


def vocab_hash(vocab: Sequence[str]) -> str:
    """16 hex characters that change with any word of `vocab` or their order (sha256 of the JSON list)."""
    return hashlib.sha256(json.dumps(list(vocab), ensure_ascii=False).encode("utf8")).hexdigest()[:16]


def tokenize(texts: Iterable[str], lang: str = "en", *, n_workers: int | None = None) -> list[list[str]]:
    """fastai's training-time tokens of `texts`, in memory: what a store made of the same texts holds.

    A text that is empty or no string raises ValueError with its row number.
    """
    if isinstance(texts, str):
        raise ValueError("expected a list of texts, found one text: put it in a list")
    words, result = _Words(), []
    for encoded in encode_batches(_batches(texts), lang=lang, n_workers=n_workers):
        flat = [words.words[i] for i in words.merge(encoded)]
        ends = np.cumsum(encoded.counts)
        result += [flat[end - count : end] for end, count in zip(ends, encoded.counts)]
    return result


@dataclass(frozen=True, eq=False)
class TokenIds:
    """Documents as numbers into `vocab`: all that training needs.

    `ids`: uint16, or uint32 for more than 65,536 words, the documents one after another; `offsets`: int64, n + 1;
    document i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: np.ndarray
    offsets: np.ndarray
    vocab: list[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per document (int64)."""
        return np.diff(self.offsets)

    def doc(self, i: int) -> np.ndarray:
        """Ids of document `i`."""
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def save(self, folder: str | Path) -> Path:
        """Write to `folder` (replaced if it is there); `TokenIds.open` reads it back, memory-mapped."""
        folder = Path(folder)
        with _new_folder(folder, replace=True) as temporary:
            np.save(temporary / "ids.npy", self.ids)
            np.save(temporary / "offsets.npy", self.offsets)
            _write_json(temporary / "vocab.json", {"hash": vocab_hash(self.vocab), "words": list(self.vocab)})
            _finish(temporary, ("ids.npy", "offsets.npy", "vocab.json"), {"kind": "ids"})
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> TokenIds:
        """Open what `save` wrote; ValueError when it is not whole."""
        folder = Path(folder)
        _read_meta(folder, "ids")
        vocab = json.loads((folder / "vocab.json").read_text("utf8"))["words"]
        return cls(np.load(folder / "ids.npy", mmap_mode="r"), np.load(folder / "offsets.npy"), vocab)


class TokenStore:
    """Tokenised texts in a folder: `tokens` (memory-mapped uint32 into `words`) and `offsets` (int64, n + 1).

    `words` holds all distinct tokens in the order of their first occurrence; `fingerprint` identifies the texts and
    all settings and versions the tokens depend on.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.meta = _read_meta(self.folder, "store")
        self.fingerprint: str = self.meta["fingerprint"]
        self.tokens: np.ndarray = np.load(self.folder / "tokens.npy", mmap_mode="r")
        self.offsets: np.ndarray = np.load(self.folder / "offsets.npy")

    @classmethod
    def open(cls, folder: str | Path) -> TokenStore:
        """Open a finished store; needs no spaCy. ValueError when it is missing, broken or of another format."""
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

        texts: a sequence of str, or an iterator, which is read once in bounded memory. Empty texts raise ValueError.
        cache: folder for stores; default $ULMFIT_CACHE, else ~/.cache/ulmfit_fastai.
        n_workers: processes; None takes all cores, 1 works in this process.
        progress: show a bar. total: number of texts an iterator will give, for the bar only.
        lang: spaCy's code of the language.
        key: stands for the texts in the store's name, and the caller vouches for it. An iterator without a key is
            always read to its end, since only then it is known what it holds.
        """
        if isinstance(texts, str):
            raise ValueError("expected a sequence of texts, found one text: put it in a list")
        root = cache_root(cache)
        if not isinstance(texts, Iterator):
            texts = texts if isinstance(texts, (list, tuple)) else list(texts)
            total = len(texts)
            key = key if key is not None else _content(texts)
        if key is not None:
            found = cls._find(root / _store_name(key, lang))
            if found is not None:
                return found
        return cls._build(texts, root, key=key, lang=lang, n_workers=n_workers, total=total, progress=progress)

    @classmethod
    def _find(cls, folder: Path) -> TokenStore | None:
        if not folder.exists():
            return None
        try:
            return cls(folder)
        except ValueError as error:
            log.warning("%s: made anew", error)
            return None

    @classmethod
    def _build(cls, texts: Iterable[str], root: Path, *, key: str | None, lang: str, n_workers: int | None,
               total: int | None, progress: bool) -> TokenStore:  # fmt: skip
        name = _store_name(key if key is not None else f"stream {uuid.uuid4()}", lang)
        digest = hashlib.blake2b(digest_size=16)
        with _new_folder(root / name, replace=True) as temporary:
            words, counts = _Words(), []
            batches = _bar(_hashed(_batches(texts), digest), total, progress)
            with open(temporary / "tokens.npy", "wb") as file:
                _write_header(file, 0)
                for encoded in encode_batches(batches, lang=lang, n_workers=n_workers):
                    file.write(words.merge(encoded).astype("<u4").tobytes())
                    counts.append(encoded.counts)
                if not counts:
                    raise ValueError("expected at least one text, found none")
                offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
                _write_header(file, int(offsets[-1]))
            np.save(temporary / "offsets.npy", offsets)
            _write_json(temporary / "words.json", words.words)
            content = digest.hexdigest()
            meta = {
                "kind": "store",
                "content": content,
                "key": key,
                "fingerprint": _store_name(content, lang),
                "documents": len(offsets) - 1,
                "tokens": int(offsets[-1]),
                "words": len(words.words),
                **_settings(lang),
            }
            _finish(temporary, ("tokens.npy", "offsets.npy", "words.json"), meta)
        if key is None:  # only now the content is known
            final = root / meta["fingerprint"]
            if cls._find(final) is None:
                _move(root / name, final)
            else:
                shutil.rmtree(root / name)
            return cls(final)
        return cls(root / name)

    @cached_property
    def words(self) -> list[str]:
        """All distinct tokens, in the order of their first occurrence."""
        return json.loads((self.folder / "words.json").read_text("utf8"))

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
        """Tokens per document (int64)."""
        return np.diff(self.offsets)

    def vocab(self, rows: Sequence[int] | np.ndarray | None = None, *, max_vocab: int = 60000,
              min_freq: int = 3) -> list[str]:  # fmt: skip
        """fastai's `make_vocab` on the tokens of `rows` (all documents without): most frequent first.

        The nine special tokens come first; `xxfake` pads to the next multiple of 8 (by 8 when it is one already).
        """
        from fastai.text.data import make_vocab

        counts = np.zeros(len(self.words), np.int64)
        order: list[np.ndarray] = []  # words in the order of their first occurrence, which decides between equals
        for part in self._parts(rows):
            here = np.bincount(part, minlength=len(counts))
            new = np.flatnonzero((here > 0) & (counts == 0))
            if len(new):
                first = np.zeros(len(counts), np.int64)
                first[part[::-1]] = np.arange(len(part))[::-1]  # the last assignment, i.e. the first place, stays
                order.append(new[np.argsort(first[new])])
            counts += here
        ordered = np.concatenate(order) if order else np.zeros(0, np.int64)
        words = self.words
        return make_vocab(Counter({words[i]: int(counts[i]) for i in ordered}), min_freq=min_freq, max_vocab=max_vocab)

    def numericalize(self, vocab: Sequence[str], rows: Sequence[int] | np.ndarray | None = None) -> TokenIds:
        """Ids of all documents, or of `rows` in their order; tokens outside `vocab` become 0 (xxunk).

        `xxfake`, which pads vocabularies, is nobody's id (in fastai it is when a vocabulary is given to Numericalize).
        """
        numbers = {word: i for i, word in enumerate(vocab) if word != "xxfake"}
        dtype = np.uint16 if len(vocab) <= 1 << 16 else np.uint32
        table = np.fromiter((numbers.get(word, 0) for word in self.words), dtype, len(self.words))
        lengths = self.lengths if rows is None else self.lengths[self._rows(rows)]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids, done = np.empty(int(offsets[-1]), dtype), 0
        for part in self._parts(rows):
            ids[done : done + len(part)] = table[part]
            done += len(part)
        return TokenIds(ids, offsets, list(vocab))

    def _rows(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        if len(rows) and not (0 <= rows.min() and rows.max() < len(self)):
            raise ValueError(f"expected rows of 0 to {len(self) - 1}, found {rows.min()} to {rows.max()}")
        return rows

    def _parts(self, rows: Sequence[int] | np.ndarray | None) -> Iterator[np.ndarray]:
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


class _Words:
    """All distinct tokens over all sources, numbered by first occurrence in the stream."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._numbers: dict[str, int] = {}
        self._sources: dict[int, tuple[int, list[str], np.ndarray]] = {}  # worker -> generation, its words, our numbers

    def merge(self, encoded: Encoded) -> np.ndarray:
        """A batch's tokens as numbers into `words` (int64)."""
        worker, generation = encoded.source
        known, theirs, ours = self._sources.get(worker, (generation, [], np.zeros(0, np.int64)))
        if known != generation:
            theirs, ours = [], np.zeros(0, np.int64)
        if encoded.new_words:
            theirs.extend(encoded.new_words)
            ours = np.concatenate([ours, np.full(len(encoded.new_words), -1, np.int64)])
        tokens = ours[encoded.tokens]
        missing = encoded.tokens[tokens < 0]
        if len(missing):
            new, first = np.unique(missing, return_index=True)
            for number in new[np.argsort(first)]:
                word = theirs[number]
                ours[number] = self._numbers.setdefault(word, len(self.words))
                if ours[number] == len(self.words):
                    self.words.append(word)
            tokens = ours[encoded.tokens]
        self._sources[worker] = generation, theirs, ours
        return tokens


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Checked texts in batches of about a million characters."""
    batch: list[str] = []
    bad: list[int] = []
    size, row = 0, -1
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text or text.isspace():
            bad.append(row)
            if len(bad) == 10:
                break
            continue
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARS and not bad:
            yield _encodable(batch, row)
            batch, size = [], 0
    if bad:
        rows = ", ".join(map(str, bad)) + (" ..." if len(bad) == 10 else "")
        raise ValueError(f"expected a text in every row, found none (empty, or no str) in rows {rows}: drop these rows")
    if batch:
        yield _encodable(batch, row)


def _encodable(batch: list[str], last: int) -> list[str]:
    try:
        "".join(batch).encode("utf8")
    except UnicodeEncodeError:
        for row, text in enumerate(batch, last + 1 - len(batch)):
            if any("\ud800" <= char <= "\udfff" for char in text):
                raise ValueError(
                    f"row {row} is no valid text, it holds half a character (a lone surrogate): read the file as UTF-8"
                ) from None
    return batch


def _hashed(batches: Iterable[list[str]], digest: Any) -> Iterator[list[str]]:
    for batch in batches:
        _hash_texts(batch, digest)
        yield batch


def _hash_texts(texts: Iterable[str], digest: Any) -> None:
    for text in texts:
        data = text.encode("utf8")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)


def _content(texts: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for batch in _batches(texts):
        _hash_texts(batch, digest)
    return digest.hexdigest()


def _settings(lang: str) -> dict[str, Any]:
    """What the tokens depend on besides the texts."""
    found: dict[str, Any] = {"format": FORMAT, "lang": lang}
    for package in ("fastai", "spacy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _store_name(content: str, lang: str) -> str:
    settings = json.dumps([content, _settings(lang)], sort_keys=True)
    return hashlib.sha256(settings.encode("utf8")).hexdigest()[:20]


def cache_root(cache: str | Path | None = None) -> Path:
    """Where token stores are kept: `cache`, else $ULMFIT_CACHE/tokens, else ~/.cache/ulmfit_fastai/tokens."""
    if cache is not None:
        return Path(cache)
    return Path(os.environ.get("ULMFIT_CACHE") or Path.home() / ".cache" / "ulmfit_fastai") / "tokens"


def _bar(batches: Iterable[list[str]], total: int | None, progress: bool) -> Iterator[list[str]]:
    """Show how many texts were taken up."""
    if not progress:
        yield from batches
        return
    from fastprogress.fastprogress import progress_bar

    bar = progress_bar(None, total=total if total is not None else "noinfer", leave=False)
    bar.update(done := 0)
    for batch in batches:
        yield batch
        done += len(batch)
        bar.update(min(done, total) if total is not None else done)


def _write_header(file: BinaryIO, length: int) -> None:
    """A .npy header of 128 bytes for `length` uint32, so that it can be written again when the length is known."""
    text = f"{{'descr': '<u4', 'fortran_order': False, 'shape': ({length},), }}"
    file.seek(0)
    file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode("ascii") + b"\n")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), "utf8")


def _finish(folder: Path, files: Sequence[str], meta: dict[str, Any]) -> None:
    """Write meta.json, last of all, with the sizes of the other files."""
    sizes = {name: (folder / name).stat().st_size for name in files}
    _write_json(folder / "meta.json", {"format": FORMAT, **meta, "sizes": sizes})


def _read_meta(folder: Path, kind: str) -> dict[str, Any]:
    """meta.json of a finished folder, its files' sizes checked."""
    try:
        meta = json.loads((folder / "meta.json").read_text("utf8"))
        found = {name: (folder / name).stat().st_size for name in meta["sizes"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no finished token {kind} ({error})") from error
    if meta.get("format") != FORMAT or meta.get("kind") != kind:
        raise ValueError(
            f"{folder}: expected a token {kind} of format {FORMAT}, found {meta.get('kind')} {meta.get('format')}"
        )
    if found != meta["sizes"]:
        raise ValueError(f"{folder} is broken: expected file sizes {meta['sizes']}, found {found}")
    return meta


@contextmanager
def _new_folder(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name when the block ends well, and is removed when not."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        _remove_left_behind(folder.parent)
        yield temporary
        _move(temporary, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"the disk is full: tokens need about 6 bytes a word. Free some space, or take another folder "
                f"(cache=, or the environment variable ULMFIT_CACHE). Nothing was left in {folder.parent}",
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, folder: Path) -> None:
    """Rename, putting aside what stands there."""
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
        os.replace(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)
    os.replace(temporary, folder)


def _remove_left_behind(root: Path) -> None:
    """Remove temporary folders of runs that were killed: those nobody has written to for an hour."""
    for path in root.glob(".*.tmp"):
        try:
            newest = max(entry.stat().st_mtime for entry in [path, *path.iterdir()])
            if time.time() - newest > _LEFT_BEHIND:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # gone meanwhile: another process's
