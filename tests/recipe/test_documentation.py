"""Every field of a recipe is listed with its type, its default and its line, as it is defined."""

from __future__ import annotations

import pytest

from ulmfit_fastai.recipe.documentation import documented
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.settings import check_settings, value_at

FIELDS = {field.name: field for field in documented()}


def test_every_field_says_what_it_is():
    assert [field.name for field in FIELDS.values() if not field.line] == []


def test_a_field_is_listed_with_type_default_and_line():
    assert str(FIELDS["classifier.bs"]) == (
        "classifier.bs  (a whole number; 64)\n    Texts, or streams of text, in a batch (paper: 64).")
    assert FIELDS["model.lm_dropouts.embed"].value == "0.02" and FIELDS["name"].value == "each recipe has its own"
    assert FIELDS["n_labels"].kind == "a whole number or None" and FIELDS["lm.stages.N.schedule.ratio"].value == "32.0"


def test_with_a_recipe_the_values_are_its_own_and_can_be_set_by_the_names_listed():
    quick = preset("quick")
    found = list(documented(given=quick))
    assert {field.name: field.value for field in found}["classifier.stages.2.epochs"] == "3"
    values = quick.to_dict()
    plain = {field.name: value_at(values, field.name) for field in found}
    check_settings(plain)
    leaves = {name: value for name, value in plain.items() if not isinstance(value, dict)}
    assert quick.replace(**leaves) == quick


@pytest.mark.parametrize("phase", ["lm", "pretrain"])
def test_a_phase_that_a_recipe_has_not_lists_no_fields(phase):
    found = [field.name for field in documented(given=preset("tiny").replace(**{phase: None}))]
    assert phase in found and not any(name.startswith(f"{phase}.") for name in found)
