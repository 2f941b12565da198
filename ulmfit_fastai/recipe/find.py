"""A recipe from whatever names it: a preset, a row of the paper's tables, a JSON file, a run folder."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._files import expanded, read_json
from .ablations import LOW_SHOT, ROWS, ablation, ablation_names, full_method, low_shot
from .presets import PRESETS, preset
from .recipe import Recipe


def find_recipe(named: str | Path | Recipe, task: str = "imdb", base: Recipe | None = None) -> Recipe:
    """The recipe that is meant: one that is given, a name's, a JSON file's (`recipe NAME --json`), or a run folder's.

    Args:
        named: names come first: a folder that is called as a preset is `./quick`.
        task: matters to names only, as does `base`.

    Raises:
        UlmfitError: for a name that is none, a file that isn't there or holds something else.
    """
    if isinstance(named, Recipe):
        return named
    if is_name(named):
        return named_recipe(str(named), task, base)
    path = expanded(named)
    if (path / "run.json").is_file():
        return _read(path / "run.json", _of_run)
    if path.is_file():
        return _read(path, Recipe.from_dict)
    if path.is_dir():
        raise UlmfitError(f"{path} is a folder, but not that of a run: it holds no run.json", path=path)
    if path.suffix == ".json" or len(path.parts) > 1:
        raise UlmfitError(f"there is no recipe {path}: expected a JSON file, a run folder, or a name", path=path)
    return named_recipe(str(named), task, base)


def is_name(named: str | Path | Recipe) -> bool:
    """Whether that is one of the names, rather than a file or folder."""
    if not isinstance(named, str):
        return False
    table, _, row = named.partition(".")
    return named in PRESETS or named == "ulmfit" or row in ROWS.get(table, ()) or _low_shot_point(named) is not None


def named_recipe(name: str, task: str = "imdb", base: Recipe | None = None) -> Recipe:
    """Any recipe that has a name: a preset, "ulmfit" (the full method), "table7.last", "lowshot.supervised.100"."""
    if name in PRESETS:
        return preset(name, task)
    if name == "ulmfit":
        return full_method(task, base)
    if name.split(".")[0] in ROWS:
        return ablation(name, task, base)
    point = _low_shot_point(name)
    if point is not None:
        return low_shot(*point, task, base)
    close = get_close_matches(name, (*PRESETS, "ulmfit", *ablation_names()), n=1)
    raise UlmfitError(f"there is no recipe {name!r}; {f'did you mean {close[0]}? E' if close else 'e'}xpected one of "
                      f"{', '.join(PRESETS)}, ulmfit, {', '.join(ablation_names())}, lowshot.KIND.LABELS with KIND one "
                      f"of {', '.join(LOW_SHOT)}, or a JSON file or run folder.")


def same_recipe(one: Any, other: Any) -> bool | None:
    """Whether two recipes, as run.json records them, are the same but for the name; None if one can't be read.

    Fields that one of them lacks, since they came later, are at their defaults in it.
    """
    try:
        first, second = (Recipe.from_dict(recipe) for recipe in (one, other))
    except UlmfitError:
        return None
    return replace(first, name="same") == replace(second, name="same")


def completed(recipe: Any) -> Any:
    """A recipe as run.json records it with the fields that came later, at their defaults; as it is if it can't be read.
    """
    try:
        return Recipe.from_dict(recipe).to_dict()
    except UlmfitError:
        return recipe


def _low_shot_point(name: str) -> tuple[str, int] | None:
    """("supervised", 100) of "lowshot.supervised.100"; None for anything else."""
    table, *rest = name.split(".")
    return (rest[0], int(rest[1])) if table == "lowshot" and len(rest) == 2 and rest[1].isdigit() else None


def _read(path: Path, made: Any) -> Recipe:
    """The recipe in a file; what is wrong with it is said with the file's name."""
    values = read_json(path)
    try:
        return made(values)
    except UlmfitError as error:
        raise UlmfitError(f"{path} holds no recipe: {error.message}", path=path, field=error.field) from error


def _of_run(run: Any) -> Recipe:
    if not isinstance(run, dict) or "recipe" not in run:
        raise UlmfitError("it is not the record of a run, which is an object with 'recipe'")
    return Recipe.from_dict(run["recipe"])
