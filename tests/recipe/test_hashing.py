"""The short name of a recipe: changed by every value, and by no field that comes later."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from ulmfit_fastai.recipe.hashing import FIRST_EDITION, counted
from ulmfit_fastai.recipe.parts import Dropouts, Model, Optimizer, Phase
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe

TINY = preset("tiny")


@dataclass(frozen=True, repr=False)
class Later(Recipe):
    """A recipe of another day, with fields of its own."""

    colour: str = "red"
    shades: tuple[float, ...] = field(default_factory=lambda: (0.5,))


def later(**fields) -> Later:
    return Later(**{item.name: getattr(TINY, item.name) for item in dataclasses.fields(TINY)}, **fields)


def test_a_field_that_comes_later_leaves_the_hash_as_it_is_until_it_is_set():
    assert later().hash == TINY.hash
    assert len({TINY.hash, later(colour="blue").hash, later(shades=(1.0,)).hash}) == 3


def test_a_field_that_comes_later_in_a_part_is_counted_only_where_it_is_set(monkeypatch):
    monkeypatch.setitem(FIRST_EDITION, "Phase", tuple(set(FIRST_EDITION["Phase"]) - {"alpha", "stages"}))
    assert "alpha" not in counted(TINY.lm) and "stages" in counted(TINY.lm)  # no default: it always counts
    assert counted(dataclasses.replace(TINY.lm, alpha=3.0))["alpha"] == 3.0


def test_the_first_edition_has_fields_that_there_are():
    for kind in (Recipe, Model, Dropouts, Optimizer, Phase):
        assert set(FIRST_EDITION[kind.__name__]) <= {item.name for item in dataclasses.fields(kind)}
