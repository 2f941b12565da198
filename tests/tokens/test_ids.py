"""A vocabulary: words with numbers, never changed, told from another by its hash; its filling is nobody's number."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.tokens.ids import TokenIds, Vocabulary, VocabularyMismatch

WORDS = ["xxunk", "xxpad", "the", "film", "xxfake", "xxfake"]


@pytest.fixture
def vocab() -> Vocabulary:
    return Vocabulary(WORDS)


def test_tokens_become_numbers_and_what_it_does_not_know_xxunk(vocab):
    assert vocab.encode(["the", "film", "gizmo", "the"]) == [2, 3, 0, 2]


def test_filling_is_nobodys_number(vocab):
    assert vocab.encode(["xxfake"]) == [0] and "xxfake" not in vocab.numbers
    assert vocab[4] == "xxfake" and "xxfake" in vocab and "xxfake" not in Vocabulary(WORDS[:4])


def test_a_vocabulary_is_filled_up_to_a_multiple_of_8():
    assert Vocabulary.filled(WORDS[:4]) == [*WORDS[:4], *["xxfake"] * 4]
    assert Vocabulary.filled("abcdefgh") == list("abcdefgh")


def test_it_is_the_list_that_fastai_wants_and_nothing_changes_it(vocab):
    assert vocab == WORDS and list(vocab) == WORDS and len(vocab) == 6 and vocab[2:4] == ["the", "film"]
    assert isinstance(vocab[2:4], Vocabulary) and vocab != WORDS[:5] and vocab != "the film"
    assert hash(vocab) == hash(Vocabulary(WORDS)) and vocab == Vocabulary(tuple(WORDS)) and Vocabulary(vocab) is vocab
    with pytest.raises(TypeError):
        vocab[0] = "a"
    given = list(WORDS)
    made = Vocabulary(given)
    given[0] = "other"
    assert made == WORDS


def test_its_hash_changes_with_words_and_order():
    some = [["a", "b"], ["b", "a"], ["a"], ["ab"], ["a", "b", "é"], []]
    assert len({Vocabulary(words).hash for words in some}) == 6 and len(Vocabulary().hash) == 16
    assert Vocabulary(["a", "b"]).hash == "3554d2b8a1e34099"  # of the files written so far


def test_another_vocabulary_is_refused_with_both_hashes_and_the_place(vocab):
    vocab.check(Vocabulary(WORDS).hash, "here")
    other = Vocabulary(["a"]).hash
    with pytest.raises(VocabularyMismatch, match=f"lm.json: expected the vocabulary {other}, found {vocab.hash}"):
        vocab.check(other, "lm.json")


def test_pieces_name_their_model_and_words_name_none(vocab):
    pieces = Vocabulary.of_pieces(["▁a", "b"], "0123456789abcdef")
    assert pieces.pieces == "0123456789abcdef" and len(pieces) == 8 and pieces[:2] == ["▁a", "b"]
    assert vocab.pieces is None and Vocabulary.of_pieces(["▁a", "b"], "f" * 16).hash != pieces.hash


def test_a_file_of_words_comes_back_and_an_edited_one_is_noticed(vocab, tmp_path):
    path = vocab.save(tmp_path / "vocab.json")
    assert json.loads(path.read_text("utf8")) == {"hash": vocab.hash, "words": WORDS}
    assert Vocabulary.load(path) == vocab
    path.write_text(path.read_text("utf8").replace("film", "flim"), "utf8")
    with pytest.raises(VocabularyMismatch, match="vocab.json"):
        Vocabulary.load(path)
    path.write_text("[]")
    with pytest.raises(UlmfitError, match="vocab.json: expected an object with 'hash' and 'words'"):
        Vocabulary.load(path)


def test_a_pickle_holds_the_words_and_no_look_up(vocab):
    small = len(pickle.dumps(vocab))
    assert vocab.numbers
    assert len(pickle.dumps(vocab)) == small and pickle.loads(pickle.dumps(vocab)) == vocab


def test_ids_take_a_list_of_words(vocab):
    ids = TokenIds(np.zeros(2, np.uint16), np.array([0, 2]), WORDS)
    assert isinstance(ids.vocab, Vocabulary) and ids.vocab == vocab
