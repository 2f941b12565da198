"""The words behind a report's mistakes: the run's own classifiers, asked why, for a limited time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

from .._files import read_json
from ..model.layers import build_classifier
from ..model.weights import Classifier, read_vocab
from ..predict.explanation import Explanation
from ..predict.integrated_gradients import explain
from ..results.result import Result
from ..tokens.pieces import is_model

log = logging.getLogger(__name__)

SECONDS = 90.0
"""After so long no further text is explained: at the paper's size a review takes half a minute of a CPU."""

Explain = Callable[[str, str], Explanation | None]
"""(text, class) -> why the text was given that class, or None when it is not to be explained."""


def explainer(result: Result, *, seconds: float = SECONDS) -> Explain | None:
    """Explain texts by the classifiers in the run's folder; None where it doesn't hold those of all directions."""
    files = {d: result.folder / f"classifier_{d}.safetensors" for d in result.directions}
    vocab = result.folder / "vocab.json"
    if not files or not all(path.exists() for path in (vocab, *files.values())):
        return None
    try:
        models = {d: _classifier(result, path, vocab) for d, path in files.items()}
    except (ValueError, TypeError, KeyError, RuntimeError) as error:  # of another version, say; the page goes without
        log.warning("the report's mistakes are not explained: %s", error)
        return None
    words = read_vocab(vocab)
    lang = _lang(result.folder)
    until = time.monotonic() + seconds

    def why(text: str, target: str) -> Explanation | None:
        if time.monotonic() > until or not text.strip():
            return None
        return explain(models, text, vocab=words, classes=result.classes, lang=lang, target=target,
                       steps=16)  # for shades, exact enough

    return why


def _lang(folder: Path) -> str:
    """What splits the run's texts: a model of one's own texts says so in its config.json."""
    config = folder / "config.json"
    lang = str(read_json(config).get("lang", "en")) if config.exists() else "en"
    return str(folder / lang) if is_model(lang) else lang


def _classifier(result: Result, path: Path, vocab: Path) -> torch.nn.Module:
    phase, saved = result.recipe.classifier, Classifier.load(path, vocab=vocab)
    with torch.random.fork_rng(devices=[]):  # writing a report changes nobody's random numbers
        model = build_classifier(len(saved.vocab), len(saved.classes), result.recipe.model, bptt=phase.bptt,
                                 max_len=phase.max_len, fast=result.recipe.fast)
    model.load_state_dict(saved.state)
    return model.eval().requires_grad_(False)
