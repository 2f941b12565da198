"""SentencePiece: fastai's pieces, a vocabulary that names its model, the same pieces from pretraining to prediction."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from some_texts import able

from ulmfit_fastai import ULMFiT
from ulmfit_fastai._files import read_json
from ulmfit_fastai.cli.app import build_parser
from ulmfit_fastai.model.pretrained import load
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.predict.explanation import words_of_text
from ulmfit_fastai.recipe.parts import Model
from ulmfit_fastai.results.folder import RunMismatch
from ulmfit_fastai.tokens import pieces
from ulmfit_fastai.tokens import stream as token_stream
from ulmfit_fastai.tokens.ids import Vocabulary, VocabularyMismatch
from ulmfit_fastai.tokens.pieces import Pieces, joined_pieces, model_digest, train_pieces
from ulmfit_fastai.tokens.rules import SPECIAL_TOKENS, apply_rules
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.tokens.stream import tokenize
from ulmfit_fastai.training.pretraining import pretrain
from ulmfit_fastai.training.stage_one import settings

NOUNS = "Haus Film Kamera Drehbuch Geschichte Spannung Musik Liebe Krieg Stadt Dorf Bild Ton Licht Schatten".split()
PRAISE, BLAME = "schön spannend herrlich wunderbar".split(), "langweilig traurig furchtbar öde".split()
SMALL = {"model": Model(emb_sz=12, n_hid=16, n_layers=2), "max_vocab": 300, "bs": 4, "bptt": 12, "precision": "fp32",
         "valid_texts": 20, "lang": "de", "tokenizer": "sentencepiece"}


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    pytest.importorskip("sentencepiece", reason='pieces: pip install "ulmfit-fastai[sentencepiece]"')


def compound(rng: random.Random) -> str:
    return rng.choice(NOUNS) + rng.choice(NOUNS).lower()


def sentence(rng: random.Random, words: list[str]) -> str:
    return f"Der {compound(rng)} war {rng.choice(words)}er als das {compound(rng)}."


def texts_of(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(sentence(rng, PRAISE + BLAME) for _ in range(6)) for _ in range(n)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return texts_of(200)


@pytest.fixture(scope="module")
def model(texts, tmp_path_factory) -> str:
    return str(train_pieces(texts, tmp_path_factory.mktemp("pieces") / "german.model", max_vocab=300, lang="de"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> str:
    return str(train_pieces(texts_of(30, seed=5), tmp_path_factory.mktemp("pieces") / "other.model", max_vocab=80))


@pytest.fixture(scope="module")
def corpus(texts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "artikel.txt"
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return pretrain(corpus, out=folder / "de", cache=folder / "cache", progress=False, device="cpu", **SMALL)


# -------------------------------------------------------------------------------------------------------------- pieces
def test_pieces_are_those_of_fastais_tokenizer_for_the_same_model(texts, model, tmp_path):
    from fastai.text.core import SentencePieceTokenizer, TokenizeWithRules

    odd = ["Der SCHÖNE Baummmmm ist 電 gut gut gut gut\n\nzwei <br />drei", "xxmaj xxbos", "a/b #c  d", "<unk> É",
           "ﬁ ①"]
    some = [*texts[:40], *odd]
    theirs = TokenizeWithRules(SentencePieceTokenizer(sp_model=model, cache_dir=tmp_path))(some)
    named = {f"▁{token}": token for token in SPECIAL_TOKENS}
    assert tokenize(some, model) == [[named.get(piece, piece) for piece in pieces] for pieces in theirs]


def test_a_model_fastai_trained_is_taken_as_it_is(texts, tmp_path):
    from fastai.text.core import SentencePieceTokenizer, TokenizeWithRules

    theirs = SentencePieceTokenizer(lang="de", vocab_sz=120, cache_dir=tmp_path)
    theirs.setup(texts, rules=[lambda text: "xxbos " + text.lower()])
    found = tokenize(texts[:5], str(tmp_path / "spm.model"))
    plain = [[piece.lstrip("▁") for piece in pieces] for pieces in TokenizeWithRules(theirs)(texts[:5])]
    assert [[piece.lstrip("▁") for piece in pieces] for pieces in found] == plain


def test_special_tokens_are_whole_and_come_first(model):
    tokens = tokenize(["Das Haus war SCHÖN, sooooo schön schön schön schön!!!!"], model)[0]
    assert {"xxbos", "xxmaj", "xxup", "xxrep", "xxwrep"} <= set(tokens)
    assert Pieces(model).words[:9] == list(SPECIAL_TOKENS) and "<unk>" not in Pieces(model).words


def test_training_again_gives_the_same_model_within_the_size_asked_for(texts, model, tmp_path, monkeypatch):
    assert model_digest(train_pieces(texts, tmp_path / "b.model", max_vocab=300, lang="de")) == model_digest(model)
    small = Pieces(train_pieces(texts, tmp_path / "c.model", max_vocab=60, lang="de"))
    assert len(small.words) <= 60 < len(Pieces(model).words) <= 300
    monkeypatch.setattr(pieces, "LINES", 50)  # of 200: drawn, but always the same ones
    drawn = [model_digest(train_pieces(iter(texts), tmp_path / name, max_vocab=300)) for name in ("d.model", "e.model")]
    assert drawn[0] == drawn[1] != model_digest(model)


def test_long_lines_are_cut_and_not_left_out():
    long, dense = " ".join(f"wort{n}" for n in range(3000)), "".join(chr(0x4E00 + n) for n in range(3000))
    lines = list(pieces._lines([long, "für\nzwei", dense]))
    assert len(lines) > 10 and max(len(line.encode()) for line in lines) <= pieces.LONGEST
    assert "".join(lines) == apply_rules(long) + "xxbos fürzwei" + apply_rules(dense)


def test_what_has_no_piece_is_unknown_but_still_seen(model, tmp_path):
    assert "電" in tokenize(["Das Haus 電"], model)[0]
    store = TokenStore.make(["Das Haus 電", "Der Film"], lang=model, cache=tmp_path, progress=False)
    ids = store.numericalize(store.vocab())
    assert (ids.doc(0) == 0).sum() == 1 and (ids.doc(1) == 0).sum() == 0


# --------------------------------------------------------------------------------------------------- stores and weights
def test_a_store_has_all_pieces_as_its_vocabulary_and_keeps_the_model(texts, model, tmp_path):
    store = TokenStore.make(texts, lang=model, cache=tmp_path, progress=False)
    vocab = store.vocab([0, 1], min_freq=100, max_vocab=20)  # no piece is too rare
    assert vocab == Vocabulary.of_pieces(Pieces(model).words, model_digest(model)) and len(vocab) % 8 == 0
    assert vocab.pieces == model_digest(model) == store.meta["pieces"]
    assert model_digest(store.folder / "spm.model") == model_digest(model)
    assert [store[i] for i in range(5)] == tokenize(texts[:5], model)
    assert not (store.numericalize(vocab).ids == 0).any()


def test_a_store_is_the_models_whatever_its_place_and_anothers_is_another(texts, model, other, tmp_path):
    store = TokenStore.make(texts, lang=model, cache=tmp_path, progress=False)
    copy = shutil.copy(model, tmp_path / "copy.model")
    assert TokenStore.make(texts, lang=str(copy), cache=tmp_path, progress=False).folder == store.folder
    assert TokenStore.make(texts, lang=other, cache=tmp_path, progress=False).folder != store.folder
    tokenize(["Haus"], str(copy))
    shutil.copy(other, copy)  # the same path, another model: not the one that was kept in memory
    assert tokenize(texts[:3], str(copy)) == tokenize(texts[:3], other) != tokenize(texts[:3], model)


def test_pieces_are_the_same_from_several_processes(texts, model, tmp_path, monkeypatch):
    alone = TokenStore.make(texts, lang=model, cache=tmp_path / "a", n_workers=1, progress=False)
    monkeypatch.setattr(token_stream, "BATCH_CHARS", 5000)
    monkeypatch.setattr(token_stream, "FEW_BATCHES", 2)
    started = []
    start = token_stream.start_workers
    monkeypatch.setattr(token_stream, "start_workers", lambda *args: started.append(args) or start(*args))
    shared = TokenStore.make(texts, lang=model, cache=tmp_path / "b", n_workers=2, progress=False)
    assert started and shared.words == alone.words and np.array_equal(shared.tokens, alone.tokens)


def test_weights_know_their_pieces_and_refuse_others(pretrained, texts, other, tmp_path):
    weights = load(pretrained)
    assert weights.lang == str(pretrained / "spm.model")
    own = TokenStore.make(texts, lang=weights.lang, cache=tmp_path, progress=False).vocab()
    assert weights.for_vocab(own).meta["words_kept"] == len([word for word in own if word != "xxfake"])
    others = TokenStore.make(texts, lang=other, cache=tmp_path, progress=False).vocab()
    for vocab in (others, ["xxunk", "xxpad", "der"]):
        with pytest.raises(VocabularyMismatch, match=r"split by the SentencePiece model.*give lang='.*spm\.model'"):
            weights.for_vocab(vocab)
    words = LMWeights("words", "forward", ["xxunk", "xxpad", "der"], weights.state)
    with pytest.raises(VocabularyMismatch, match="expected texts split by spaCy into words"):
        words.for_vocab(own)


# ------------------------------------------------------------------------------- pretraining, fine-tuning, predicting
def test_pretraining_learns_pieces_first_and_leaves_the_model_beside_the_weights(pretrained, corpus, texts):
    run = read_json(pretrained / "run.json")
    weights = load(pretrained)
    assert run["status"] == "finished" and run["data"]["reading"]["tokenizer"] == "sentencepiece"
    assert weights.vocab.pieces == model_digest(pretrained / "spm.model")
    assert weights.vocab[:9] == list(SPECIAL_TOKENS) and len(weights.vocab) <= 304
    assert all("▁" not in text and "xx" not in text for text in run["samples"]["forward"])
    same = {"out": pretrained, "cache": pretrained / "elsewhere", "progress": False, "device": "cpu", **SMALL}
    assert pretrain(corpus, **same) == pretrained  # without the cache, by the model in the folder
    with pytest.raises(RunMismatch, match="tokenizer: 'sentencepiece' there, 'spacy' here"):
        pretrain(corpus, **{**same, "tokenizer": "spacy"})


def test_held_out_articles_teach_no_pieces(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in ["der film war gut"] * 40 + ["qqq zzz"] * 4))
    folder = pretrain(path, out=tmp_path / "run", cache=tmp_path / "cache", progress=False, device="cpu",
                             **{**SMALL, "valid_texts": 4, "max_vocab": 40})
    assert not {"q", "z", "▁z"} & set(load(folder).vocab)


def test_what_splits_texts_is_no_part_of_the_recipe_and_checked_by_name():
    changes: list[dict] = [{}, {"lang": "de"}, {"tokenizer": "sentencepiece"}]
    found = [settings(change) for change in changes]
    assert len({recipe.hash for recipe, _ in found}) == 1 and len({reading for _, reading in found}) == 3
    with pytest.raises(ValueError, match="tokenizer: expected 'spacy' or 'sentencepiece', found 'words'"):
        settings({"tokenizer": "words"})


def test_a_classifier_of_pieces_learns_predicts_and_comes_back_the_same(pretrained, tmp_path):
    rng = random.Random(7)
    labels = ["gut", "schlecht"] * 60
    reviews = [" ".join(sentence(rng, PRAISE if label == "gut" else BLAME) for _ in range(3)) for label in labels]
    classifier = able(weights=pretrained, lang=str(pretrained / "spm.model"), device="cpu").fit(reviews, labels)
    assert classifier.model_.vocab == load(pretrained).vocab
    assert classifier.score(reviews, labels) > 0.8
    folder = classifier.save(tmp_path / "model")
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    loaded = ULMFiT.load(moved, device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(reviews[:20]), classifier.predict_proba(reviews[:20]))
    assert loaded.lang == str(moved / "spm.model")
    shown = loaded.explain("Das Schattendrehbuch war SCHÖN, wunderbar.", steps=4)
    assert shown.tokens == ["Das", "Schattendrehbuch", "war", "SCHÖN", ",", "wunderbar", "."]
    shutil.copy(train_pieces(texts_of(20, seed=9), tmp_path / "third.model", max_vocab=70), moved / "spm.model")
    with pytest.raises(ValueError, match="expected the SentencePiece model .* the weights were trained with"):
        ULMFiT.load(moved)


def test_pieces_of_a_word_are_shown_as_one_and_no_score_is_lost():
    tokens = ["xxbos", "xxmaj", "▁dreh", "buch", "autor", "▁", "ist", ",", "▁xyz", "xxrep", "▁4", "▁", "!", "▁"]
    words = words_of_text("Drehbuchautor ist, xyz!!!!", tokens, np.arange(14.0), [True] * 3 + [False] + [True] * 10)
    assert [word.text for word in words] == ["Drehbuchautor", "ist", ",", "xyz", "!!!!"]
    assert [word.score for word in words] == [10, 11, 7, 8, 55]
    assert [word.known for word in words] == [False, True, True, True, True]
    assert joined_pieces(tokens) == ["xxbos", "xxmaj", "drehbuchautor", "ist,", "xyz", "xxrep", "4", "!"]


# --------------------------------------------------------------------------------------------------------------- errors
def test_a_model_that_is_missing_or_none_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="expected a SentencePiece model at .*found no such file"):
        tokenize(["Haus"], str(tmp_path / "spm.model"))
    (tmp_path / "spm.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="found a file that is none"):
        tokenize(["Haus"], str(tmp_path / "spm.model"))


def test_a_model_without_fastais_special_tokens_is_refused(texts, tmp_path):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.Train(sentence_iterator=iter(texts), vocab_size=80, minloglevel=2,
                                             model_prefix=str(tmp_path / "plain"), hard_vocab_limit=False)
    with pytest.raises(ValueError, match="expected the special tokens xxunk, .* as its first pieces"):
        tokenize(["Haus"], str(tmp_path / "plain.model"))


def test_too_few_pieces_for_the_texts_characters_are_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match=r"did not make 20 pieces.*Give more text, or another max_vocab"):
        train_pieces(["abcdefghijklmnopqrstuvwxyzäöüß"] * 30, tmp_path / "x.model", max_vocab=20)
    with pytest.raises(ValueError, match="at least one text"):
        train_pieces([], tmp_path / "x.model")
    assert list(tmp_path.iterdir()) == []


def test_without_sentencepiece_the_package_to_install_is_named(model, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    pieces._sentencepiece.cache_clear()
    try:
        with pytest.raises(ImportError, match=r'pip install "ulmfit-fastai\[sentencepiece\]"'):
            train_pieces(["Haus"], "unused.model")
    finally:
        pieces._sentencepiece.cache_clear()


def test_the_shell_pretrains_on_pieces():
    args = build_parser().parse_args(["pretrain", "x.txt", "--lang", "de", "--tokenizer", "sentencepiece"])
    assert (args.lang, args.tokenizer) == ("de", "sentencepiece")
