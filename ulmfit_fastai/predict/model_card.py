"""The README.md of a saved model: what it is, what it was trained on, how well it does, how to load it.

Laid out as Hugging Face's hub reads it, so that the folder can be pushed as it is.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._words import visible

if TYPE_CHECKING:
    from jinja2 import Template

    from .text_model import TextModel

KINDS = {"single": "one class for each text", "multi": "any number of classes for each text",
         "regression": "a number for each text"}


def model_card(model: TextModel, *, name: str, license: str = "unknown", run_folder: bool = False) -> str:
    """The card of a model: Markdown with the hub's front matter.

    Args:
        name: what the card calls the model.
        license: an SPDX identifier in lower case, such as 'apache-2.0'.
        run_folder: the model lies in the folder it was trained in, beside the record of the run.
    """
    data = model.config.data
    return _template().render(
        model=model, config=model.config, target=model.target, recipe=model.recipe, size=model.recipe.model, data=data,
        name=name, license=license, run_folder=run_folder, kinds=KINDS, measured=_measured(model.metrics),
        parameters=sum(p.numel() for classifier in model.models.values() for p in classifier.parameters()),
        weights=sorted({str(one) for one in data.get("weights", {}).values()}), versions=data.get("versions", {}))


def _measured(metrics: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """A row for each measured part: the held-out texts, and the test set of a run that has one."""
    test = {name: found for name, found in metrics.items() if name != "validation" and isinstance(found, dict)}
    parts = {"held-out texts": metrics.get("validation", {}), "test set": test}
    return [(part, name, found) for part, by_direction in parts.items() for name, found in by_direction.items()]


@cache
def _template() -> Template:
    """Markdown, which HTML's escapes would spoil: names go through `code`, `plain` or `line`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here, since loading a model needs no card

    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
                            trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    templates.filters |= {"code": code, "plain": plain, "line": line, "thousands": "{:,}".format}
    return templates.get_template("model_card.md.jinja")


def code(value: Any) -> str:
    """A code span that holds the value, backticks and line breaks in it or not."""
    said = line(value) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", said)), default=0))
    pad = " " if "`" in (said[0], said[-1]) else ""
    return f"{fence}{pad}{said}{pad}{fence}"


def plain(value: Any) -> str:
    """A name on one line that starts no HTML."""
    return line(value).replace("<", "&lt;")


def line(value: Any) -> str:
    """A name on one line."""
    return visible(" ".join(str(value).splitlines()))
