"""Fields set by their dotted names (`--set`, `**overrides`): checked first, and refused where they would be lost.

    check_settings({"clasifier.bs": 3})                 # no such field; ... did you mean classifier.bs?
    with_settings(preset("quick"), {"pretrain.bs": 8})  # pretrain.bs (weights is 'wiki-small', ...): no effect
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from .._errors import UlmfitError
from .documentation import documented
from .fields import build, inner_dataclass, no_field, plain
from .parts import PHASES
from .recipe import Recipe

READ_BY = {"stlr": ("cut_frac", "ratio"), "one_cycle": ("div", "div_final", "pct_start")}
"""Fields of a schedule that one kind alone reads."""


class LostSetting(UlmfitError):
    """Settings that were asked for and would change nothing."""


def check_settings(settings: Mapping[str, Any], kind: type = Recipe) -> None:
    """Refuse names that no field has, and values of a wrong type, without any recipe at hand."""
    for name, value in zip(map(_plain_name, settings), settings.values()):
        try:
            hint = _type_at(kind, name)
        except UlmfitError as error:
            same = [field.name for field in documented(kind) if field.name.endswith(f".{name}")]
            if same and not error.advice:
                error.advice = f"did you mean {' or '.join(same[:4])}?"
            raise
        build(hint, plain(value), name)


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with these fields.

    Raises:
        LostSetting: one would have no effect; it is named, unless the recipe had it so already.
        UlmfitError: there is no such field, or its value is of a wrong type.
    """
    if not settings:
        return recipe
    check_settings(settings)
    changed = recipe.replace(**settings)
    before, after, reasons = recipe.to_dict(), changed.to_dict(), unread(changed)
    names = [_counted_from_0(name, after) for name in settings]
    new = [name for name in names if value_at(before, name) != value_at(after, name)]
    lost = [f"{name} ({reason})" for name in new if (reason := _reason(name, reasons))]
    if lost:
        raise LostSetting(f"{', '.join(lost)}: no effect on recipe {recipe.name!r}",
                          field=lost[0].partition(" ")[0], advice=f"leave {'it' if len(lost) == 1 else 'them'} out")
    return changed


def check_for(candidates: Iterable[Recipe], settings: Mapping[str, Any]) -> None:
    """Refuse settings that suit none of the recipes of which one will be run."""
    check_settings(settings)
    errors = []
    for recipe in candidates:
        try:
            with_settings(recipe, settings)
            return
        except UlmfitError as error:
            errors.append(error)
    raise errors[0]


def refuse_lost(settings: Mapping[str, Any], base: Recipe, method: Recipe, rows: Mapping[str, Recipe], *,
                advice: Mapping[str, str] | None = None) -> None:
    """Refuse settings that an experiment would drop when it makes its rows from a preset.

    `base` is the preset with the settings, `method` what all rows vary, `rows` the recipes that will be run. A setting
    holds if a row has it and reads it; a row may be without it only where it departs from the method by its name, as
    Table 7's "From scratch" does, which has no language model. `advice` names, for a field, what to use instead.
    """
    lost, helps, values = [], [], base.to_dict()
    for name in (_counted_from_0(name, values) for name in settings):
        asked = value_at(values, name)
        holds = {row: _holds(recipe, name, asked, base) for row, recipe in rows.items()}
        read = {row: not _reason(name, unread(recipe)) for row, recipe in rows.items()}
        if not any(holds[row] and read[row] for row in rows) or not (
                _holds(method, name, asked, base) or all(holds.values())):
            row = next(row for row in rows if not (holds[row] and read[row]))
            found = _reason(name, unread(rows[row])) or _found(rows[row], name)
            lost.append(f"{name} = {asked!r} ({row}: {found})")
            helps += [advice[name]] if advice and name in advice else []
    if lost:
        raise LostSetting(
            f"the preset gives the sizes, and the experiment the method, so that this would be lost: {', '.join(lost)}",
            field=lost[0].partition(" ")[0], advice="; ".join(helps) or "leave it out")


