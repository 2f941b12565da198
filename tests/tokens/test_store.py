"""The token store: its tokens, vocabularies and ids are fastai's; it is whole or not there; opening needs no spaCy."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastai.text.data import Numericalize, make_vocab

from ulmfit_fastai.tokens import store as tokens
from ulmfit_fastai.tokens import store_files as token_files
from ulmfit_fastai.tokens.ids import TokenIds
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.tokens.stream import tokenize

TEXTS = [
    "A film to remember, a film to forget.",
    "Two hours I won't get back!!! BAD bad bad bad film",
    "xxfake news, and a film",
    "forget it",
    "Remember it? I won't.",
]


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore.make(TEXTS, cache=tmp_path, progress=False)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_store_holds_the_tokens_of_its_texts(store: TokenStore) -> None:
    expected = tokenize(TEXTS)
    assert [store[i] for i in range(len(store))] == expected
    assert store[-1] == expected[-1]
    assert store.words == list(Counter(itertools.chain(*expected)))  # in the order of their first occurrence
    assert store.lengths.tolist() == list(map(len, expected))
    assert store.tokens.dtype == np.uint32 and isinstance(store.tokens, np.memmap)
    with pytest.raises(IndexError):
        store[5]


def test_a_store_is_read_again_when_nothing_changed(store: TokenStore, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tokens, "encode_batches", None)  # it would be called if texts were tokenised again
    again = TokenStore.make(tuple(TEXTS), cache=tmp_path, progress=False)
    assert again.folder == store.folder and again.fingerprint == store.fingerprint
    assert files_in(tmp_path) == [store.folder.name]


@pytest.mark.parametrize("change", ["text", "order", "border", "language", "fastai", "format"])
def test_a_store_is_made_anew_when_anything_changed(store: TokenStore, tmp_path: Path, monkeypatch, change) -> None:
    texts, lang = list(TEXTS), "en"
    if change == "text":
        texts[3] += "!"
    elif change == "order":
        texts.reverse()
    elif change == "border":
        texts[0], texts[1] = texts[0] + texts[1][0], texts[1][1:]
    elif change == "language":
        lang = "de"
    elif change == "fastai":
        monkeypatch.setattr(token_files, "version", lambda package: "2.99")
    else:
        monkeypatch.setattr(token_files, "FORMAT", token_files.FORMAT + 1)
    other = TokenStore.make(texts, cache=tmp_path, lang=lang, progress=False)
    assert other.folder != store.folder and other.fingerprint != store.fingerprint


def test_an_iterator_gives_the_same_store_as_a_list(store: TokenStore, tmp_path: Path) -> None:
    streamed = TokenStore.make(iter(TEXTS), cache=tmp_path, progress=False)
    assert streamed.folder == store.folder
    assert files_in(tmp_path) == [store.folder.name]


def test_a_key_stands_for_an_iterator_that_is_then_not_read(tmp_path: Path) -> None:
    first = TokenStore.make(iter(TEXTS), cache=tmp_path, key="reviews 1", progress=False)

    def unread() -> Iterator[str]:
        raise AssertionError("read though the key is known")
        yield ""

    assert TokenStore.make(unread(), cache=tmp_path, key="reviews 1", progress=False).folder == first.folder
    assert first.fingerprint == TokenStore.make(TEXTS, cache=tmp_path / "b", progress=False).fingerprint


def test_a_stream_is_read_in_bounded_memory(tmp_path: Path) -> None:
    taken, most = 0, 0

    def stream() -> Iterator[str]:
        nonlocal taken
        for i in range(4000):
            taken = i
            yield f"review {i % 7} of a film that goes on and on " * 50

    merge = tokens.WordTable.merge

    class Watching(tokens.WordTable):
        done = 0

        def merge(self, encoded):
            nonlocal most
            most = max(most, taken - self.done)
            self.done += len(encoded.counts)
            return merge(self, encoded)

    original, tokens.WordTable = tokens.WordTable, Watching
    try:
        store = TokenStore.make(stream(), cache=tmp_path, n_workers=1, progress=False)
    finally:
        tokens.WordTable = original
    assert len(store) == 4000 and most < 2000


@pytest.mark.parametrize("rows", [None, [0, 1, 2, 3, 4], [4, 1], [3], np.array([2, 0, 2])])
@pytest.mark.parametrize(("max_vocab", "min_freq"), [(60000, 1), (60000, 2), (14, 1), (16, 1), (5, 1)])
def test_a_vocabulary_equals_make_vocab(store: TokenStore, rows, max_vocab: int, min_freq: int) -> None:
    chosen = range(len(store)) if rows is None else rows
    count = Counter(token for i in chosen for token in store[i])
    expected = make_vocab(count, max_vocab=max_vocab, min_freq=min_freq)
    assert store.vocab(rows, max_vocab=max_vocab, min_freq=min_freq) == expected


def test_a_vocabulary_counted_in_parts_equals_make_vocab(store: TokenStore, monkeypatch) -> None:
    expected = make_vocab(Counter(token for i in (4, 0, 2, 1) for token in store[i]), min_freq=1)
    monkeypatch.setattr(tokens, "_GATHER", 4)
    assert store.vocab([4, 0, 2, 1], min_freq=1) == expected
    every = make_vocab(Counter(token for i in range(5) for token in store[i]), min_freq=1)
    assert store.vocab(min_freq=1) == every


def test_ids_equal_numericalize(store: TokenStore) -> None:
    count = Counter(token for i in range(5) for token in store[i])
    vocab = make_vocab(count, max_vocab=20, min_freq=1)
    theirs = Numericalize(max_vocab=20, min_freq=1)

    class Counted(list):
        counter, special_toks = count, None

    theirs.setup(Counted(store[i] for i in range(5)))
    assert theirs.vocab == vocab
    ids = store.numericalize(vocab)
    for i in range(5):
        assert ids.doc(i).tolist() == theirs(store[i]).tolist()
    chosen = store.numericalize(vocab, rows=[3, 1])
    assert chosen.doc(0).tolist() == ids.doc(3).tolist() and chosen.doc(1).tolist() == ids.doc(1).tolist()
    assert len(chosen) == 2 and chosen.lengths.tolist() == store.lengths[[3, 1]].tolist()


def test_the_padding_of_a_vocabulary_is_nobodys_id(store: TokenStore) -> None:
    vocab = store.vocab([0])
    assert "xxfake" in store[2] and vocab[-1] == "xxfake"
    ids = store.numericalize(vocab)
    assert ids.doc(2)[store[2].index("xxfake")] == 0


def test_ids_are_as_small_as_the_vocabulary_allows(store: TokenStore) -> None:
    assert store.numericalize(store.vocab()).ids.dtype == np.uint16
    assert store.numericalize([f"w{i}" for i in range(65537)]).ids.dtype == np.uint32


def test_rows_outside_the_store_are_refused(store: TokenStore) -> None:
    with pytest.raises(ValueError, match="rows of 0 to 4, found 1 to 5"):
        store.vocab([1, 5])
    with pytest.raises(ValueError, match="found -1"):
        store.numericalize(store.vocab(), [-1])


def test_saved_ids_are_the_same_and_can_be_written_over(store: TokenStore, tmp_path: Path) -> None:
    for vocab in (store.vocab(), store.vocab([0, 1], min_freq=1)):
        ids = store.numericalize(vocab)
        ids.save(tmp_path / "ids")
        found = TokenIds.open(tmp_path / "ids")
        assert isinstance(found.ids, np.memmap) and found.ids.dtype == ids.ids.dtype
        assert (found.ids == ids.ids).all() and (found.offsets == ids.offsets).all() and found.vocab == vocab
    assert json.loads((tmp_path / "ids" / "vocab.json").read_text("utf8"))["hash"] == vocab.hash


@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy", "words.json", "meta.json"])
@pytest.mark.parametrize("harm", ["cut", "removed"])
def test_a_broken_store_is_not_read_but_made_anew(store: TokenStore, tmp_path: Path, name: str, harm: str) -> None:
    path = store.folder / name
    data = path.read_bytes()
    path.unlink()
    if harm == "cut":
        path.write_bytes(data[:-3])
    with pytest.raises(ValueError, match="broken|no finished"):
        TokenStore.open(store.folder)
    again = TokenStore.make(TEXTS, cache=tmp_path, progress=False)
    assert again[1] == tokenize(TEXTS)[1]
    assert (again.folder / name).stat().st_size == len(data)
    assert files_in(tmp_path) == [store.folder.name]


def test_a_killed_run_leaves_no_store_and_its_leavings_go(tmp_path: Path) -> None:
    script = f"""
