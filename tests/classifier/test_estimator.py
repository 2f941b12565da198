"""ULMFiT on texts of one's own: scikit-learn's rules, every kind of label, few texts, bad rows."""

from __future__ import annotations

import logging
import pickle
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from some_texts import BAD, GOOD, able, reviews, tiny

from ulmfit_fastai import ULMFiT
from ulmfit_fastai.batches.targets import Target
from ulmfit_fastai.classifier import start as own_recipe
from ulmfit_fastai.classifier.fitted import Unfinished
from ulmfit_fastai.classifier.labels import class_weights, read_labels
from ulmfit_fastai.classifier.start import with_weights
from ulmfit_fastai.classifier.texts import own_dataset
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.predict import text_model as saved_model
from ulmfit_fastai.recipe.fitting import fitted
from ulmfit_fastai.recipe.parts import AWD_LM
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.texts import dataset
from ulmfit_fastai.tokens import stream as token_stream
from ulmfit_fastai.training.prepare import rows_for
from ulmfit_fastai.training.starting import OpenedWeights

TEXTS, LABELS = reviews()


@pytest.fixture(scope="module")
def model():
    return able().fit(TEXTS, LABELS)


# ------------------------------------------------------------------------------------------------------- what it learns
def test_it_learns_which_words_decide_and_answers_in_the_callers_order(model):
    texts, labels = reviews(60, seed=1)
    assert model.score(texts, labels) > 0.9
    order = np.random.default_rng(0).permutation(60)
    shuffled = model.predict_proba([texts[i] for i in order])
    np.testing.assert_allclose(shuffled, model.predict_proba(texts)[order], atol=1e-6)


def test_the_three_stages_of_the_paper_run():
    fitted_ = tiny(lm_epochs=2, directions="both").fit(TEXTS, LABELS)
    assert fitted_.recipe_.phases == ("lm", "classifier") and fitted_.recipe_.lm.epochs == 2
    assert [stage.trainable for stage in fitted_.recipe_.classifier.stages] == [(-1,), (-2, -1), (-3, -2, -1), None]
    assert set(fitted_.metrics_) == {"forward", "backward", "averaged"}
    each = [fitted_.model_.outputs_of_ids(fitted_.model_.numbers(TEXTS), d) for d in ("forward", "backward")]
    np.testing.assert_allclose(fitted_.predict_proba(TEXTS), np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_a_text_gets_the_same_alone_as_among_others(model):
    together = model.predict_proba(TEXTS[:10])
    alone = np.concatenate([model.predict_proba([text]) for text in TEXTS[:10]])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_one_text_starts_no_workers(model, monkeypatch):
    monkeypatch.setattr(token_stream, "start_workers", lambda *_: pytest.fail("started workers"))
    assert model.predict(["A wonderful film."]).shape == (1,)


def test_a_stream_is_read_as_it_is_predicted(model, monkeypatch):
    monkeypatch.setattr(saved_model, "CHUNK_TEXTS", 7)
    read = []

    def texts():
        for text in TEXTS:
            read.append(text)
            yield text

    stream = model.predict_stream(texts())
    parts = [next(stream)]
    assert len(read) == 7 and len(parts[0]) == 7
    parts += list(stream)
    np.testing.assert_allclose(np.concatenate(parts), model.predict_proba(TEXTS), atol=1e-6)
    assert model.decide(parts[0]).tolist() == model.predict(TEXTS[:7]).tolist()


def test_no_texts_give_no_predictions(model):
    assert model.predict_proba([]).shape == (0, 2) and model.predict([]).shape == (0,)


def test_evaluate_counts_as_scikit_learn_does(model):
    texts, labels = reviews(40, seed=2)
    labels[:6] = ["good"] * 6  # some labels that no model would guess
    found, predicted = model.evaluate(texts, labels), model.predict(texts)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted)) == model.score(texts, labels)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found.confusion.loc["good", "bad"] == sum(p == "bad" and t == "good" for p, t in zip(predicted, labels))
    low, high = found["interval"]
    assert low < found["error"] < high and "macro F1" in repr(found)


