"""Where language models start: each file of weights is opened once, from the first look to its use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..model import pretrained
from ..model.weights import LMWeights


class OpenedWeights:
    """Language models by source and direction, kept from when they are first looked at until a run takes them.

    Whoever fits a model looks at them for their sizes and words, a run to see before it writes anything that they are
    there; fastai's have 180 MB and are unpickled for many seconds.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], LMWeights | None] = {}

    def look_at(self, source: str | Path, direction: str) -> LMWeights | None:
        """The weights as `pretrained.load` gives them; None for 'none'."""
        key = str(source), direction
        if key not in self._kept:
            self._kept[key] = pretrained.load(source, direction)
        return self._kept[key]

    def take(self, source: str | Path, direction: str) -> LMWeights | None:
        """The same, for its last use: they are held no longer, so that training has the memory."""
        self.look_at(source, direction)
        return self._kept.pop((str(source), direction))


def about_start(loaded: LMWeights, matched: LMWeights) -> dict[str, Any]:
    """What run.json says of the language model that a phase started from, and of how many of its words are here."""
    return {"name": loaded.name, "vocab_hash": loaded.vocab.hash, "words_kept": matched.meta["words_kept"],
            "words": matched.meta["words"], **{k: v for k, v in loaded.meta.items() if k != "path"}}
