"""Stage 1 on its own: a language model of general text, pretrained on any corpus, in either direction.

It is a `Recipe` that ends with its first phase. What a recipe leaves open, which texts are read and what splits them,
is `Reading`; run.json has it beside the corpus, under `data.reading`.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._errors import UlmfitError
from .._files import read_json
from ..batches.dataloaders import lm_dataloaders
from ..model.generate import generate
from ..model.learners import lm_learner
from ..model.weights import LMWeights
from ..recipe.fields import build, expect, no_field, plain
from ..recipe.freezing import full
from ..recipe.parts import Dropouts, Model, Optimizer, Phase
from ..recipe.recipe import Recipe
from ..recipe.schedules import Schedule
from ..recipe.settings import LostSetting
from ..results.environment import command_line, describe_device, now, versions
from ..results.folder import ANOTHER_PLACE_OR_ANEW, RunFolder, RunMismatch
from ..texts.corpora import read_corpus
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import is_model
from ..tokens.store import TokenStore
from .corpus import HELD_OUT, GeneralText, corpus_pieces, general_text
from .session import Conditions, session
from .sharing import ANY_CLASSIFIER
from .work import Work

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

    def __post_init__(self) -> None:
        for name in ("limit_words", "valid_texts"):
            value = getattr(self, name)
            expect(value is None or value >= 1, name, value, "at least 1")
        if self.tokenizer not in ("spacy", "sentencepiece"):
            raise UlmfitError(f"tokenizer: expected 'spacy' or 'sentencepiece', found {self.tokenizer!r}")


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
    for name, value in changes.items():
        if name not in hints:
            raise no_field(name, "", name, list(hints))
        build(hints[name], plain(value), name)
    recipe = pretraining(**{name: value for name, value in changes.items() if name not in reading})
    return recipe, Reading(**{name: value for name, value in changes.items() if name in reading})


def pretrain(
    corpus: str | Path | Sequence[str | Path],
    *,
    size: str = "small",
    directions: Sequence[str] = ("forward",),
    out: str | Path = "runs/pretrain",
    valid: str | Path | None = None,
    evaluate: Sequence[str | Path] = (),
    resume: bool = True,
    time_budget: float | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    cache: Path | None = None,
    checkpoint_every: float = 300.0,
    **changes: Any,
) -> Path:
    """Pretrain a language model on a corpus and leave `pretrain_<direction>.safetensors` in the folder `out`.

    Resumable at any batch and time-boxed like every run; returns the folder, whose run.json says 'stopped' when the
    time budget ended it. Perplexities are per token of fastai's tokens, unknown words counted as xxunk.

    Args:
        corpus: a file or folder that `read_corpus` reads (JSON-lines, text, WikiText .tokens, Parquet; compressed or
            not), or several.
        valid: a held-out file; without it the last articles are held out.
        evaluate: further files whose perplexity is measured at the end.
        changes: settings of `pretraining` and `Reading` (`epochs=2`, `lr=3e-3`, `lang="de"`, ...). With
            `tokenizer='sentencepiece'` the model that splits texts is `out`/spm.model: give it as `lang` where the
            weights are used.

    Source: paper, section 3.1.
    """
    recipe, reading = settings({"size": size, "directions": directions, **changes})
    _refuse_lost(recipe, reading, changes, valid)
    conditions = Conditions.of(device=device, time_budget=time_budget, checkpoint_every=checkpoint_every,
                               progress=progress, cache=cache)
    _recorded(out, recipe, reading, resume=resume)  # another run is refused now, not after the corpus was tokenised
    paths = [Path(corpus)] if isinstance(corpus, (str, Path)) else [Path(p) for p in corpus]
    lang = reading.lang
    if reading.tokenizer == "sentencepiece":
        lang = str(_pieces(paths, recipe, reading, Path(out), valid=valid, resume=resume, cache=cache))
    text = general_text(paths, max_vocab=recipe.max_vocab, min_freq=recipe.min_freq, valid=valid,
                        valid_texts=reading.valid_texts, limit_words=reading.limit_words, cache=cache,
                        progress=progress, lang=lang)
    return pretrain_on(text, recipe, out, conditions, reading=reading, evaluate=evaluate, resume=resume)


def _refuse_lost(recipe: Recipe, reading: Reading, changes: Mapping[str, Any], valid: str | Path | None) -> None:
    """Refuse settings that would have no effect."""
    reasons = {"min_freq": "pieces of words are never too rare"} if reading.tokenizer == "sentencepiece" else {}
    reasons |= {"valid_texts": "the texts to measure perplexity on are given"} if valid is not None else {}
    usual = {"min_freq": pretraining(recipe.name).min_freq, "valid_texts": HELD_OUT}
    lost = [name for name in reasons if changes.get(name, usual[name]) != usual[name]]
    if lost:
        raise LostSetting(", ".join(f"{name} ({reasons[name]})" for name in lost) + ": no effect", field=lost[0],
                          advice="leave it out")


def _pieces(paths: Sequence[Path], recipe: Recipe, reading: Reading, out: Path, *, valid: str | Path | None,
            resume: bool, cache: Path | None) -> Path:
    """The SentencePiece model that splits the corpus: the run folder's, or one that is learnt from the articles."""
    if resume and (out / PIECES_FILE).exists():
        return out / PIECES_FILE
    return corpus_pieces(paths, max_vocab=recipe.max_vocab, lang=reading.lang, limit_words=reading.limit_words,
                         held_out=0 if valid is not None else reading.valid_texts, cache=cache)


