"""A run folder made without training: every file in its real layout, with plausible numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ulmfit_fastai._files import write_json_atomic, write_text_atomic
from ulmfit_fastai.recipe.parts import Phase
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.rates import simulate
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.metrics import average, error_metrics
from ulmfit_fastai.results.predictions import write_predictions

STEPS = {"pretrain": 60, "lm": 40, "classifier": 25}  # of an epoch


def write_fake_run(
    folder: Path, *, recipe: Recipe | None = None, directions: tuple[str, ...] = ("forward", "backward"),
    classes: tuple[str, ...] = ("neg", "pos"), n: int = 400, sharpness: float = 3.4, status: str = "finished",
    protocol: str = "clean", task: str = "imdb", synthetic: bool = False, baselines: bool = True,
    fingerprint: str = "5f2ab0c41e9d7a63", warnings: tuple[str, ...] = (), ids: list[str] | None = None, seed: int = 0,
    curves: bool = True, noise_seed: int | None = None,
) -> Path:
    """Write run.json, history.csv, rates.csv and predictions.csv into `folder` and return it.

    `status` 'finished', or 'stopped' or 'running': then the last stage is half done and there are no predictions.
    `noise_seed` gives other probabilities for the same labels: those of another run on the same texts.
    `curves=False` leaves out history.csv and rates.csv, whose figures take a report most of its time.
    """
    recipe = (recipe or preset("fastai")).replace(directions=directions, protocol=protocol)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), n)
    hard = rng.normal(0, 1.3, (n, len(classes)))  # what is hard for one direction is mostly hard for the other
    rng = rng if noise_seed is None else np.random.default_rng(noise_seed)
    probs = {d: _probabilities(hard + rng.normal(0, 0.6, hard.shape), labels, sharpness) for d in directions}
    history, rates, stages = _training(recipe)
    finished = status == "finished"
    if not finished:
        stages[-1].update(status="running", epochs_done=0, metrics={}, seconds=0.0)
        history = history[:-1]
    run = {
        "schema": 1, "status": status, "task": task, "recipe": recipe.to_dict(), "recipe_hash": recipe.hash,
        "seeds": [recipe.seed], "started": "2026-03-02T09:14:02+00:00",
        "finished": "2026-03-02T11:40:45+00:00" if finished else None,
        "data": {"name": "synthetic" if synthetic else task, "fingerprint": fingerprint, "synthetic": synthetic,
                 "classes": list(classes), "counts": {"train": 25000, "test": 25000, "unsup": 50000}, "notes": [],
                 "source": "/data/imdb", "vocabulary": 60008},
        "versions": {"python": "3.11.7", "platform": "Linux-6.1", "ulmfit_fastai": "0.1.0", "torch": "2.13.0",
                     "fastai": "2.8.12"},
        "device": {"type": "cuda", "name": "NVIDIA H200", "threads": 16, "cores": 16},
        "command": ["ulmfit-fastai", "imdb", "--out", "runs/imdb"],
        "sessions": [{"started": "2026-03-02T09:14:02+00:00", "seconds": 8803.0}], "stages": stages,
        "metrics": _metrics(probs, labels) if finished else {},
        "baselines": [{"name": "TF-IDF(1,2) + logistic regression", "error": 11.25, "n": n, "n_train": 25000,
                       "seconds": 29.3}] if baselines and finished else [],
        "warnings": list(warnings),
        "weights": {d: {"name": "wt103", "vocab_hash": "0f3c", "words_kept": 40211, "words": 60008}
                    for d in directions},
    }
    write_json_atomic(folder / "run.json", run)
    if curves:
        write_text_atomic(folder / "history.csv", pd.DataFrame(history).to_csv(index=False))
        write_text_atomic(folder / "rates.csv", rates.to_csv(index=False))
    if finished:
        ids = ids or [f"test/{row}" for row in range(n)]
        write_predictions(folder / "predictions.csv", ids, labels, classes, probs)
    return folder


def _metrics(probs: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    every = {**probs, "averaged": average(probs)} if len(probs) > 1 else probs
    test = {name: error_metrics(p, labels) for name, p in every.items()}
    return {"validation": {name: {**scores, "error": scores["error"] * 0.9} for name, scores in test.items()}, **test}


def _probabilities(logits: np.ndarray, labels: np.ndarray, sharpness: float) -> np.ndarray:
    """Softmax of noise around the right class: wrong now and then, and somewhat too sure."""
    logits[np.arange(len(labels)), labels] += sharpness
    odds = np.exp(1.3 * (logits - logits.max(axis=1, keepdims=True)))
    return odds / odds.sum(axis=1, keepdims=True)


def _training(recipe: Recipe) -> tuple[list[dict], pd.DataFrame, list[dict]]:
    """Rows of history.csv and rates.csv, and the stage records of run.json."""
    history: list[dict] = []
    rates, stages = [], []
    for direction in recipe.directions:
        for name in recipe.phases:
            phase = recipe.phase(name)
            assert phase is not None
            where = {"direction": direction, "phase": name}
            n_groups = recipe.model.n_groups(name)
            rates.append(_rates(phase.for_direction(direction), n_groups, STEPS[name]).assign(**where))
            epoch = 0
            for stage in phase.stages:
                for _ in range(stage.epochs):
                    epoch += 1
                    history.append({**where, "stage": stage.name, "epoch": epoch, **_losses(name, epoch, direction),
                                    "seconds": 60.0, "lr_last": stage.lr})
                numbers = {"train_loss": history[-1]["train_loss"], "valid_loss": history[-1]["valid_loss"]}
                if name == "classifier":
                    numbers["accuracy"] = history[-1]["accuracy"]
                else:
                    numbers["perplexity"] = math.exp(numbers["valid_loss"])
                stages.append({**where, "stage": stage.name, "status": "finished", "epochs_done": stage.epochs,
                               "epochs": stage.epochs, "seconds": 60.0 * stage.epochs, "metrics": numbers,
                               "peak_memory_mb": 5200.0 + 800 * len(stage.groups(n_groups))})
    columns = ["direction", "phase", "step", "stage", "group", "lr", "trainable"]
    return history, pd.concat(rates, ignore_index=True)[columns], stages


def _rates(phase: Phase, n_groups: int, steps: int) -> pd.DataFrame:
    every = max(1, phase.epochs * steps // 200)  # as the training loop samples them
    rates = simulate(phase, n_groups, steps)
    return rates[rates["step"] % every == 0]


def _losses(phase: str, epoch: int, direction: str) -> dict[str, float | None]:
    fading, harder = math.exp(-epoch / 2), 1.04 if direction == "backward" else 1.0
    if phase == "classifier":
        train, valid, accuracy = 0.17 + 0.3 * fading, 0.15 + 0.2 * fading, 0.95 - 0.05 * fading
    else:
        train, valid, accuracy = 3.75 + 1.2 * fading, 3.8 + 0.9 * fading, None
    return {"train_loss": train * harder, "valid_loss": valid * harder, "accuracy": accuracy}
