"""Stage 1: a language model of general text, pretrained on any corpus, in either direction."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.torch_core import default_device

from .._errors import UlmfitError
from ..batches.dataloaders import lm_dataloaders
from ..model import weights as weight_files
from ..model.generate import generate
from ..model.learners import lm_learner
from ..model.weights import LMWeights
from ..recipe.freezing import full
from ..recipe.parts import DIRECTIONS, Dropouts, Model, Optimizer, Phase
from ..recipe.schedules import Schedule
from ..results.environment import command_line, describe_device, now, versions
from ..results.folder import RunFolder
from ..texts.corpora import read_corpus
from ..tokens.ids import TokenIds
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import is_model
from ..tokens.store import TokenStore
from .callbacks import Budget
from .corpus import (
    HELD_OUT,
    GeneralText,
    corpus_pieces,
    general_lm,
    general_text,
    save_pretrained,
)
from .loop import PhaseFit
from .runs import interruptible

LIGHT = Dropouts(embed=0.0, input=0.05, hidden=0.05, weight=0.05, output=0.05)
"""A small model on a large corpus underfits: nearly no dropout."""
SIZES = {
    "small": (Model(emb_sz=256, n_hid=640, n_layers=2, lm_dropouts=LIGHT), 16_000),
    "full": (Model(lm_dropouts=Dropouts(embed=0.01, input=0.1, hidden=0.1, weight=0.1, output=0.05)), 60_000),
}


@dataclass(frozen=True)
class Pretraining:
    """Everything stage 1 depends on besides its corpus."""

    size: str = "small"
    model: Model = SIZES["small"][0]
    max_vocab: int = 16_000
    min_freq: int = 3
    epochs: int = 1
    lr: float = 5e-3
    """Peak rate of Adam under one-cycle, the same for every layer: nothing is pretrained yet."""
    bs: int = 64
    bptt: int = 70
    sampled_words: int | None = None
    """Words that compete in the loss while training, as in `recipe.Phase`; None: all."""
    wd: float = 0.01
    limit_words: int | None = None
    """Read no more than about this many words of the corpus; None: all of it."""
    valid_texts: int = HELD_OUT
    """Articles held out at the end of the corpus, when no validation file is given."""
    seed: int = 0
    precision: str = "auto"
    lang: str = "en"
    """The corpus's language: spaCy's code."""
    tokenizer: str = "spacy"
    """'spacy', or 'sentencepiece': `max_vocab` pieces of words, learnt from the corpus first."""

    def __post_init__(self) -> None:
        if self.tokenizer not in ("spacy", "sentencepiece"):
            raise UlmfitError(f"tokenizer: expected 'spacy' or 'sentencepiece', found {self.tokenizer!r}")

    @property
    def phase(self) -> Phase:
        schedule = Schedule(kind="one_cycle", pct_start=0.1, div=10.0, div_final=100.0)
        return Phase(
            stages=full(self.epochs, self.lr, discriminative=1.0, schedule=schedule),
            optimizer=Optimizer(moms=(0.8, 0.7, 0.8), wd=self.wd, clip=0.25), bs=self.bs, bptt=self.bptt, alpha=0.0,
            beta=0.0, sampled_words=self.sampled_words,
        )

    def to_dict(self) -> dict[str, Any]:
        later = {"lang": "en", "tokenizer": "spacy"}  # fields that came later: runs without them keep their hash
        return {key: value for key, value in dataclasses.asdict(self).items() if later.get(key) != value}

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def pretraining(size: str = "small", **changes: Any) -> Pretraining:
    """The settings of a size ('small' for a laptop, 'full' as in the paper), with fields changed by name."""
    if size not in SIZES:
        raise UlmfitError(f"size: expected one of {', '.join(SIZES)}, found {size!r}")
    model, max_vocab = SIZES[size]
    return Pretraining(**{"size": size, "model": model, "max_vocab": max_vocab, **changes})


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

    `corpus` is a file or folder that `read_corpus` reads (JSON-lines, text, WikiText .tokens, Parquet; compressed or
    not), or several. `valid` is a held-out file; without it the last articles are held out. `evaluate` names further
    files whose perplexity is measured at the end. `changes` are fields of `Pretraining` (`epochs=2`, `lr=3e-3`, ...).
    Resumable at any batch and time-boxed like every run; returns the folder, whose run.json says 'stopped' when the
    time budget ended it. Perplexities are per token of fastai's tokens, unknown words counted as xxunk.
    With `tokenizer='sentencepiece'` the model that splits texts is `out`/spm.model: give it as `lang` where the weights
    are used.
    Source: paper, section 3.1.
    """
    recipe = pretraining(size, **changes)
    _check_directions(directions)
    started = time.monotonic()
    paths = [Path(corpus)] if isinstance(corpus, (str, Path)) else [Path(p) for p in corpus]
    lang = recipe.lang
    if recipe.tokenizer == "sentencepiece":
        model = Path(out) / PIECES_FILE
        if not (resume and model.exists()):
            model = corpus_pieces(paths, max_vocab=recipe.max_vocab, lang=lang, limit_words=recipe.limit_words,
                                  held_out=0 if valid is not None else recipe.valid_texts, cache=cache)
        lang = str(model)
    text = general_text(paths, max_vocab=recipe.max_vocab, min_freq=recipe.min_freq, valid=valid,
                        valid_texts=recipe.valid_texts, limit_words=recipe.limit_words, cache=cache, progress=progress,
                        lang=lang)
    if time_budget is not None:
        time_budget -= time.monotonic() - started
    return pretrain_ids(
        text.ids, train=text.train, valid=text.valid, recipe=recipe, directions=directions, out=out, data=text.about,
        evaluate=evaluate, resume=resume, time_budget=time_budget, device=device, progress=progress, cache=cache,
        checkpoint_every=checkpoint_every, lang=lang,
    )