def pretrain_on(text: GeneralText, recipe: Recipe, out: str | Path, conditions: Conditions, *,
                reading: Reading = Reading(), evaluate: Sequence[str | Path] = (), resume: bool = True) -> Path:
    """What `pretrain` does, from a corpus in numbers: a recipe as `pretraining` makes it, in its directions."""
    folder = RunFolder(out)
    recorded = _recorded(out, recipe, reading, resume=resume)
    folder.open(_header(text, reading, recorded, conditions), resume=resume)
    if is_model(text.lang) and Path(text.lang).resolve() != (folder.path / PIECES_FILE).resolve():
        shutil.copy(text.lang, folder.path / PIECES_FILE)
    if folder.run["status"] == "finished":
        return folder.path
    work = Work(recipe, folder, conditions, general=text)
    with session(folder, conditions):
        for direction in recipe.directions:
            if not folder.phase_done(direction, "pretrain"):
                work.pretrain(direction, name=f"{recipe.name}, {text.about['name']}")
            _try_out(work, direction, evaluate)
        folder.run.update(status="finished", finished=now(), until="pretrain")
    return folder.path


def _header(text: GeneralText, reading: Reading, recipe: Mapping[str, Any], conditions: Conditions) -> dict[str, Any]:
    """What run.json says of it from its start."""
    data = {"counts": {"articles": len(text.train) + len(text.valid), "tokens": int(text.ids.offsets[-1])},
            "synthetic": False, "notes": [], "source": text.about["name"], "classes": [], **text.about,
            "reading": dataclasses.asdict(reading)}
    return {"task": "pretrain", **recipe, "data": data, "versions": versions(),
            "device": describe_device(conditions.device), "command": command_line()}


