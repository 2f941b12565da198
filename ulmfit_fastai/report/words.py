"""The words behind a report's mistakes: the run's own classifiers, asked why, for a limited time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from ..predict.explanation import Explanation
from ..predict.integrated_gradients import explain
from ..predict.text_model import TextModel
from ..results.result import Result

log = logging.getLogger(__name__)

SECONDS = 90.0
"""After so long no further text is explained: at the paper's size a review takes half a minute of a CPU."""

Explain = Callable[[str, str], Explanation | None]
"""(text, class) -> why the text was given that class, or None when it is not to be explained."""


def explainer(result: Result, *, seconds: float = SECONDS) -> Explain | None:
    """Explain texts by the classifiers in the run's folder; None where it doesn't hold those of all directions."""
    needed = ["vocab.json", *(f"classifier_{direction}.safetensors" for direction in result.directions)]
    if not result.directions or not all((result.folder / name).exists() for name in needed):
        return None
    try:
        with torch.random.fork_rng(devices=[]):  # writing a report changes nobody's random numbers
            model = TextModel.load(result.folder, device="cpu")
    except (ValueError, TypeError, KeyError, RuntimeError) as error:  # of another version, say; the page goes without
        log.warning("the report's mistakes are not explained: %s", error)
        return None
    for classifier in model.models.values():
        classifier.requires_grad_(False)
    until = time.monotonic() + seconds

    def why(text: str, target: str) -> Explanation | None:
        if time.monotonic() > until or not text.strip():
            return None
        return explain(model.models, text, vocab=model.vocab, classes=result.classes, lang=model.config.lang,
                       target=target, steps=16)  # for shades, exact enough

    return why
