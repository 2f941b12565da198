"""The paper's ways of fine-tuning on any fastai text Learner, stock or ours: no run folder, no recipe.

    learn = text_classifier_learner(dls, AWD_LSTM, metrics=accuracy)
    fit_gradual(learn, 8, 1e-2)          # gradual unfreezing, slanted triangular and discriminative rates
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastai.learner import Learner

from ..model.learners import FrozenBatchNorm, set_trainable
from ..recipe.freezing import DISCRIMINATIVE, Stage, full, gradual
from ..recipe.schedules import CUT_FRAC, RATIO, Schedule, stlr
from .beside import as_callbacks
from .callbacks import StageSchedule


def fit_stlr(learn: Learner, epochs: int, lr: float, *, discriminative: float | tuple[float, ...] = DISCRIMINATIVE,
             cut_frac: float = CUT_FRAC, ratio: float = RATIO, cbs: Any = None) -> None:
    """Train every layer group by slanted triangular, discriminative rates: the paper's fine-tuning of a language model.

    Args:
        learn: any Learner; its splitter gives the groups, its optimiser the momentum (the paper's is 0.7:
            `opt_func=partial(Adam, mom=0.7)`).
        lr: the last group's peak rate.
        discriminative: how many times smaller the rate of the group below is; 1 for one rate, or a factor of `lr` for
            each group.
        cut_frac: share of the steps in which the rate rises.
        ratio: how much smaller than the peak the lowest rate is.
        cbs: fastai callbacks for this fit.

    Source: Howard & Ruder 2018, section 3.2.
    """
    schedule = stlr(cut_frac=cut_frac, ratio=ratio)
    fit_stages(learn, full(epochs, lr, discriminative=discriminative, schedule=schedule), cbs=cbs)


def fit_gradual(learn: Learner, epochs: int, lr: float, *, discriminative: float | tuple[float, ...] = DISCRIMINATIVE,
                schedule: Schedule | None = None, one_schedule: bool = True, cbs: Any = None) -> None:
    """Train the last layer group for an epoch, one group more each epoch, then all: the paper's way with a classifier.

    What is frozen stays bit for bit, batch norm's statistics too; stock `freeze_to` lets momentum and weight decay
    move it.

    Args:
        learn: any Learner, as in `fit_stlr`.
        epochs: in all.
        lr: the last group's peak rate.
        discriminative: as in `fit_stlr`.
        schedule: how the rates move; None: slanted triangular.
        one_schedule: lay one schedule over all the epochs, as the paper reads; False: one over each step of unfreezing.
        cbs: fastai callbacks, which see one fit for each step of unfreezing.

    Raises:
        UlmfitError: `epochs` is below 1.

    Source: Howard & Ruder 2018, section 3.3.
    """
    stages = gradual(len(learn.splitter(learn.model)), epochs, lr, discriminative=discriminative,
                     schedule=schedule or stlr(), one_schedule=one_schedule)
    fit_stages(learn, stages, cbs=cbs)


def fit_stages(learn: Learner, stages: Iterable[Stage], *, cbs: Any = None) -> None:
    """Train stage records, as `gradual`, `chain_thaw` and `full` make them, one after another.

    Each begins with a clear optimiser, as after fastai's `freeze_to`. The Recorder keeps all of them.
    """
    given, recorded = as_callbacks(cbs), _Recorded()
    for stage in stages:
        set_trainable(learn, stage.groups(len(learn.splitter(learn.model))))
        learn.create_opt()
        schedule = StageSchedule(stage, record=lambda each: recorded.rates.append(max(each)))
        learn.fit(stage.epochs, lr=stage.lr, cbs=[schedule, FrozenBatchNorm(), *given])
        recorded.take(learn)


class _Recorded:
    """What a Learner's Recorder saw of several fits, of which fastai's own keeps the last."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {"losses": [], "lrs": [], "values": [], "iters": []}
        self.rates: list[float] = []

    def take(self, learn: Learner) -> None:
        """Put what was before in front of what the Recorder holds."""
        recorder = getattr(learn, "recorder", None)
        if recorder is None:
            return
        before = len(self.rows["losses"])
        self.rows["iters"] += [before + step for step in recorder.iters]
        for name in ("losses", "lrs", "values"):
            self.rows[name] += getattr(recorder, name)
        for name, rows in self.rows.items():
            setattr(recorder, name, list(rows))
        recorder.hps = {"lr": list(self.rates)}
