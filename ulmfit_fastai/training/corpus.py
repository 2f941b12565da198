"""The text of stage 1: a corpus as word numbers, the language model that learns it, and its weights in a run folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.text.learner import LMLearner

from .._errors import UlmfitError
from ..batches.dataloaders import lm_dataloaders
from ..model.autocast import precision_callbacks
from ..model.learners import lm_learner
from ..model.precision import compute_dtype
from ..model.weights import LMWeights
from ..recipe.parts import Model, Phase
from ..results.folder import RunFolder
from ..texts.corpora import read_corpus
from ..tokens.ids import TokenIds
from ..tokens.languages import unspaced
from ..tokens.pieces import is_model, train_pieces
from ..tokens.store import TokenStore
from ..tokens.store_files import cache_root
from .callbacks import derived_seed

log = logging.getLogger(__name__)

HELD_OUT = 200
"""Articles at the end of a corpus on which perplexity is measured, a tenth of a small one."""

SAMPLE = 20_000
"""Tokens at the beginning of a corpus that tell whether its language sets blanks between words."""

AS_USUAL: Mapping[str, Any] = {}
"""How a corpus is read unless something is said: as `read_corpus` does by itself."""

Corpus = str | Path | Sequence[str] | Sequence[Path]
"""A file, folder, pattern or name that `read_corpus` reads; several `Path`s; or the texts themselves, in a list."""


@dataclass(frozen=True, eq=False)
class GeneralText:
    """A corpus in its own vocabulary; `train` and `valid` are numbers of its documents."""

    ids: TokenIds
    train: np.ndarray
    valid: np.ndarray
    about: dict[str, Any]
    """What run.json says of it: name, source, fingerprint, articles, tokens."""
    lang: str = "en"
    """What split it: a language's code, or the file of a SentencePiece model."""


def general_text(corpus: Corpus, *, max_vocab: int, min_freq: int, valid: str | Path | None = None,
                 valid_texts: int = HELD_OUT, limit_words: int | None = None, cache: Path | None = None,
                 progress: bool = True, lang: str = "en", how: Mapping[str, Any] = AS_USUAL) -> GeneralText:
    """Tokenise a corpus (or open its tokens made earlier) and number it by the words of its training part.

    `valid` is a held-out file; without it the last `valid_texts` articles are held out, a tenth at most. `lang`: as in
    `TokenStore.make`; `how`: the column of the texts and the encoding, as `read_corpus` takes them.
    """
    files = _files(corpus)
    if files is None:
        assert not isinstance(corpus, (str, Path))
        store = TokenStore.make([str(text) for text in corpus], cache=cache, progress=progress, lang=lang)
        name = f"{len(store):,} texts"
    else:
        store = corpus_store(files, limit_words=limit_words, cache=cache, progress=progress, lang=lang, how=how)
        name = ", ".join(f.name for f in files)
    for doubt in unspaced(" ".join(store.words[token] for token in store.tokens[:SAMPLE].tolist()), lang):
        log.warning("%s", doubt)
    held_out = 0 if valid is not None else _held_out(len(store), valid_texts)
    if len(store) <= held_out:
        raise UlmfitError(f"corpus {name}: expected several texts, found {len(store)}; pretraining needs some to learn "
                          "from and one to measure perplexity on. Plain text is cut at empty lines into texts of 1,000 "
                          "words at least", field="corpus", advice="give more, or texts to measure on as `valid=`")
    rows = np.arange(len(store) - held_out)
    vocab = store.vocab(rows, max_vocab=max_vocab, min_freq=min_freq)
    ids, valid_rows = store.numericalize(vocab), np.arange(len(rows), len(store))
    if valid is not None:
        held = corpus_store([valid], cache=cache, progress=progress, lang=lang, how=how)
        ids, valid_rows = joined(ids, held.numericalize(vocab))
    return GeneralText(ids, rows, valid_rows, {
        "name": name, "source": source_of(corpus), "fingerprint": store.fingerprint, "articles": len(store),
        "tokens": int(store.offsets[-1]),
    }, lang)


def source_of(corpus: Corpus) -> str:
    """Where a corpus is from, as run.json has it."""
    files = _files(corpus)
    return "given as texts" if files is None else ", ".join(map(str, files))


def _files(corpus: Corpus) -> list[Path] | None:
    """The paths of a corpus; None when it is texts."""
    if isinstance(corpus, (str, Path)):
        return [Path(corpus)]
    paths = [item for item in corpus if isinstance(item, Path)]
    return paths if len(paths) == len(corpus) else None


