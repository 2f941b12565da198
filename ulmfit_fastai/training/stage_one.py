"""The settings of stage 1: its recipe for a size of model, and how the corpus is read.

What a recipe leaves open, which texts are read and what splits them, is `Reading`; run.json has it beside the corpus,
under `data.reading`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._errors import UlmfitError
from ..recipe.fields import build, expect, no_field, plain
from ..recipe.freezing import full
from ..recipe.parts import Dropouts, Model, Optimizer, Phase
from ..recipe.recipe import Recipe
from ..recipe.schedules import Schedule
from ..tokens.pieces import is_model, model_digest
from .corpus import HELD_OUT
from .sharing import ANY_CLASSIFIER
from .starting import OpenedWeights

LIGHT = Dropouts(embed=0.0, input=0.05, hidden=0.05, weight=0.05, output=0.05)
"""A small model on a large corpus underfits: nearly no dropout."""
SIZES = {
    "small": (Model(emb_sz=256, n_hid=640, n_layers=2, lm_dropouts=LIGHT), 16_000),
    "full": (Model(lm_dropouts=Dropouts(embed=0.01, input=0.1, hidden=0.1, weight=0.1, output=0.05)), 60_000),
}


@dataclass(frozen=True)
class Reading:
    """How a corpus is read: what stage 1 depends on besides its recipe and the files."""

    limit_words: int | None = None
    """Read no more than about this many words of the corpus; None: all of it."""
    valid_texts: int = HELD_OUT
    """Articles held out at the end of the corpus, when no validation file is given."""
    lang: str = "en"
    """The corpus's language: spaCy's code."""
    tokenizer: str = "spacy"
    """'spacy', or 'sentencepiece': `max_vocab` pieces of words, learnt from the corpus first."""
    text: str | None = None
    """The column, or key, of the texts where the corpus is a table; None: `text`."""
    encoding: str | None = None
    """The encoding of the corpus and of the texts to measure perplexity on; None: UTF-8."""
    weights: str | None = None
    """The language model to go on from, as a recipe's `weights`; None: random weights."""

    @property
    def how(self) -> dict[str, Any]:
        """What of it `read_corpus` is told."""
        return {name: value for name in ("text", "encoding") if (value := getattr(self, name)) is not None}

    def to_record(self) -> dict[str, Any]:
        """What run.json has of it: column, encoding and weights only where they were given."""
        every, later = dataclasses.asdict(self), ("text", "encoding", "weights")
        return {name: value for name, value in every.items() if name not in later or value is not None}

    def __post_init__(self) -> None:
        for name in ("limit_words", "valid_texts"):
            value = getattr(self, name)
            expect(value is None or value >= 1, name, value, "at least 1")
        if self.tokenizer not in ("spacy", "sentencepiece"):
            raise UlmfitError(f"tokenizer: expected 'spacy' or 'sentencepiece', found {self.tokenizer!r}")
        if self.weights is not None:
            expect(self.weights not in ("", "pretrain"), "weights", self.weights,
                   "a language model to go on from, or 'none' for random weights")
            expect(self.tokenizer == "spacy", "tokenizer", self.tokenizer,
                   "'spacy'; pieces of words are those of the weights, whose spm.model is given as lang")


WHOLE = Reading()
"""English, all of it, split by spaCy."""


def pretraining(size: str = "small", *, model: Model | None = None, max_vocab: int | None = None, min_freq: int = 3,
                epochs: int = 1, lr: float = 5e-3, bs: int = 64, bptt: int = 70, sampled_words: int | None = None,
                wd: float = 0.01, seed: int = 0, precision: str = "auto",
                directions: Sequence[str] = ("forward",)) -> Recipe:
    """The recipe of stage 1 for a size: 'small' for a laptop, 'full' as in the paper.

    Args:
        size: small or full.
        model: another than the size's: AWD-LSTM and its dropouts, of which stage 1 takes `lm_dropouts`.
        max_vocab: most words, or pieces of words, in the vocabulary; None: the size's.
        min_freq: words seen fewer times become xxunk.
        epochs: how often the corpus is read.
        lr: peak rate of Adam under one-cycle, the same for every layer: nothing is pretrained yet.
        bs: streams of text in a batch.
        bptt: tokens per step of back-propagation through time.
        sampled_words: words that compete in the loss while training, as in `recipe.Phase`; None: all.
        wd: weight decay.
        seed: of everything random.
        precision: auto, fp32, bf16 or fp16.
        directions: language models to train.
    """
    if size not in SIZES:
        raise UlmfitError(f"size: expected one of {', '.join(SIZES)}, found {size!r}")
    model = SIZES[size][0] if model is None else model
    words = SIZES[size][1] if max_vocab is None else max_vocab
    schedule = Schedule(kind="one_cycle", pct_start=0.1, div=10.0, div_final=100.0)
    phase = Phase(stages=full(epochs, lr, discriminative=1.0, schedule=schedule),
                  optimizer=Optimizer(moms=(0.8, 0.7, 0.8), wd=wd, clip=0.25), bs=bs, bptt=bptt, alpha=0.0, beta=0.0,
                  sampled_words=sampled_words)
    drops = model.lm_dropouts
    model = dataclasses.replace(model, pretrain_dropouts=drops, classifier_dropouts=drops)
    return Recipe(name=size, weights="pretrain", pretrain=phase, lm=None, classifier=ANY_CLASSIFIER, model=model,
                  directions=tuple(directions), max_vocab=words, min_freq=min_freq, seed=seed, precision=precision)


def settings(changes: Mapping[str, Any]) -> tuple[Recipe, Reading]:
    """The settings of `pretrain` by name, as what a recipe has of them and how the corpus is read."""
    reading = {item.name for item in dataclasses.fields(Reading)}
    hints = {**typing.get_type_hints(pretraining), **typing.get_type_hints(Reading), "directions": tuple[str, ...]}
    del hints["return"]
    for name in changes:
        if name not in hints:
            raise no_field(name, "", name, list(hints))
    built = {name: build(hints[name], plain(value), name) for name, value in changes.items()}
    if built.get("weights") == "none":
        del built["weights"]
    recipe = pretraining(**{name: value for name, value in built.items() if name not in reading})
    return recipe, Reading(**{name: value for name, value in built.items() if name in reading})


def as_the_weights(recipe: Recipe, reading: Reading, changes: Mapping[str, Any], opened: OpenedWeights) -> Recipe:
    """The recipe in the sizes of the language model that it goes on from; UlmfitError where that one doesn't fit."""
    if reading.weights is None:
        return recipe
    pieces = model_digest(reading.lang) if is_model(reading.lang) else None
    for direction in recipe.directions:
        found = opened.look_at(reading.weights, direction)
        assert found is not None, "only 'none' gives no weights"
        if found.vocab.pieces != pieces:
            theirs, lang = ("pieces of words", found.lang) if found.vocab.pieces else ("words", "en")
            raise UlmfitError(f"weights {reading.weights!r} are of texts split into {theirs}", field="lang",
                              expected=lang, found=reading.lang, advice=f"give the corpus as `lang={lang!r}` splits it")
        if changes.get("model") is None:
            recipe = dataclasses.replace(recipe, model=dataclasses.replace(
                recipe.model, emb_sz=found.emb_sz, n_hid=found.n_hid, n_layers=found.n_layers))
        if changes.get("max_vocab") is None:
            recipe = dataclasses.replace(recipe, max_vocab=len(found.vocab))
        found.check_shape(emb_sz=recipe.model.emb_sz, n_hid=recipe.model.n_hid, n_layers=recipe.model.n_layers)
    return recipe