def unread(recipe: Recipe) -> dict[str, str]:
    """Fields that a run of the recipe doesn't read, or groups of them, with the reason."""
    found: dict[str, str] = {}
    if recipe.weights != "pretrain":
        found |= dict.fromkeys(("pretrain", "model.pretrain_dropouts"),
                               f"weights is {recipe.weights!r}, and stage 1 is run where it is 'pretrain'")
    if recipe.lm is None:
        found["model.lm_dropouts"] = "lm is None"
    if recipe.protocol == "tutorial":
        found["valid_fraction"] = "protocol 'tutorial' validates on the test set"
    if not recipe.adversarial.is_on:
        found["adversarial.epsilon"] = "adversarial.weight and adversarial.virtual_weight are 0"
    if not recipe.adversarial.virtual_weight:
        found |= dict.fromkeys(("adversarial.unlabelled", "adversarial.finite_difference"),
                               "adversarial.virtual_weight is 0")
    for name in PHASES:
        phase = recipe.phase(name)
        if phase is None:
            continue
        if not recipe.fast:
            found[f"{name}.sampled_words"] = "fast is False"
        if "backward" not in recipe.directions:
            found[f"{name}.backward_factor"] = f"directions is {recipe.directions!r}"
        for i, stage in enumerate(phase.stages):
            kind = stage.schedule.kind
            found |= {f"{name}.stages.{i}.schedule.{field}": f"its kind is {kind!r}, and {reader} reads it"
                      for reader, fields in READ_BY.items() if reader != kind for field in fields}
    return found


def value_at(values: Any, name: str) -> Any:
    """What plain values, as of `Recipe.to_dict`, hold at a dotted name; `NOWHERE` if there is no such place."""
    for part in name.split("."):
        if isinstance(values, list) and part.lstrip("-").isdigit() and -len(values) <= int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, dict) and part in values:
            values = values[part]
        else:
            return NOWHERE
    return values


NOWHERE = object()


def _plain_name(dotted: str) -> str:
    return dotted.replace("__", ".")


def _counted_from_0(dotted: str, values: Any) -> str:
    """The name with items that are counted from the end (stages.-1) counted from the start."""
    found: list[str] = []
    for part in _plain_name(dotted).split("."):
        items = value_at(values, ".".join(found)) if found else values
        found.append(str(int(part) % len(items)) if isinstance(items, list) and part.startswith("-") else part)
    return ".".join(found)


def _reason(name: str, reasons: Mapping[str, str]) -> str | None:
    """Why the field isn't read, for itself or for what it belongs to; None if it is."""
    parts = name.split(".")
    return next((reasons[head] for i in range(len(parts), 0, -1) if (head := ".".join(parts[:i])) in reasons), None)


def _holds(recipe: Recipe, name: str, asked: Any, base: Recipe) -> bool:
    """Whether the recipe has the field as asked; epochs of a stage are those of its phase, which are cut anew."""
    phase, *rest = name.split(".")
    if phase in PHASES and len(rest) == 3 and (rest[0], rest[2]) == ("stages", "epochs"):
        ours, theirs = recipe.phase(phase), base.phase(phase)
        return ours is not None and theirs is not None and ours.epochs == theirs.epochs
    return value_at(recipe.to_dict(), name) == asked


def _found(recipe: Recipe, name: str) -> str:
    value = value_at(recipe.to_dict(), name)
    return "it has no such field" if value is NOWHERE else f"it has {value!r}"


def _type_at(kind: Any, name: str) -> Any:
    """The type of the field at a dotted name; UlmfitError if there is none."""
    hint: Any = kind
    parts = name.split(".")
    for i, part in enumerate(parts):
        inner, several = inner_dataclass(hint)
        if several or (inner is None and typing.get_origin(hint) is tuple):
            if not part.lstrip("-").isdigit():
                raise no_field(name, ".".join(parts[:i]), part, None)
            hint = inner or typing.get_args(hint)[0]
        elif inner is None:
            raise no_field(name, ".".join(parts[:i]), part, [])
        else:
            hints = {item.name: typing.get_type_hints(inner)[item.name] for item in dataclasses.fields(inner)}
            if part not in hints:
                raise no_field(name, ".".join(parts[:i]), part, list(hints))
            hint = hints[part]
    return hint
