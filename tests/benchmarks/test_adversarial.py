"""Adversarial training is compared on one language model, the same labels and the same held-out texts."""

from __future__ import annotations

import pytest

from benchmarks import adversarial
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


def test_few_labels_are_trained_on_as_the_preset_for_them_has_it():
    assert adversarial.recipe_for(500).classifier == preset("few-labels").classifier
    assert adversarial.recipe_for(None).classifier == preset("quick").classifier
    assert adversarial.recipe_for(500).lm == preset("quick").lm
