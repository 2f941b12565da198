"""Every row of the paper's Tables 4 to 7: what it changes in the full method, and that it changes nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ulmfit_fastai.recipe.ablations import ablation, ablation_names, full_method, low_shot
from ulmfit_fastai.recipe.find import named_recipe
from ulmfit_fastai.recipe.parts import Dropouts
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results import verdict as paper

NO_DROPOUT = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)

# Every row's difference from the full method, field by field: {field: value in the row}. "*" stands for each stage.
S = "classifier.stages.*."
PLAIN = {f"{S}lr": 0.001, f"{S}discriminative": 1.0}
EARLY = {"classifier.early_stopping": 5}
EXPECTED: dict[str, dict] = {
    "table4.without": {"weights": "none"},
    "table4.with": {},
    "table5.awd": {"weights": "pretrain"},
    "table6.none": {"lm": None},
    "table6.full": {"lm.stages.0.discriminative": 1.0, "lm.stages.0.schedule.kind": "constant"},
    "table6.full_discr": {"lm.stages.0.schedule.kind": "constant"},
    "table6.full_discr_stlr": {},
    "table7.freez": {**PLAIN, f"{S}schedule.kind": "constant", **EARLY},
    "table7.freez_discr": {f"{S}schedule.kind": "constant", **EARLY},
    "table7.freez_stlr": {**PLAIN, **EARLY},
    "table7.freez_cos": {**PLAIN, f"{S}schedule.kind": "cosine", **EARLY},
    "table7.freez_discr_stlr": {},
    "direction.forward": {"evaluate": "test"},
    "direction.backward": {"evaluate": "test", "directions": ("backward",)},
    "direction.both": {"evaluate": "test", "directions": ("forward", "backward")},
}
BASES = {"paper": None, "tiny": preset("tiny", weights="pretrain"), "fastai": preset("fastai")}


def difference(name: str, base: Recipe | None) -> dict:
    found = {field: row for field, row, _ in ablation(name, "imdb", base).diff(full_method("imdb", base))}
    assert found.pop("name") == name
    return found


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_row_differs_from_the_full_method_in_its_own_fields_and_no_other(name, base):
    n_stages = len(full_method("imdb", BASES[base]).classifier.stages)
    expected = {}
    for field, value in EXPECTED[name].items():
        expected |= {field.replace("*", str(i)): value for i in range(n_stages)} if "*" in field else {field: value}
    if name == "table5.awd" and base == "tiny":  # its base pretrains already
        expected = {}
    assert difference(name, BASES[base]) == expected


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name, lr, ratio", [("table7.full", 0.001, 1.0), ("table7.full_discr", 0.01, 2.6)])
def test_full_trains_everything_at_once_at_a_constant_rate(name, lr, ratio, base):
    found = difference(name, BASES[base])
    (stage,) = found.pop("classifier.stages")
    assert found == EARLY
    assert (stage.lr, stage.discriminative, stage.trainable, stage.schedule.kind) == (lr, ratio, None, "constant")
    assert stage.epochs == full_method("imdb", BASES[base]).classifier.epochs


@pytest.mark.parametrize("base", BASES)
def test_last_trains_the_head_only(base):
    found = difference("table7.last", BASES[base])
    (stage,) = found.pop("classifier.stages")
    assert found == EARLY and (stage.lr, stage.trainable, stage.schedule.kind) == (0.001, (-1,), "constant")


@pytest.mark.parametrize("base", BASES)
def test_chain_thaw_has_its_own_stages_and_the_same_number_of_epochs(base):
    recipe, method = ablation("table7.chain_thaw", base=BASES[base]), full_method(base=BASES[base])
    found = difference("table7.chain_thaw", BASES[base])
    assert set(found) == {"classifier.stages", *EARLY}
    n_groups = recipe.model.n_groups("classifier")
    assert recipe.classifier.epochs == method.classifier.epochs
    assert recipe.classifier.stages[-1].rates(n_groups) == pytest.approx([0.0001] * (n_groups - 1) + [0.001])


@pytest.mark.parametrize("base", BASES)
def test_from_scratch_is_the_row_full_without_any_language_model(base):
    found = difference("table7.from_scratch", BASES[base])
    (stage,) = found.pop("classifier.stages")
    assert found == {**EARLY, "lm": None, "weights": "none"}
    assert stage == ablation("table7.full", base=BASES[base]).classifier.stages[0]


@pytest.mark.parametrize("base", BASES)
def test_the_vanilla_language_model_has_no_dropout_anywhere_but_before_the_head(base):
    recipe, awd = ablation("table5.vanilla", base=BASES[base]), ablation("table5.awd", base=BASES[base])
    changed = {field for field, _, _ in recipe.diff(awd)} - {"name"}
    assert all(field.startswith(("model.", "classifier.stages")) for field in changed)
    assert recipe.model.lm_dropouts == recipe.model.pretrain_dropouts == NO_DROPOUT
    assert replace(recipe.model.classifier_dropouts, output=0.0) == NO_DROPOUT
    assert recipe.model.classifier_dropouts.output == awd.model.classifier_dropouts.output > 0
    assert recipe.classifier.epochs == 5 and recipe.weights == "pretrain"


def test_the_rows_are_those_of_the_papers_tables_in_the_papers_order():
    for table in ("table4", "table5", "table6", "table7"):
        assert ablation_names(table) == [f"{table}.{row}" for row in paper.TABLES[table].rows]
        assert not [f for f in difference(f"{table}.{paper.TABLES[table].ours}", None) if f != "weights"]


def test_the_full_method_is_the_papers_analysis():
    method = full_method("trec6")
    assert method.directions == ("forward",) and method.evaluate == "validation" and method.valid_fraction == 0.1
    assert method.classifier.epochs == 50 and method.classifier.early_stopping is None
    assert {field for field, _, _ in method.diff(preset("paper-wt103", "trec6"))} == {"name", "directions", "evaluate"}


@pytest.mark.parametrize("name", ["quick", "demo", "tiny", "fastai", "scripts"])
def test_the_full_method_takes_its_size_from_the_base_and_its_method_from_the_paper(name):
    base = preset(name)
    method, n_groups = full_method("imdb", base), base.model.n_groups("classifier")
    assert method.model == base.model and method.weights == base.weights and method.max_vocab == base.max_vocab
    assert method.classifier.epochs == max(base.classifier.epochs, n_groups + 1)
    assert method.lm.epochs == base.lm.epochs and method.lm.bs == base.lm.bs
    assert {s.schedule.kind for s in (*method.lm.stages, *method.classifier.stages)} == {"stlr"}
    assert {s.lr for s in method.lm.stages} == {0.004} and {s.lr for s in method.classifier.stages} == {0.01}
    assert len(method.classifier.optimizer.moms) == 1


def test_table_4_needs_pretrained_weights():
    with pytest.raises(ValueError, match="weights 'none', so Table 4's two rows would be the same"):
        ablation("table4.without", base=preset("tiny"))


def test_rows_that_vary_the_lm_need_one():
    for name in ("table6.none", "table6.full", "table4.with"):
        with pytest.raises(ValueError, match="lm is None in the base"):
            ablation(name, base=preset("fastai").replace(lm=None))


@pytest.mark.parametrize("name", ["table7", "table7.fulll", "table9.full", "seven"])
def test_a_row_that_does_not_exist_is_refused_with_those_that_do(name):
    with pytest.raises(ValueError, match="there is no recipe .* expected one of .*table7.chain_thaw"):
        ablation(name)
    with pytest.raises(ValueError, match="there is no"):
        named_recipe(name)
    with pytest.raises(ValueError, match="there is no table"):
        ablation_names("table9")


@pytest.mark.parametrize("kind, texts", [("from_scratch", "labelled"), ("supervised", "labelled"),
                                         ("semi_supervised", "all")])
def test_low_shot_recipes_differ_in_labels_and_in_what_the_language_model_reads(kind, texts):
    recipe = low_shot(kind, 100, "imdb", preset("tiny"))
    parent = ablation("table7.from_scratch", "imdb", preset("tiny")) if kind == "from_scratch" else full_method(
        "imdb", preset("tiny"))
    changed = {field: value for field, value, _ in recipe.diff(parent)}
    assert changed.pop("name") == f"lowshot.{kind}.100"
    assert changed == {"n_labels": 100} | ({"lm_texts": "labelled"} if texts == "labelled" else {})


def test_an_unknown_low_shot_kind_is_refused():
    with pytest.raises(ValueError, match="expected one of from_scratch, supervised, semi_supervised"):
        low_shot("unsupervised", 100)


@pytest.mark.parametrize(("n_labels", "epochs"), [(100, 50), (1000, 10), (5000, 5)])
def test_a_low_shot_point_reads_no_more_labelled_texts_than_it_may(n_labels, epochs):
    """At least one epoch a layer group and one for all, as the full method has."""
    recipe = low_shot("semi_supervised", n_labels, base=preset("paper-small"), most_texts=10_000)
    assert recipe.classifier.epochs == epochs
    free = low_shot("semi_supervised", n_labels, base=preset("paper-small"))
    assert free.classifier.epochs == 50
    assert {field.split(".")[0] for field, _, _ in recipe.diff(free)} <= {"classifier"}


@pytest.mark.parametrize(("n_labels", "bs", "epochs"), [(100, 6, 15), (500, 16, 15), (1000, 16, 10), (5000, 16, 2)])
def test_a_low_shot_point_trained_as_the_preset_has_its_stages_and_rates(n_labels, bs, epochs):
    base = preset("few-labels")
    recipe = low_shot("semi_supervised", n_labels, base=base, most_texts=10_000, training="preset")
    assert (recipe.classifier.bs, recipe.classifier.epochs) == (bs, epochs)
    stage, theirs = recipe.classifier.stages[0], base.classifier.stages[0]
    assert (stage.lr, stage.trainable, stage.discriminative, stage.schedule) == (
        theirs.lr, None, 1.0, theirs.schedule)
    assert recipe.lm == base.lm and recipe.n_labels == n_labels and recipe.evaluate == "validation"
    scratch = low_shot("from_scratch", n_labels, base=base, most_texts=10_000, training="preset")
    assert {field for field, *_ in scratch.diff(recipe)} == {"name", "weights", "lm", "lm_texts"}


def test_only_the_last_stage_of_a_preset_is_shortened_for_many_labels():
    recipe = low_shot("semi_supervised", 20_000, base=preset("quick"), most_texts=20_000, training="preset")
    assert [stage.epochs for stage in recipe.classifier.stages] == [1, 1, 1]


def test_an_unknown_way_of_training_is_refused():
    with pytest.raises(ValueError, match="expected one of paper, preset"):
        low_shot("supervised", 100, training="mine")
