"""Settings are checked by name, by type and by effect; those that change nothing are refused by name."""

from __future__ import annotations

import pytest

from ulmfit_fastai.recipe.ablations import ablation, full_method
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.settings import LostSetting, check_for, check_settings, refuse_lost, unread, with_settings

TINY = preset("tiny")


@pytest.mark.parametrize(("name", "value", "said"), [
    ("classifier.bs", "abc", "classifier.bs is 'abc'; expected a whole number"),
    ("classifier.bs", 3.5, "classifier.bs is 3.5; expected a whole number"),
    ("clasifier.bs", 3, "clasifier.bs: no such field; .*did you mean classifier.bs?"),
    ("classifier.optimiser.wd", 0.1, "did you mean classifier.optimizer.wd?"),
    ("bs", 3, "did you mean classifier.bs or lm.bs or pretrain.bs?"),
    ("classifier.stages.first.lr", 0.1, "classifier.stages has items with numbers from 0, not 'first'"),
    ("seed.x", 1, "seed is a plain value and has no field 'x'"),
    ("directions", "sideways", "directions is 'sideways'; expected a list of words"),
    ("directions.0", 1, "directions.0 is 1; expected text"),
    ("lm", "none", "lm is 'none'; expected the fields of a Phase"),
    ("model.lm_dropouts.hidden", None, "model.lm_dropouts.hidden is None; expected a number"),
])
def test_a_wrong_name_and_a_wrong_type_need_no_recipe_to_be_seen(name, value, said):
    with pytest.raises(ValueError, match=said) as caught:
        check_settings({name: value})
    assert caught.value.field == name


@pytest.mark.parametrize("settings", [{"classifier.bs": 8}, {"classifier__bs": 8}, {"lm": None}, {"n_labels": None},
                                      {"classifier.stages.-1.lr": 1}, {"lm.stages.0.discriminative": [1.0, 2.0]}])
def test_what_a_field_can_hold_passes(settings):
    check_settings(settings)


UNREAD = {
    "pretrain.bs": ({}, 8), "model.pretrain_dropouts.input": ({}, 0.3), "lm.sampled_words": ({"fast": False}, 64),
    "pretrain.sampled_words": ({"weights": "pretrain", "fast": False}, 64), "lm.backward_factor": ({}, 0.5),
    "classifier.backward_factor": ({}, 0.5), "valid_fraction": ({"protocol": "tutorial"}, 0.2),
    "model.lm_dropouts.input": ({"lm": None}, 0.3), "classifier.stages.0.schedule.cut_frac": ({}, 0.2),
    "lm.stages.-1.schedule.ratio": ({}, 8.0), "lm.stages.0.schedule.div": ({"lm.stages.0.schedule.kind": "constant",
                                                                           "lm.optimizer.moms": [0.8]}, 5.0),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_setting_without_effect_is_refused_by_name(name):
    others, value = UNREAD[name]
    with pytest.raises(LostSetting, match="no effect on recipe 'tiny'; leave it out") as caught:
        with_settings(TINY, {**others, name: value})
    assert caught.value.field == name.replace("-1", "0")


@pytest.mark.parametrize("settings", [
    {"pretrain.bs": TINY.pretrain.bs}, {"lm.backward_factor": 1.0}, {"lm.sampled_words": None, "fast": False},
    {"pretrain.bs": 8, "weights": "pretrain"}, {"lm.backward_factor": 0.5, "directions": ["backward"]},
    {"lm.sampled_words": 64}, {"lm.stages.0.schedule.div": 5.0}, {"valid_fraction": 0.2}, {"name": "mine"}])
def test_a_setting_with_effect_and_one_that_is_there_already_are_taken(settings):
    assert with_settings(TINY, settings) == TINY.replace(**settings)


@pytest.mark.parametrize("name", ["paper", "fastai", "quick", "scripts"])
def test_what_a_recipe_does_not_read_is_there(name):
    recipe = preset(name)
    for field in unread(recipe):
        check_settings({field: None} if field == "pretrain" else {})
    assert not any(field in ("lm", "classifier", "seed", "model") for field in unread(recipe))


def test_of_several_recipes_one_has_to_take_the_settings():
    several = [preset("few-labels"), preset("quick")]
    check_for(several, {"classifier.stages.2.epochs": 3})  # few-labels has one stage
    with pytest.raises(ValueError, match="classifier.stages has items 0 to 0, not '9'"):
        check_for(several, {"classifier.stages.9.epochs": 3})


ROWS = {name: ablation(name, base=TINY) for name in ("table7.full", "table7.from_scratch")}


def refused(settings: dict, rows=ROWS) -> None:
    base = TINY.replace(**settings)
    refuse_lost(settings, base, full_method("imdb", base), rows, advice={"seed": "name seeds by `seeds=`"})


@pytest.mark.parametrize("settings", [
    {"evaluate": "validation"}, {"classifier.bs": 16}, {"valid_fraction": 0.1}, {"classifier.early_stopping": 5}])
def test_what_the_rows_have_is_not_refused(settings):
    refused(settings)


@pytest.mark.parametrize(("settings", "said"), [
    ({"classifier.stages.0.lr": 0.02}, r"classifier.stages.0.lr = 0.02 \(table7.full: it has 0.001\)"),
    ({"evaluate": "test"}, r"evaluate = 'test'"), ({"protocol": "tutorial"}, "protocol"),
    ({"n_labels": 10}, "n_labels"),
    ({"classifier.stages.0.lr": 0.001}, None), ({"pretrain.bs": 8}, "stage 1 is run where it is 'pretrain'"),
    ({"classifier.stages.3.epochs": 9}, r"classifier.stages.3.epochs = 9")])
def test_what_no_row_has_is_refused_with_what_it_has_instead(settings, said):
    if said is None:
        refused(settings)  # both rows have this rate
        return
    with pytest.raises(LostSetting, match=said):
        refused(settings)


def test_a_row_may_be_without_what_its_name_takes_away():
    base = TINY.replace(**{"lm.bs": 8})
    rows = {name: ablation(name, base=base) for name in ROWS}
    refuse_lost({"lm.bs": 8}, base, full_method("imdb", base), rows)
    with pytest.raises(LostSetting, match="table7.from_scratch: it has no such field"):
        refuse_lost({"lm.bs": 8}, base, full_method("imdb", base), {"table7.from_scratch": rows["table7.from_scratch"]})
