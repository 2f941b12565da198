"""Recipes: presets against the paper, JSON, dotted changes, differences and refusals."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from ulmfit_fastai.recipe.ablations import LOW_SHOT, ablation_names
from ulmfit_fastai.recipe.find import named_recipe
from ulmfit_fastai.recipe.freezing import Stage, full
from ulmfit_fastai.recipe.parts import Dropouts, Model, Optimizer, Phase
from ulmfit_fastai.recipe.presets import PRESETS, preset
from ulmfit_fastai.recipe.rates import simulate
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.recipe.schedules import one_cycle, stlr
from ulmfit_fastai.results import verdict as paper

CLASSIFIER = Phase(stages=full(1, 0.01), optimizer=Optimizer())


def small(**fields) -> Recipe:
    return Recipe(**{"name": "r", "classifier": CLASSIFIER, **fields})


# -- presets ----------------------------------------------------------------------------------------------------------


def test_the_paper_preset_is_section_4_1():
    recipe, said = preset("paper", "trec6"), {name: number.value for name, number in paper.HYPERPARAMETERS.items()}
    model, lm, classifier = recipe.model, recipe.lm, recipe.classifier
    assert (model.emb_sz, model.n_layers, model.n_hid) == (said["emb_sz"], said["n_layers"], said["n_hid"])
    for drops in (model.lm_dropouts, model.classifier_dropouts):  # one line for all
        assert (drops.output, drops.hidden, drops.input, drops.embed, drops.weight) == (
            said["dropout layers"], said["dropout RNN layers"], said["dropout input embedding"],
            said["dropout embedding"], said["weight dropout"])
    assert model.head_hidden == said["head_hidden"] and model.pooling == "concat"
    for phase in (lm, classifier):
        assert phase.optimizer.moms == (said["beta1"],) and phase.optimizer.sqr_mom == said["beta2"]
        assert phase.bs == said["bs"] and phase.bptt == said["bptt"]
        for stage in phase.stages:
            assert stage.discriminative == said["discriminative"]
            assert stage.schedule == stlr(cut_frac=said["cut_frac"], ratio=said["ratio"])
    assert lm.variable_bptt and lm.epochs == said["epochs lm"] and classifier.epochs == said["epochs classifier"]
    assert {stage.lr for stage in lm.stages} == {said["lr lm"]}
    assert {stage.lr for stage in classifier.stages} == {said["lr classifier"]}
    assert [len(stage.groups(5)) for stage in classifier.stages] == [1, 2, 3, 4, 5]
    assert recipe.directions == ("forward", "backward") and recipe.phases == ("pretrain", "lm", "classifier")


def test_the_paper_preset_fine_tunes_the_language_model_longer_on_larger_sets():
    assert all(preset("paper", task).lm.epochs >= preset("paper", "trec6").lm.epochs for task in paper.TASKS)
    assert preset("paper", "imdb").lm.epochs == 50


def test_paper_wt103_differs_from_paper_only_in_what_the_weights_force():
    changed = {field for field, _, _ in preset("paper-wt103").diff(preset("paper"))}
    assert changed == {"name", "weights", "model.n_hid"}


def test_the_scripts_preset_has_the_released_scripts_numbers():
    recipe = preset("scripts")
    assert recipe.lm.stages[0].rates(4) == pytest.approx([0.004 / 6, 0.004 / 3, 0.004, 0.002])
    stages = recipe.classifier.stages
    assert [(s.epochs, s.groups(5), s.schedule.ratio, round(1 / s.schedule.cut_frac)) for s in stages] == [
        (1, (4,), 8, 3), (1, (3, 4), 8, 3), (50, (0, 1, 2, 3, 4), 8, 8)]
    assert stages[-1].rates(5) == pytest.approx([0.01 / 2.6**k for k in (4, 3, 2, 1, 0)])
    assert (recipe.lm.optimizer.clip, recipe.classifier.optimizer.clip) == (0.3, 25.0)
    assert (recipe.lm.optimizer.wd, recipe.classifier.optimizer.wd) == (1e-7, 1e-6)
    assert not recipe.lm.optimizer.decoupled_wd and recipe.lm.optimizer.moms == (0.8,)
    assert (recipe.lm.bs, recipe.classifier.bs, recipe.classifier.max_len) == (64, 32, 1400)
    assert (recipe.max_vocab, recipe.min_freq, recipe.model.n_hid) == (30000, 2, 1150)


def test_the_scripts_backward_classifier_has_half_the_rate():
    classifier = preset("scripts").classifier
    assert classifier.for_direction("forward") is classifier
    assert {stage.lr for stage in classifier.for_direction("backward").stages} == {0.005}


def test_the_fastai_preset_has_the_tutorials_unfreezing_and_rates():
    recipe = preset("fastai")
    stages = recipe.classifier.stages
    assert [(s.epochs, len(s.groups(5)), s.lr) for s in stages] == [
        (1, 1, 2e-2), (1, 2, 1e-2), (1, 3, 5e-3), (2, 5, 1e-3)]
    assert stages[-1].rates(5)[0] == pytest.approx(1e-3 / 2.6**4)  # slice(1e-3/(2.6**4), 1e-3)
    assert [(s.epochs, s.groups(4), s.lr) for s in recipe.lm.stages] == [(1, (3,), 2e-2), (10, (0, 1, 2, 3), 2e-3)]
    assert recipe.model.n_hid == 1152 and recipe.weights == "wt103"
    assert recipe.model.classifier_dropouts == Dropouts(embed=0.025, input=0.2, hidden=0.15, weight=0.25, output=0.2)


def test_the_default_dropouts_are_fastais():
    from fastai.text.models.awdlstm import awd_lstm_clas_config, awd_lstm_lm_config

    model = Model()
    for drops, config in ((model.lm_dropouts, awd_lstm_lm_config), (model.classifier_dropouts, awd_lstm_clas_config)):
        for name in ("embed", "input", "hidden", "weight", "output"):
            assert getattr(drops, name) == config[f"{name}_p"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_simulated_and_never_trains_at_a_negative_rate(name):
    recipe = preset(name)
    for phase in ("pretrain", "lm", "classifier"):
        frame = simulate(recipe.phase(phase), recipe.model.n_groups(phase), 3)
        assert (frame["lr"] >= 0).all() and (frame.loc[frame["trainable"], "lr"] > 0).all()
        assert frame["step"].max() + 1 == recipe.phase(phase).epochs * 3


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_ends_with_all_groups_open(name):
    recipe = preset(name)
    n_groups = recipe.model.n_groups("classifier")
    assert recipe.classifier.stages[-1].groups(n_groups) == tuple(range(n_groups))


def test_tiny_takes_one_epoch_a_stage():
    recipe = preset("tiny")
    assert all(stage.epochs == 1 for stage in (*recipe.lm.stages, *recipe.classifier.stages, *recipe.pretrain.stages))


def test_a_preset_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match="'fast' does not exist; expected one of paper, .*tiny"):
        preset("fast")


# -- JSON, replace, diff, hash ----------------------------------------------------------------------------------------


ALL = [*PRESETS, "ulmfit", *ablation_names(), *(f"lowshot.{kind}.100" for kind in LOW_SHOT)]


@pytest.mark.parametrize("name", ALL)
def test_every_named_recipe_comes_back_from_json_as_it_was(name):
    recipe = named_recipe(name)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe and again.hash == recipe.hash and repr(again) == repr(recipe)
    assert Recipe.from_json(json.loads(recipe.to_json())) == recipe


def test_a_recipe_can_be_saved_edited_and_loaded(tmp_path):
    path = preset("tiny").save(tmp_path / "recipe.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    assert Recipe.load(path).diff(preset("tiny")) == [("seed", 7, 0)]


def test_replace_takes_dotted_names_numbers_of_stages_and_two_underscores():
    tiny = preset("tiny")
    recipe = tiny.replace(**{"classifier.stages.-1.lr": 0.5, "model.lm_dropouts.embed": 0.25}, lm__bs=8, seed=3)
    assert recipe.diff(tiny) == [("classifier.stages.3.lr", 0.5, 0.01), ("lm.bs", 8, 16),
                                 ("model.lm_dropouts.embed", 0.25, 0.004), ("seed", 3, 0)]


def test_replace_takes_dataclasses_and_tuples():
    stages = full(2, 0.1, schedule=one_cycle())
    recipe = preset("tiny").replace(lm=None, directions=("backward",), **{"classifier.stages": stages})
    assert recipe.lm is None and recipe.directions == ("backward",) and recipe.classifier.stages == stages


def test_replace_makes_all_changes_together():
    recipe = preset("paper").replace(**{"weights": "wt103", "model.n_hid": 1152})  # refused one at a time
    assert recipe.weights == "wt103"


def test_a_preset_takes_overrides():
    assert preset("fastai", "imdb", **{"classifier.bs": 32}).classifier.bs == 32


@pytest.mark.parametrize("changes, message", [
    ({"clasifier.bs": 32}, "clasifier.bs: no such field; expected one of name, classifier, lm"),
    ({"classifier.batch": 32}, "classifier.batch: no such field; expected one of stages, optimizer, bs"),
    ({"classifier.stages.9.lr": 1.0}, "classifier.stages has items 0 to 3, not '9'"),
    ({"seed.x": 1}, "seed is 0 and has no field 'x'"),
    ({"classifier.bs": "32"}, "classifier.bs is '32'; expected a whole number"),
    ({"classifier.bs": 3.5}, "classifier.bs is 3.5; expected a whole number"),
    ({"fast": 1}, "fast is 1; expected true or false"), ({"seed": True}, "seed is True; expected a whole number"),
    ({"classifier.stages.0.lr": "fast"}, "classifier.stages.0.lr is 'fast'; expected a number"),
    ({"classifier.stages.0.lr": float("nan")}, "expected a finite number"),
    ({"classifier.stages.0.lr": -1.0}, "classifier.stages.0: stage 'last 1': lr is -1.0"),
    ({"classifier.stages.0.span": [0.0]}, "expected 2 values"),
    ({"directions": "forward"}, "directions is 'forward'; expected a list"),
    ({"lm": "none"}, "lm is 'none'; expected the fields of a Phase"),
    ({"model": None}, "model is None; expected the fields of a Model"),
    ({"classifier.early_stopping": [1]}, "expected a whole number or None"),
])
def test_wrong_changes_are_refused_by_the_fields_name(changes, message):
    with pytest.raises(ValueError, match=message):
        preset("tiny").replace(**changes)


def test_json_with_an_unknown_or_a_missing_field_is_refused_by_name():
    values = preset("tiny").to_dict()
    with pytest.raises(ValueError, match="colour: no such field"):
        Recipe.from_dict({**values, "colour": "red"})
    with pytest.raises(ValueError, match="recipe lacks classifier"):
        Recipe.from_dict({key: value for key, value in values.items() if key != "classifier"})


def test_older_json_without_a_field_that_has_a_default_is_read():
    values = preset("tiny").to_dict()
    del values["lm_texts"]
    assert Recipe.from_dict(values) == preset("tiny")


def test_the_hash_changes_with_every_field_but_the_name():
    recipe = preset("tiny")
    assert recipe.replace(name="other").hash == recipe.hash
    others = [recipe.replace(**change) for change in (
        {"seed": 1}, {"classifier.stages.0.schedule.div": 26.0}, {"model.head_dropout": 0.2}, {"lm": None})]
    assert len({recipe.hash, *(other.hash for other in others)}) == 5


def test_the_hash_does_not_tell_whole_numbers_from_floats():
    ours, theirs = (small(classifier=replace(CLASSIFIER, optimizer=Optimizer(clip=clip))) for clip in (25, 25.0))
    assert ours == theirs and ours.hash == theirs.hash == Recipe.from_json(ours.to_json()).hash


def test_diff_shows_stages_as_wholes_when_their_number_differs():
    ours, theirs = small(), small(classifier=replace(CLASSIFIER, stages=(*full(1, 0.01), Stage("more", 1, 0.1))))
    assert ours.diff(theirs) == [("classifier.stages", ours.classifier.stages, theirs.classifier.stages)]
    assert ours.diff(ours) == []


def test_recipes_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        preset("tiny").seed = 1


def test_a_recipe_prints_what_a_reader_looks_for():
    text = repr(preset("paper"))
    for part in ("400/1150/3", "weights pretrain", "protocol clean", "forward + backward", "betas 0.7, 0.99",
                 "stlr(cut_frac=0.1, ratio=32)", "lr 0.004/2.6 per group", "46 x", "variable bptt", "wd 1.2e-06 L2"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields, message", [
    ({"weights": "pretrain"}, "weights is 'pretrain', but pretrain is None"),
    ({"model": Model(n_hid=1150)}, "weights is 'wt103', whose n_hid is 1152, but model.n_hid is 1150"),
    ({"model": Model(emb_sz=300)}, "model.emb_sz is 300"),
    ({"model": Model(n_layers=2)}, "model.n_layers is 2"),
    ({"directions": ()}, "directions"), ({"directions": ("forward", "forward")}, "directions"),
    ({"directions": ("up",)}, "directions"), ({"protocol": "dirty"}, "protocol is 'dirty'"),
    ({"precision": "fp8"}, "precision"), ({"valid_fraction": 0.0}, "valid_fraction"), ({"n_labels": 1}, "n_labels"),
    ({"min_freq": 0}, "min_freq"), ({"max_vocab": 3}, "max_vocab"), ({"name": ""}, "name"),
    ({"weights": ""}, "weights"),
    ({"protocol": "tutorial", "evaluate": "validation"}, "protocol 'tutorial' validates on the test set"),
    ({"evaluate": "train"}, "evaluate"), ({"lm_texts": "some"}, "lm_texts"),
    ({"lm": replace(CLASSIFIER, max_len=1400)}, "lm.max_len is 1400"),
    ({"classifier": replace(CLASSIFIER, variable_bptt=True)}, "classifier.variable_bptt"),
    ({"classifier": replace(CLASSIFIER, stages=(Stage("s", 1, 0.1, (-6,)),))},
     "classifier.stages and model.n_layers = 3: stage 's' trains group -6"),
    ({"classifier": replace(CLASSIFIER, stages=full(1, 0.1, discriminative=(1.0, 2.0)))}, "2 multipliers"),
])
def test_contradictions_are_refused_by_the_fields_names(fields, message):
    with pytest.raises(ValueError, match=message):
        small(**fields)


@pytest.mark.parametrize("fields, message", [
    ({"stages": ()}, "at least one stage"), ({"stages": (*full(1, 0.1), *full(1, 0.1))}, "names that differ"),
    ({"bs": 0}, "bs is 0"), ({"bptt": 0}, "bptt is 0"), ({"max_len": 10}, "less than one chunk of bptt = 70"),
    ({"early_stopping": 0}, "early_stopping is 0"), ({"max_docs": 0}, "max_docs is 0"),
    ({"alpha": -1.0}, "alpha is -1"), ({"backward_factor": 0.0}, "backward_factor"),
    ({"optimizer": Optimizer(moms=(0.8, 0.7, 0.8))}, "optimizer.moms has three values .* stage 'all' is 'constant'"),
])
def test_impossible_phases_are_refused_by_the_fields_names(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(CLASSIFIER, **fields)


@pytest.mark.parametrize("make, message", [
    (lambda: Optimizer(moms=(0.8, 0.7)), "optimizer.moms"), (lambda: Optimizer(moms=(1.0,)), "optimizer.moms"),
    (lambda: Optimizer(eps=0.0), "optimizer.eps"), (lambda: Optimizer(wd=-1.0), "optimizer.wd"),
    (lambda: Optimizer(clip=0.0), "optimizer.clip"), (lambda: Model(n_hid=0), "model.n_hid"),
    (lambda: Model(pooling="max"), "model.pooling"), (lambda: Model(head_dropout=1.0), "model.head_dropout"),
    (lambda: Dropouts(0, 0, 0, 1.0, 0), "dropouts.weight"),
])
def test_impossible_parts_are_refused_by_the_fields_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_phases_that_run_are_those_the_weights_and_the_lm_call_for():
    assert preset("paper").phases == ("pretrain", "lm", "classifier")
    assert preset("fastai").phases == ("lm", "classifier")
    assert named_recipe("table7.from_scratch").phases == ("classifier",)


def test_pretraining_has_its_own_dropouts():
    recipe = preset("paper")
    assert recipe.model_for("pretrain").lm_dropouts == recipe.model.pretrain_dropouts != recipe.model.lm_dropouts
    assert recipe.model_for("lm") is recipe.model


def test_a_negative_seed_is_refused_by_name():
    with pytest.raises(ValueError, match="seed is -1; expected at least 0"):
        preset("tiny").replace(seed=-1)