def test_a_class_that_training_never_saw_counts_as_wrong(model, caplog):
    texts, labels = reviews(20, seed=3)
    plain = model.evaluate(texts, labels)
    strange = model.evaluate(texts, ["odd", *labels[1:]])
    assert strange["wrong"] == plain["wrong"] + 1 and strange.confusion.loc["odd"].sum() == 1
    assert "doesn't know the class odd" in caplog.text
    with pytest.raises(ValueError, match="none of the model's classes"):
        model.evaluate(texts, ["odd", "queer"] * 10)
    rare = ["once", *LABELS[1:24]]
    assert np.isfinite(cross_val_score(tiny(epochs=1), TEXTS[:24], rare, cv=KFold(3))).all()


def test_explain_names_the_deciding_words(model):
    """On the whole: which word of one text is ahead of all others depends on the last bits of so small a model."""
    moved = {True: [], False: []}
    for text in reviews(10, seed=1)[0]:
        for word in model.explain(text).words:
            moved[word.text.lower() in (*GOOD, *BAD)].append(abs(word.score))
    assert len(moved[True]) > 20 and np.mean(moved[True]) > 1.5 * np.mean(moved[False])


# --------------------------------------------------------------------------------------------------------- scikit-learn
def test_cross_validation_and_a_pipeline():
    one, labels = tiny(epochs=1), np.array(LABELS)
    scores = cross_val_score(one, TEXTS, LABELS, cv=3)
    train, test = next(StratifiedKFold(3).split(TEXTS, LABELS))
    by_hand = clone(one).fit([TEXTS[i] for i in train], labels[train])
    assert len(scores) == 3 and scores[0] == by_hand.score([TEXTS[i] for i in test], labels[test])
    pipe = Pipeline([("lower", FunctionTransformer(lambda texts: [text.lower() for text in texts])), ("model", one)])
    assert set(pipe.fit(TEXTS, LABELS).predict(TEXTS[:5])) <= {"bad", "good"}
    assert pipe.predict_proba(TEXTS[:5]).shape == (5, 2)


def test_a_search_tries_its_parameters():
    search = GridSearchCV(tiny(), {"epochs": [1, 2], "class_weight": ["balanced"]}, cv=2).fit(TEXTS[:24], LABELS[:24])
    assert search.best_params_["epochs"] in (1, 2) and search.best_estimator_.recipe_.class_weights == (1.0, 1.0)


def test_probabilities_by_cross_validation_have_the_columns_of_sorted_classes():
    numbers = [10 if label == "good" else 9 for label in LABELS]  # as text, "10" comes before "9"
    probs = cross_val_predict(able(epochs=14), TEXTS, numbers, cv=2, method="predict_proba")
    assert ((probs[:, 1] > 0.5) == (np.array(numbers) == 10)).mean() > 0.7


def test_a_clone_has_the_parameters_and_nothing_learnt(model):
    copy = clone(model)
    assert copy.get_params() == model.get_params() and not hasattr(copy, "model_")
    assert copy.set_params(epochs=3).epochs == 3
    with pytest.raises(NotFittedError, match="fit, or ULMFiT.load"):
        copy.predict(TEXTS)


@pytest.mark.parametrize("check", ["no_attributes_set_in_init", "parameters_default_constructible",
                                   "get_params_invariance", "set_params"])
def test_scikit_learns_own_checks_of_parameters_pass(check):
    getattr(estimator_checks, f"check_{check}")("ULMFiT", ULMFiT())


def test_it_is_a_regressor_for_numbers_and_a_classifier_otherwise():
    assert is_classifier(tiny()) and not is_regressor(tiny())
    assert is_regressor(tiny(task="regression")) and not is_classifier(tiny(task="regression"))
    assert not hasattr(tiny(task="regression"), "predict_proba")


