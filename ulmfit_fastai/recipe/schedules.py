"""Learning-rate schedules as plain functions of the fraction of training done.

A schedule here is a number in (0, 1] that multiplies a stage's learning rate at the moment `x`, where `x` runs
from 0 (before the first step) towards 1 (after the last one), as fastai's `pct_train` does. Nothing here needs torch,
so a whole run's rates can be looked at before anything is trained.

    stlr        slanted triangular rates, the paper's section 3.2
    one_cycle   what fastai's `fit_one_cycle` does, momentum included
    cosine      annealing from the full rate to nothing: the row "Freez + cos" of the paper's Table 7
    constant    the same rate throughout
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._errors import UlmfitError
from ..paper import stated

KINDS = ("constant", "stlr", "one_cycle", "cosine")
CUT_FRAC, RATIO = stated("cut_frac"), stated("ratio")


@dataclass(frozen=True)
class Schedule:
    """How the rate moves over a stage, as a factor of the stage's own rate.

    Only the fields of its own `kind` are read: `cut_frac` and `ratio` by `stlr`; `div`, `div_final` and `pct_start`
    by `one_cycle`. Two schedules that differ only in fields that are not read give the same rates.
    """

    kind: str = "constant"
    """constant, stlr (the paper's), one_cycle (fastai's) or cosine."""
    cut_frac: float = CUT_FRAC
    """Share of the steps in which `stlr` rises (paper: 0.1)."""
    ratio: float = RATIO
    """How much smaller than the peak the lowest `stlr` rate is (paper: 32)."""
    div: float = 25.0
    """`one_cycle` starts at the peak divided by this (fastai's default)."""
    div_final: float = 1e5
    """`one_cycle` ends at the peak divided by this (fastai's default)."""
    pct_start: float = 0.25
    """Share of the steps in which `one_cycle` rises (fastai's default)."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UlmfitError(f"schedule.kind is {self.kind!r}; expected one of {', '.join(KINDS)}.")
        for name in ("cut_frac", "pct_start"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise UlmfitError(f"schedule.{name} is {value}; expected a fraction between 0 and 1, both excluded.")
        for name in ("ratio", "div", "div_final"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 1.0):
                raise UlmfitError(f"schedule.{name} is {value}; expected a number of at least 1.")

    def factor(self, x: float) -> float:
        """What the rate is multiplied by when the fraction `x` of the schedule is done.

        Args:
            x: 0 (before the first step) to 1 (after the last).

        Returns:
            A factor, 1 at the peak.

        Raises:
            UlmfitError: `x` is outside of 0 to 1.
        """
        _check_fraction(x)
        if self.kind == "stlr":
            return stlr_factor(x, cut_frac=self.cut_frac, ratio=self.ratio)
        if self.kind == "one_cycle":
            return combined_cosine(x, self.pct_start, 1.0 / self.div, 1.0, 1.0 / self.div_final)
        if self.kind == "cosine":
            return cosine_between(1.0, 0.0, x)
        return 1.0

    def momentum(self, x: float, moms: tuple[float, ...]) -> float:
        """Adam's first beta when the fraction `x` of the schedule is done.

        Args:
            x: 0 (before the first step) to 1 (after the last).
            moms: one constant, or (start, middle, end) for `one_cycle`, which lowers the momentum while it raises the
                rate.

        Raises:
            UlmfitError: any other combination, since no other schedule says how the momentum should move.
        """
        _check_fraction(x)
        if len(moms) == 1:
            return moms[0]
        if len(moms) != 3:
            raise UlmfitError(f"moms has {len(moms)} values; expected one, or three (start, middle, end).")
        if self.kind != "one_cycle":
            raise UlmfitError(f"three moms are cycled by one_cycle only, and this schedule is {self.kind!r}: give one.")
        return combined_cosine(x, self.pct_start, *moms)

    def __str__(self) -> str:
        if self.kind == "stlr":
            return f"stlr(cut_frac={self.cut_frac:g}, ratio={self.ratio:g})"
        if self.kind == "one_cycle":
            return f"one_cycle(div={self.div:g}, div_final={self.div_final:g}, pct_start={self.pct_start:g})"
        return self.kind


def constant() -> Schedule:
    """The same rate throughout."""
    return Schedule("constant")


def stlr(*, cut_frac: float = CUT_FRAC, ratio: float = RATIO) -> Schedule:
    """Slanted triangular rates: a short linear rise, then a long linear fall.

    Args:
        cut_frac: share of the steps in which the rate rises.
        ratio: how much smaller than the peak the lowest rate is.

    Source: paper, section 3.2.
    """
    return Schedule("stlr", cut_frac=cut_frac, ratio=ratio)


def one_cycle(*, div: float = 25.0, div_final: float = 1e5, pct_start: float = 0.25) -> Schedule:
    """The rates of fastai's `fit_one_cycle`: a cosine up, then a longer cosine down to almost nothing."""
    return Schedule("one_cycle", div=div, div_final=div_final, pct_start=pct_start)


def cosine() -> Schedule:
    """Cosine annealing from the full rate to nothing, the "cos" of the paper's Table 7 ("aggressive" annealing)."""
    return Schedule("cosine")


def stlr_factor(x: float, *, cut_frac: float = CUT_FRAC, ratio: float = RATIO) -> float:
    """The slanted triangle at the fraction `x` of training, always within [1/ratio, 1].

    The paper writes the fall with the denominator cut * (1/cut_frac - 1), where cut = floor(T * cut_frac). That is
    right only if T * cut_frac is an integer; otherwise the rate ends below zero (T = 15 gives four negative rates),
    and with T < 1/cut_frac it divides by zero. Written in fractions of training there is nothing to round, and the
    two agree wherever the paper's is defined as meant: see `stlr_as_printed`.

    Source: paper, section 3.2, equation 3.
    """
    p = x / cut_frac if x < cut_frac else 1.0 - (x - cut_frac) / (1.0 - cut_frac)
    return (1.0 + p * (ratio - 1.0)) / ratio


def stlr_as_printed(t: int, total: int, *, cut_frac: float = CUT_FRAC, ratio: float = RATIO) -> float:
    """Equation 3 of the paper word for word, for step `t` of `total`: to compare with, never to train with.

    Raises ZeroDivisionError when total * cut_frac < 1, and returns negative factors near the end for most totals.
    """
    cut = math.floor(total * cut_frac)
    p = t / cut if t < cut else 1.0 - (t - cut) / (cut * (1.0 / cut_frac - 1.0))
    return (1.0 + p * (ratio - 1.0)) / ratio


def cosine_between(start: float, end: float, x: float) -> float:
    """Half a cosine wave from `start` (x = 0) to `end` (x = 1); fastai's `SchedCos`."""
    return start + (1.0 - math.cos(math.pi * x)) * (end - start) / 2.0


def combined_cosine(x: float, peak_at: float, start: float, middle: float, end: float) -> float:
    """Half a cosine to `middle` at `peak_at`, then half a cosine to `end`; fastai's `combined_cos`."""
    if x < peak_at:
        return cosine_between(start, middle, x / peak_at)
    return cosine_between(middle, end, (x - peak_at) / (1.0 - peak_at))


def _check_fraction(x: float) -> None:
    if not 0.0 <= x <= 1.0:
        raise UlmfitError(f"a schedule runs over fractions of training from 0 to 1, and was asked for {x}.")