def _recorded(out: str | Path, recipe: Recipe, reading: Reading, *, resume: bool) -> dict[str, Any]:
    """The recipe as run.json has it or is to have it; RunMismatch where the folder was begun with other settings.

    A folder from before stage 1 was a recipe keeps its own record of the settings, so that its checkpoint fits it.
    """
    found = Path(out) / "run.json"
    kept = read_json(found) if resume and found.exists() else {}
    if isinstance(kept, dict) and kept.get("task") == "pretrain" and {"recipe", "recipe_hash", "data"} <= set(kept):
        _refuse_others(out, *_settings_of(kept, recipe), recipe, reading)
        return {name: kept[name] for name in ("recipe", "recipe_hash", "seeds") if name in kept}
    return {"recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "seeds": [recipe.seed]}


def _settings_of(run: Mapping[str, Any], recipe: Recipe) -> tuple[Recipe, Reading]:
    """What a run.json of `pretrain` was begun with; before stage 1 was a recipe, its settings stood there by name.

    Those leave the directions open, so that they are the ones that are asked for now.
    """
    then = run["recipe"]
    if "size" in then:
        return settings({**then, "model": build(Model, then["model"], "model"), "directions": recipe.directions})
    return Recipe.from_dict(then), Reading(**run["data"].get("reading", {}))


def _refuse_others(out: str | Path, their_recipe: Recipe, their_reading: Reading, recipe: Recipe, reading: Reading
                   ) -> None:
    """RunMismatch, naming what differs, unless the settings are the same."""
    theirs, ours = dataclasses.asdict(their_reading), dataclasses.asdict(reading)
    differing = [*their_recipe.diff(recipe), *((name, theirs[name], ours[name]) for name in ours)]
    shown = [f"{name}: {there!r} there, {here!r} here" for name, there, here in differing if there != here]
    if shown:
        raise RunMismatch(f"{out} holds a pretraining with other settings ({', '.join(shown[:4])})", path=out,
                          advice=ANOTHER_PLACE_OR_ANEW)


def _try_out(work: Work, direction: str, evaluate: Sequence[str | Path]) -> None:
    """Perplexity on other files, and what the model writes, into run.json unless they are there."""
    run, samples = work.folder.run, work.folder.run.setdefault("samples", {})
    measured = f"perplexity_{direction}" in run["metrics"] or not evaluate
    if measured and direction in samples:
        return
    weights = LMWeights.load(work.folder.weights_file("pretrain", direction))
    if not measured:
        run["metrics"][f"perplexity_{direction}"] = {
            Path(path).name: perplexity(weights, work.recipe.model, read_corpus(path), device=work.device,
                                        cache=work.conditions.cache) for path in evaluate}
    if direction not in samples:
        samples[direction] = generate(weights, ["", "", ""], seed=work.recipe.seed)


def perplexity(weights: LMWeights, model: Model, texts: Iterator[str] | Sequence[str], *, bs: int = 8, bptt: int = 70,
               device: torch.device | str = "cpu", cache: Path | None = None) -> dict[str, float]:
    """Perplexity of texts under the weights: every token once, in reading order, unknown words as xxunk.

    Returns {'perplexity', 'tokens', 'unknown' (share of tokens that are xxunk), 'words' (between spaces),
    'per_word' (the same loss shared out over the words)}. Tokens are fastai's, which are more and smaller than
    WikiText's words: the figure that is nearer to word-level ones is `per_word`, though its unknown words cost little.
    """
    texts = list(texts)
    words = sum(len(text.split()) for text in texts)
    store = TokenStore.make(texts, cache=cache, progress=False, lang=weights.lang)
    ids = store.numericalize(weights.vocab)
    every = np.arange(len(store))
    phase = pretraining(bs=bs, bptt=bptt).pretrain
    assert phase is not None
    dls = lm_dataloaders(ids, train=every, valid=every, direction=weights.direction, bs=bs, bptt=bptt, device=device)
    learn = lm_learner(dls, model, phase, weights=weights)
    learn.model.to(device).eval()
    learn.model.reset()
    total, count = 0.0, 0
    with torch.inference_mode():
        for x, y in dls.valid:
            loss = learn.loss_func(learn.model(x)[0], y)
            total, count = total + float(loss) * y.numel(), count + y.numel()
    unknown = float(np.mean(ids.ids == 0))
    return {"perplexity": math.exp(total / count), "tokens": int(store.offsets[-1]), "unknown": unknown,
            "words": words, "per_word": math.exp(total / words)}
