"""What the package's JSON files hold: the types and shapes that the code relies on, checked as a file is read.

A shape is a type, or several in a tuple (one of which has to fit); `[shape]` for a list of it; `{str: shape}` for an
object with any names; or an object's own names, where one that ends in `?` may be missing. What a shape doesn't name
may be there too: later versions write more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._errors import UlmfitError
from ._files import has_changed, read_json

NUMBER = (int, float)
MAYBE = (int, float, type(None))
TEXT = (str, type(None))
CLASS = (str, int, float, bool)
NAME: Any = (*CLASS, type(None))
"""Of a column; one of several levels is a list of them."""
RECIPE: Any = {str: object}
"""Its fields are checked by their own types, see `recipe.fields.build`."""
_PHASE = ({"max_docs?": (int, type(None))}, type(None))
RECIPE_OF_RUN: Any = {
    "name?": TEXT, "directions?": ([str], type(None)), "protocol?": TEXT, "evaluate?": TEXT, "weights?": TEXT,
    "lm_texts?": TEXT, "n_labels?": (int, type(None)), "lm?": _PHASE, "classifier?": _PHASE,
    "model?": ({"emb_sz?": NUMBER, "n_hid?": NUMBER, "n_layers?": NUMBER}, type(None))}
"""The fields that are read from run.json without building the recipe: it may be one that this version can't build."""
SCORES = {"error?": NUMBER, "n?": int, "wrong?": int, "macro_f1?": MAYBE, "loss?": MAYBE, "mae?": NUMBER,
          "rmse?": NUMBER, "r2?": MAYBE}
METRICS = {"validation?": {str: SCORES}, "forward?": SCORES, "backward?": SCORES, "averaged?": SCORES}
VOCABULARY = {"hash": str, "words": [str]}
DIGESTS = {str: str}
DATA = {"name?": TEXT, "fingerprint?": TEXT, "counts?": {str: int}, "splits?": {str: int}, "vocabulary?": MAYBE,
        "classes?": [CLASS], "synthetic?": (bool, type(None)), "notes?": [str], "source?": TEXT,
        "labels?": ({"kind?": str, "centre?": (*NUMBER, [*NUMBER]), "spread?": (*NUMBER, [*NUMBER])}, type(None))}
ABOUT = {**DATA, "weights?": {str: TEXT}, "versions?": {str: TEXT}, "device?": TEXT, "seconds?": NUMBER,
         "finished?": TEXT}
CONFIG = {"format": str, "kind?": str, "classes?": [CLASS], "directions?": [str],
          "text?": ([(*NAME, [NAME])], type(None)), "label?": (*NAME, [NAME]), "lang?": str, "indicator?": bool,
          "label_delim?": TEXT, "encoding?": TEXT, "centre?": (*NUMBER, [*NUMBER]), "spread?": (*NUMBER, [*NUMBER]),
          "data?": ABOUT, "digests?": DIGESTS}
STAGE = {"direction": str, "phase": str, "stage": str, "status?": str, "epochs_done?": int, "epochs?": int,
         "seconds": NUMBER, "metrics?": {str: MAYBE}, "peak_memory_mb?": NUMBER}
SESSION = {"started?": TEXT, "seconds?": NUMBER, "device?": {str: object}, "versions?": {str: TEXT}}
RUN = {
    "schema": object, "status?": str, "task?": TEXT, "recipe?": (RECIPE_OF_RUN, type(None)), "recipe_hash?": TEXT,
    "seeds?": [int], "started?": TEXT, "finished?": TEXT, "data?": DATA, "stages?": [STAGE], "metrics?": METRICS,
    "baselines?": [{"name": str, "error?": NUMBER, "mae?": NUMBER, "n?": int}], "warnings?": [str],
    "sessions?": [SESSION],
    "versions?": {str: TEXT}, "device?": {"type?": TEXT, "name?": TEXT}, "command?": (str, [str], type(None)),
    "weights?": ({str: {"name?": TEXT}}, type(None)), "phases_done?": [str], "seconds?": {str: NUMBER}, "until?": TEXT,
    "identity?": {"lang?": TEXT, "pieces?": TEXT, "kind?": TEXT, "label_delim?": TEXT, "weights?": {str: TEXT}},
    "digests?": DIGESTS, "language_model_of?": {str: str}, "language_model_phases?": {str: [str]},
    "batch_parts?": {str: int}, "corpus?": ({"name?": TEXT, "source?": TEXT}, type(None)), "samples?": {str: [str]}}


