"""Stage 1 on its own: a language model of general text, pretrained on any corpus, in either direction.

It is a `Recipe` that ends with its first phase; what a recipe leaves open, `Reading` says (stage_one.py).
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._schema import RUN, read_checked
from ..batches.dataloaders import lm_dataloaders
from ..model.generate import generate
from ..model.learners import lm_learner
from ..model.pretrained import content_of
from ..model.weights import LMWeights
from ..recipe.fields import build
from ..recipe.parts import Model
from ..recipe.recipe import Recipe
from ..recipe.settings import LostSetting
from ..results.environment import command_line, describe_device, now, versions
from ..results.folder import ANOTHER_PLACE_OR_ANEW, RunFolder, RunMismatch, has_begun
from ..texts.corpora import read_corpus
from ..tokens.ids import UNK
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import is_model
from ..tokens.store import TokenStore
from .corpus import HELD_OUT, GeneralText, corpus_pieces, general_text
from .processes import processes
from .session import Conditions, session
from .stage_one import WHOLE, Reading, as_the_weights, pretraining, settings
from .starting import OpenedWeights
from .work import Work


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
    cbs: Any = None,
    **changes: Any,
) -> Path:
    """Pretrain a language model on a corpus and leave `pretrain_<direction>.safetensors` in the folder `out`.

    With `weights=` it goes on from one that there is, on other texts: a general model becomes one of a domain. Words
    of the corpus that it doesn't know start from the mean of those that it does.

    Resumable at any batch and time-boxed like every run. Perplexities are per token of fastai's tokens, unknown words
    counted as xxunk.

    Args:
        corpus: a file or folder that `read_corpus` reads (JSON-lines, text, WikiText .tokens, Parquet; compressed or
            not), or several.
        size: 'small' (256/640/2, for a laptop) or 'full' (400/1152/3, the paper's).
        directions: language models to train: 'forward', 'backward' or both.
        valid: a held-out file; without it the last articles are held out.
        evaluate: further files whose perplexity is measured at the end.
        resume: False moves an earlier run in `out` aside and starts anew.
        time_budget: seconds after which it stops in good order; call again to go on.
        checkpoint_every: seconds between two checkpoints within an epoch.
        cbs: fastai callbacks, which run beside ours in every stage of every phase (docs/callbacks.md).
        changes: settings of `pretraining` and `Reading` (`epochs=2`, `lr=3e-3`, `lang="de"`, ...). With
            `tokenizer='sentencepiece'` the model that splits texts is `out`/spm.model: give it as `lang` where the
            weights are used. `weights` (a run folder, a file, 'wiki-small', 'wt103') gives the sizes of the model and
            of the vocabulary, unless `model` or `max_vocab` do.

    Returns:
        The folder, whose run.json says 'stopped' when the time budget ended it.

    Raises:
        UlmfitError: an unknown or wrong setting, one without effect, a corpus that can't be read, or a folder that
            holds another run.

    Source: Howard & Ruder 2018, section 3.1.
    """
    recipe, reading = settings({"size": size, "directions": directions, **changes})
    opened = OpenedWeights()
    recipe = as_the_weights(recipe, reading, changes, opened)
    _refuse_lost(recipe, reading, changes, valid)
    conditions = Conditions.of(device=device, time_budget=time_budget, checkpoint_every=checkpoint_every,
                               progress=progress, cache=cache, cbs=cbs)
    for path in (*([] if valid is None else [valid]), *evaluate):
        read_corpus(path, **reading.how)  # what isn't there is said now, not after the training
    out, progress = processes().place(out), conditions.progress
    processes().same(recipe=recipe.hash, reading=reading)
    _recorded(out, recipe, reading, resume=resume)  # another run is refused now, not after the corpus was tokenised
    paths = [Path(corpus)] if isinstance(corpus, (str, Path)) else [Path(p) for p in corpus]
    lang = reading.lang
    with processes().first():
        for path in paths:
            read_corpus(path, **reading.how)
        if reading.tokenizer == "sentencepiece":
            lang = str(_pieces(paths, recipe, reading, out, valid=valid, resume=resume, cache=cache))
        text = general_text(paths, max_vocab=recipe.max_vocab, min_freq=recipe.min_freq, valid=valid,
                            valid_texts=reading.valid_texts, limit_words=reading.limit_words, cache=cache,
                            progress=progress, lang=lang, how=reading.how)
    return pretrain_on(text, recipe, out, conditions, reading=reading, opened=opened, evaluate=evaluate, resume=resume)


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
                         held_out=0 if valid is not None else reading.valid_texts, cache=cache, how=reading.how)


def pretrain_on(text: GeneralText, recipe: Recipe, out: str | Path, conditions: Conditions, *,
                reading: Reading = WHOLE, opened: OpenedWeights | None = None, evaluate: Sequence[str | Path] = (),
                resume: bool = True) -> Path:
    """What `pretrain` does, from a corpus in numbers: a recipe as `pretraining` makes it, in its directions."""
    folder = RunFolder(out)
    try:
        return _pretrain(text, recipe, folder, conditions, reading=reading, opened=opened, evaluate=evaluate,
                         resume=resume)
    finally:
        folder.release()


def _pretrain(text: GeneralText, recipe: Recipe, folder: RunFolder, conditions: Conditions, *, reading: Reading,
              opened: OpenedWeights | None, evaluate: Sequence[str | Path], resume: bool) -> Path:
    recorded = _recorded(folder.path, recipe, reading, resume=resume)
    folder.open(_header(text, reading, recorded, conditions), resume=resume)
    if is_model(text.lang) and Path(text.lang).resolve() != (folder.path / PIECES_FILE).resolve():
        shutil.copy(text.lang, folder.path / PIECES_FILE)
    if folder.run["status"] == "finished":
        return folder.path
    work = Work(recipe, folder, conditions, general=text, start=reading.weights, opened=opened)
    with session(folder, conditions):
        for direction in recipe.directions:
            if not folder.phase_done(direction, "pretrain"):
                work.pretrain(direction, name=f"{recipe.name}, {text.about['name']}")
            _try_out(work, direction, evaluate, reading.how)
        folder.note_digests("history.csv", "rates.csv", PIECES_FILE)
        folder.run.update(status="finished", finished=now(), until="pretrain")
    return folder.path


def _header(text: GeneralText, reading: Reading, recipe: Mapping[str, Any], conditions: Conditions) -> dict[str, Any]:
    """What run.json says of it from its start."""
    data = {"counts": {"articles": len(text.train) + len(text.valid), "tokens": int(text.ids.offsets[-1])},
            "synthetic": False, "notes": [], "source": text.about["name"], "classes": [], **text.about,
            "reading": reading.to_record()}
    start = {} if reading.weights is None else {"identity": {"weights": {
        direction: content_of(reading.weights, direction) for direction in recipe["recipe"]["directions"]}}}
    return {"task": "pretrain", **recipe, "data": data, **start, "versions": versions(),
            "device": describe_device(conditions.device), "command": command_line()}


def _recorded(out: str | Path, recipe: Recipe, reading: Reading, *, resume: bool) -> dict[str, Any]:
    """The recipe as run.json has it or is to have it; RunMismatch where the folder was begun with other settings.

    A folder from before stage 1 was a recipe keeps its own record of the settings, so that its checkpoint fits it.
    """
    found = Path(out) / "run.json"
    kept = read_checked(found, RUN) if resume and found.exists() else {}
    ours = isinstance(kept, dict) and kept.get("task") == "pretrain" and {"recipe", "recipe_hash", "data"} <= set(kept)
    if ours and has_begun(Path(out), kept):
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
    differing = [*((name, theirs[name], ours[name]) for name in ours), *their_recipe.diff(recipe)]
    if theirs["weights"] != ours["weights"]:  # sizes that nobody gave follow from them
        differing = [one for one in differing if one[0] != "max_vocab" and not one[0].startswith("model.")]
    shown = [f"{name}: {there!r} there, {here!r} here" for name, there, here in differing if there != here]
    if shown:
        raise RunMismatch(f"{out} holds a pretraining with other settings ({', '.join(shown[:4])})", path=out,
                          advice=ANOTHER_PLACE_OR_ANEW)


def _try_out(work: Work, direction: str, evaluate: Sequence[str | Path], how: Mapping[str, Any]) -> None:
    """Perplexity on other files, and what the model writes, into run.json unless they are there."""
    run, samples = work.folder.run, work.folder.run.setdefault("samples", {})
    measured = f"perplexity_{direction}" in run["metrics"] or not evaluate
    if measured and direction in samples:
        return
    weights = LMWeights.load(work.folder.weights_file("pretrain", direction))
    if not measured:
        run["metrics"][f"perplexity_{direction}"] = {
            Path(path).name: perplexity(weights, work.recipe.model, read_corpus(path, **how), device=work.device,
                                        cache=work.conditions.cache) for path in evaluate}
    if direction not in samples:
        samples[direction] = generate(weights, ["", "", ""], seed=work.recipe.seed)


def perplexity(weights: LMWeights, model: Model, texts: Iterator[str] | Sequence[str], *, bs: int = 8, bptt: int = 70,
               device: torch.device | str = "cpu", cache: Path | None = None, shared: Sequence[str] | None = None
               ) -> dict[str, Any]:
    """Perplexity of texts under the weights: every token once, in reading order, unknown words as xxunk.

    Tokens are fastai's, which are more and smaller than WikiText's words: the figure that is nearer to word-level ones
    is `per_word`, though its unknown words cost little.

    Args:
        shared: a smaller vocabulary to measure in too, as that of other weights to compare with: all words that it
            lacks count as one with xxunk, whose probability is the sum of theirs.

    Returns:
        {'perplexity', 'tokens', 'unknown' (share of tokens that are xxunk), 'words' (between spaces), 'per_word' (the
        same loss shared out over the words)}; with `shared` also 'shared', the same again in that vocabulary.
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
    others = None if shared is None else torch.from_numpy(_lacking(weights.vocab, shared)).to(device)
    total, in_shared, count = 0.0, 0.0, 0
    with torch.inference_mode():
        for x, y in dls.valid:
            logits = learn.model(x)[0]
            total, count = total + float(learn.loss_func(logits, y)) * y.numel(), count + y.numel()
            if others is not None:
                in_shared += float(shared_loss(logits, y, others)) * y.numel()

    def figures(loss: float, unknown: np.ndarray) -> dict[str, Any]:
        return {"perplexity": math.exp(loss / count), "tokens": int(store.offsets[-1]),
                "unknown": float(np.mean(unknown)), "words": words, "per_word": math.exp(loss / words)}

    found = figures(total, ids.ids == UNK)
    return found if others is None else {**found, "shared": figures(in_shared, others.cpu().numpy()[ids.ids])}


def _lacking(vocab: Sequence[str], shared: Sequence[str]) -> np.ndarray:
    """(words,): True for those that a smaller vocabulary reads as xxunk, which is one of them."""
    lacking = ~np.isin(list(vocab), list(shared))
    lacking[UNK] = True
    return lacking


def shared_loss(logits: Tensor, targets: Tensor, others: Tensor) -> Tensor:
    """Mean cross entropy where some words are one: what they come to together, for a target that is any of them.

    Args:
        logits: (batch, length, words) or (rows, words).
        targets: (batch, length) or (rows,), word numbers.
        others: (words,), True for those that count as one.
    """
    logs = logits.flatten(0, -2).float().log_softmax(-1)
    targets = targets.flatten()
    own = logs.gather(1, targets[:, None])[:, 0]
    together = logs[:, others].logsumexp(-1)
    return -torch.where(others[targets], together, own).mean()
