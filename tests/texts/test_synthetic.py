"""The synthetic reviews: reproducible, readable by whole sentences, and hard for a bag of words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ulmfit_fastai.texts import synthetic
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.texts.imdb import load_imdb
from ulmfit_fastai.texts.synthetic import (
    BAD,
    FOUND,
    GOOD,
    MINE,
    NOT,
    PROVED,
    SO_LEAVE,
    SO_SEE,
    synthetic_reviews,
    write_imdb_layout,
)


@pytest.fixture(scope="module")
def reviews() -> Dataset:
    return synthetic_reviews(n_unsup=100)


def opinion_of(clause: str) -> int:
    """1 for a good opinion, -1 for a bad one; independent of the generator but for its lists of words."""
    words = re.findall(r"[a-z]+", clause.lower())
    found = {1 if word in GOOD else -1 for word in words if word in GOOD or word in BAD}
    assert len(found) == 1, clause
    negated = any(f" {phrase} " in f" {clause.lower()} " for phrase in NOT)
    return -found.pop() if negated else found.pop()


def label_by_reading(text: str) -> str:
    """What a reader of whole sentences concludes; every sentence with an opinion has to say the same."""
    verdicts = set()
    for sentence in re.split(r"\.(?: |<br /><br />|$)", text):
        clauses = [clause.strip() for clause in re.split(r", (?:but|although)", sentence.lower())]
        if not any(word in GOOD or word in BAD for word in re.findall(r"[a-z]+", sentence.lower())):
            continue
        for clause in clauses:
            own = clause.startswith((*MINE, *FOUND, *PROVED)) and " expected " not in f" {clause} "
            verdicts.add(opinion_of(clause) if own else -opinion_of(clause))
    assert len(verdicts) == 1, text
    return "pos" if verdicts == {1} else "neg"


def test_a_reader_of_sentences_makes_no_error(reviews):
    labelled = reviews.df[reviews.df["split"] != "unsup"]
    assert [label_by_reading(text) for text in labelled["text"]] == labelled["label"].tolist()


def test_a_bag_of_words_and_pairs_errs_on_a_quarter_to_two_fifths(reviews):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    df = reviews.df
    train, test = df[df["split"] == "train"], df[df["split"] == "test"]
    for options, strength in (({}, 1.0), ({"sublinear_tf": True, "min_df": 2}, 10.0)):
        words = TfidfVectorizer(ngram_range=(1, 2), **options)
        model = LogisticRegression(C=strength, max_iter=500).fit(words.fit_transform(train["text"]), train["label"])
        error = 1 - model.score(words.transform(test["text"]), test["label"])
        assert 0.25 < error < 0.42, f"{error:.3f} with {options or 'the defaults'}"


def test_the_same_arguments_make_the_same_reviews_and_another_seed_others():
    small = dict(n_train=20, n_test=10, n_unsup=10)
    assert synthetic_reviews(**small).fingerprint == synthetic_reviews(**small).fingerprint
    assert synthetic_reviews(**small).fingerprint != synthetic_reviews(**small, seed=1).fingerprint


def test_the_reviews_of_seed_0_have_not_changed_since_they_were_first_measured():
    assert synthetic_reviews(n_train=4, n_test=2, n_unsup=2).fingerprint == "e35925fcad987044"


def test_a_larger_set_contains_the_smaller_one():
    small, large = (
        synthetic_reviews(n_train=10, n_test=4, n_unsup=4),
        synthetic_reviews(n_train=30, n_test=8, n_unsup=9),
    )
    assert set(small.df["text"]) < set(large.df["text"])


def test_the_classes_are_balanced_and_the_lengths_varied(reviews):
    assert reviews.counts == {"train": 2000, "test": 1000, "unsup": 100}
    assert reviews.df.groupby("split")["label"].value_counts().tolist() == [500, 500, 1000, 1000]
    words = reviews.df["text"].str.split().str.len()
    assert words.min() >= 8 and words.max() <= 215
    assert words.quantile(0.05) < 40 and words.quantile(0.95) > 130
    assert reviews.df["text"].is_unique


def test_the_vocabulary_is_small_enough_to_learn_and_large_enough_to_be_a_language(reviews):
    assert 400 < len(set(re.findall(r"\w+", " ".join(reviews.df["text"]).lower()))) < 1500


def test_no_single_word_gives_the_label_away(reviews):
    train = reviews.df[reviews.df["split"] == "train"]
    positive = (train["label"] == "pos").to_numpy()
    words = [set(re.findall(r"\w+", text.lower())) for text in train["text"]]
    for word in sorted(set.union(*words)):
        has = np.array([word in found for found in words])
        if has.sum() >= 100:
            assert 0.3 < positive[has].mean() < 0.7, word


def test_they_say_that_they_are_synthetic(reviews):
    assert reviews.synthetic and reviews.name == "synthetic"
    assert any("synthetic" in note for note in reviews.notes)


def test_written_in_imdbs_layout_they_read_back_the_same_and_still_synthetic(tmp_path):
    made = synthetic_reviews(n_train=12, n_test=6, n_unsup=5)
    folder = write_imdb_layout(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["imdb"]
    with pytest.raises(ValueError, match="expected no .*imdb, found one"):
        write_imdb_layout(made, tmp_path)
    assert {path.relative_to(folder).parent.as_posix() for path in folder.rglob("*_*.txt")} == {
        "train/neg",
        "train/pos",
        "test/neg",
        "test/pos",
        "unsup",
    }
    read = load_imdb(tmp_path, verify=False)
    assert read.fingerprint == made.fingerprint
    assert read.synthetic and read.name == "synthetic" and synthetic.SYNTHETIC_NOTE in read.notes


def test_mistaken_labels_are_all_that_a_reader_of_sentences_errs_in():
    labelled = synthetic_reviews(n_train=600, n_test=200, n_unsup=0, plain=0.5, mistaken=0.04).df
    read = [label_by_reading(text) for text in labelled["text"]]
    share = np.mean([one != label for one, label in zip(read, labelled["label"], strict=True)])
    assert 0.02 < share < 0.06


def test_consequences_are_on_the_side_of_the_opinion_before_them():
    found = set()
    for text in synthetic_reviews(n_train=100, n_test=2, n_unsup=0, plain=0.5).df["text"]:
        for sentence in re.split(r"\.(?: |<br /><br />|$)", text):
            for side, phrases in ((1, SO_SEE), (-1, SO_LEAVE)):
                for phrase in phrases:
                    if sentence.endswith(f", {phrase}"):
                        assert opinion_of(sentence.removesuffix(phrase)) == side, sentence
                        found.add(phrase)
    assert found == {*SO_SEE, *SO_LEAVE}


def test_a_wrong_share_is_refused_and_shares_are_said():
    with pytest.raises(ValueError, match="mistaken is 2; expected a share from 0 to 1"):
        synthetic_reviews(n_train=4, n_test=2, n_unsup=2, mistaken=2)
    made = synthetic_reviews(n_train=4, n_test=2, n_unsup=2, plain=0.5, mistaken=0.04)
    assert "plain=0.5, mistaken=0.04" in made.source and any("4% of the labels are wrong" in n for n in made.notes)