def corpus_store(paths: Sequence[str | Path], *, limit_words: int | None = None, cache: Path | None = None,
                 progress: bool = True, lang: str = "en", how: Mapping[str, Any] = AS_USUAL) -> TokenStore:
    """The tokens of a corpus in files; remade only when a file's name, size or time changed, or the limit."""
    key = _files_key(paths, limit_words if not how else [limit_words, dict(how)])
    return TokenStore.make(articles(paths, limit_words, how), key=key, cache=cache, progress=progress, lang=lang)


def _files_key(paths: Sequence[str | Path], more: Any) -> str | None:
    """Stands for the files as they are now, and for `more`; None for a corpus that is no file."""
    members = [m for f in map(Path, paths) for m in (sorted(f.rglob("*")) if f.is_dir() else [f]) if m.is_file()]
    stats = [(m.name, m.stat().st_size, m.stat().st_mtime_ns) for m in members]
    return hashlib.sha256(json.dumps([stats, more]).encode()).hexdigest()[:24] if stats else None


def articles(paths: Sequence[str | Path], limit_words: int | None = None,
             how: Mapping[str, Any] = AS_USUAL) -> Iterator[str]:
    """The texts of a corpus in files, about `limit_words` words of them."""
    left = limit_words
    for file in map(Path, paths):
        for text in read_corpus(file, **how):
            if left is not None:
                if left <= 0:
                    return
                left -= text.count(" ") + 1
            yield text


def corpus_pieces(paths: Sequence[str | Path], *, max_vocab: int, lang: str, held_out: int = 0,
                  limit_words: int | None = None, cache: Path | None = None,
                  how: Mapping[str, Any] = AS_USUAL) -> Path:
    """A SentencePiece model of a corpus in files, trained when there is none yet of these files and settings.

    The last `held_out` articles (a tenth at most) don't count.
    """
    settings = [limit_words, held_out, max_vocab, lang, version("sentencepiece"), *([dict(how)] if how else [])]
    key = _files_key(paths, settings)
    path = cache_root(cache) / f"pieces-{key}.model"
    if key is None or not path.exists():
        texts = _all_but_the_last(articles(paths, limit_words, how), held_out)
        train_pieces(texts, path, max_vocab=max_vocab, lang=lang)
    return path


def _all_but_the_last(texts: Iterator[str], n: int) -> Iterator[str]:
    waiting: deque[str] = deque()
    count = 0
    for text in texts:
        count += 1
        waiting.append(text)
        if len(waiting) > n:
            yield waiting.popleft()
    for _ in range(len(waiting) - _held_out(count, n)):
        yield waiting.popleft()


def _held_out(count: int, most: int) -> int:
    """How many of `count` articles are held out."""
    return min(most, max(1, count // 10))


def joined(first: TokenIds, second: TokenIds) -> tuple[TokenIds, np.ndarray]:
    """Both sets of texts in one, and the rows that the second has there."""
    offsets = np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]])
    both = TokenIds(np.concatenate([first.ids, second.ids]), offsets, first.vocab)
    return both, np.arange(len(first.offsets) - 1, len(offsets) - 1)


def general_lm(text: GeneralText, model: Model, phase: Phase, direction: str, *, seed: int, precision: str,
               device: torch.device, fast: bool = True, weights: LMWeights | None = None) -> LMLearner:
    """The Learner of stage 1: a language model with random weights, or those given, over a corpus."""
    dls = lm_dataloaders(text.ids, train=text.train, valid=text.valid, direction=direction, bs=phase.bs,
                         bptt=phase.bptt, device=device, seed=derived_seed(seed, direction, "pretrain"),
                         variable_bptt=phase.variable_bptt)
    torch.manual_seed(derived_seed(seed, direction, "pretrain", "init"))
    return lm_learner(dls, model, phase, weights=weights, fast=fast, compute_dtype=compute_dtype(precision, device),
                      cbs=precision_callbacks(precision, device))


def save_pretrained(learn: LMLearner, text: GeneralText, folder: RunFolder, direction: str, *, name: str, epochs: int,
                    recipe_hash: str) -> None:
    """Write `pretrain_<direction>.safetensors` with its own vocabulary, and mark the phase as done."""
    metrics = next(stage["metrics"] for stage in reversed(folder.run["stages"])
                   if (stage["direction"], stage["phase"]) == (direction, "pretrain"))
    weights = LMWeights.from_model(
        learn.model, text.ids.vocab, name=name, direction=direction, tokens=int(text.ids.lengths[text.train].sum()),
        epochs=epochs, metrics=metrics, recipe_hash=recipe_hash, **({} if is_model(text.lang) else {"lang": text.lang}),
    )
    weights.save(folder.weights_file("pretrain", direction))
    folder.mark_phase(direction, "pretrain")
    folder.state_file.unlink(missing_ok=True)
