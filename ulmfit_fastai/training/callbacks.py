"""fastai callbacks of the training loop: rates by stage, exact epoch sums, checkpoints and the deadline, progress."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException

from ..model.fast.sampled_softmax import FULL_FROM
from ..recipe.freezing import Stage
from ..recipe.parts import Phase
from .processes import ALONE, Alone


@dataclass
class Position:
    """Where a phase is: stages done, epochs done in the stage, batches done in the epoch."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0

    def share_of(self, stage: Stage, steps: int) -> float:
        """How much of a stage with so many `steps` an epoch is done, from 0 to 1."""
        return (self.epoch * steps + self.batch) / (steps * stage.epochs)


def derived_seed(*parts: Any) -> int:
    """One seed for each named place of a run, so that an epoch's random numbers don't depend on what ran before."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big")


class StageSchedule(Callback):
    """Sets every group's rate and the momentum before each training step, from the stage's closed form.

    At step t of a fit's T steps the stage's schedule is read at t / T, on any Learner.

    Args:
        stage: gives the rates of the groups and their schedule.
        phase: gives the momentum; with variable-length BPTT the rate is also scaled by the batch's length over bptt
            (Merity et al. 2017, section 5). None leaves the optimiser its own momentum.
        record: gets the rates of each step, one a group.
    """

    order = 60

    def __init__(self, stage: Stage, phase: Phase | None = None, record: Callable[..., None] | None = None):
        self.stage, self.phase, self.record = stage, phase, record

    def done(self) -> float:
        """How much of the fit is done, from 0 to 1."""
        steps = len(self.learn.dls.train)
        return (self.learn.epoch * steps + self.learn.iter) / (steps * self.learn.n_epoch)

    def before_batch(self) -> None:
        if not self.learn.training:
            return
        done, opt = self.done(), self.learn.opt
        factor = self.stage.factor(done)
        rates = [rate * factor for rate in self.stage.rates(len(opt.hypers))]
        if self.record is not None:
            self.record(rates)
        if self.phase is not None and self.phase.variable_bptt:
            scale = self.learn.xb[0].shape[1] / self.phase.bptt
            rates = [rate * scale for rate in rates]
        opt.set_hyper("lr", rates)
        if self.phase is not None:
            opt.set_hyper("mom", self.stage.momentum(done, self.phase.optimizer.moms))


class SampledLoss(Callback):
    """Lets a sample of the words compete in the language model's loss until the last tenth of the stage.

    Where it changes over depends on the position in the stage alone, so that a resumed run does the same.
    """

    order = 60

    def __init__(self, stage: Stage, position: Position, sampled_words: int):
        self.stage, self.position, self.sampled_words = stage, position, sampled_words

    def before_batch(self) -> None:
        done = self.position.share_of(self.stage, len(self.learn.dls.train))
        self.learn.loss_func.sampled_words = self.sampled_words if done < FULL_FROM else None

    def after_fit(self) -> None:
        self.learn.loss_func.sampled_words = None


@dataclass
class Sums:
    """Loss summed over what it is a mean of (tokens for the LM, texts for the classifier), and right answers."""

    loss: Any = 0.0
    count: int = 0
    right: Any = 0

    def mean(self) -> float | None:
        return float(self.loss) / self.count if self.count else None


def widest(device: torch.device) -> torch.dtype:
    """The longest floating-point numbers a device has: float64, but for Apple's GPUs, which stop at float32."""
    return torch.float32 if device.type == "mps" else torch.float64


class EpochSums(Callback):
    """Exact means of an epoch: every token (or text) counts once, also in a short last batch, and across a resume.

    Sums stay on the device; nothing is read back before the epoch ends, except once every `check_every` batches to stop
    on a loss that is no number.
    """

    order = 10

    def __init__(self, *, classifies: bool, one_class: bool = True, check_every: int = 50, group: Alone = ALONE):
        self.classifies, self.one_class = classifies, classifies and one_class
        self.check_every, self.group = check_every, group
        self.seen, self.held_out = Sums(), Sums()
        self.resumed: dict[str, Any] | None = None

    def before_train(self) -> None:
        self.seen = Sums()
        if self.resumed is not None and self.group.leads:
            self.seen = Sums(self.resumed["loss"], self.resumed["count"], self.resumed["right"])
        self.resumed, self.held_out = None, Sums()

    def before_validate(self) -> None:
        self.held_out = Sums()

    def held_out_loss(self) -> float | None:
        """Mean loss of the texts held out, of the epoch that is done."""
        return self.held_out.mean()

    def held_out_accuracy(self) -> float | None:
        """Share of right answers among them; None for a language model, several classes a text and numbers."""
        return float(self.held_out.right) / self.held_out.count if self.one_class and self.held_out.count else None

    def held_out_perplexity(self) -> float | None:
        """The language model's perplexity on them."""
        loss = self.held_out.mean()
        return None if loss is None else float(torch.tensor(loss).exp())

    def after_batch(self) -> None:
        self._count()
        if self.learn.training and self.learn.iter % self.check_every == self.check_every - 1:
            self._stop_on_nan()

    def _count(self) -> None:
        sums = self.seen if self.learn.training else self.held_out
        target = self.learn.yb[0]
        n = target.numel() if not self.classifies else target.shape[0]
        sums.loss = sums.loss + self.learn.loss.detach().to(widest(self.learn.loss.device)) * n
        sums.count += n
        if self.one_class:
            sums.right = sums.right + (self.learn.pred.detach().argmax(-1) == target).sum()

    def after_train(self) -> None:
        self.seen = self._in_all(self.seen)
        self._stop_on_nan()

    def after_validate(self) -> None:
        self.held_out = self._in_all(self.held_out)

    def _in_all(self, sums: Sums) -> Sums:
        """The sums of all processes together."""
        return Sums(*self.group.total(sums.loss, sums.count, sums.right))

    def _stop_on_nan(self) -> None:
        if any(self.group.any(self.seen.count > 0 and not math.isfinite(float(self.seen.loss)))):
            raise FloatingPointError(
                f"the training loss is no longer a number (epoch {self.learn.epoch + 1}, batch {self.learn.iter + 1}); "
                "try a lower rate, gradient clipping (optimizer.clip) or precision='fp32'. The last checkpoint is whole"
            )

    def state(self) -> dict[str, Any]:
        sums = self._in_all(self.seen)
        return {"loss": float(sums.loss), "count": sums.count, "right": int(sums.right)}


