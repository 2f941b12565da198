"""scikit-learn's rules on texts: its own checks, their likes for texts, and why the others don't apply."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted
from some_texts import able, reviews, tiny

from ulmfit_fastai import ULMFiT
from ulmfit_fastai.classifier.weights import checked_weights, weights_of_rows
from ulmfit_fastai.results.folder import RunMismatch

TEXTS, LABELS = reviews(48)
PLAIN = ("cloneable", "tags_renamed", "valid_tag_types", "repr", "no_attributes_set_in_init",
         "do_not_raise_errors_in_init_or_set_params", "mixin_order", "parameters_default_constructible",
         "get_params_invariance", "set_params")
"""Checks that need no data: scikit-learn's own run as they are."""
OURS = {
    "fit_score_takes_y": "test_fit_and_score_take_y_second",
    "estimators_overwrite_params": "test_fit_leaves_arguments_and_data_as_they_are",
    "dont_overwrite_parameters": "test_fit_adds_nothing_public_but_what_ends_in_an_underscore",
    "estimators_fit_returns_self": "test_fit_leaves_arguments_and_data_as_they_are",
    "estimators_unfitted": "test_nothing_works_before_fit",
    "n_features_in_after_fitting": "test_the_columns_that_are_read_are_its_features",
    "n_features_in": "test_the_columns_that_are_read_are_its_features",
    "sample_weights_pandas_series": "test_weights_come_in_any_form",
    "sample_weights_not_an_array": "test_weights_come_in_any_form",
    "sample_weights_list": "test_weights_come_in_any_form",
    "all_zero_sample_weights_error": "test_wrong_weights_are_refused",
    "sample_weights_shape": "test_wrong_weights_are_refused",
    "sample_weights_not_overwritten": "test_weights_come_in_any_form",
    "sample_weight_equivalence_on_dense_data": "test_a_text_of_weight_two_counts_as_two_and_one_of_none_not_at_all",
    "dtype_object": "test_texts_come_in_any_form",
    "classifier_data_not_an_array": "test_texts_come_in_any_form",
    "estimators_empty_data_messages": "test_what_cannot_be_learnt_from_is_refused_in_words",
    "classifiers_one_label": "test_what_cannot_be_learnt_from_is_refused_in_words",
    "classifiers_one_label_sample_weights": "test_what_cannot_be_learnt_from_is_refused_in_words",
    "estimators_nan_inf": "test_what_cannot_be_learnt_from_is_refused_in_words",
    "supervised_y_no_nan": "test_what_cannot_be_learnt_from_is_refused_in_words",
    "requires_y_none": "test_what_cannot_be_learnt_from_is_refused_in_words",
    "fit1d": "test_texts_come_in_any_form",
    "fit2d_1feature": "test_texts_come_in_any_form",
    "fit2d_1sample": "test_what_cannot_be_learnt_from_is_refused_in_words",
    "supervised_y_2d": "test_texts_come_in_any_form",
    "pipeline_consistency": "test_estimator.py: test_cross_validation_and_a_pipeline",
    "estimators_pickle": "test_a_copy_and_a_second_fit_predict_the_same",
    "fit_idempotent": "test_a_copy_and_a_second_fit_predict_the_same",
    "classifiers_classes": "test_estimator.py: test_classes_come_back_as_they_were_given",
    "classifiers_train": "test_scores_agree_with_predictions",
    "decision_proba_consistency": "test_scores_agree_with_predictions",
    "class_weight_classifiers": "test_estimator.py: test_class_weights",
    "methods_sample_order_invariance": "test_a_texts_outputs_depend_on_no_other",
    "methods_subset_invariance": "test_a_texts_outputs_depend_on_no_other",
    "dict_unchanged": "test_a_texts_outputs_depend_on_no_other",
    "fit_check_is_fitted": "test_nothing_works_before_fit",
}
"""Checks whose data are rows of numbers: their likes for texts, by the test that has them."""
NUMBERS = "texts are no matrix of numbers"
LEFT_OUT = {
    "readonly_memmap_input": "a list of texts is no array that could be read-only", "estimators_dtypes": NUMBERS,
    "positive_only_tag_during_fit": NUMBERS, "complex_data": NUMBERS, "sparsify_coefficients": "no coefficients",
    "sample_weight_equivalence_on_sparse_data": NUMBERS, "estimator_sparse_tag": NUMBERS,
    "estimator_sparse_array": NUMBERS, "estimator_sparse_matrix": NUMBERS, "array_api_input": NUMBERS,
    "array_api_mixed_inputs": NUMBERS, "array_api_same_namespace": NUMBERS, "f_contiguous_array_estimator": NUMBERS,
    "estimators_partial_fit_n_features": "no partial_fit: the method's phases each read all texts",
    "classifiers_regression_target": "fractions are numbers to predict: task 'auto' makes it a regression",
    "non_transformer_estimators_n_iter": "no max_iter: a recipe's epochs are done to the end",
    "class_weight_balanced_linear_classifier": "not linear",
    "fit2d_predict1d": "a list of texts is one-dimensional, and a DataFrame's column is too",
}
"""Checks that have no meaning here, and why."""