def read_checked(path: str | Path, shape: Any) -> Any:
    """The content of a JSON file that has this shape.

    Raises:
        UlmfitError: it hasn't; the message names the file and the place in it.
    """
    return checked(read_json(path), shape, path)


def checked(value: Any, shape: Any, path: str | Path) -> Any:
    """A value that was read from `path`, if it has this shape; UlmfitError as `read_checked` otherwise."""
    wrong = misfit(value, shape)
    if wrong:
        place, found, expected = wrong
        raise UlmfitError(f"{path} is damaged, or not written by this package: {place or 'it'} is {said(found)}; "
                          f"expected {expected}", path=path, field=place, expected=expected, found=found)
    if isinstance(value, Mapping) and has_changed(value):
        raise UlmfitError(f"{path} is damaged, or was changed: its content is not that which its own digest is of",
                          path=path, field="digest", advice="restore it; if the change is yours, remove its `digest`")
    return value


def misfit(value: Any, shape: Any, place: str = "") -> tuple[str, Any, str] | None:
    """The first place that doesn't fit: its dotted name, what is there, what should be; None where all fits."""
    if isinstance(shape, tuple):
        tried = [misfit(value, one, place) for one in shape]
        if not all(tried):
            return None
        inside = [found for found in tried if found and found[0] != place]
        return inside[0] if inside else (place, value, " or ".join(dict.fromkeys(map(in_words, shape))))
    if isinstance(shape, list):
        if not isinstance(value, list):
            return place, value, in_words(shape)
        inner = shape[0] if len(shape) == 1 else tuple(shape)
        return next((found for i, one in enumerate(value) if (found := misfit(one, inner, f"{place}.{i}".strip(".")))),
                    None)
    if isinstance(shape, Mapping):
        return _misfit_object(value, shape, place)
    fits = isinstance(value, shape) and (shape in (bool, object) or not isinstance(value, bool))
    return None if fits and not (shape in NUMBER and _too_large(value)) else (place, value, in_words(shape))


def _misfit_object(value: Any, shape: Mapping[Any, Any], place: str) -> tuple[str, Any, str] | None:
    if not isinstance(value, dict):
        return place, value, in_words(shape)
    if str in shape:
        named = [(name, shape[str]) for name in value]
    else:
        lacking = [name for name in shape if not name.endswith("?") and name not in value]
        if lacking:
            return place, value, f"an object with {lacking[0]!r}"
        named = [(name.rstrip("?"), one) for name, one in shape.items() if name.rstrip("?") in value]
    return next((found for name, one in named if (found := misfit(value[name], one, f"{place}.{name}".strip(".")))),
                None)


def _too_large(value: float) -> bool:
    try:
        return not math.isfinite(float(value))
    except OverflowError:
        return True


def in_words(shape: Any) -> str:
    """A shape as a message says it."""
    if isinstance(shape, (list, Mapping)):
        return "a list" if isinstance(shape, list) else "an object"
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null",
            object: "a value"}[shape]


def said(value: Any, most: int = 60) -> str:
    """A value for a message, cut where it would fill the screen."""
    text = repr(value[:20] if isinstance(value, (str, list)) else list(value)[:5] if isinstance(value, dict) else
                "a number of too many digits" if isinstance(value, int) and _too_large(value) else value)
    return text if len(text) <= most else text[:most - 3] + "..."
