"""Adversarial training is compared on one language model, the same labels and the same held-out texts."""

from __future__ import annotations

import pytest

from benchmarks import adversarial, choices
from ulmfit_fastai._files import read_json
from ulmfit_fastai.recipe.parts import Adversarial
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training.runs import run


@pytest.fixture(scope="module")
def reviews():
    return synthetic_reviews(n_train=80, n_test=10, n_unsup=60, seed=3)


@pytest.fixture(scope="module")
def language_model(reviews, tmp_path_factory):
    return run(preset("tiny"), reviews, tmp_path_factory.mktemp("lm") / "lm", until="lm", plan=False, progress=False)


def test_ways_differ_in_nothing_else(reviews, language_model, tmp_path):
    base = preset("tiny", n_labels=20, evaluate="validation")
    ways = {"without": Adversarial(), "with": Adversarial(weight=1.0, epsilon=3.0)}
    without, beyond = adversarial.choose(ways, base, reviews, tmp_path, language_model, range(2))
    assert (without["way"], beyond["way"], without["n"]) == ("without", "with", 16)  # of two draws
    assert without["loss"] != beyond["loss"] and beyond["adversarial"]["epsilon"] == 3.0
    runs = [Result.load(tmp_path / f"20-{way}" / f"seed-{seed}").run for way in ("without", "with") for seed in (0, 1)]
    assert len({run["digests"]["lm_forward.safetensors"] for run in runs}) == 1
    assert [run["recipe"]["seed"] for run in runs] == [0, 1, 0, 1]
    assert without["errors"] == [run["metrics"]["validation"]["forward"]["error"] for run in runs[:2]]


def test_batches_are_timed_beside_each_other(reviews, language_model):
    found = {record["way"]: record for record in adversarial.cost(preset("tiny"), reviews, language_model, batches=2,
                                                                  repeats=2)}
    assert found["without"]["ratio"] == 1.0 and len(found["both"]["seconds"]) == 2
    assert found["both"]["ratio"] > found["adversarial"]["ratio"] > 1.2  # each is more work than the one before


def test_the_classifier_is_that_of_the_preset_for_so_many_labels(language_model):
    few, every = (choices.on_language_model(language_model, labels, "imdb") for labels in (500, None))
    assert few.classifier == preset("few-labels").classifier and every.classifier == preset("quick").classifier
    assert few.lm == every.lm == preset("tiny").lm


def test_both_ways_take_what_is_asked_for(reviews, language_model, tmp_path, monkeypatch):
    monkeypatch.setattr(adversarial, "dataset_of", lambda *_, **__: reviews)
    adversarial.main(["choose", "--data", "reviews", "--language-model", str(language_model), "--labels", "20",
                      "--ways", "adversarial, 5", "--set", "classifier.stages.0.epochs=2", "--set",
                      "classifier.stages.0.lr=1e-3", "--out", str(tmp_path), "--name", "two", "--results",
                      str(tmp_path / "results")])
    found = read_json(tmp_path / "results" / "two.json")
    assert [record["way"] for record in found["records"]] == ["without", "adversarial, 5"]
    stages = [Result.load(tmp_path / "imdb" / f"20-{way}" / "seed-0").recipe.classifier.stages
              for way in ("without", "adversarial-5")]
    assert [[(stage.epochs, stage.lr) for stage in each] for each in stages] == [[(2, 1e-3)], [(2, 1e-3)]]
