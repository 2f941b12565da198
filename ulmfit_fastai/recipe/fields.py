"""Nested frozen dataclasses as plain data: to and from JSON's types, set by dotted name, compared field by field."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any

from .._errors import UlmfitError
from .._schema import said


def expect(ok: bool, name: str, found: Any, expected: str) -> None:
    """Raise a ValueError that names the field, what it holds and what it should, unless `ok`."""
    if not ok:
        raise UlmfitError(f"{name} is {found!r}; expected {expected}.", field=name, expected=expected, found=found)


def no_field(dotted: str, where: str, part: str, names: Sequence[str] | None) -> UlmfitError:
    """The error of a dotted name whose `part` isn't among the fields `names` of what is at `where`.

    `names` is None for items of a list, which have numbers, and empty for a plain value, which has none.
    """
    if names is None:
        return UlmfitError(f"{dotted}: {where} has items with numbers from 0, not {part!r}", field=dotted)
    if not names:
        return UlmfitError(f"{dotted}: {where} is a plain value and has no field {part!r}", field=dotted)
    close = get_close_matches(part, names, n=1)
    meant = dotted.replace(part, close[0], 1) if close else ""
    return UlmfitError(f"{dotted}: no such field; expected one of {', '.join(names)}", field=dotted, found=part,
                       expected=tuple(names), advice=f"did you mean {meant}?" if meant else "")


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as what JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def build(kind: Any, value: Any, where: str) -> Any:
    """`value` (as from JSON) as the type `kind`, complaining with the dotted name `where`."""
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), value, where)
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, UnionType):
        if value is None and type(None) in options:
            return None
        wants_list = isinstance(value, list)
        fitting = [o for o in options if o is not type(None) and (typing.get_origin(o) is tuple) == wants_list]
        if not fitting:
            raise _wrong(where, value, kind_name(kind))
        return build(fitting[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, value, kind_name(kind))
        if options[-1] is not Ellipsis and len(options) != len(value):
            raise _wrong(where, value, f"{len(options)} values")
        return tuple(build(options[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _wrong(where, "a number of too many digits", "a finite number") from None
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _wrong(where, value, kind_name(kind))
    if kind is float and not math.isfinite(value):
        raise _wrong(where, value, "a finite number")
    return value


def _wrong(where: str, found: Any, expected: str) -> UlmfitError:
    return UlmfitError(f"{where} is {said(found)}; expected {expected}.", field=where, expected=expected, found=found)


def _build_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where or "recipe", value, f"the fields of a {kind.__name__}")
    hints = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]
    for name in value:
        if name not in names:
            raise no_field(f"{where}.{name}".lstrip("."), where, name, names)
    missing = [item.name for item in dataclasses.fields(kind) if item.name not in value
               and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING]
    if missing:
        raise UlmfitError(f"{where or 'recipe'} lacks {', '.join(missing)}.", field=missing[0])
    parts = {name: build(hints[name], item, f"{where}.{name}".lstrip(".")) for name, item in value.items()}
    try:
        return kind(**parts)
    except UlmfitError as error:
        raise UlmfitError(f"{where}: {error.message}" if where else error.message, field=error.field,
                          expected=error.expected, found=error.found, advice=error.advice) from None


def kind_name(kind: Any) -> str:
    """A field's type in words."""
    if kind is type(None):
        return "None"
    options = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return " or ".join(kind_name(option) for option in options)
    if typing.get_origin(kind) in (tuple, Sequence):
        items = {int: "whole numbers", float: "numbers", str: 'words such as ["forward"]'}.get(options[0], "parts")
        fixed = typing.get_origin(kind) is tuple and options[-1] is not Ellipsis
        return f"a list of {len(options)} {items}" if fixed else f"a list of {items}"
    if dataclasses.is_dataclass(kind):
        return f"the fields of a {typing.cast(type, kind).__name__}"
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(kind, kind.__name__)


def inner_dataclass(kind: Any) -> tuple[type | None, bool]:
    """The dataclass that a field holds, be it optional, and whether it holds a tuple of them; (None, False) if none."""
    if dataclasses.is_dataclass(kind):
        return typing.cast(type, kind), False
    options = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return next((found for option in options if (found := inner_dataclass(option))[0]), (None, False))
    if typing.get_origin(kind) is tuple and dataclasses.is_dataclass(options[0]):
        return typing.cast(type, options[0]), True
    return None, False


def default_of(item: dataclasses.Field[Any]) -> Any:
    """What a field holds if nothing is said; `MISSING`, which equals nothing, where it has no default."""
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def set_at(values: Any, path: list[str], value: Any) -> None:
    """Put `value` at the dotted `path` of plain `values`, in place."""
    dotted = ".".join(path)
    for i, name in enumerate(path):
        if isinstance(values, list):
            try:
                key: Any = range(len(values))[int(name)]
            except (ValueError, IndexError):
                where = ".".join(path[:i])
                raise UlmfitError(f"{dotted}: {where} has items 0 to {len(values) - 1}, not {name!r}.",
                                  field=dotted) from None
        elif isinstance(values, dict):
            if name not in values:
                raise no_field(dotted, ".".join(path[:i]), name, list(values))
            key = name
        else:
            raise UlmfitError(f"{dotted}: {'.'.join(path[:i])} is {values!r} and has no field {name!r}.",
                              field=dotted)
        if i == len(path) - 1:
            values[key] = value
        else:
            values = values[key]


def diff(a: Any, b: Any, where: str) -> list[tuple[str, Any, Any]]:
    """The fields in which two values of one type differ: (dotted name, a's, b's).

    Tuples of dataclasses are compared item by item if they are equally long, otherwise as wholes.
    """
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        return [d for item in dataclasses.fields(a)  # type: ignore[arg-type]
                for d in diff(getattr(a, item.name), getattr(b, item.name), f"{where}.{item.name}".lstrip("."))]
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and any(map(dataclasses.is_dataclass, a)):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in diff(x, y, f"{where}.{i}")]
    return [] if a == b else [(where, a, b)]
