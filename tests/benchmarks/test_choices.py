"""Settings are compared on texts that no way of training has learnt from, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import choices
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training.runs import run


@pytest.fixture(scope="module")
def reviews():
    return synthetic_reviews(n_train=120, n_test=10, n_unsup=60, seed=3)


@pytest.fixture
def base():
    return preset("tiny", valid_fraction=choices.VALID_FRACTION)


def test_differences_are_paired():
    found = choices.compared({"before": np.array([1.0, 2.0, 6.0]), "after": np.array([0.5, 1.5, 5.5])})
    assert [one["difference"] for one in found] == [0.0, -0.5] and [one["n"] for one in found] == [3, 3]
    assert found[1]["standard_error"] == pytest.approx(0.0)  # though the texts differ far more than the ways


def test_language_models_are_measured_on_the_texts_held_out_from_all(reviews, base, tmp_path, monkeypatch):
    ways = {"slow": choices.Fitting(8, 1e-5, 0.1, 0.0, 0.0), "fast": choices.Fitting(8, 1e-2, 0.1, 0.0, 0.0)}
    monkeypatch.setattr(choices, "BLOCK", 6)
    slow, fast = choices.language_models(base, reviews, tmp_path, docs=100, fittings=ways)
    assert (slow["way"], fast["way"], slow["n"]) == ("slow", "fast", 24 // 6)
    assert fast["loss"] < slow["loss"] and fast["difference"] == pytest.approx(fast["loss"] - slow["loss"])
    record = Result.load(tmp_path / "lm-1").run
    recipe = record["recipe"]
    assert recipe["lm"]["bs"] == 8 and recipe["model"]["lm_dropouts"]["embed"] == pytest.approx(0.002)
    assert record["data"]["splits"]["valid"] == 24


def test_classifiers_share_a_language_model_and_differ_in_their_training(reviews, base, tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "BLOCK", 6)
    choices.language_models(base, reviews, tmp_path, 100, {"one": choices.Fitting(8, 1e-2, 0.1, 0.0, 0.0)})
    base = base.replace(**{"classifier.stages": preset("quick").classifier.stages})
    ways = {"as it is": choices.Training(), "otherwise": choices.Training(2.6, 1e-3, 2, 1.0)}
    found = choices.classifiers(base, reviews, tmp_path, tmp_path / "lm-0", ways)
    assert [one["way"] for one in found] == ["as it is", "otherwise"]
    result = Result.load(tmp_path / "classifier-otherwise")
    last = result.recipe.classifier.stages[-1]
    assert (last.discriminative, last.lr, last.epochs) == (2.6, 1e-3, 2)
    assert result.recipe.model.classifier_dropouts.input == pytest.approx(0.4)
    assert Result.load(tmp_path / "classifier-as-it-is").recipe.classifier == base.classifier
    assert result.run["recipe"]["evaluate"] == "validation" and result.run["recipe"]["lm"] is None
    assert found[1]["loss"] == pytest.approx(choices.text_losses(tmp_path / "classifier-otherwise").mean())
    assert found[1]["error"] == result.error and found[1]["n"] == 24


def test_short_texts_are_read_as_often_as_the_preset_for_few_labels_has_it(reviews):
    base = preset("few-labels", "custom", weights="none", valid_fraction=choices.VALID_FRACTION)
    found = choices.for_few_labels(reviews, base, labels=20)
    assert found.n_labels == 20 and found.lm.epochs > base.lm.epochs
    assert choices.Fitting(32, 5e-3, 0.2, 2.0, 1.0).of(found).lm.epochs == found.lm.epochs
    assert choices.Fitting(32, 5e-3, 0.2, 2.0, 1.0, 4).of(found).lm.epochs == 4


def test_few_labels_are_drawn_anew_and_share_a_language_model(reviews, base, tmp_path):
    language_model = run(base, reviews, tmp_path / "lm", until="lm", plan=False, progress=False)
    ways = {"as it is": choices.Training(), "head first": choices.Training(1.0, steps=((2, 2e-2), (1, 1e-3)))}
    few = base.replace(n_labels=20, evaluate="validation")
    recipes = {way: training.of(few) for way, training in ways.items()}
    found = choices.side_by_side(recipes, reviews, tmp_path, language_model, range(2))
    assert [one["n"] for one in found] == [48, 48] and found[1]["difference"] != 0
    runs = {(way, seed): Result.load(tmp_path / f"20-{way}" / f"seed-{seed}")
            for way in ("as-it-is", "head-first") for seed in (0, 1)}
    assert [each.recipe.seed for each in runs.values()] == [0, 1, 0, 1]
    stages = runs["head-first", 1].recipe.classifier.stages
    assert [(s.epochs, s.lr, s.trainable, s.discriminative) for s in stages] == [
        (2, 2e-2, (-1,), 1.0), (1, 1e-3, None, 1.0)]
    assert len({each.run["digests"]["lm_forward.safetensors"] for each in runs.values()}) == 1
    assert found[1]["errors"] == [runs["head-first", seed].error for seed in (0, 1)]


def test_a_language_model_brings_its_own_recipe(reviews, base, tmp_path):
    made = base.replace(**{"lm.max_docs": 90, "min_freq": 2, "directions": ("backward", "forward")})
    language_model = run(made, reviews, tmp_path / "lm", until="lm", plan=False, progress=False)
    recipe = choices.on_language_model(language_model, 500, "imdb")
    assert recipe.lm == made.lm and recipe.min_freq == 2 and recipe.valid_fraction == made.valid_fraction
    assert recipe.classifier == preset("few-labels").classifier and recipe.directions == ("forward",)
    assert (recipe.n_labels, recipe.evaluate) == (500, "validation")


def test_the_preset_for_few_labels_is_the_first_of_the_ways_compared():
    recipe = choices.recipe_for(500)
    first = next(iter(choices.TRAININGS_FEW.values()))
    assert first.of(recipe).classifier == recipe.classifier == preset("few-labels").classifier


def test_the_first_way_is_always_there():
    assert [*choices.asked(choices.TRAININGS_FEW, ["1e-3, 6 epochs"])] == ["5e-3, 15 epochs", "1e-3, 6 epochs"]