def test_a_pickled_model_predicts_the_same_and_carries_no_texts(model):
    data = pickle.dumps(model)
    np.testing.assert_array_equal(pickle.loads(data).predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert TEXTS[0].encode() not in data


# --------------------------------------------------------------------------------------------------------------- labels
@pytest.mark.parametrize("classes", [(0, 1), (False, True), ("no", "yes"), (2.0, 10.0), ("1", "null")])
def test_classes_come_back_as_they_were_given(classes):
    labels = [classes[i % 2] for i in range(12)]
    fitted_ = tiny(epochs=1).fit(TEXTS[:12], labels)
    assert fitted_.classes_.tolist() == sorted(classes)
    predicted = fitted_.predict(TEXTS[:4])
    assert set(predicted.tolist()) <= set(classes) and type(predicted.tolist()[0]) is type(classes[0])


def test_several_classes_a_text():
    labels = [["good"] * (i % 2) + ["long"] * (len(text) > 60) for i, text in enumerate(TEXTS)]
    assert [] in labels and ["good", "long"] in labels
    several = able(epochs=12, class_weight="balanced").fit(TEXTS, labels)
    assert several.classes_.tolist() == ["good", "long"] and several.recipe_.class_weights[0] == 1.0
    probs, predicted = several.predict_proba(TEXTS), several.predict(TEXTS)
    assert [tuple(several.classes_[row >= 0.5]) for row in probs] == predicted.tolist()
    found = several.evaluate(TEXTS, labels)
    assert found["micro_f1"] > 0.8 and found["error"] == pytest.approx(100 * np.mean([p != tuple(t) for p, t in
                                                                                     zip(predicted, labels)]))
    rows = np.array([[int("good" in some), int("long" in some)] for some in labels])
    given = tiny(epochs=1).fit(TEXTS, pd.DataFrame(rows, columns=["good", "long"]))
    assert given.predict(TEXTS).shape == rows.shape and given.classes_.tolist() == ["good", "long"]
    assert 0 <= given.score(TEXTS, rows) <= 1


def test_numbers_come_back_in_their_own_unit():
    prices = [1000.5 + 500 * (i % 2) for i in range(len(TEXTS))]
    numbers = able(epochs=14).fit(TEXTS, prices)
    predicted = numbers.predict(TEXTS)
    assert np.abs(predicted - prices).mean() < 100 and numbers.score(TEXTS, prices) > 0.8
    assert numbers.evaluate(TEXTS, prices)["mae"] == pytest.approx(np.abs(predicted - prices).mean())
    assert numbers.explain(TEXTS[1]).value == pytest.approx(predicted[1], rel=1e-3)
    assert not hasattr(numbers, "predict_proba") and not hasattr(numbers, "classes_")
    assert 900 < numbers.metrics_["forward"]["rmse"] + 1000 < 1500


def test_whole_numbers_are_classes_unless_asked_otherwise(caplog):
    assert read_labels([1, 2, 3]).kind == "single" and read_labels([1, 2.5]).kind == "regression"
    assert read_labels([1, 2, 3], "regression").kind == "regression"
    with caplog.at_level(logging.WARNING):
        read_labels(list(range(30)))
    assert "task='regression'" in caplog.text


def test_class_weights_reach_the_loss():
    labels = read_labels(["a"] * 6 + ["b"] * 2)
    assert class_weights("balanced", labels) == pytest.approx((8 / 12, 2.0))
    assert class_weights({"b": 5}, labels) == (1.0, 5.0)
    loss = Target("single", ("a", "b")).loss((1.0, 5.0), "cpu")
    assert loss.func.weight.tolist() == [1.0, 5.0]
    with pytest.raises(ValueError, match="given for c; the classes are a, b"):
        class_weights({"c": 2}, labels)
    with pytest.raises(ValueError, match="expected 'balanced', a weight for each class"):
        class_weights("heavy", labels)


def test_a_weighted_class_is_predicted_more_often():
    labels = ["rare" if i % 4 == 1 else "common" for i in range(48)]  # half of the good reviews, whatever their words
    plain, weighted = (able(class_weight=w).fit(TEXTS, labels) for w in (None, {"rare": 20}))
    assert weighted.predict_proba(TEXTS)[1::2, 1].mean() > plain.predict_proba(TEXTS)[1::2, 1].mean() + 0.1


# ---------------------------------------------------------------------------------------------------------------- texts
def test_several_columns_are_read_alike_in_training_and_prediction():
    frame = pd.DataFrame({"title": TEXTS, "body": TEXTS[::-1], "mood": LABELS, "n": range(len(TEXTS))})
    two = tiny(epochs=1).fit(frame, text=["title", "body"], label="mood")
    assert two.model_.vocab.count("xxfld") == 1 and two.model_.config.text == ("title", "body")
    joined = [f"xxfld 1 {a} xxfld 2 {b}" for a, b in zip(frame.title, frame.body)]
    np.testing.assert_array_equal(two.predict_proba(frame[["body", "title"]]), two.model_.outputs(joined))
    with pytest.raises(ValueError, match="no column body; the columns are title, mood"):
        two.predict(frame[["title", "mood"]])


def test_a_column_keeps_its_name_and_a_list_will_do_too(model):
    frame = pd.DataFrame({"id": range(8), "review": TEXTS[:8], "mood": LABELS[:8]}, index=list("abcdefgh"))
    one = tiny(epochs=1).fit(frame, text="review", label="mood")
    np.testing.assert_array_equal(one.predict_proba(frame), one.predict_proba(TEXTS[:8]))
    assert one.evaluate(frame)["n"] == 8
    np.testing.assert_array_equal(model.predict_proba(frame, text="review"), model.predict_proba(frame.review))
    with pytest.raises(ValueError, match="which column holds the texts.*id, review, mood"):
        model.predict(frame)


def test_each_text_is_joined_once(monkeypatch):
    rows = []
    joined = dataset.join_fields
    monkeypatch.setattr(dataset, "join_fields", lambda row: rows.append(row) or joined(row))
    frame = pd.DataFrame({"title": TEXTS[:12], "body": TEXTS[12:24]})
    found = own_dataset(frame, read_labels(LABELS[:12], "auto"), columns=["title", "body"], unlabelled=frame[:3])
    assert len(rows) == 12 + 3 and len(found) == 15


def test_rows_left_out_take_no_label_of_another_with_them():
    texts, labels = ["a", "", "c", None, "e", "f"], ["x", "y", "x", "x", "y", "y"]
    found = own_dataset(pd.DataFrame({"text": texts}), read_labels(labels, "auto"), columns=["text"], drop_missing=True)
    assert found.df[["text", "label"]].values.tolist() == [["a", "x"], ["c", "x"], ["e", "y"], ["f", "y"]]


def test_missing_texts_and_labels_are_named_or_left_out():
    texts, labels = [*TEXTS[:12], None, "  "], [*LABELS[:12], "good", "bad"]
    with pytest.raises(ValueError, match=r"rows 12, 13 \(counted from 0\) of column text are empty \(2 of 14\)"):
        tiny().fit(texts, labels)
    labels[3] = None
    texts[12:] = TEXTS[12:14]
    with pytest.raises(ValueError, match=r"row 3 \(counted from 0\) has no label.*drop_missing=True"):
        tiny().fit(texts, labels)
    texts[5] = ""
    kept = tiny(drop_missing=True, epochs=1).fit(texts, labels)
    assert kept.model_.config.data["counts"] == {"train": 12, "test": 0, "unsup": 1}
    with pytest.raises(ValueError, match=r"row 1 \(counted from 0\) of column text is empty"):
        kept.predict(["fine", ""], strict=True)


def test_more_texts_go_to_the_language_model_only():
    extra = [f"A {word} turn of phrase." for word in ("zany", "zany", "quirky")] + [""]
    more = tiny(lm_epochs=1, epochs=1).fit(TEXTS, LABELS, unlabelled=extra)
    assert more.model_.config.data["counts"]["unsup"] == 3
    assert "zany" in more.model_.vocab and "zany" not in tiny(epochs=1).fit(TEXTS, LABELS).model_.vocab


@pytest.mark.parametrize(("texts", "labels", "said"), [
    ("one text", ["a"], "found one string"),
    (TEXTS[:6], LABELS[:5], "one label for each of the 6 texts, found 5"),
    (TEXTS[:6], ["a"] * 6, "one class only"),
    ([], [], "expected texts with labels, found none in 0 rows"),
    (pd.DataFrame({"text": [], "label": []}), None, "found none in 0 rows"),
    (5, ["a"], "expected a list of texts, found 5"),
    (TEXTS[:12], list("abcdefghijkl"), "each of the 12 labels is another"),
    (TEXTS[:3], ["a", "b", "a"], "at least 4 are needed"),
    (TEXTS[:4], list("abcd"), "every class has one text only"),
    ([*TEXTS[:5], 7], LABELS[:6], r"found 7 in row 5 \(counted from 0\); 1 of 6 are no text"),
    (TEXTS[:6], None, "expected labels"),
    (pd.DataFrame({"text": TEXTS[:6]}), None, "no column label; the columns are text"),
    (TEXTS[:6], [1.5] * 6, "one number only"),
    (TEXTS[:6], [[]] * 6, "no text has a class"),
])
def test_what_cannot_be_learnt_from_is_refused_in_words(texts, labels, said):
    with pytest.raises(ValueError, match=said):
        tiny().fit(texts, labels)


def test_a_column_of_numbers_for_texts_is_pointed_out():
    labels = read_labels(["a", "b", "a", "b"])
    strange = own_dataset(pd.DataFrame({"stars": ["4", "1/5", "3.5", "2"], "n": 1}), labels, columns=["stars"])
    assert strange.notes == ("no row of column stars has a letter in it: are these the texts?",)
    assert own_dataset(["4", "1/5", "3.5", "\u826f\u3044"], labels, columns=None).notes == ()


# ------------------------------------------------------------------------------------------------------------ few texts
def test_a_rare_class_stays_in_training_and_breaks_nothing():
    labels = ["once", *LABELS[1:20]]
    few = tiny(epochs=1).fit(TEXTS[:20], labels)
    assert few.classes_.tolist() == ["bad", "good", "once"]
    dataset = own_dataset(TEXTS[:20], read_labels(labels), columns=None)
    assert 0 in rows_for(few.recipe_, dataset).train and len(rows_for(few.recipe_, dataset).valid) == 2


def test_four_texts_are_enough_to_train_and_to_measure():
    assert tiny(epochs=1).fit(TEXTS[:4], LABELS[:4]).metrics_["forward"]["n"] == 2


def test_the_rarest_class_of_a_text_decides_where_it_is_held_out():
    rare = {row: f"rare {row}" for row in (3, 7, 12, 18, 25, 31)}
    several = [["common", rare[row]] if row in rare else ["common"] for row in range(40)]
    dataset = own_dataset(TEXTS[:40], read_labels(several), columns=None)
    rows = rows_for(preset("tiny").replace(valid_fraction=0.4), dataset)
    assert set(rare) <= set(rows.train.tolist()) and len(rows.valid) == 14  # of the 34 others


def test_all_labels_are_used_whatever_the_preset_was_made_for():
    dataset, labels = own_dataset(TEXTS, read_labels(LABELS), columns=None), read_labels(LABELS)
    assert preset("few-labels").n_labels == 500
    few = tiny(preset="few-labels", weights="none")
    assert few._recipe(dataset, labels, OpenedWeights(), n_tokens=500).n_labels is None


@pytest.mark.parametrize(("n", "name"), [(40, "few-labels"), (1_999, "few-labels"), (2_000, "quick")])
def test_without_a_preset_the_number_of_labels_decides(n, name):
    labels = read_labels(["a", "b"] * (n // 2) + ["a"] * (n % 2))
    dataset = own_dataset([f"text {i}" for i in range(n)], labels, columns=None)
    recipe = ULMFiT(weights="none", lang="de")._recipe(dataset, labels, OpenedWeights(), n_tokens=2_000_000)
    assert recipe.name == name and recipe.n_labels is None
    assert [stage.lr for stage in recipe.classifier.stages] == [stage.lr for stage in preset(name).classifier.stages]


def test_a_preset_is_fitted_to_few_texts_and_left_alone_on_many():
    quick = preset("quick")
    assert fitted(quick, n_train=25_000, n_tokens=20_000_000) == quick
    few = fitted(quick, n_train=300, n_tokens=9_000)
    assert few.classifier.bs == 18 and few.lm.bs < quick.lm.bs and few.min_freq == 1
    assert few.lm.epochs > quick.lm.epochs and few.classifier.epochs > quick.classifier.epochs
    assert few.classifier.stages[:-1] == quick.classifier.stages[:-1]
    assert (quick.lm.alpha, quick.model.lm_dropouts.input) == (0, 0)  # which would learn few texts by heart
    assert (few.lm.epochs, few.lm.alpha, few.lm.beta, few.lm.stages[-1].lr) == (4, 2, 1, 5e-3)
    assert few.model.lm_dropouts == AWD_LM.scaled(0.2)
    more = ULMFiT(quick, lm_epochs=3, lang="en")._settled(quick)
    assert (more.lm.epochs, more.lm.alpha) == (3, 2) and ULMFiT(quick, lm_epochs=1)._settled(quick).lm == quick.lm
    assert ULMFiT(quick, lm_epochs=0)._settled(quick).lm is None
    fastai = preset("fastai")
    assert fitted(fastai, n_train=300, n_tokens=9_000).lm.stages == fastai.lm.stages  # it has epochs enough
    assert fitted(preset("tiny"), n_train=300, n_tokens=9_000).classifier.epochs == preset("tiny").classifier.epochs
    mine = replace(quick, seed=5)
    dataset, labels = own_dataset(TEXTS, read_labels(LABELS), columns=None), read_labels(LABELS)
    assert tiny(preset=mine)._recipe(dataset, labels, OpenedWeights(), n_tokens=500).classifier == mine.classifier


# ------------------------------------------------------------------------------------------------ weights to start from
def test_without_bundled_weights_it_says_that_it_starts_from_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pretrained, "BUNDLED", tmp_path)
    with caplog.at_level(logging.WARNING):
        assert with_weights(preset("quick", "custom"), None, "en", OpenedWeights()).weights == "none"
    assert "no pretrained language model" in caplog.text


def test_bundled_weights_are_taken_with_their_sizes(tmp_path, monkeypatch):
    learnt = tiny(lm_epochs=1, epochs=1, out=tmp_path / "run").fit(TEXTS, LABELS)
    lm = pretrained.load(tmp_path / "run")
    lm.save(tmp_path / "wiki-small-forward.safetensors", vocab_path=tmp_path / "wiki-small.vocab.json")
    monkeypatch.setattr(pretrained, "BUNDLED", tmp_path)
    found = with_weights(preset("quick", "custom"), None, "en", OpenedWeights())
    assert found.weights == "wiki-small" and found.model.n_hid == learnt.recipe_.model.n_hid == 48
    assert with_weights(preset("quick", "custom"), None, "de", OpenedWeights()).weights == "none"
    both = preset("quick", "imdb")  # in both directions
    assert with_weights(both, None, "en", OpenedWeights()).weights == "none"
    assert with_weights(preset("quick", "custom"), "none", "en", OpenedWeights()).weights == "none"
    lm.save(tmp_path / "english-small-forward.safetensors", vocab_path=tmp_path / "english-small.vocab.json")
    assert with_weights(preset("quick", "custom"), None, "en", OpenedWeights()).weights == "english-small"
    assert with_weights(preset("quick", "custom"), "wiki-small", "en", OpenedWeights()).weights == "wiki-small"
    assert preset("quick").weights == "wiki-small"  # what reproduces the paper has read no reviews before


def test_the_weights_are_opened_once_a_fit_and_direction(tmp_path, monkeypatch):
    folder = tiny(lm_epochs=1, epochs=1, directions="both", out=tmp_path / "run").fit(TEXTS[:24], LABELS[:24]).out
    names = []

    class Counted(LMWeights):
        @classmethod
        def load(cls, path, **options):
            names.append(path.name)
            return LMWeights.load(path, **options)

    monkeypatch.setattr(pretrained, "LMWeights", Counted)
    for lm_epochs in (0, 1):
        tiny(lm_epochs=lm_epochs, epochs=1, directions="both", weights=folder).fit(TEXTS[:24], LABELS[:24])
        assert sorted(names) == ["lm_backward.safetensors", "lm_forward.safetensors"]
        names.clear()


def test_few_texts_borrow_the_words_of_the_pretrained_model(tmp_path):
    other, labels = reviews(40, seed=4)
    learnt = tiny(lm_epochs=1, epochs=1, out=tmp_path / "run").fit([f"Zany {text}" for text in other], labels)
    few = tiny(epochs=1, weights=tmp_path / "run").fit(TEXTS[:20], LABELS[:20])
    words = few.model_.vocab
    assert "zany" in words and len(words) == len({w for w in words if w != "xxfake"}) + words.count("xxfake")
    assert few.recipe_.model == learnt.recipe_.model and len(words) % 8 == 0
    start, place = pretrained.load(tmp_path / "run"), words.index("zany")
    vector = few.model_.models["forward"][0].module.encoder.weight[place]
    assert torch.allclose(vector, start.state["0.encoder.weight"][start.vocab.index("zany")], atol=0.05)


def test_nothing_is_downloaded_that_was_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path))
    monkeypatch.setattr("fastai.data.external.untar_data", lambda *_, **__: pytest.fail("tried to download"))
    monkeypatch.setattr(own_recipe.pretrained, "have_wt103", lambda direction: False)
    with pytest.raises(ValueError, match="weights='wt103' to download"):
        with_weights(preset("fastai"), None, "en", OpenedWeights())


