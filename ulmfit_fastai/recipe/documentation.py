"""What the fields of a recipe are: names, types and defaults read off the dataclasses, and the string under each."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .fields import default_of, inner_dataclass, kind_name
from .recipe import Recipe


@dataclass(frozen=True)
class Field:
    """A field that can be set: its dotted name (N stands for the number of a stage), type, value, and what it is."""

    name: str
    kind: str
    value: str
    """Its default, or what a recipe has."""
    line: str
    """What is written under the field where it is defined."""

    def __str__(self) -> str:
        return "\n".join([f"{self.name}  ({self.kind}; {self.value})",
                          *textwrap.wrap(self.line, 112, initial_indent="    ", subsequent_indent="    ")])


def documented(kind: type = Recipe, given: Any = None, where: str = "") -> Iterator[Field]:
    """Every field of a recipe (or of another frozen dataclass) by its dotted name.

    With its default, where N stands for the number of a stage, or with its value in the recipe `given`.
    """
    hints, lines = typing.get_type_hints(kind), _documentation(kind)
    for item in dataclasses.fields(kind):
        name, hint = f"{where}{item.name}", hints[item.name]
        value = default_of(item) if given is None else getattr(given, item.name)
        inner, several = inner_dataclass(hint)
        if inner is None or several or type(None) in typing.get_args(hint):
            yield Field(name, kind_name(hint), _shown(value, inner), lines.get(item.name, ""))
        if inner is None or (given is not None and value is None):
            continue
        if not several:
            yield from documented(inner, value if dataclasses.is_dataclass(value) else None, f"{name}.")
        elif isinstance(value, tuple):
            for number, part in enumerate(value):
                yield from documented(inner, part, f"{name}.{number}.")
        else:
            yield from documented(inner, None, f"{name}.N.")


def documented_arguments(function: Callable[..., Any]) -> Iterator[Field]:
    """Every argument of a function that its docstring has a line for under Args."""
    hints, parameters = typing.get_type_hints(function), inspect.signature(function).parameters
    section = (inspect.getdoc(function) or "").partition("Args:\n")[2].partition("\n\n")[0]
    for name, line in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.M):
        yield Field(name, kind_name(hints[name]), repr(parameters[name].default), " ".join(line.split()))


def _documentation(kind: type) -> dict[str, str]:
    """The string under each field of a class, in one line."""
    body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    return {field.target.id: " ".join(str(below.value.value).split()) for field, below in zip(body, body[1:])
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)}


def _shown(value: Any, inner: type | None) -> str:
    """A default, or a recipe's value, in a few words."""
    if value is dataclasses.MISSING:
        return "each recipe has its own"
    if inner is not None and value is not None:
        return f"{len(value)} of them" if isinstance(value, tuple) else "as below"
    return repr(value)
