"""What an experiment takes from a preset: its sizes, and settings that were asked for; the method is the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._files import expanded
from ..model.devices import named_device
from ..recipe.find import find_recipe
from ..recipe.recipe import Recipe
from ..recipe.settings import check_settings, refuse_lost
from .grid import Cell

TAKEN = ("valid_fraction", "n_labels", "lm_texts", "classifier.early_stopping")
"""Fields in which the paper's analyses are all alike, so that they are its own unless asked for otherwise."""
ADVICE = {"seed": "name seeds by `seeds=`", "n_labels": "name numbers of labels by `labels=`"}


def refuse_early(device: Any, out: str | Path | None) -> None:
    """Refuse a device that isn't here, and a file in the place of the results, before anything is read."""
    named_device(device)
    if out is not None and expanded(out).exists() and not expanded(out).is_dir():
        raise UlmfitError(f"{out}: expected a folder, or a place for one, found a file", path=out,
                          advice="choose another `out=`")


def base_recipe(base: str | Path | Recipe | None, task: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe whose sizes an experiment takes: by name or file, as it is, or the paper's own; with overrides."""
    check_settings(overrides)
    recipe = find_recipe(base or "paper-wt103", task)
    return recipe.replace(**overrides) if overrides else recipe


def taken(recipe: Recipe, asked: Mapping[str, Any], fields: Sequence[str] = TAKEN) -> Recipe:
    """A recipe of the experiment with those of the asked-for settings that it can take."""
    changes = {name: value for name, value in asked.items() if name.replace("__", ".") in fields}
    return recipe.replace(**changes) if changes else recipe


def refuse_lost_settings(asked: Mapping[str, Any], base: Recipe, method: Recipe, cells: Sequence[Cell]) -> None:
    """Refuse settings that the experiment would drop, before anything is run."""
    method = replace(method, seed=cells[0].seed)  # seeds are those of the cells
    refuse_lost(asked, base, method, {cell.folder: cell.recipe for cell in cells}, advice=ADVICE)