@pytest.fixture(scope="module")
def model():
    return able().fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def framed():
    return tiny().fit(pd.DataFrame({"title": TEXTS, "body": TEXTS, "mood": LABELS}), text=["title", "body"],
                      label="mood")


@pytest.mark.parametrize("check", PLAIN)
def test_scikit_learns_own_checks_pass(check):
    found = getattr(estimator_checks, f"check_estimator_{check}", getattr(estimator_checks, f"check_{check}", None))
    if found is None:
        pytest.skip(f"scikit-learn {sklearn.__version__} has no such check")
    found("ULMFiT", ULMFiT())


@pytest.mark.skipif(not hasattr(estimator_checks, "estimator_checks_generator"), reason="an older scikit-learn")
def test_every_check_of_scikit_learn_is_run_or_left_out_for_a_reason():
    checks = estimator_checks.estimator_checks_generator(LogisticRegression(), legacy=True)
    names = {getattr(check, "func", check).__name__.removeprefix("check_") for _, check in checks}
    plain = {name if f"check_{name}" in dir(estimator_checks) else f"estimator_{name}" for name in PLAIN}
    assert names - plain - set(OURS) - set(LEFT_OUT) == set()
    here, beside = globals(), Path(__file__).with_name("test_estimator.py").read_text(encoding="utf-8")
    for test in OURS.values():
        file, _, name = test.rpartition(": ")
        assert f"def {name}" in beside if file else name in here, test


def test_fit_and_score_take_y_second():
    for method in (ULMFiT.fit, ULMFiT.score):
        assert list(inspect.signature(method).parameters)[1:3] == ["X", "y"]


def test_fit_leaves_arguments_and_data_as_they_are():
    estimator, texts, labels, weights = tiny(settings={"classifier.bs": 8}), list(TEXTS), list(LABELS), np.ones(48)
    before = json.dumps(estimator.get_params(), default=str)
    assert estimator.fit(texts, labels, sample_weight=weights) is estimator
    assert json.dumps(estimator.get_params(), default=str) == before
    assert (texts, labels) == (TEXTS, LABELS) and (weights == 1).all()


def test_fit_adds_nothing_public_but_what_ends_in_an_underscore(model):
    added = set(vars(model)) - set(model.get_params())
    assert [name for name in added if not name.startswith("_") and not name.endswith("_")] == []


def test_nothing_works_before_fit(model):
    estimator = tiny()
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises((NotFittedError, AttributeError)):
            getattr(estimator, method)(TEXTS)
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    check_is_fitted(model)


def test_the_columns_that_are_read_are_its_features(model, framed, tmp_path):
    assert framed.n_features_in_ == 2 and framed.feature_names_in_.tolist() == ["title", "body"]
    assert ULMFiT.load(framed.save(tmp_path / "m")).feature_names_in_.tolist() == ["title", "body"]
    assert not hasattr(model, "n_features_in_")  # texts in a list have no columns


def test_texts_come_in_any_form(model):
    expected = model.predict_proba(TEXTS[:6])
    series = pd.Series(TEXTS[:6], index=list("fedcba"))
    for given in (np.array(TEXTS[:6]), np.array(TEXTS[:6], dtype=object)[:, None], series, series.to_frame("t"),
                  tuple(TEXTS[:6])):
        np.testing.assert_array_equal(model.predict_proba(given), expected)
    assert model.score(TEXTS[:6], np.array(LABELS[:6])[:, None]) == model.score(TEXTS[:6], LABELS[:6])


@pytest.mark.parametrize("texts, labels, said", [
    ([], [], "found none|at least"), (TEXTS, ["good"] * 48, "one class only"), (TEXTS[:1], LABELS[:1], "one class"),
    ([*TEXTS[:47], ""], LABELS, "empty"), ([*TEXTS[:47], float("nan")], LABELS, "empty"),
    (TEXTS, [*LABELS[:47], None], "no label"), (TEXTS, None, "expected labels"), (TEXTS, LABELS[:5], "one label for"),
])
def test_what_cannot_be_learnt_from_is_refused_in_words(texts, labels, said):
    with pytest.raises(ValueError, match=said):
        tiny().fit(texts, labels)