class LossScale(Callback):
    """Carries fp16's loss scale from stage to stage and over a resume; fastai begins each fit at 65,536 anew.

    A scale that begins too high skips steps until it has come down, and a resumed run would skip them again.
    """

    order = 11  # after MixedPrecision made its scaler

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def now(self) -> dict[str, Any]:
        """The scaler's state; empty where the loss is not scaled."""
        scaler = getattr(self.learn, "scaler", None)
        return scaler.state_dict() if scaler is not None else self.kept

    def before_fit(self) -> None:
        scaler = getattr(self.learn, "scaler", None)
        if scaler is not None and scaler.is_enabled() and self.kept:
            scaler.load_state_dict(self.kept)

    def after_epoch(self) -> None:
        self.kept = self.now()


@dataclass
class Budget:
    """When to stop in good order, and how often to write a checkpoint; seconds of `time.monotonic`."""

    deadline: float | None = None
    checkpoint_every: float = 300.0
    stopped: bool = False
    last_checkpoint: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float) -> None:
        """Put the end off by a time in which nothing could be done."""
        self.deadline = None if self.deadline is None else self.deadline + seconds

    def over(self) -> bool:
        return self.stopped or (self.deadline is not None and time.monotonic() >= self.deadline)


class Checkpoints(Callback):
    """Writes the state at every epoch's end, every few minutes within it, and when the time budget ends.

    Attributes:
        ended: whether it was this callback that ended the fit; otherwise another one did, or nobody.
    """

    order = 5000  # after all that may count a batch or an epoch

    def __init__(self, position: Position, budget: Budget, write: Callable[[], None], epoch_done: Callable[[], bool],
                 group: Alone = ALONE):
        self.position, self.budget, self.write, self.epoch_done = position, budget, write, epoch_done
        self.group = group
        self.ended = self.validated = False

    def before_epoch(self) -> None:
        self.validated = False

    def after_validate(self) -> None:
        self.validated = True

    def after_batch(self) -> None:
        if not self.learn.training:
            return
        self.position.batch += 1
        due = time.monotonic() - self.budget.last_checkpoint >= self.budget.checkpoint_every
        over, due = self.group.any(self.budget.over(), due)
        if over:
            self.budget.stopped = self.ended = True
            self.write()
            raise CancelFitException
        if due:
            self.write()

    def after_epoch(self) -> None:
        if self.learn.epoch < self.position.epoch:  # skipped: it was done before the resume
            return
        stop = self._epoch_done()
        over, stop = self.group.any(self.budget.over(), stop)
        if over:
            self.budget.stopped = True
        if stop or over:
            self.ended = True
            raise CancelFitException

    def after_cancel_fit(self) -> None:
        """Another callback may have ended the fit after an epoch that is whole, before it was counted here."""
        if not self.ended and self.validated and self.learn.epoch >= self.position.epoch:
            self._epoch_done()

    def _epoch_done(self) -> bool:
        self.position.epoch, self.position.batch, self.validated = self.learn.epoch + 1, 0, False
        stop = self.epoch_done()
        self.write()
        return stop


class ResumeEpoch(Callback):
    """Seeds each epoch, tells the loader which one it is, and puts a resumed epoch back in the middle."""

    order = 70  # after ModelResetter cleared the hidden state and everything that could draw a number

    def __init__(self, position: Position, seed_of: Callable[[int], int], epoch_number: Callable[[int], int],
                 resumed: dict[str, Any] | None, restore: Callable[[dict[str, Any]], None]):
        self.position, self.seed_of, self.epoch_number = position, seed_of, epoch_number
        self.resumed, self.restore = resumed, restore

    def before_train(self) -> None:
        loader = self.learn.dls.train
        loader.epoch = self.epoch_number(self.learn.epoch)
        loader.start_batch = self.position.batch
        torch.manual_seed(self.seed_of(self.learn.epoch))

    def before_batch(self) -> None:
        if self.learn.training and self.resumed is not None:
            state, self.resumed = self.resumed, None
            if self.position.batch:
                self.restore(state)