# ------------------------------------------------------------------------------------------------ stopping and going on
def test_a_fit_stopped_by_its_time_goes_on_to_the_same_numbers(tmp_path):
    whole = tiny(lm_epochs=1).fit(TEXTS, LABELS)
    part = tiny(lm_epochs=1, out=tmp_path / "run", time_budget=1e-3)
    with pytest.raises(Unfinished, match="goes on with it"):
        part.fit(TEXTS, LABELS)
    gone_on = part.set_params(time_budget=None).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(gone_on.predict_proba(TEXTS), whole.predict_proba(TEXTS))
    with pytest.raises(ValueError, match="a time budget needs a folder.*give out="):
        tiny(time_budget=5).fit(TEXTS, LABELS)


def test_the_seed_decides():
    first, again, other = (tiny(epochs=1, random_state=seed).fit(TEXTS, LABELS).predict_proba(TEXTS)
                           for seed in (0, 0, 1))
    np.testing.assert_array_equal(again, first)
    assert np.abs(other - first).max() > 0


def test_a_plan_trains_nothing():
    planned = tiny(lm_epochs=1).plan(TEXTS, LABELS)
    assert {"lm", "classifier"} == {stage["phase"] for stage in planned.stages} and "in all about" in str(planned)


def test_the_learner_is_fastais_and_predicts_the_same(model):
    learn = model.learner
    assert type(learn).__name__ == "TextLearner" and len(learn.dls.train_ds) + len(learn.dls.valid_ds) == len(TEXTS)
    texts = [*TEXTS, "An unheard-of gizmo of a wonderful film."]
    with learn.no_bar():
        probs, _ = learn.get_preds(dl=learn.dls.test_dl(texts))
    np.testing.assert_allclose(probs.numpy(), model.predict_proba(texts), atol=1e-6)