def test_a_copy_and_a_second_fit_predict_the_same(model):
    expected = model.predict_proba(TEXTS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(TEXTS), expected)
    np.testing.assert_array_equal(clone(model).fit(TEXTS, LABELS).predict_proba(TEXTS), expected)


def test_a_texts_outputs_depend_on_no_other(model):
    before, order = set(vars(model)), np.random.default_rng(0).permutation(48)
    for method in (model.predict_proba, model.decision_function, model.predict_log_proba):
        whole = method(TEXTS)
        np.testing.assert_allclose(method([TEXTS[i] for i in order]), whole[order], atol=1e-5)
        np.testing.assert_allclose(np.concatenate([method([text]) for text in TEXTS[:5]]), whole[:5], atol=1e-5)
    assert set(vars(model)) == before


# ------------------------------------------------------------------------------------------------ scores and log-odds
def test_scores_agree_with_predictions(model):
    scores, probs = model.decision_function(TEXTS), model.predict_proba(TEXTS)
    assert scores.shape == (48,) and ((scores > 0) == (model.predict(TEXTS) == "good")).all()
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), probs[:, 1], rtol=1e-5)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(TEXTS)), probs, rtol=1e-9)
    three = tiny().fit(TEXTS, [f"{label}{i % 3 == 0}" for i, label in enumerate(LABELS)])
    assert (three.decision_function(TEXTS).argmax(1) == three.predict_proba(TEXTS).argmax(1)).all()
    several = tiny().fit(TEXTS, [[label, "long"] if len(text) > 60 else [label] for text, label in zip(TEXTS, LABELS)])
    assert ((several.decision_function(TEXTS) > 0) == (several.predict_proba(TEXTS) > 0.5)).all()


def test_a_certain_model_has_finite_scores(model, monkeypatch):
    monkeypatch.setattr(model, "_outputs", lambda *_, **__: np.array([[0.0, 1.0], [1.0, 0.0]]))
    scores = model.decision_function(["a", "b"])
    assert np.isfinite(scores).all() and scores[0] == -scores[1] > 30
    assert np.isfinite(model.predict_log_proba(["a", "b"])).all()


def test_numbers_have_neither(monkeypatch):
    estimator = tiny(task="regression")
    assert not hasattr(estimator, "decision_function") and not hasattr(estimator, "predict_log_proba")


# -------------------------------------------------------------------------------------------------------------- weights
def test_a_text_of_weight_two_counts_as_two_and_one_of_none_not_at_all():
    from some_ids import some_ids, tiny_classifier

    from ulmfit_fastai import classifier_dataloaders
    from ulmfit_fastai.training.sample_weights import SampleWeights

    rows = range(8)
    dls = classifier_dataloaders(some_ids([9] * 8), list("abababab"), classes=["a", "b"], train=rows, valid=rows, bs=8,
                                 device="cpu")
    weights = np.array([2.0, 1, 0, 1, 1, 1, 1, 1])
    learn = tiny_classifier(dls)
    callback = SampleWeights(weights)
    callback.learn, learn.dl, learn.training = learn, dls.train, True
    (learn.xb, learn.yb), order = [(part,) for part in next(iter(dls.train))], dls.train.batch
    learn.pred = torch.randn(8, 2)
    callback.after_loss()
    each = torch.nn.functional.cross_entropy(learn.pred, learn.yb[0], reduction="none")
    assert float(learn.loss) == pytest.approx(float((each * torch.tensor(weights[order])).sum() / 8), rel=1e-5)
    learn.training, learn.loss = False, None
    callback.after_loss()
    assert learn.loss is None  # what is held out is measured without


def test_a_class_without_weight_is_not_learnt():
    weights = np.array([float(label == "good") for label in LABELS])
    assert set(able().fit(TEXTS, LABELS, sample_weight=weights).predict(TEXTS)) == {"good"}


def test_weights_come_in_any_form():
    weights = [1, 2.5, *[1] * 46]
    for given in (weights, tuple(weights), np.array(weights), pd.Series(weights, index=range(48, 0, -1))):
        assert checked_weights(given, 48).tolist() == weights


@pytest.mark.parametrize("weights, said", [
    (np.zeros(48), "none above 0"), (np.ones(47), "one weight for each of the 48"), (np.ones((48, 1)), r"\(48, 1\)"),
    ([-1, *[1] * 47], "found -1"), ([float("nan"), *[1] * 47], "found nan"), (["a"] * 48, "expected numbers"),
])
def test_wrong_weights_are_refused(weights, said):
    with pytest.raises(ValueError, match=said):
        tiny().fit(TEXTS, LABELS, sample_weight=weights)


