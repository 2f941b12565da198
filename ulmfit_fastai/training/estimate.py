"""How long a run will take on this machine, measured on a few real batches before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from fastai.data.load import DataLoader
from fastai.learner import Learner
from torch import Tensor

from .._words import duration
from ..model.autocast import autocast_of
from ..model.fast.sampled_softmax import FULL_FROM
from ..model.learners import set_trainable
from ..model.losses import FusedCrossEntropy
from ..model.precision import wait_for
from ..recipe.parts import Phase
from ..recipe.recipe import Recipe
from ..tokens.ids import PAD
from .processes import processes

TIMED_BATCHES = 3
FORWARD_SHARE = 0.35  # of a training step; a validation batch costs about that


@dataclass
class Plan:
    """The stages of a run with their expected seconds; `print(plan)` is the table a user sees."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    test_seconds: float = 0.0
    parallel: bool = False
    """Whether the directions train at once, each in a process."""

    @property
    def directions(self) -> list[str]:
        """Those with anything left to do."""
        return list(dict.fromkeys(stage["direction"] for stage in self.stages))

    @property
    def seconds(self) -> float:
        """Of the whole run; of the longer direction where both train at once."""
        each = [sum(s["seconds"] for s in self.stages if s["direction"] == d) for d in self.directions]
        return (max(each, default=0.0) if self.parallel else sum(each)) + self._test_seconds

    @property
    def _test_seconds(self) -> float:
        return self.test_seconds / (max(len(self.directions), 1) if self.parallel else 1)

    def rest_of_run(self, direction: str, phase: str, number: int, left_in_stage: float) -> float:
        """Seconds left in the whole run when `left_in_stage` are left in stage `number` of the phase running now."""
        places = [i for i, s in enumerate(self.stages) if (s["direction"], s["phase"]) == (direction, phase)]
        later = self.stages[places[number] + 1 :] if places else []
        mine = [stage for stage in later if not self.parallel or stage["direction"] == direction]
        return left_in_stage + sum(stage["seconds"] for stage in mine) + self._test_seconds

    def frame(self) -> pd.DataFrame:
        """A row a stage: direction, phase, stage, epochs, batches (of one epoch), seconds."""
        return pd.DataFrame(self.stages)

    def __str__(self) -> str:
        lines = ["what this run does, and how long that takes on this machine (measured on a few batches):"]
        for s in self.stages:
            lines.append(
                f"  {s['direction']:9} {s['phase']:11} {s['stage']:12} {s['epochs']:3} x {s['batches']:6,} batches"
                f"  {duration(s['seconds']):>12}"
            )
        lines.append(f"  {'held-out texts predicted once per direction':49}  {duration(self.test_seconds):>12}")
        at_once = ", both directions at once" if self.parallel else ""
        lines.append(f"  in all about {duration(self.seconds)}{at_once}")
        return "\n".join(lines)


def estimate(recipe: Recipe, learners: Mapping[str, Callable[[], Learner]], *, predicted: int,
             skip: Sequence[str] = ()) -> Plan:
    """Time a few batches of each phase of a recipe, with random weights.

    Args:
        learners: builds the Learner of a phase, by the phase's name; each is called once at most.
        predicted: how many texts each direction predicts at the end.
        skip: phases that are done already, as "forward/lm".
    """
    plan = Plan()
    todo = [(d, name) for d in recipe.directions for name in recipe.phases if f"{d}/{name}" not in skip]
    todo = [(d, name) for d, name in todo if name != "pretrain" or f"{d}/lm" not in skip]
    timed: dict[str, list[dict[str, Any]]] = {}
    for name in recipe.phases:
        phase = recipe.phase(name)
        if phase is not None and name in {name for _, name in todo}:
            times = recipe.adversarial.times if name == "classifier" else 1.0
            timed[name] = time_phase(learners[name](), phase, times=times)
    if "classifier" in timed:
        stage = timed["classifier"][-1]
        texts_a_second = stage["texts"] / (stage["seconds_a_batch"] * FORWARD_SHARE) / max(stage["batches"], 1)
        plan.test_seconds = predicted / texts_a_second * len(recipe.directions)
    plan.stages = [{"direction": direction, "phase": name, **stage} for direction, name in todo
                   for stage in timed[name]]
    return plan


