"""The comparison of batch norm's statistics: on one training, text by text, with language models that are given."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import batch_norm
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training.runs import run


@pytest.fixture(scope="module")
def reviews():
    return synthetic_reviews(n_train=80, n_test=10, n_unsup=40, seed=3)


@pytest.fixture
def recipe():
    tiny = preset("tiny", directions=("forward", "backward"), evaluate="validation", valid_fraction=0.25)
    return replace(tiny, classifier=replace(tiny.classifier, precise_batch_norm=60, stages=tiny.classifier.stages[2:]))


def test_the_same_weights_are_measured_before_and_after(reviews, recipe, tmp_path):
    found = batch_norm.measure(reviews, tmp_path, recipe, progress=False)
    assert list(found) == ["forward", "backward"]
    for direction, epochs in found.items():
        assert len(epochs) == recipe.classifier.epochs and epochs[-1]["texts"] == 20
        for one in epochs:
            assert one["difference"] == pytest.approx(one["precise"]["loss"] - one["running"]["loss"])
            assert one["difference"] != 0
        history = (tmp_path / direction / "history.csv").read_text().splitlines()
        valid = history[0].split(",").index("valid_loss")  # what training itself measured, with the precise ones
        assert float(history[-1].split(",")[valid]) == pytest.approx(epochs[-1]["precise"]["loss"], abs=1e-4)


def test_language_models_of_other_runs_are_taken(reviews, recipe, tmp_path):
    own = {}
    for direction in recipe.directions:
        own[direction] = run(replace(recipe, directions=(direction,)), reviews, tmp_path / f"lm-{direction}",
                             until="lm", progress=False)
    batch_norm.measure(reviews, tmp_path / "bn", recipe, list(own.values()), progress=False)
    for direction in recipe.directions:
        record = json.loads((tmp_path / "bn" / direction / "run.json").read_text())
        assert record["language_model_of"] == {direction: f"../../lm-{direction}"}


def test_a_direction_that_was_measured_alone_is_not_made_again(reviews, recipe, tmp_path):
    one = batch_norm.measure(reviews, tmp_path, replace(recipe, directions=("forward",)), progress=False)
    made = (tmp_path / "forward" / "run.json").stat().st_mtime_ns
    both = batch_norm.measure(reviews, tmp_path, recipe, progress=False)
    assert list(both) == ["forward", "backward"] and both["forward"] == one["forward"]
    assert (tmp_path / "forward" / "run.json").stat().st_mtime_ns == made
