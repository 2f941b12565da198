"""What a user does on a device, from texts to predictions, at the smallest size: `python rehearsal.py SCENES OUT`.

SCENES are functions below, by name, with commas between. Their numbers go as JSON to OUT, where the program waited for
the device is printed. LOOKALIKE=cuda or mps does it
on the look-alike, without it on the CPU; PRECISION, NUMBER, BF16_LSTM and LOSS_SCALE say more. Dropout is off, so that
a device's own random numbers make no difference and the CPU's numbers are what must come out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

KIND = os.environ.get("LOOKALIKE")
if KIND:
    import lookalike

import numpy as np
import torch
from fastai.callback import fp16
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.text.all import *  # noqa: F403  before the device is at work, as a user has it

from benchmarks.gpu import jobs as gpu_jobs
from benchmarks.gpu import pack
from benchmarks.gpu.packs import write_pack
from ulmfit_fastai import ULMFiT, preset, pretrain, reproduce
from ulmfit_fastai.model.fast.awd_lstm import FastAWDLSTM
from ulmfit_fastai.model.pretrained import load
from ulmfit_fastai.recipe.parts import Dropouts
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.training.callbacks import Checkpoints
from ulmfit_fastai.training.runs import plan_run

DEVICE = None if KIND is None else f"{KIND}:{os.environ['NUMBER']}" if os.environ.get("NUMBER") else KIND
WHERE = DEVICE or "cpu"
PRECISION = os.environ.get("PRECISION", "fp32")
NONE = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)
REVIEWS = synthetic_reviews(n_train=60, n_test=30, n_unsup=40)
TEXTS = REVIEWS.df["text"].tolist()[:60]
LABELS = ["pos" if i % 2 else "neg" for i in range(60)]


def still(**changes: Any) -> Recipe:
    """The tiny preset without dropout."""
    recipe = preset("tiny").replace(precision=PRECISION if KIND else "fp32", **{
        f"model.{name}": NONE for name in ("lm_dropouts", "classifier_dropouts", "pretrain_dropouts")})
    return recipe.replace(**{"model.head_dropout": 0.0, **changes})


def fitted(**changes: Any) -> ULMFiT:
    return ULMFiT(still(n_labels=None, **changes), device=WHERE, progress=False)


def both_directions(out: Path) -> Any:
    """A whole run: language models and classifiers of both directions, averaged; then its folder as a model."""
    result = reproduce(REVIEWS, still(directions=("forward", "backward")), out=out / "run", device=WHERE,
                       progress=False)
    model = ULMFiT.load(out / "run", device=WHERE)
    return [*(result.probs[d].tolist() for d in result.directions), model.predict_proba(TEXTS[:8]).tolist(),
            list(model.explain(TEXTS[0]).scores)]


def stopped_and_resumed(out: Path) -> Any:
    """A run that is stopped in the middle of epochs, four times, and goes on."""
    stops, steps, real = {4, 15, 31, 44}, 0, Checkpoints.after_batch

    def after_batch(self: Checkpoints) -> None:
        nonlocal steps
        steps += self.learn.training
        self.budget.stopped |= self.learn.training and steps in stops
        real(self)

    recipe = still(**{"classifier.stages.-1.epochs": 3})
    whole = reproduce(REVIEWS, recipe, out=out / "whole", device=WHERE, progress=False)
    Checkpoints.after_batch = after_batch
    try:
        parts = [reproduce(REVIEWS, recipe, out=out / "parts", device=WHERE, progress=False) for _ in range(5)]
    finally:
        Checkpoints.after_batch = real
    assert [part.status for part in parts] == ["stopped"] * 4 + ["finished"], steps
    assert (out / "whole" / "predictions.csv").read_bytes() == (out / "parts" / "predictions.csv").read_bytes()
    return whole.probs["forward"].tolist()


def own_texts(out: Path) -> Any:
    """`ULMFiT`: fit, predict, evaluate, explain, save, load."""
    model = fitted().fit(TEXTS, LABELS)
    held = model.evaluate(TEXTS, LABELS)
    loaded = ULMFiT.load(model.save(out / "own"), device=WHERE)
    assert np.array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert ULMFiT.load(out / "own", int8=True).predict(TEXTS[:3]) is not None  # on the CPU, wherever it was trained
    return [model.predict_proba(TEXTS).tolist(), list(model.explain(TEXTS[3]).scores), held.metrics["error"]]


def several_labels_and_numbers(out: Path) -> Any:
    """Multilabel, and regression with an explanation."""
    several = fitted().fit(TEXTS, [["a"] if i % 3 else ["a", "b"] for i in range(60)])
    numbers = ULMFiT(still(n_labels=None), task="regression", device=WHERE, progress=False).fit(
        TEXTS, [float(len(text)) for text in TEXTS])
    spread = float(np.std([len(text) for text in TEXTS]))
    return [several.predict_proba(TEXTS[:9]).tolist(), (numbers.predict(TEXTS[:9]) / spread).tolist(),
            [score / spread for score in numbers.explain(TEXTS[0]).scores]]


def variants(out: Path) -> Any:
    """Class weights, early stopping, fastai's own layers, sampled words in the loss, adversarial training; a callback.
    """
    every = {"class_weights": (1.0, 3.0)}, {"classifier.early_stopping": 1, "classifier.stages.-1.epochs": 3}, \
        {"fast": False}, {"lm.sampled_words": 50}, \
        {"adversarial.weight": 1.0, "adversarial.epsilon": 1.0}
    models = [fitted(**changes).fit(TEXTS, LABELS) for changes in every]
    weighed = ULMFiT(still(n_labels=None), device=WHERE, progress=False, cbs=EarlyStoppingCallback(patience=9))
    models.append(weighed.fit(TEXTS, LABELS, sample_weight=[1 + i % 3 for i in range(60)]))
    return [model.predict_proba(TEXTS[:9]).tolist() for model in models]


def pretraining(out: Path) -> Any:
    """Stage 1 on its own, in both directions, with its perplexities and samples."""
    corpus = out / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), "utf8")
    folder = pretrain(corpus, out=out / "pretrained", directions=("forward", "backward"), evaluate=[corpus],
                      device=WHERE, progress=False, cache=out / "cache", model=still().model, max_vocab=300, min_freq=1,
                      bs=4, precision=still().precision)
    metrics = json.loads((folder / "run.json").read_text())["metrics"]
    assert load(folder, "backward") is not None
    return [metrics[f"perplexity_{d}"]["corpus.jsonl"]["perplexity"] ** 0.1 for d in ("forward", "backward")]


def little_memory(out: Path) -> Any:
    """A device with memory for half a batch: the run is made in parts, and says so; another device goes on with it."""
    real, most = FastAWDLSTM.forward, 4

    def forward(encoder: FastAWDLSTM, words: torch.Tensor, from_embeds: bool = False) -> torch.Tensor:
        if encoder.training and torch.is_grad_enabled() and len(words) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return real(encoder, words, from_embeds)

    FastAWDLSTM.forward = forward  # type: ignore[method-assign]
    try:
        result = reproduce(REVIEWS, still(**{"lm.bs": 8, "classifier.bs": 8}), out=out / "run", device=WHERE,
                           progress=False)
    finally:
        FastAWDLSTM.forward = real  # type: ignore[method-assign]
    parts = json.loads((result.folder / "run.json").read_text()).get("batch_parts")
    assert parts == {"lm": 2, "classifier": 2}, parts
    return []


def jobs(out: Path) -> Any:
    """What is done where a GPU is lent, each job whole."""
    packs = out / "packs"
    common = ["--device", WHERE, "--tiny", "--work", str(out / "work"), "--packs", str(packs)]
    articles = out / "articles.jsonl"
    articles.write_text("".join(json.dumps({"text": text}) + "\n" for text in REVIEWS.df["text"]), "utf8")
    pack.main(["wiki", str(articles), "--out", str(packs / "wiki"), "--vocab", "1000", "--held-out", "10"])
    store = TokenStore.make(REVIEWS.df["text"].tolist(), cache=out / "cache", progress=False)
    vocab = store.vocab(np.arange(100), max_vocab=1000, min_freq=1)
    for task in ("imdb", "trec6"):
        write_pack(packs / task, store.numericalize(vocab), dataset=replace(REVIEWS, name=task))
    for job in os.environ.get("JOBS", ",".join(gpu_jobs.JOBS)).split(","):
        gpu_jobs.main([job, "--out", str(out / "home"), "--minutes", "20", "--most", "1", "--bs", "8", *common])
    assert (out / "home" / "smoke.json").exists() and len(list((out / "home").rglob("*.safetensors*"))) >= 2
    return []


def plan(out: Path) -> Any:
    """How long a run would take."""
    assert plan_run(still(), REVIEWS, device=WHERE, cache=out / "cache").seconds > 0
    return []


SCENES: dict[str, Callable[[Path], Any]] = {scene.__name__: scene for scene in (
    both_directions, stopped_and_resumed, own_texts, several_labels_and_numbers, variants, pretraining, little_memory,
    jobs, plan)}


def in_a_step(where: str) -> bool:
    """Whether a wait is one of every training step: there must be none but torch's own for a scaled loss, in fp16."""
    ours = any(place in where for place in ("model/layers", "model/losses", "model/fast", "batches/"))
    return ours or where.endswith("in a step")