def test_weights_stay_with_their_texts_where_rows_are_left_out(tmp_path):
    texts, labels = ["", *TEXTS[:7]], ["good", None, *LABELS[1:7]]
    weights = np.arange(8.0)
    estimator = tiny(drop_missing=True).fit(texts, labels, sample_weight=weights, unlabelled=TEXTS[7:20])
    dataset, _ = estimator._data
    found = weights_of_rows(weights, texts, None, dataset)
    assert found[:7].tolist() == weights[1:].tolist() and len(found) == len(dataset) == 20


def test_a_folder_of_other_weights_is_refused(tmp_path):
    estimator = tiny(out=tmp_path / "run").fit(TEXTS, LABELS, sample_weight=np.arange(48))
    estimator.fit(TEXTS, LABELS, sample_weight=np.arange(48))
    for other in (None, np.ones(48)):
        with pytest.raises(RunMismatch, match="sample_weight"):
            estimator.fit(TEXTS, LABELS, sample_weight=other)


def test_score_weighs_texts_as_scikit_learn_does(model, framed):
    weights = np.random.default_rng(0).random(48)
    labels = ["good"] * 24 + LABELS[24:]
    assert model.score(TEXTS, labels, sample_weight=weights) == pytest.approx(
        accuracy_score(labels, model.predict(TEXTS), sample_weight=weights))
    numbers = np.linspace(0.5, 9.25, 48)
    regression = tiny(task="regression").fit(TEXTS, numbers)
    assert regression.score(TEXTS, numbers, sample_weight=weights) == pytest.approx(
        r2_score(numbers, regression.predict(TEXTS), sample_weight=weights))


# ------------------------------------------------------------------------------------------------- one language model
@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return tiny(lm_epochs=None).fit_language_model(TEXTS, tmp_path_factory.mktemp("lm") / "lm")


def test_one_language_model_serves_a_search_and_a_cross_validation(lm, monkeypatch):
    from ulmfit_fastai.training.phases import Run

    monkeypatch.setattr(Run, "fine_tune", lambda *_: pytest.fail("fine-tuned a language model"))
    search = GridSearchCV(tiny(lm=lm, lm_epochs=None), {"epochs": [1, 2]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_estimator_.recipe_.lm is None
    assert len(cross_val_score(tiny(lm=str(lm), lm_epochs=None), TEXTS, LABELS, cv=3)) == 3


def test_the_language_model_reads_no_label_and_says_what_it_read(lm):
    run = json.loads((lm / "run.json").read_text())
    assert run["data"]["counts"] == {"train": 0, "test": 0, "unsup": 48} and run["data"]["classes"] == []
    assert run["status"] == "finished" and not list(lm.glob("classifier*"))


def test_the_classifier_starts_from_that_very_language_model(lm):
    fitted = tiny(lm=lm, lm_epochs=None, settings={"classifier.stages.-1.lr": 1e-30}, epochs=1)
    fitted.set_params(settings={f"classifier.stages.{i}.lr": 1e-30 for i in range(-4, 0)}).fit(TEXTS[:20], LABELS[:20])
    from safetensors.torch import load_file

    saved = load_file(lm / "lm_forward.safetensors")
    key = next(name for name in saved if name.endswith("encoder.weight"))
    own = fitted.model_.models["forward"][0].module.encoder.weight.detach()
    torch.testing.assert_close(own, saved[key], atol=1e-6, rtol=0)
    assert list(fitted.model_.vocab) == json.loads((lm / "vocab.json").read_text())["words"]


def test_a_language_model_and_other_starts_are_not_both_given(lm, tmp_path):
    for twice in ({"weights": "none"}, {"lm_epochs": 3}):
        with pytest.raises(ValueError, match=f"{next(iter(twice))}: no effect"):
            tiny(lm=lm, **{"lm_epochs": None, **twice}).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="expected the folder of a fine-tuned language model"):
        tiny(lm=tmp_path, lm_epochs=None).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="no language model to fine-tune"):
        tiny(lm_epochs=0).fit_language_model(TEXTS, tmp_path / "other")


# ---------------------------------------------------------------------------------------------------------------- files
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_fit_leaves_no_file_open(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        tiny(out=tmp_path / "run").fit(TEXTS, LABELS)
    left = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")]
    assert [path for path in left if str(tmp_path) in path] == []
