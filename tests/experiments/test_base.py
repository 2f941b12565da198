"""What an experiment takes from a preset and its settings, and what reaches every run of it."""

from __future__ import annotations

import pytest

from ulmfit_fastai.experiments.base import base_recipe, taken
from ulmfit_fastai.experiments.epoch_curves import figure4_recipes
from ulmfit_fastai.experiments.label_points import point_cells
from ulmfit_fastai.experiments.main_results import reproduce_all
from ulmfit_fastai.experiments.reproduction import reproduce
from ulmfit_fastai.experiments.tables import table_cells
from ulmfit_fastai.recipe.ablations import ROWS
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.settings import LostSetting

TINY = preset("tiny", weights="wt103", **{"model.emb_sz": 400, "model.n_hid": 1152, "model.n_layers": 3})


def cells_of(table: str, asked: dict, **options) -> list:
    return table_cells(table, "imdb", base=base_recipe(TINY, "imdb", asked), asked=asked, **options)


@pytest.mark.parametrize("table", ROWS)
@pytest.mark.parametrize("asked", [{"valid_fraction": 0.25}, {"n_labels": 40}, {"lm_texts": "labelled"},
                                   {"classifier.early_stopping": 3}, {"classifier__bs": 8}], ids=str)
def test_what_is_taken_reaches_every_row(table, asked):
    (name, value), = asked.items()
    for cell in cells_of(table, asked):
        assert cell.recipe.replace(**asked) == cell.recipe, (cell.folder, name, value)


@pytest.mark.parametrize("table", ROWS)
def test_without_settings_the_rows_are_the_papers(table):
    assert [cell.recipe for cell in cells_of(table, {})] == [
        cell.recipe for cell in table_cells(table, "imdb", base=TINY)]
    assert taken(TINY, {}) is TINY


def test_what_a_row_takes_away_by_its_name_may_be_set_for_the_others():
    assert cells_of("table4", {"weights": "wt103"})[0].recipe.weights == "none"
    assert cells_of("table6", {"lm.bs": 8})[0].recipe.lm is None
    with pytest.raises(LostSetting, match="weights"):
        cells_of("table5", {"weights": "wt103"})  # which pretrains both
    with pytest.raises(LostSetting, match="lm.bs = 8"):
        cells_of("table6", {"lm.bs": 8}, rows=["none"])


def test_seeds_are_those_of_the_cells():
    assert {cell.recipe.seed for cell in cells_of("table7", {"seed": 2}, seeds=(2,))} == {2}
    with pytest.raises(LostSetting, match="seed = 2 .*name seeds by seeds="):
        cells_of("table7", {"seed": 2}, seeds=(0, 1, 2))


def test_figure_4_stops_early_only_if_asked():
    assert {r.classifier.early_stopping for r in figure4_recipes("imdb", TINY, {}).values()} == {None}
    found = figure4_recipes("imdb", TINY, {"classifier.early_stopping": 2})
    assert {recipe.classifier.early_stopping for recipe in found.values()} == {2}


def points(asked: dict, *, training: str, most_texts: int | None = None) -> list:
    return [cell.recipe for cell in point_cells(
        "imdb", (50, 500), kinds=("from_scratch", "supervised", "semi_supervised"), base=TINY.replace(**asked),
        seeds=(0,), most_texts=most_texts, training=training, directions=None, asked=asked)]


def test_a_classifier_trained_as_the_preset_has_it_takes_what_was_asked_for():
    assert {recipe.classifier.bs for recipe in points({"classifier.bs": 12}, training="preset")} == {12}
    assert {recipe.classifier.stages[0].lr
            for recipe in points({"classifier.stages.0.lr": 0.3}, training="preset")} == {0.3}
    with pytest.raises(LostSetting, match="classifier.stages.0.lr = 0.3"):
        points({"classifier.stages.0.lr": 0.3}, training="paper")


def test_few_texts_to_read_still_mean_few_epochs():
    recipes = points({"classifier.stages.3.epochs": 9}, training="preset", most_texts=2500)
    assert {recipe.classifier.epochs for recipe in recipes if recipe.n_labels == 500} == {5}


def test_settings_that_would_be_lost_are_refused_in_python_too(tmp_path):
    with pytest.raises(LostSetting, match="pretrain.bs"):
        reproduce("trec6", "quick", data=tmp_path / "nowhere", **{"pretrain.bs": 8})
    with pytest.raises(LostSetting, match="pretrain.bs"):
        reproduce_all(["trec6"], "quick", data=tmp_path, out=tmp_path / "out", **{"pretrain.bs": 8})
    assert list(tmp_path.iterdir()) == []


def test_a_base_can_be_a_file(tmp_path):
    path = TINY.save(tmp_path / "my.json")
    assert base_recipe(path, "imdb", {"classifier.bs": 8}) == TINY.replace(**{"classifier.bs": 8})
    assert base_recipe(None, "trec6", {}) == preset("paper-wt103", "trec6")
