"""What one of several processes does in a test: `processes_child.py FOLDER CASE...`; what it saw is left in FOLDER."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback

from ulmfit_fastai.model.fast import awd_lstm
from ulmfit_fastai.recipe.parts import Dropouts
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.folder import RunFolder
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training import runs
from ulmfit_fastai.training.callbacks import Budget
from ulmfit_fastai.training.loop import PhaseFit
from ulmfit_fastai.training.processes import join
from ulmfit_fastai.training.session import Conditions

NONE = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)
SIZES = {"precision": "fp32", "lm.bs": 6, "lm.bptt": 20, "lm.variable_bptt": True, "classifier.bs": 10,
         "classifier.bptt": 20}


def recipe(*, dropout: bool, weighted: bool) -> Recipe:
    """Some sixty steps of each phase, of batches that can't be dealt out evenly."""
    found = preset("tiny").replace(**SIZES, class_weights=(1.0, 3.0) if weighted else None,
                                   **{"classifier.precise_batch_norm": None if weighted else 31})
    if dropout:
        return found
    return replace(found, model=replace(found.model, lm_dropouts=NONE, classifier_dropouts=NONE, head_dropout=0.0))


class Notes(Callback):
    """This process's part of the loss of every step, and what it read: words, or numbers of texts."""

    order = 76

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.read: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        """Nothing is remembered: a resumed training is noted from where it goes on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def after_batch(self) -> None:
        if self.learn.training:
            loader, x = self.learn.dls.train, self.learn.xb[0]
            self.losses.append(float(self.learn.loss.detach()) * len(x) / loader.rows_of_batch)
            texts = None if not hasattr(loader, "batch") else loader.batch[loader.share[0]::loader.share[1]]
            self.read.append(x.clone() if texts is None else torch.from_numpy(texts))


class StopAfter(Callback):
    """The leader's time is over after some steps; the others learn it from it."""

    order = 79

    def __init__(self, notes: Notes, budget: Budget, steps: int | None) -> None:
        self.notes, self.budget, self.steps = notes, budget, steps

    def after_batch(self) -> None:
        if len(self.notes.losses) == self.steps and join("cpu").leads:
            self.budget.stopped = True


def train(folder: Path, phase: str, *, dropout: bool = False, weighted: bool = False, steps: int | None = None
          ) -> dict[str, Any]:
    """Train a phase, in float64 but for a weighted loss, from what the folder holds of it, to its end or some steps on.
    """
    recipe_, group = recipe(dropout=dropout, weighted=weighted), join("cpu")
    run = RunFolder(group.place(folder / phase))
    run.open({"recipe": recipe_.to_dict(), "recipe_hash": recipe_.hash, "data": {"fingerprint": "x"}})
    reviews = synthetic_reviews(n_train=90, n_test=20, n_unsup=20, seed=3)
    data = runs.prepare(recipe_, reviews, cache=folder.parent / "cache", progress=False)
    work = runs.Run(recipe_, data, run, Conditions.of(device="cpu"))
    learn = work.build_lm(recipe_.lm, "forward", None) if phase == "lm" else work.build_classifier("forward", None)
    if not weighted:
        learn.model.double()
    notes, budget = Notes(), Budget()
    masks, drawn = [], awd_lstm.weight_mask
    awd_lstm.weight_mask = lambda *a, **k: masks.append(drawn(*a, **k)) or masks[-1]
    try:
        done = PhaseFit(learn, recipe_.phase(phase), run, name=phase, direction="forward", seed=0,
                        classifies=phase == "classifier", budget=budget, progress=False,
                        extra_callbacks=(notes, StopAfter(notes, budget, steps))).fit()
    finally:
        awd_lstm.weight_mask = drawn
    weights = {name: part.clone() for name, part in learn.model.state_dict().items()}
    history = [{name: row[name] for name in ("train_loss", "valid_loss", "accuracy")} for row in run.history]
    return {"losses": notes.losses, "read": notes.read, "weights": weights, "history": history, "done": done,
            "masks": masks[:40], "model": type(learn.model).__name__}


def case(name: str, folder: Path) -> dict[str, Any]:
    """'lm' or 'classifier', with '-dropout', '-weighted', '-stopped', in its own folder; 'lm@OTHER' goes on in OTHER.
    """
    what, _, place = name.partition("@")
    phase, *how = what.split("-")
    return train(folder / (place or what), phase, dropout="dropout" in how,
                 weighted="weighted" in how, steps=17 if "stopped" in how else None)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    torch.save({name: case(name, where) for name in sys.argv[2:]}, where / f"process{os.environ['RANK']}.pt")