import os, signal
from ulmfit_fastai.tokens import TokenStore
def texts():
    for i in range(9000):
        if i == 8000:
            os.kill(os.getpid(), signal.SIGKILL)
        yield "a film to remember " * 50
TokenStore.make(texts(), cache={str(tmp_path)!r}, n_workers=1, key="k", progress=False)
"""
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    left = files_in(tmp_path)
    assert len(left) == 1 and left[0].endswith(".part")
    assert (tmp_path / left[0] / "tokens.npy").stat().st_size > 1000
    TokenStore.make(TEXTS, cache=tmp_path, progress=False)
    assert left[0] in files_in(tmp_path)  # it might be at work still
    for path in [tmp_path / left[0], *(tmp_path / left[0]).iterdir()]:
        os.utime(path, (time.time() - 7200,) * 2)
    store = TokenStore.make(iter(TEXTS), cache=tmp_path, key="k", progress=False)
    assert left[0] not in files_in(tmp_path) and store[0] == tokenize(TEXTS)[0]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full(path: Path, value: object) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tokens, "write_json", full)
    with pytest.raises(OSError, match="no space left while writing tokens .* ULMFIT_CACHE") as caught:
        TokenStore.make(TEXTS, cache=tmp_path / "cache", progress=False)
    assert caught.value.errno == errno.ENOSPC
    assert files_in(tmp_path / "cache") == []


@pytest.mark.parametrize("texts", [["fine", ""], ["fine", None], [" \t"]])
def test_bad_texts_leave_nothing_either(tmp_path: Path, texts: list) -> None:
    for given in (texts, iter(texts)):
        with pytest.raises(ValueError, match=f"rows {len(texts) - 1}: drop"):
            TokenStore.make(given, cache=tmp_path, progress=False)
    assert files_in(tmp_path) == []


def test_no_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one text"):
        TokenStore.make([], cache=tmp_path, progress=False)


def test_the_cache_folder_comes_from_the_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path))
    assert TokenStore.make(TEXTS, progress=False).folder.parent == tmp_path / "tokens"
    monkeypatch.delenv("ULMFIT_CACHE")
    assert token_files.cache_root(None) == Path.home() / ".cache" / "ulmfit_fastai" / "tokens"


def test_a_stores_ids_are_made_and_opened_without_spacy(store: TokenStore, tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["spacy"] = None  # importing it fails
from ulmfit_fastai.tokens import TokenIds, TokenStore
store = TokenStore.open({str(store.folder)!r})
vocab = store.vocab(min_freq=1)
store.numericalize(vocab).save({str(tmp_path / "ids")!r})
print(len(TokenIds.open({str(tmp_path / "ids")!r})), len(vocab))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.split() == ["5", str(len(store.vocab(min_freq=1)))], done.stderr


def test_a_missing_spacy_is_said(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["spacy"] = None
from ulmfit_fastai.tokens import tokenize
tokenize(["a film"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert "spaCy is needed to tokenise texts" in done.stderr


def test_progress_is_shown_where_a_bar_can_grow(tmp_path: Path, capsys, monkeypatch) -> None:
    TokenStore.make(TEXTS, cache=tmp_path / "into a file")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("ulmfit_fastai._progress.SCREEN_EVERY", 0.0)
    TokenStore.make(TEXTS, cache=tmp_path)
    assert re.search(r"tokens: 100%\|.*\| 5 texts, 0 s left", capsys.readouterr().err)
    TokenStore.make(iter(TEXTS), cache=tmp_path)
    assert "tokens: 5 texts" in capsys.readouterr().err
    TokenStore.make(TEXTS, cache=tmp_path / "unseen", progress=False)
    assert capsys.readouterr() == ("", "")
