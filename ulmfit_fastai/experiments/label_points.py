"""The points of Figure 3 as cells of a grid: a recipe for each kind of training and number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._errors import UlmfitError
from ..recipe.ablations import LOW_SHOT, full_method, in_directions, low_shot
from ..recipe.recipe import Recipe
from ..texts.dataset import Dataset
from ..training.prepare import rows_for
from .base import refuse_lost_settings, taken
from .grid import Cell, cell


def lowshot_cells(dataset: Dataset, labels: Sequence[int | None], *, kinds: Sequence[str] = LOW_SHOT, base: Recipe,
                  seeds: Sequence[int] = (0,), most_texts: int | None = None, training: str = "paper",
                  directions: Sequence[str] | None = None, asked: Mapping[str, Any] | None = None) -> list[Cell]:
    """The cells of Figure 3; their rows are "kind/labels". All points of the first seed come first."""
    most = len(rows_for(taken(full_method(dataset.name, base), asked or {}, ("valid_fraction",)), dataset).train)
    numbers = [most if n is None else n for n in labels]
    n_classes = len(dataset.classes)
    wrong = [n for n in numbers if not n_classes <= n <= most]
    if wrong or not numbers:
        raise UlmfitError(f"labels: expected numbers from {n_classes} (one for each class) to {most:,} (the labelled "
                          f"texts beside the validation set), found {wrong[0] if wrong else 'none'}.")
    return point_cells(dataset.name, numbers, kinds=kinds, base=base, seeds=seeds, most_texts=most_texts,
                       training=training, directions=directions, asked=asked)


SOME = 1_000
"""Stands for all the labels there are as long as the data set isn't read."""


def point_cells(task: str, numbers: Sequence[int], *, kinds: Sequence[str], base: Recipe, seeds: Sequence[int],
                most_texts: int | None, training: str, directions: Sequence[str] | None,
                asked: Mapping[str, Any] | None) -> list[Cell]:
    """The cells for these numbers of labels; settings `asked` for that they would not have are refused."""
    asked = asked or {}
    fields = _taken_over(asked, training, most_texts)
    recipes = {}
    for n in dict.fromkeys(numbers):
        for kind in kinds:
            recipe = low_shot(kind, n, task, base, most_texts=most_texts, training=training)
            recipes[f"{kind}/{n}"] = in_directions(taken(recipe, asked, fields), directions)
    cells = [cell(row, recipe, seed) for seed in seeds for row, recipe in recipes.items()]
    if cells:
        refuse_lost_settings(asked, base, varied(task, base, training, asked), cells)
    return cells


def _taken_over(asked: Mapping[str, Any], training: str, most_texts: int | None) -> list[str]:
    """Settings that a point takes as they are; a classifier trained as the preset has it takes all of its own."""
    names = [name.replace("__", ".") for name in asked]
    own = [name for name in names if training == "preset" and name.startswith("classifier.")
           and not (most_texts is not None and name.endswith(".epochs"))]
    return ["valid_fraction", "classifier.early_stopping", *own]


def varied(task: str, base: Recipe, training: str, asked: Mapping[str, Any]) -> Recipe:
    """What the points vary: the paper's method, or the preset's."""
    if training == "preset":
        return replace(base, n_labels=None)
    return taken(full_method(task, base), asked, ("valid_fraction", "classifier.early_stopping"))
