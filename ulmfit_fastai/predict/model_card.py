"""The README.md of a saved model: what it is, what it was trained on, how well it does, how to load it.

Laid out as Hugging Face's hub reads it, so that the folder can be pushed as it is. Where huggingface_hub is installed,
the front matter is made by it and has the results, as the hub shows them, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._words import visible

if TYPE_CHECKING:
    from jinja2 import Template

    from .text_model import TextModel

KINDS = {"single": "one class for each text", "multi": "any number of classes for each text",
         "regression": "a number for each text"}


DATASETS = {"imdb": "stanfordnlp/imdb", "trec6": "CogComp/trec", "ag": "fancyzhx/ag_news",
            "dbpedia": "fancyzhx/dbpedia_14", "yelp-bi": "fancyzhx/yelp_polarity",
            "yelp-full": "Yelp/yelp_review_full"}
"""Where the paper's data sets are on the hub."""


def model_card(model: TextModel, *, name: str, license: str = "unknown", run_folder: bool = False,
               base_model: str | None = None, datasets: Sequence[str] = ()) -> str:
    """The card of a model: Markdown with the hub's front matter.

    Args:
        name: what the card calls the model.
        license: an SPDX identifier in lower case, such as 'apache-2.0'.
        run_folder: the model lies in the folder it was trained in, beside the record of the run.
        base_model: the language model it came from, by its name on the hub.
        datasets: what it was trained on, by names on the hub; those of the paper are known.
    """
    data, measured = model.config.data, _measured(model.metrics)
    tag = "text-regression" if model.target.kind == "regression" else "text-classification"
    datasets = datasets or [DATASETS[data["name"]]] if data.get("name") in DATASETS else datasets
    front = _front_matter(measured, name=line(name), license=license, base_model=base_model, datasets=list(datasets),
                          language=model.config.lang if model.config.lang.isalpha() else None, tag=tag,
                          trained_on=line(data.get("name", "custom")))
    return _template().render(
        model=model, config=model.config, target=model.target, recipe=model.recipe, size=model.recipe.model, data=data,
        name=name, license=license, run_folder=run_folder, kinds=KINDS, measured=measured, front=front, tag=tag,
        parameters=sum(p.numel() for classifier in model.models.values() for p in classifier.parameters()),
        weights=sorted({str(one) for one in data.get("weights", {}).values()}), versions=data.get("versions", {}))


def _measured(metrics: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """A row for each measured part: the held-out texts, and the test set of a run that has one."""
    test = {name: found for name, found in metrics.items() if name != "validation" and isinstance(found, dict)}
    parts = {"held-out texts": metrics.get("validation", {}), "test set": test}
    return [(part, name, found) for part, by_direction in parts.items() for name, found in by_direction.items()]


def _front_matter(measured: list[tuple[str, str, dict[str, Any]]], *, name: str, license: str, tag: str,
                  base_model: str | None, datasets: list[str], language: str | None, trained_on: str) -> str:
    """What the hub reads of the card, between its two lines of dashes; empty without huggingface_hub."""
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError:
        return ""
    place: dict[str, Any] = {"task_type": "text-classification", "dataset_type": (datasets or ["custom"])[0],
                             "dataset_name": trained_on}
    results = [EvalResult(**place, dataset_split=SPLITS[part], metric_type=kind, metric_value=value,
                          metric_name=f"{title}, {direction}")
               for part, direction, found in measured for kind, title, value in _metrics(found)]
    data = ModelCardData(
        license=license, library_name="ulmfit_fastai", pipeline_tag="text-classification", language=language,
        tags=["ulmfit", "fastai", "awd-lstm", tag], base_model=base_model, datasets=datasets or None,
        model_name=name if results else None, eval_results=results or None)
    return f"---\n{data.to_yaml()}\n---"


SPLITS = {"held-out texts": "validation", "test set": "test"}


def _metrics(found: dict[str, Any]) -> list[tuple[str, str, float]]:
    """(the hub's name, ours, value) of what was measured."""
    if "mae" in found:
        every = [("mae", "mean absolute error", found["mae"]), ("r_squared", "R²", found.get("r2"))]
    else:
        every = [("accuracy", "accuracy", 1 - found["error"] / 100), ("f1", "macro F1", found.get("macro_f1"))]
    return [(kind, title, round(value, 6)) for kind, title, value in every if value is not None]


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