def test_ulmfit_is_exported():
    assert ULMFiT is type(tiny())


def test_a_class_with_one_text_is_named(caplog):
    labels = read_labels(["good", "bad"] * 4 + ["odd"])
    found = own_dataset([f"text {i}" for i in range(9)], labels, columns=None)
    assert found.notes == ("class odd: one text only, so that none can be held out to see whether it is learnt",)
    assert "class odd" in caplog.text
    assert own_dataset(["a b", "c d", "e f", "g h"], read_labels(["x", "y"] * 2), columns=None).notes == ()


# A recipe of one's own


def test_a_recipe_given_as_such_keeps_what_it_says(tmp_path):
    own = preset("few-labels").replace(**{
        "weights": "none", "model.emb_sz": 12, "model.n_hid": 16, "valid_fraction": 0.3, "seed": 7, "n_labels": None,
        "class_weights": (1.0, 5.0)})
    for given in (own, own.save(tmp_path / "own.json")):
        taken = ULMFiT(given, progress=False)._prepare(TEXTS, LABELS, None, None, None, tmp_path).recipe
        for field in ("weights", "model", "valid_fraction", "seed", "class_weights"):
            assert getattr(taken, field) == getattr(own, field), field
    other = ULMFiT(own, random_state=3, progress=False)
    assert other._prepare(TEXTS, LABELS, None, None, None, tmp_path).recipe.seed == 3
    with pytest.raises(ValueError, match="have embedding/hidden/layers"):
        ULMFiT(own.replace(weights="wiki-small"), progress=False)._prepare(TEXTS, LABELS, None, None, None, tmp_path)


@pytest.mark.parametrize(("argument", "field", "value"), [
    ({"validation_fraction": 0.3}, "valid_fraction", 0.2), ({"random_state": 3}, "seed", 2),
    ({"epochs": 3}, "classifier.stages.-1.epochs", 2), ({"weights": "none"}, "weights", "wiki-small"),
    ({"class_weight": "balanced"}, "class_weights", (1.0, 2.0)), ({"lm_epochs": 0}, "lm.stages.0.epochs", 2)])
def test_what_is_said_twice_is_refused_by_name(argument, field, value):
    with pytest.raises(ValueError, match=f"{re.escape(field)} is given twice: .*leave out {next(iter(argument))}="):
        ULMFiT("few-labels", settings={field: value}, **argument).check_settings()


def test_settings_that_texts_of_ones_own_cannot_have_are_refused():
    with pytest.raises(ValueError, match="evaluate: no effect"):
        ULMFiT("tiny", settings={"evaluate": "test"}).check_settings()