def time_phase(learn: Learner, phase: Phase, *, times: float = 1.0) -> list[dict[str, Any]]:
    """Seconds of every stage of a phase: each distinct set of trainable groups is timed on the same few batches.

    Args:
        times: how many times that a batch takes where every group trains.
    """
    loader = learn.dls.train
    n_groups = len(learn.splitter(learn.model))
    group = processes()
    if phase.bs >= 2 * group.world:  # each process has its share of a batch, and batch norm two rows
        loader.share = group.rank, group.world
    batches = _spread(loader)
    valid_batches = len(learn.dls.valid) if len(learn.dls.loaders) > 1 else 0
    costs: dict[tuple[int, ...], tuple[float, float]] = {}
    stages = []
    for stage in phase.stages:
        groups = stage.groups(n_groups)
        if groups not in costs:
            costs[groups] = _cost(learn, batches, groups, phase.sampled_words)
        (cost, all_words), n = costs[groups], len(loader)
        epoch = cost * (times if len(groups) == n_groups else 1.0) * n + FORWARD_SHARE * all_words * valid_batches
        if phase.precise_batch_norm is not None:  # texts that are only read
            epoch += FORWARD_SHARE * cost * min(phase.precise_batch_norm, len(learn.dls.train_ds)) / phase.bs
        stages.append({
            "stage": stage.name, "epochs": stage.epochs, "batches": n, "seconds_a_batch": cost,
            "texts": len(learn.dls.train_ds), "seconds": stage.epochs * epoch,
        })
    learn.model, learn.dls, learn.opt = None, None, None
    return stages


Batch = tuple[Tensor, Tensor]


def _spread(loader: DataLoader) -> list[Batch]:
    """A few batches from all over the epoch: the classifier's batches differ in length, the first being the longest."""
    chosen = []
    for share in range(TIMED_BATCHES):
        loader.epoch, loader.start_batch = 0, min(len(loader) - 1, int(len(loader) * (share + 0.5) / TIMED_BATCHES))
        chosen.append(next(iter(loader)))
    loader.epoch, loader.start_batch = 0, 0
    return chosen


def _cost(learn: Learner, batches: list[Batch], groups: tuple[int, ...], sampled_words: int | None
          ) -> tuple[float, float]:
    """Seconds of a batch: the mean over a stage that samples words in its loss most of the time, and with all words."""
    cost = _seconds_a_batch(learn, batches, groups)
    if sampled_words is None or not isinstance(learn.loss_func, FusedCrossEntropy):
        return cost, cost
    learn.loss_func.sampled_words = sampled_words
    sampled = _seconds_a_batch(learn, batches, groups)
    learn.loss_func.sampled_words = None
    return FULL_FROM * sampled + (1 - FULL_FROM) * cost, cost


def _seconds_a_batch(learn: Learner, batches: list[Batch], groups: tuple[int, ...]) -> float:
    """Seconds of a batch of the epoch's mean number of tokens; a few batches alone may be far shorter or longer."""
    set_trainable(learn, groups)
    learn.model.to(learn.dls.device).train()
    learn.model.reset()
    seconds, tokens = 0.0, 0
    for number, batch in enumerate([batches[0], *batches]):  # the first is a warm-up
        x, y = (part.to(learn.dls.device) for part in batch)
        started = time.perf_counter()
        forward_and_backward(learn, x, y)
        learn.model.zero_grad(set_to_none=True)
        wait_for(learn.dls.device)
        if number:
            seconds, tokens = seconds + time.perf_counter() - started, tokens + int((x != PAD).sum())
    return seconds / tokens * float(learn.dls.train_ds.lengths.sum()) / len(learn.dls.train) / learn.dls.train.share[1]


def forward_and_backward(learn: Learner, x: Tensor, y: Tensor) -> None:
    """A batch through model and loss and back, as in training, but for AR, TAR and the optimiser."""
    if isinstance(learn.loss_func, FusedCrossEntropy):  # as in training, where the callback FusedLoss does it
        learn.loss_func.decoder.fused = True
    with autocast_of(learn):
        out = learn.model(x)
        loss = learn.loss_func(out[0] if isinstance(out, tuple) else out, y)
    loss.backward()
