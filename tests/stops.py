"""Budgets that are over at a known batch."""

from __future__ import annotations

from ulmfit_fastai.training.callbacks import Budget


class StopAt(Budget):
    """A budget that is over once it was asked `n` times: a deadline at a known batch."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def over(self) -> bool:
        self.n -= 1
        return self.stopped or self.n < 0
