"""How a stage of training gets on: a bar with the time left, and an epoch's metrics in words."""

from __future__ import annotations

from collections.abc import Callable

from fastai.callback.core import Callback

from .._progress import Bar
from .callbacks import Position


class Progress(Callback):
    """A bar for the stage, with the time left in the stage and, where it is known, in the whole run."""

    order = 6000  # after Checkpoints counted the batch
    bar: Bar | None = None

    def __init__(self, label: str, epochs: int, position: Position, rest_of_run: Callable[[int, float], float | None]):
        self.label, self.epochs, self.position, self.rest_of_run = label, epochs, position, rest_of_run

    def before_fit(self) -> None:
        self.bar = Bar(self.label, len(self.learn.dls.train) * self.epochs, first=self._done(),
                       rest_of_run=lambda left: self.rest_of_run(self.position.stage, left))

    def after_batch(self) -> None:
        if self.learn.training and self.bar is not None:
            self.bar.show(self._done())

    def close(self) -> None:
        """Take the bar away, which an error in the middle of a stage leaves on the screen."""
        if self.bar is not None:
            self.bar.close()

    def _done(self) -> int:
        return self.position.epoch * len(self.learn.dls.train) + self.position.batch


def in_words(metrics: dict[str, float | None]) -> str:
    """Metrics of an epoch as a line of the log: train loss 4.017, valid loss 2.753, perplexity 15.7."""
    parts = []
    for name, value in metrics.items():
        if value is not None:
            shown = f"{value:.1%}" if name == "accuracy" else f"{value:.1f}" if name == "perplexity" else f"{value:.4f}"
            parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts)
