"""The presets stay what they are: a changed number would make every kept run another run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ulmfit_fastai import paper
from ulmfit_fastai.recipe.presets import PRESETS, QUICK, preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.texts.tasks import TASKS

RESULTS = Path(__file__).parents[2] / "data" / "results"
RUNS = sorted(RESULTS.glob("*/run.json"))
TABLES = sorted(path for name in ("trec6-tables", "imdb-lowshot", "imdb-lowshot-both")
                for path in (RESULTS / name).glob("*.json"))
ORDER = ("imdb", "trec6", "ag", "dbpedia", "yelp-bi", "yelp-full")
HASHES = {
    "paper": "0ab32c29479ef329 d8f123e035451780 db04031d25a4c41e "
             "d8f123e035451780 d8f123e035451780 d8f123e035451780",
    "paper-wt103": "f6007ff0f6f90c29 ac810e5b0b9f326c 035c90cba4843d33 "
                   "ac810e5b0b9f326c ac810e5b0b9f326c ac810e5b0b9f326c",
    "scripts": "17fe6b915c1e9ec5 048983f4148d0800 2adac02709170811 "
               "048983f4148d0800 048983f4148d0800 048983f4148d0800",
    "fastai": "bd89c0849f879b1b",  # whatever the task
    "paper-small": "7f11cbf77d4e2ec5 0119a507db24f34e 028d46444252a067 "
                   "7f11cbf77d4e2ec5 7f11cbf77d4e2ec5 7f11cbf77d4e2ec5",
    "quick": "b2ae553d1807d09f 03d7b9b2f6adc2a1 df62259dbbe88298 "
             "b2ae553d1807d09f b2ae553d1807d09f b2ae553d1807d09f",
    "few-labels": "66e042b103197e5d 465be45fc1984d26 fff89f6ac20511e2 "
                  "66e042b103197e5d 66e042b103197e5d 66e042b103197e5d",
    "demo": "5e89ff4564e6b02d",  # whatever the task
    "tiny": "6f324404646b95fd",  # whatever the task
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_hash_of_every_preset_is_for_every_task_what_it_was(name):
    expected = HASHES[name].split()
    assert [preset(name, task).hash for task in ORDER] == (expected if len(expected) > 1 else expected * len(ORDER))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
def test_the_recipe_of_every_committed_run_has_the_hash_that_the_run_recorded(path):
    run = json.loads(path.read_text(encoding="utf-8"))
    assert Recipe.from_dict(run["recipe"]).hash == run["recipe_hash"]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_full_method_of_every_committed_table_has_the_hash_that_the_table_recorded(path):
    found = json.loads(path.read_text(encoding="utf-8"))["record"]["full_method"]
    assert Recipe.from_dict(found["recipe"]).hash == found["hash"]


def test_a_number_of_a_small_preset_cannot_be_misspelt():
    with pytest.raises(TypeError, match="lm_valid_dcos"):
        dataclasses.replace(QUICK, lm_valid_dcos=500)


def test_the_sizes_of_the_data_sets_are_those_of_table_1():
    for task in TASKS.values():
        known = paper.TASKS[task.name]
        assert task.counts == {"train": known.train, "test": known.test, "unsup": known.unlabelled}
        assert len(task.classes) == known.classes
