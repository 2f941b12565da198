"""The words behind a report's mistakes: the run's own classifiers, asked why, for a limited time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from ..predict.explanation import Explanation
from ..predict.text_model import TextModel
from ..results.result import Result

log = logging.getLogger(__name__)

SECONDS = 90.0
"""After so long no further text is explained: at the paper's size a review takes half a minute of a CPU."""

Explain = Callable[[str, str | None], Explanation | None]
"""(text, class) -> why the text was given that class, or a number (class None); None when it is not to be explained."""


def explainer(result: Result, *, seconds: float = SECONDS) -> Explain | None:
    """Explain texts by the classifiers in the run's folder; None where it doesn't hold those of all directions."""
    files = [result.folder / f"classifier_{direction}.safetensors" for direction in result.directions]
    if not files or not all(path.exists() for path in (result.folder / "vocab.json", *files)):
        return None
    try:
        with torch.random.fork_rng(devices=[]):  # writing a report changes nobody's random numbers
            model = TextModel.load(result.folder, device="cpu")
    except (ValueError, TypeError, KeyError, RuntimeError) as error:  # of another version, say; the page goes without
        log.warning("the report's mistakes are not explained: %s", error)
        return None
    for module in model.models.values():
        module.requires_grad_(False)
    until = time.monotonic() + seconds

    def why(text: str, target: str | None) -> Explanation | None:
        if time.monotonic() > until or not text.strip():
            return None
        return model.explain(text, towards=target, steps=16)  # for shades, exact enough

    return why
