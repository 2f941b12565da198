"""One function finds every recipe: by name, by a JSON file, by a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ulmfit_fastai.recipe.find import find_recipe, is_name, same_recipe
from ulmfit_fastai.recipe.presets import PRESETS, preset

TINY = preset("tiny", seed=3)


@pytest.mark.parametrize("name", [*PRESETS, "ulmfit", "table7.last", "lowshot.supervised.100"])
def test_a_name_is_a_name_and_has_a_recipe(name):
    assert is_name(name) and find_recipe(name, "trec6").name in (name, "ulmfit")


def test_a_recipe_is_taken_as_it_is():
    assert find_recipe(TINY) is TINY and not is_name(TINY)


def test_a_json_file_and_a_run_folder_hold_a_recipe(tmp_path):
    TINY.save(tmp_path / "my.json")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"recipe": TINY.to_dict()}))
    for named in (tmp_path / "my.json", str(tmp_path / "my.json"), tmp_path / "run", str(tmp_path / "run")):
        assert find_recipe(named, "trec6") == TINY and not is_name(named)


def test_a_name_comes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "run.json").write_text(json.dumps({"recipe": TINY.to_dict()}))
    monkeypatch.chdir(tmp_path)
    assert find_recipe("quick") == preset("quick")
    assert find_recipe("./quick") == TINY == find_recipe(Path("quick"))


@pytest.mark.parametrize(("named", "said"), [
    ("my.json", "there is no recipe my.json: expected a JSON file, a run folder, or a name"),
    ("runs/there", "there is no recipe runs/there"), ("quik", "'quik'; did you mean quick"),
    ("grand", "there is no recipe 'grand'; expected one of paper"), ("empty", "holds no run.json"),
    ("broken.json", "broken.json is damaged or half written"), ("list.json", "list.json holds no recipe: recipe is "),
    ("typo.json", "typo.json holds no recipe: sed: no such field"), ("run", "run.json holds no recipe: it is not the"),
    ("lowshot.supervised.ten", "there is no recipe"), ("table7.lst", "there is no recipe 'table7.lst'")])
def test_what_is_no_recipe_is_named(named, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "run"):
        (tmp_path / folder).mkdir()
    (tmp_path / "run" / "run.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "typo.json").write_text(TINY.to_json().replace('"seed"', '"sed"'))
    with pytest.raises(ValueError, match=said):
        find_recipe(named)


def test_recorded_recipes_are_the_same_whatever_their_names_and_the_fields_that_came_later():
    ours, theirs = TINY.to_dict(), {**TINY.to_dict(), "name": "mine"}
    del theirs["lm_seed"], theirs["class_weights"]
    assert same_recipe(ours, theirs) is True
    assert same_recipe(ours, {**theirs, "seed": 4}) is False
    assert same_recipe(ours, {"size": "small"}) is None and same_recipe(None, ours) is None
