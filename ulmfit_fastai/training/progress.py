"""How a stage of training gets on: a bar, or lines in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fastai.callback.core import Callback
from fastprogress import progress_bar

from .._progress import can_show_bars
from .._words import duration
from .callbacks import Position

log = logging.getLogger(__name__)


class Progress(Callback):
    """A bar for the stage, with the time left in the stage and, where it is known, in the whole run.

    Where nobody can see a bar grow (output into a file, a pipe), a line in the log every few minutes instead.
    """

    order = 90
    log_every = 180.0

    def __init__(self, label: str, epochs: int, position: Position, rest_of_run: Callable[[int, float], float | None]):
        self.label, self.epochs, self.position, self.rest_of_run = label, epochs, position, rest_of_run

    def before_train(self) -> None:
        steps = len(self.learn.dls.train)
        self.total = steps * self.epochs
        self.started, self.first = time.monotonic(), self.position.epoch * steps + self.position.batch
        if not can_show_bars():
            self.shown = self.started
        elif not hasattr(self, "bar"):
            self.bar = progress_bar(range(self.total), leave=True)
            self.bar.update(0)  # starts the bar's clock; a first update with another number fails
            self.shown = 0.0

    def after_batch(self) -> None:
        if not self.learn.training or time.monotonic() - self.shown < (1 if hasattr(self, "bar") else self.log_every):
            return
        self.shown = time.monotonic()
        done = self.position.epoch * len(self.learn.dls.train) + self.position.batch
        spent = self.shown - self.started
        left = spent / max(done - self.first, 1) * (self.total - done)
        rest = self.rest_of_run(self.position.stage, left)
        said = f"{self.label}: {duration(left)} left" + (f", run {duration(rest)} left" if rest else "")
        if not hasattr(self, "bar"):
            log.info("%s (%d %% done)", said, 100 * done // self.total)
            return
        self.bar.comment = said
        self.bar.update(min(done, self.total - 1))

    def after_fit(self) -> None:
        if hasattr(self, "bar"):
            self.bar.update(self.total)


def in_words(metrics: dict[str, float | None]) -> str:
    """Metrics of an epoch as a line of the log: train loss 4.017, valid loss 2.753, perplexity 15.7."""
    parts = []
    for name, value in metrics.items():
        if value is not None:
            shown = f"{value:.1%}" if name == "accuracy" else f"{value:.1f}" if name == "perplexity" else f"{value:.4f}"
            parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts)