def pretrain_ids(
    ids: TokenIds,
    *,
    train: np.ndarray,
    valid: np.ndarray,
    recipe: Pretraining,
    directions: Sequence[str] = ("forward",),
    out: str | Path,
    data: dict[str, Any],
    evaluate: Sequence[str | Path] = (),
    resume: bool = True,
    time_budget: float | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    cache: Path | None = None,
    checkpoint_every: float = 300.0,
    lang: str = "en",
) -> Path:
    """What `pretrain` does, from numbers: documents `train` and `valid` of `ids`, which hold the vocabulary.

    `data` says what the corpus is: `name` and `fingerprint`, and `source` where it has one. `lang` is what split it.
    """
    _check_directions(directions)
    started = time.monotonic()
    device = torch.device(device) if device is not None else default_device()
    text = GeneralText(ids, train, valid, data, lang)
    folder = RunFolder(out)
    described = {"counts": {"articles": len(train) + len(valid), "tokens": int(ids.offsets[-1])}, "synthetic": False,
                 "notes": [], "source": data["name"], "classes": [], **data}
    folder.open({
        "task": "pretrain", "recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "seeds": [recipe.seed],
        "data": described, "versions": versions(), "device": describe_device(device), "command": command_line(),
    }, resume=resume)
    if is_model(lang) and Path(lang).resolve() != (folder.path / PIECES_FILE).resolve():
        shutil.copy(lang, folder.path / PIECES_FILE)
    if folder.run["status"] == "finished":
        return folder.path
    budget = Budget(started + time_budget if time_budget is not None else None, checkpoint_every)
    folder.run["status"] = "running"
    folder.run["sessions"].append({"started": now(), "device": describe_device(device)})
    try:
        with interruptible(budget):
            for direction in directions:
                if not folder.phase_done(direction, "pretrain") and not _pretrain(
                    recipe, text, folder, direction, device=device, budget=budget, progress=progress
                ):
                    folder.run["status"] = "stopped"
                    return folder.path
                if evaluate and f"perplexity_{direction}" not in folder.run["metrics"]:
                    weights = weight_files.load_file(folder.weights_file("pretrain", direction))
                    folder.run["metrics"][f"perplexity_{direction}"] = {
                        Path(p).name: perplexity(weights, recipe.model, read_corpus(p), device=device, cache=cache)
                        for p in evaluate
                    }
                samples = folder.run.setdefault("samples", {})
                if direction not in samples:
                    weights = weight_files.load_file(folder.weights_file("pretrain", direction))
                    samples[direction] = generate(weights, ["", "", ""], seed=recipe.seed)
        folder.run["status"], folder.run["finished"] = "finished", now()
    except BaseException:  # an error or Ctrl-C: the folder says so, and the same command goes on from the checkpoint
        folder.run["status"] = "stopped"
        raise
    finally:
        folder.run["sessions"][-1]["seconds"] = round(time.monotonic() - started, 1)
        folder.save_tables()
        folder.save()
    return folder.path


def _check_directions(directions: Sequence[str]) -> None:
    wrong = [d for d in directions if d not in DIRECTIONS]
    if wrong or not directions:
        raise UlmfitError(f"directions: expected some of {DIRECTIONS}, found {tuple(directions)}")


def _pretrain(recipe: Pretraining, text: GeneralText, folder: RunFolder, direction: str, *, device: torch.device,
              budget: Budget, progress: bool) -> bool:
    """Train one direction; False when the time budget ended it."""
    phase = recipe.phase
    learn = general_lm(text, recipe.model, phase, direction, seed=recipe.seed, precision=recipe.precision,
                       device=device)
    done = PhaseFit(learn, phase, folder, name="pretrain", direction=direction, seed=recipe.seed, classifies=False,
                    budget=budget, progress=progress).fit()
    if done:
        save_pretrained(learn, text, folder, direction, name=f"{recipe.size}, {text.about['name']}",
                        epochs=recipe.epochs, recipe_hash=recipe.hash)
    return done


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
    phase = Pretraining(bs=bs, bptt=bptt).phase
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