def main(names: str, to: str) -> None:
    if os.environ.get("LOSS_SCALE"):  # so high that steps are skipped until it has come down
        fp16.GradScaler = partial(fp16.GradScaler, init_scale=float(os.environ["LOSS_SCALE"]), growth_interval=10**6)
    number, more = int(os.environ.get("NUMBER") or 0), {"bf16_lstm": bool(os.environ.get("BF16_LSTM"))}
    numbers, seconds = {}, {}
    with lookalike.Lookalike(number=number, **more) if KIND else nullcontext() as device, \
            tempfile.TemporaryDirectory() as folder:
        for name in names.split(","):
            started = time.monotonic()
            place = Path(folder) / name
            place.mkdir()
            torch.manual_seed(0)
            numbers[name] = SCENES[name](place)
            seconds[name] = round(time.monotonic() - started, 1)
    waits = {} if device is None else dict(device.waits)
    for where, n in sorted(waits.items(), key=lambda item: -item[1]):
        print(f"{n:6} waits for the device: {where}")
    hot = {where: n for where, n in waits.items() if in_a_step(where)}
    print(f"{sum(hot.values())} of them in a training step")
    Path(to).write_text(json.dumps({"numbers": numbers, "hot": hot, "seconds": seconds}), "utf8")


if __name__ == "__main__":
    main(*sys.argv[1:])
