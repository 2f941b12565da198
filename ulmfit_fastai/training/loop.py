"""The one loop: a phase's stage records, trained through fastai's Learner, resumable at any batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientClip
from fastai.learner import Learner, Recorder, ValueMetric
from fastcore.foundation import L
from torch import nn

from .._errors import UlmfitError
from ..model.learners import FrozenBatchNorm, hidden_state, set_hidden_state, set_trainable
from ..model.losses import FusedCrossEntropy
from ..recipe.parts import Phase
from ..results.checkpoint import load_state, random_state, save_state, set_random_state
from ..results.environment import peak_memory_mb
from ..results.folder import ANOTHER_PLACE, RunFolder
from ..results.recorder import record_file, save_record
from .beside import (
    InPlace,
    Memories,
    PhaseRecorder,
    Reminder,
    note_callbacks,
    warn,
)
from .callbacks import (
    Budget,
    Checkpoints,
    EpochSums,
    LossScale,
    Position,
    ResumeEpoch,
    SampledLoss,
    StageSchedule,
    derived_seed,
)
from .memory import give_memory_back
from .processes import processes
from .progress import Progress, in_words
from .together import together

log = logging.getLogger(__name__)


class PhaseFit:
    """Trains one phase (a tuple of stages) of one direction and keeps the run folder up to date.

    Args:
        learn: a fastai Learner whose loaders are ours.
        phase: its stages, optimiser and batches.
        folder: an open run folder, which gets history, rates and checkpoints.
        name: 'pretrain', 'lm' or 'classifier'.
        direction: 'forward' or 'backward'.
        seed: of the run; each epoch draws from a seed made of it and of its place.
        classifies: whether the outputs are classes, so that accuracy is measured; otherwise perplexity.
        budget: seconds left, and seconds between checkpoints.
        progress: show a bar.
        rest_of_run: (stage, seconds left in it) -> seconds left in the whole run, None where nobody knows.
        extra_callbacks: fastai callbacks that run beside ours in every stage; their memory goes into the checkpoint.

    Source: Howard & Ruder 2018, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        learn: Learner,
        phase: Phase,
        folder: RunFolder,
        *,
        name: str,
        direction: str,
        seed: int,
        classifies: bool,
        budget: Budget,
        progress: bool = True,
        rest_of_run: Callable[[int, float], float | None] = lambda stage, left: None,
        extra_callbacks: tuple[Callback, ...] = (),
    ) -> None:
        self.learn, self.phase, self.folder = learn, phase, folder
        self.name, self.direction, self.seed, self.classifies = name, direction, seed, classifies
        self.budget, self.progress, self.rest_of_run = budget, progress, rest_of_run
        self.extra_callbacks = extra_callbacks
        self.position = Position()
        self.group = processes()
        one_class = not isinstance(getattr(learn.loss_func, "func", None), (nn.BCEWithLogitsLoss, nn.MSELoss))
        self.sums = EpochSums(classifies=classifies, one_class=one_class, group=self.group)
        self.scale = LossScale()
        self.recorder, self.memories = PhaseRecorder(self.sums), Memories(self.extra_callbacks)
        self.best: dict[str, Any] | None = None
        self.bad_epochs = 0
        self.step, self.last_rate = 0, 0.0  # training steps of the phase and the highest rate of the last one
        self.seconds_before = 0.0
        self.epoch_started = time.monotonic()
        steps = len(learn.dls.train) * sum(stage.epochs for stage in phase.stages)
        self.sample_every = max(1, steps // 200)

    # The loop

    def fit(self) -> bool:
        """Train what is left of the phase, from its checkpoint where there is one.

        Afterwards the model has the phase's final weights (with early stopping: those of the best epoch).

        Returns:
            False when the time budget ended it before the end.

        Raises:
            UlmfitError: the checkpoint is damaged or another recipe's.
            FloatingPointError: the loss is no number any more.
        """
        state = self._resume()
        self.budget.last_checkpoint = time.monotonic()
        self._set_up()
        for number in range(self.position.stage, len(self.phase.stages)):
            ended = self._fit_stage(number, state)
            state = None
            if ended:
                self._write(stage_ended=True)
            if any(self.group.any(self.budget.stopped)):
                return False
            self._take_best()
            self.position.stage, self.position.epoch, self.position.batch = number + 1, 0, 0
        if self.group.leads:
            if self.recorder.kept:
                save_record(record_file(self.folder.path, self.name, self.direction), self.recorder.kept)
            if self.extra_callbacks:
                save_state(self._memories_file, self.memories.now())
        return True

    def _set_up(self) -> None:
        """Take fastai's bar and Recorder off the Learner, and put ours and the metrics of history.csv in their place.
        """
        learn, sums = self.learn, self.sums
        learn.remove_cbs(learn._grab_cbs(ProgressCallback) + learn._grab_cbs(Recorder))
        learn.add_cb(self.recorder)
        learn.metrics = [ValueMetric(sums.held_out_accuracy, "accuracy")] if sums.one_class else []
        if not self.classifies:
            learn.metrics = [ValueMetric(sums.held_out_perplexity, "perplexity")]
        note_callbacks(self.folder.run, self.extra_callbacks)
        if len(self.folder.run.get("sessions", ())) > 1:
            self.memories.append_to_logs()

    @property
    def _memories_file(self) -> Path:
        """What the callbacks knew at the end of the last finished phase."""
        return self.folder.path / "state" / "callbacks.pt"

    def _take_best(self) -> None:
        """At the end of a stage with early stopping: the weights of its best epoch."""
        if self.best is not None:
            self.learn.model.load_state_dict(self.best["model"])
        self.best, self.bad_epochs = None, 0

    def _fit_stage(self, number: int, state: dict[str, Any] | None) -> bool:
        """Train a stage; True where callbacks have a part in how it ended, which the checkpoint must tell."""
        stage, learn = self.phase.stages[number], self.learn
        groups = stage.groups(len(learn.splitter(learn.model)))
        set_trainable(learn, groups)
        learn.create_opt()  # a new stage starts with a clear optimiser, as fastai's freeze_to does
        if state is not None:
            learn.opt.load_state_dict({**state["optimizer"], "hypers": L(state["optimizer"]["hypers"])})
        self.trainable = set(groups)
        in_place = InPlace(self.position, (self.recorder, *self.extra_callbacks))
        checkpoints = Checkpoints(self.position, self.budget, self._write, self._epoch_done, self.group)
        callbacks: list[Callback] = [
            in_place,
            StageSchedule(stage, self.phase, self._record_rates),
            FrozenBatchNorm(),
            ResumeEpoch(self.position, self._seed_of, self._epoch_number, state, self._restore),
            checkpoints,
            self.sums,
            self.scale,
            *self.extra_callbacks,
        ]
        if state is not None:
            callbacks.append(Reminder(self.memories, state.get("callbacks", {}), in_place))
        if self.phase.sampled_words is not None and isinstance(learn.loss_func, FusedCrossEntropy):
            callbacks.append(SampledLoss(stage, self.position, self.phase.sampled_words))
        if self.phase.optimizer.clip is not None:
            callbacks.append(GradientClip(self.phase.optimizer.clip))
        bar = None
        if self.progress:
            label = f"{self.direction} {self.name}, {stage.name}"
            bar = Progress(label, stage.epochs, self.position, self.rest_of_run)
            callbacks.append(bar)
        self.epoch_started = time.monotonic()
        with (learn.no_logging(), closing(bar) if bar else nullcontext(),
              together(learn, self.group, self.position, self._seed_of) as shared):
            learn.fit(stage.epochs, lr=stage.lr, cbs=[*callbacks, *shared], start_epoch=self.position.epoch)
        self.memories.append_to_logs()
        if checkpoints.ended:
            return False
        if self.position.epoch < stage.epochs:
            self.folder.stage(self.direction, self.name, stage.name, stage.epochs)["status"] = "stopped early"
            warn(self.folder.run, f"{self.direction} {self.name}, stage {stage.name}: a callback ended it after "
                                  f"{self.position.epoch} of {stage.epochs} epochs")
        return bool(self.extra_callbacks)

    def _seed_of(self, epoch: int) -> int:
        return derived_seed(self.seed, self.direction, self.name, self.position.stage, epoch)

    def _epoch_number(self, epoch: int) -> int:
        return sum(stage.epochs for stage in self.phase.stages[: self.position.stage]) + epoch

    # What is kept

    def _record_rates(self, rates: list[float]) -> None:
        if self.step % self.sample_every == 0:
            stage = self.phase.stages[self.position.stage].name
            for group, rate in enumerate(rates):
                self.folder.rates.append({
                    "direction": self.direction, "phase": self.name, "step": self.step, "stage": stage, "group": group,
                    "lr": f"{rate:.6g}", "trainable": group in self.trainable,
                })
        self.step, self.last_rate = self.step + 1, max(rates)

    def _epoch_done(self) -> bool:
        """Write the epoch into history and run.json; True when early stopping says that it was the last."""
        train, valid, accuracy = self.sums.seen, self.sums.held_out, self.sums.held_out_accuracy()
        seconds = self.seconds_before + time.monotonic() - self.epoch_started
        stage = self.phase.stages[self.position.stage]
        row = {
            "direction": self.direction, "phase": self.name, "stage": stage.name,
            "epoch": self._epoch_number(self.position.epoch), "train_loss": train.mean(), "valid_loss": valid.mean(),
            "accuracy": accuracy, "seconds": round(seconds, 1), "lr_last": self.last_rate,
        }
        self.folder.history.append(row)
        record = self.folder.stage(self.direction, self.name, stage.name, stage.epochs)
        record["epochs_done"] = self.position.epoch
        record["status"] = "finished" if self.position.epoch == stage.epochs else "running"
        record["seconds"] = round(record["seconds"] + seconds, 1)
        record["peak_memory_mb"] = round(peak_memory_mb(self.learn.dls.device), 1)
        metrics: dict[str, float | None] = {"train_loss": train.mean(), "valid_loss": valid.mean()}
        if self.sums.one_class:
            metrics["accuracy"] = accuracy
        elif not self.classifies and valid.mean() is not None:
            metrics["perplexity"] = self.sums.held_out_perplexity()
        record["metrics"] = metrics
        self.seconds_before, self.epoch_started = 0.0, time.monotonic()
        log.info("%s %s, %s, epoch %d: %s", self.direction, self.name, stage.name, row["epoch"], in_words(metrics))
        give_memory_back()
        value = valid.mean()
        if self.phase.early_stopping is not None and value is not None:
            if self.best is None or value < self.best["value"]:
                model = {key: tensor.detach().cpu().clone() for key, tensor in self.learn.model.state_dict().items()}
                self.best, self.bad_epochs = {"value": value, "epoch": row["epoch"], "model": model}, 0
            else:
                self.bad_epochs += 1
            if self.bad_epochs >= self.phase.early_stopping:
                record["status"] = "stopped early"
                return True
        return False

    def _write(self, *, stage_ended: bool = False) -> None:
        """Checkpoint: everything the rest of the phase depends on."""
        now = time.monotonic()
        language_model = hasattr(self.learn.model[0], "hidden")
        optimizer = self.learn.opt.state_dict()
        optimizer = {"state": list(optimizer["state"]), "hypers": [dict(h) for h in optimizer["hypers"]]}
        state = {
            "direction": self.direction, "phase": self.name, "recipe_hash": self.folder.run["recipe_hash"],
            "stage": self.position.stage, "epoch": self.position.epoch, "batch": self.position.batch,
            "model": self.learn.model.state_dict(), "optimizer": optimizer,
            "random": random_state(self.learn.dls.device), "scaler": self.scale.now(),
            "hidden": self._hidden() if language_model else [],
            "sums": self.sums.state(), "best": self.best, "bad_epochs": self.bad_epochs, "step": self.step,
            "last_rate": self.last_rate,
            "seconds": self.seconds_before + now - self.epoch_started, "stage_ended": stage_ended,
            "recorder": self.recorder.state(), "callbacks": self.memories.now(),
            "stages": self.folder.run["stages"], "history": self.folder.history, "rates": self.folder.rates,
        }
        if self.group.leads:
            save_state(self.folder.state_file, state)
            self.folder.save_tables()
            self.folder.save()
        self.budget.last_checkpoint = time.monotonic()

    def _hidden(self) -> list[list[torch.Tensor]]:
        """The state of all streams, whichever process reads them."""
        return [[self.group.rows(part, dim=1) for part in layer] for layer in hidden_state(self.learn)]

    def _resume(self) -> dict[str, Any] | None:
        known = load_state(self._memories_file, torch.device("cpu")) if self.extra_callbacks else None
        self.memories.give_back(known or {})
        state = load_state(self.folder.state_file, self.learn.dls.device)
        if state is not None and not {"direction", "phase", "recipe_hash", "model"} <= set(state):
            raise UlmfitError(f"{self.folder.state_file}: expected a checkpoint, found something else; delete it and "
                              "run again: the run goes on from the last finished phase")
        if state is None or (state["direction"], state["phase"]) != (self.direction, self.name):
            return None
        if state["recipe_hash"] != self.folder.run["recipe_hash"]:
            raise UlmfitError(f"{self.folder.state_file}: expected a checkpoint of this recipe, found another's",
                              path=self.folder.state_file, advice=f"delete it, or {ANOTHER_PLACE}")
        self.learn.model.load_state_dict(state["model"])
        self.position = Position(state["stage"], state["epoch"], state["batch"])
        self.scale.kept = state.get("scaler", {})
        self.best, self.bad_epochs, self.step = state["best"], state["bad_epochs"], state["step"]
        self.seconds_before, self.last_rate = state["seconds"], state["last_rate"]
        self.recorder.kept = state.get("recorder", {})
        self.memories.give_back(state.get("callbacks", {}))
        self.folder.history, self.folder.rates = state["history"], state["rates"]
        self.folder.run["stages"] = state["stages"]
        stage = self.phase.stages[self.position.stage]
        early = self.phase.early_stopping is not None and self.bad_epochs >= self.phase.early_stopping
        ended = early or state.get("stage_ended", False)
        if self.position.epoch >= stage.epochs or ended:  # stopped between a stage's last epoch and the next's first
            self._take_best()
            self.position = Position(self.position.stage + 1, 0, 0)
            log.info("going on with %s %s after stage %s", self.direction, self.name, stage.name)
            return None
        if self.position.batch:
            self.sums.resumed = state["sums"]
        log.info("going on with %s %s, stage %s, epoch %d, batch %d", self.direction, self.name, stage.name,
                 self.position.epoch, self.position.batch)
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        set_random_state(state["random"], self.learn.dls.device)
        if state["hidden"]:
            rows = self.learn.dls.train.rows
            set_hidden_state(self.learn, [[part[:, rows] for part in layer] for layer in state["hidden"]])
