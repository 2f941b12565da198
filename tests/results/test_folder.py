"""A run folder knows its own run: by its recipe, whatever rule the recorded hash was made by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.folder import RunFolder, RunMismatch
from ulmfit_fastai.training.sharing import is_finished

RUNS = sorted((Path(__file__).parents[2] / "data" / "results").glob("*/run.json"))
HEADER = {"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}}


def kept(tmp_path: Path, path: Path, **changes) -> dict:
    """A copy of a committed run.json in `tmp_path`, with other values."""
    run = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    (tmp_path / "run.json").write_text(json.dumps(run))
    return run


def header(run: dict) -> dict:
    recipe = Recipe.from_dict(run["recipe"])
    return {"recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "data": run["data"]}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("changes", [{}, {"recipe_hash": "0123456789abcdef"}], ids=["as it is", "another rule's hash"])
def test_every_committed_run_is_taken_as_the_run_that_it_is(path, changes, tmp_path):
    run = kept(tmp_path, path, **changes)
    assert RunFolder(tmp_path).open(header(run)) is True
    assert is_finished(tmp_path, Recipe.from_dict(run["recipe"]), run["data"]["fingerprint"])


def test_a_run_from_before_a_field_there_is_now_is_taken_as_the_run_that_it_is(tmp_path):
    run = kept(tmp_path, RUNS[0])
    for later in ("lm_seed", "class_weights"):
        run["recipe"].pop(later, None)
    kept(tmp_path, RUNS[0], recipe=run["recipe"], recipe_hash="0123456789abcdef")
    assert RunFolder(tmp_path).open(header(run)) is True


def test_another_recipe_is_another_run_though_the_hashes_be_equal(tmp_path):
    run = kept(tmp_path, RUNS[0])
    other = Recipe.from_dict(run["recipe"]).replace(seed=77)
    with pytest.raises(RunMismatch, match=r"another recipe \(seed: \d+ there, 77 here\)"):
        RunFolder(tmp_path).open({**header(run), "recipe": other.to_dict()})
    assert not is_finished(tmp_path, other, run["data"]["fingerprint"])


def test_recipes_of_pretraining_are_told_apart_by_hash_or_by_their_fields(tmp_path):
    settings = {"size": "small", "wd": 0, "seed": 0}
    RunFolder(tmp_path / "run").open({**HEADER, "recipe": settings})
    RunFolder(tmp_path / "run").open({**HEADER, "recipe": {**settings, "wd": 0.0}, "recipe_hash": "b"})
    with pytest.raises(RunMismatch, match="seed: 0 there, 1 here"):
        RunFolder(tmp_path / "run").open({**HEADER, "recipe": {**settings, "seed": 1}, "recipe_hash": "c"})


def test_advice_is_worded_for_python_and_for_the_shell(tmp_path):
    shutil.copy(RUNS[0], tmp_path / "run.json")
    with pytest.raises(RunMismatch) as caught:
        RunFolder(tmp_path).open({**HEADER, "recipe": {"size": "small"}})
    assert str(caught.value).endswith("; choose another out=, or resume=False to start anew")
    assert caught.value.in_shell_words.endswith("; choose another --out, or --no-resume to start anew")
    assert caught.value.path == tmp_path
