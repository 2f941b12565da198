"""The learning rate of every layer group over a whole phase, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import UlmfitError
from .parts import Phase

if TYPE_CHECKING:
    import pandas as pd


def simulate(phase: Phase, n_groups: int, steps_per_epoch: int) -> pd.DataFrame:
    """Every group's rate at every step of a phase, without training anything.

    Args:
        n_groups: layer groups of the model (`Model.n_groups`).
        steps_per_epoch: batches of an epoch.

    Returns:
        A frame with one row per step and group: step (from 0), stage, group, lr (0 while frozen), momentum, trainable.
        The rates are those in force during the step, so step 0 shows where the schedule starts.

    Raises:
        UlmfitError: `steps_per_epoch` is below 1, or a stage doesn't suit a model of `n_groups`.
    """
    import pandas as pd

    if steps_per_epoch < 1:
        raise UlmfitError(f"steps_per_epoch is {steps_per_epoch}; expected at least 1.")
    rows = []
    first = 0
    for stage in phase.stages:
        total = stage.epochs * steps_per_epoch
        peaks, trains = stage.rates(n_groups), set(stage.groups(n_groups))
        for t in range(total):
            factor, momentum = stage.factor(t / total), stage.momentum(t / total, phase.optimizer.moms)
            rows += [(first + t, stage.name, g, peaks[g] * factor, momentum, g in trains) for g in range(n_groups)]
        first += total
    return pd.DataFrame(rows, columns=["step", "stage", "group", "lr", "momentum", "trainable"])
