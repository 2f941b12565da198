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
    "paper-small": "8eda1f0b7db726e7 a8c8fd3dbe468f65 aaddd48e94494f5e "
                   "8eda1f0b7db726e7 8eda1f0b7db726e7 8eda1f0b7db726e7",
    "quick": "106d5a40bbf04346 14add93c497df2d3 1b87fa243c5b12a8 "
             "c4d0867136df2b9f c4d0867136df2b9f c4d0867136df2b9f",
    "few-labels": "8511d8604fa9aef7 16d263c2e1b4f103 1c9f1a565e5fd306 "
                  "8511d8604fa9aef7 8511d8604fa9aef7 8511d8604fa9aef7",
    "quick-adversarial": "93ff3e18fd52830d 261c0478b2b53dd8 4118368c6145f8c0 "
                         "0e95f787501dab4e 0e95f787501dab4e 0e95f787501dab4e",
    "night": "c1a022a6062d21ef",  # whatever the task
    "night-adversarial": "ee374d4d0df48ffe",  # whatever the task
    "demo": "ec02607db8bf7583",  # whatever the task
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
