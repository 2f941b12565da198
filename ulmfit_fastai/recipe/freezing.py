"""Which layer groups train when, and how fast: stages as data, which one loop runs in order.

Groups are fastai's, numbered from the input upwards. The classifier of an n-layer model has n + 2 of them (embedding,
the LSTMs, head), the language model n + 1 (the LSTMs, then embedding and decoder together, since they share weights).

    full         everything at once
    last         only the last group
    gradual      the last group first, one more each epoch (paper, section 3.3)
    by_hand      the same in steps of so many epochs, each with a rate of its own, as in fastai's notebooks
    chain_thaw   Felbo et al. 2017: the new head, then every other layer alone, then everything
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .._errors import UlmfitError
from ..paper import stated
from .schedules import Schedule, one_cycle

DISCRIMINATIVE = stated("discriminative")
"""The paper's ratio between the rates of neighbouring groups (section 3.2)."""

Steps = tuple[tuple[int, float], ...]
"""(epochs, lr) of every step of unfreezing; in the last one everything trains."""


@dataclass(frozen=True)
class Stage:
    """A run of epochs with one set of trainable groups and one course of the learning rate."""

    name: str
    """Under which results are filed; differs from those of the phase's other stages."""
    epochs: int
    """How often the training texts are read."""
    lr: float
    """Rate of the last group at the schedule's peak (of group i: `rates(n_groups)[i]`)."""
    trainable: tuple[int, ...] | None = None
    """Group numbers; negative ones count from the top, as in a list. None: all."""
    discriminative: float | tuple[float, ...] = DISCRIMINATIVE
    """Ratio between neighbouring groups' rates, or one multiplier of `lr` per group. 1.0: the same rate everywhere."""
    schedule: Schedule = field(default_factory=Schedule)
    """How the rate moves over the stage."""
    span: tuple[float, float] = (0.0, 1.0)
    """The part of the schedule that this stage covers, so that several stages can share one schedule."""

    def __post_init__(self) -> None:
        where = f"stage {self.name!r}"
        if not self.name:
            raise UlmfitError("stage.name is empty; every stage needs a name.")
        if self.epochs < 1:
            raise UlmfitError(f"{where}: epochs is {self.epochs}; expected at least 1.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UlmfitError(f"{where}: lr is {self.lr}; expected a positive number.")
        if self.trainable is not None and (not self.trainable or len(set(self.trainable)) < len(self.trainable)):
            raise UlmfitError(f"{where}: trainable is {self.trainable}; expected distinct group numbers, or "
                              "None (all).")
        multipliers = self.discriminative if isinstance(self.discriminative, tuple) else (self.discriminative,)
        if not multipliers or not all(math.isfinite(m) and m > 0 for m in multipliers):
            raise UlmfitError(f"{where}: discriminative is {self.discriminative}; expected positive numbers.")
        if not 0.0 <= self.span[0] < self.span[1] <= 1.0:
            raise UlmfitError(f"{where}: span is {self.span}; expected (start, end) with 0 <= start < end <= 1.")

    def groups(self, n_groups: int) -> tuple[int, ...]:
        """Numbers of the groups that train, counted from the input, ascending.

        Raises:
            UlmfitError: the stage names a group that a model of `n_groups` doesn't have.
        """
        if self.trainable is None:
            return tuple(range(n_groups))
        beyond = [g for g in self.trainable if not -n_groups <= g < n_groups]
        if beyond:
            raise UlmfitError(f"stage {self.name!r} trains group {beyond[0]}, but the model has {n_groups} groups.")
        return tuple(sorted({g % n_groups for g in self.trainable}))

    def rates(self, n_groups: int) -> list[float]:
        """Peak rate of every group, first to last; zero for those that are frozen.

        Raises:
            UlmfitError: `discriminative` or `trainable` don't suit a model of `n_groups`.

        Source: paper, section 3.2 (discriminative fine-tuning).
        """
        if isinstance(self.discriminative, tuple):
            if len(self.discriminative) != n_groups:
                raise UlmfitError(f"stage {self.name!r}: discriminative has {len(self.discriminative)} multipliers, "
                                  f"but the model has {n_groups} groups.")
            multipliers = list(self.discriminative)
        else:
            multipliers = [self.discriminative ** (i + 1 - n_groups) for i in range(n_groups)]
        trains = set(self.groups(n_groups))
        return [self.lr * m if i in trains else 0.0 for i, m in enumerate(multipliers)]

    def position(self, x: float) -> float:
        """Where in the schedule the fraction `x` of this stage lies."""
        start, end = self.span
        return min(start + x * (end - start), 1.0)

    def factor(self, x: float) -> float:
        """What every rate is multiplied by when the fraction `x` of this stage is done (0 <= x <= 1)."""
        return self.schedule.factor(self.position(x))

    def momentum(self, x: float, moms: tuple[float, ...]) -> float:
        """Adam's first beta when the fraction `x` of this stage is done."""
        return self.schedule.momentum(self.position(x), moms)


def full(epochs: int, lr: float, *, discriminative: float | tuple[float, ...] = DISCRIMINATIVE,
         schedule: Schedule | None = None, name: str = "all") -> tuple[Stage, ...]:
    """Every group from the first step on."""
    return (Stage(name, epochs, lr, None, discriminative, schedule or Schedule()),)


def last(epochs: int, lr: float, *, schedule: Schedule | None = None, name: str = "last") -> tuple[Stage, ...]:
    """Only the last group: the classifier's head on frozen features."""
    return (Stage(name, epochs, lr, (-1,), 1.0, schedule or Schedule()),)


def gradual(n_groups: int, epochs: int, lr: float, *, discriminative: float | tuple[float, ...] = DISCRIMINATIVE,
            schedule: Schedule | None = None, one_schedule: bool = True) -> tuple[Stage, ...]:
    """The last group for one epoch, one more group each epoch, then all for what remains.

    Args:
        n_groups: layer groups of the model (`Model.n_groups`).
        epochs: in all; with fewer than groups the lowest groups are never opened.
        lr: rate of the last group.
        discriminative: as in `Stage`.
        schedule: None: a constant rate.
        one_schedule: lay a single schedule over all the epochs, as the paper's T ("number of training iterations")
            reads; otherwise every step of unfreezing has a schedule of its own, as in the authors' scripts.

    Raises:
        UlmfitError: `n_groups` or `epochs` is below 1.

    Source: paper, section 3.3.
    """
    if n_groups < 1:
        raise UlmfitError(f"n_groups is {n_groups}; expected at least 1.")
    if epochs < 1:
        raise UlmfitError(f"epochs is {epochs}; expected at least 1.")
    steps = min(n_groups, epochs)
    stages = []
    for opened in range(1, steps + 1):
        length = epochs - steps + 1 if opened == steps else 1
        start = opened - 1
        whole = opened == n_groups
        stages.append(Stage(
            name="all" if whole else f"last {opened}",
            epochs=length,
            lr=lr,
            trainable=None if whole else tuple(range(-opened, 0)),
            discriminative=discriminative,
            schedule=schedule or Schedule(),
            span=(start / epochs, (start + length) / epochs) if one_schedule else (0.0, 1.0),
        ))
    return tuple(stages)


def by_hand(n_groups: int, steps: Steps, discriminative: float = DISCRIMINATIVE) -> tuple[Stage, ...]:
    """Unfreezing as fastai's notebooks do it: the last group, the last two, ..., and everything in the final step."""
    stages = []
    for i, (epochs, lr) in enumerate(steps, start=1):
        whole = i == len(steps) or i == n_groups
        stages.append(Stage("all" if whole else f"last {i}", epochs, lr, None if whole else tuple(range(-i, 0)),
                            discriminative, one_cycle()))
    return tuple(stages)


def chain_thaw(n_groups: int, epochs: int, *, head_lr: float = stated("lr chain-thaw last"),
               lr: float = stated("lr chain-thaw others"), schedule: Schedule | None = None) -> tuple[Stage, ...]:
    """The new head first, then every other layer alone from the first up, then everything.

    Each layer alone takes one epoch, as in the authors' scripts, and the rest goes to everything together.

    Args:
        epochs: in all; more than `n_groups`.
        head_lr: rate of the head.
        lr: rate of all groups below it.

    Raises:
        UlmfitError: there are too few epochs.

    Source: Felbo et al. 2017; rates: paper, section 5.
    """
    if epochs <= n_groups:
        raise UlmfitError(f"chain-thaw over {n_groups} groups takes {n_groups} epochs for the groups alone and at "
                          f"least one for all of them: epochs is {epochs}, expected at least {n_groups + 1}.")
    course = schedule or Schedule()
    multipliers = (lr / head_lr,) * (n_groups - 1) + (1.0,)
    head = Stage("head alone", 1, head_lr, (-1,), multipliers, course)
    layers = [Stage(f"group {i} alone", 1, head_lr, (i,), multipliers, course) for i in range(n_groups - 1)]
    return (head, *layers, Stage("all", epochs - n_groups, head_lr, None, multipliers, course))
