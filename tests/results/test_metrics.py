"""Scores of the three kinds of labels, by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ulmfit_fastai.results.metrics import (
    confusion_counts,
    error_metrics,
    mean_over_directions,
    metrics_of,
    multilabel_metrics,
    regression_metrics,
    scores_per_class,
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def by_hand(truth: np.ndarray, predicted: np.ndarray) -> dict[str, list[float]]:
    """Scores of each column of 0 and 1."""
    true_positives, found, support = (truth & predicted).sum(0), predicted.sum(0), truth.sum(0)
    with np.errstate(invalid="ignore"):
        return {"precision": true_positives / found, "recall": true_positives / support,
                "f1": 2 * true_positives / (found + support), "n": support}


@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_scores_of_texts_with_several_classes_are_those_of_each_class(n_classes):
    rng = np.random.default_rng(0)
    truth, outputs = rng.random((40, n_classes)) < 0.3, rng.random((40, n_classes))
    truth[:, -1] = False if n_classes > 1 else truth[:, -1]  # a class that no text has
    expected = by_hand(truth, outputs >= 0.5)
    found = scores_per_class(truth, outputs >= 0.5, n_classes=n_classes)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, name)
    metrics = multilabel_metrics(outputs, truth)
    true_positives = (truth & (outputs >= 0.5)).sum()
    assert metrics["macro_f1"] == np.nanmean(expected["f1"])
    assert metrics["micro_f1"] == 2 * true_positives / (truth.sum() + (outputs >= 0.5).sum())
    assert metrics["wrong"] == (truth != (outputs >= 0.5)).any(1).sum() and metrics["n"] == 40


@pytest.mark.parametrize("n_classes", [1, 3])
def test_no_class_at_all_is_a_score_of_nothing(n_classes):
    nothing = np.zeros((4, n_classes))
    metrics = multilabel_metrics(nothing, nothing)
    assert (metrics["error"], metrics["macro_f1"], metrics["micro_f1"]) == (0, 0, 0)
    assert np.isnan(scores_per_class(nothing > 0, nothing > 0, n_classes=n_classes)["f1"]).all()


def test_a_class_that_is_neither_there_nor_predicted_is_no_part_of_macro_f1():
    probs = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.6, 0.4, 0]])
    metrics = error_metrics(probs, [0, 1, 1])
    assert metrics == {"error": 100 / 3, "n": 3, "wrong": 1, "macro_f1": pytest.approx(2 / 3, abs=1e-15),
                       "loss": pytest.approx(-np.log([0.9, 0.8, 0.4]).mean(), abs=1e-15)}
    scores = scores_per_class(np.array([0, 1, 1]), probs.argmax(1), n_classes=3)
    np.testing.assert_array_equal(scores["precision"], [0.5, 1, np.nan])
    np.testing.assert_array_equal(scores["recall"], [1, 0.5, np.nan])
    np.testing.assert_array_equal(scores["n"], [1, 2, 0])


def test_a_probability_of_nothing_in_float32_is_a_finite_loss():
    assert error_metrics(np.array([[0, 1]], np.float32), [0])["loss"] == pytest.approx(-np.log(1e-12))


def test_confusion_counts_have_labels_in_rows_and_every_class():
    counts = confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), n_classes=3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]] and counts.dtype == np.int64


def test_numbers_are_scored_in_their_unit():
    metrics = regression_metrics(np.array([1, 2, 4], np.float32), np.array([1.0, 3, 5]))
    assert metrics == {"mae": pytest.approx(2 / 3), "rmse": pytest.approx(np.sqrt(2 / 3)),
                       "r2": pytest.approx(0.75), "n": 3}


@pytest.mark.parametrize("truth", [[2.0, 2.0], [2.0]])
def test_r2_of_a_truth_that_never_varies_is_none(truth):
    assert regression_metrics(np.arange(float(len(truth))), np.array(truth))["r2"] is None


def test_each_kind_of_label_has_its_own_metrics():
    outputs = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert "mae" in metrics_of("regression", outputs[:, :1], np.array([0.0, 1.0]))
    assert "micro_f1" in metrics_of("multi", outputs, np.array([[0, 1], [1, 1]]))
    assert set(metrics_of("single", outputs, np.array([1, 0]))) == {"error", "n", "wrong", "macro_f1", "loss"}
    both = {"forward": outputs, "backward": outputs[::-1]}
    for kind in ("single", "multi", "regression"):
        np.testing.assert_array_equal(mean_over_directions(both, kind), [[0.375, 0.625], [0.375, 0.625]])
