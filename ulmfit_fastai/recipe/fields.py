"""Nested frozen dataclasses as plain data: to and from JSON's types, set by dotted name, compared field by field."""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path
from types import UnionType
from typing import Any

from .._errors import UlmfitError


def expect(ok: bool, name: str, found: Any, expected: str) -> None:
    """Raise a ValueError that names the field, what it holds and what it should, unless `ok`."""
    if not ok:
        raise UlmfitError(f"{name} is {found!r}; expected {expected}.")


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
            raise UlmfitError(f"{where} is {value!r}; expected {_kind_name(kind)}.")
        return build(fitting[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise UlmfitError(f"{where} is {value!r}; expected a list.")
        if options[-1] is not Ellipsis and len(options) != len(value):
            raise UlmfitError(f"{where} is {value!r}; expected {len(options)} values.")
        return tuple(build(options[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise UlmfitError(f"{where} is {value!r}; expected {_kind_name(kind)}.")
    if kind is float and not math.isfinite(value):
        raise UlmfitError(f"{where} is {value!r}; expected a finite number.")
    return value


def _build_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UlmfitError(f"{where or 'recipe'} is {value!r}; expected the fields of a {kind.__name__}.")
    hints = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]
    for name in value:
        if name not in names:
            raise UlmfitError(f"{(where + '.' + name).lstrip('.')}: no such field; expected one of {', '.join(names)}.")
    missing = [item.name for item in dataclasses.fields(kind) if item.name not in value
               and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING]
    if missing:
        raise UlmfitError(f"{where or 'recipe'} lacks {', '.join(missing)}.")
    parts = {name: build(hints[name], item, f"{where}.{name}".lstrip(".")) for name, item in value.items()}
    try:
        return kind(**parts)
    except ValueError as error:
        raise UlmfitError(f"{where}: {error}" if where else str(error)) from None


def _kind_name(kind: Any) -> str:
    if kind is type(None):
        return "None"
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return " or ".join(_kind_name(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list of numbers"
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(kind, kind.__name__)


def set_at(values: Any, path: list[str], value: Any) -> None:
    """Put `value` at the dotted `path` of plain `values`, in place."""
    dotted = ".".join(path)
    for i, name in enumerate(path):
        if isinstance(values, list):
            try:
                key: Any = range(len(values))[int(name)]
            except (ValueError, IndexError):
                where = ".".join(path[:i])
                raise UlmfitError(f"{dotted}: {where} has items 0 to {len(values) - 1}, not {name!r}.") from None
        elif isinstance(values, dict):
            if name not in values:
                raise UlmfitError(f"{dotted}: no such field; expected one of {', '.join(values)}.")
            key = name
        else:
            raise UlmfitError(f"{dotted}: {'.'.join(path[:i])} is {values!r} and has no field {name!r}.")
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
