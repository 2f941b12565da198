"""Confidence intervals of an error rate."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, stdev

from .._errors import UlmfitError

CONFIDENCE = 0.95


def wilson_interval(wrong: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of an error rate (Wilson 1927): sampling of the test set only.

    Args:
        wrong: texts that were predicted wrongly, of `n`.
        confidence: share of such intervals that hold the true error, 0 to 1.

    Returns:
        Lower and upper end in %.

    Raises:
        UlmfitError: no text, or more wrong ones than texts.
    """
    if n < 1 or not 0 <= wrong <= n:
        raise UlmfitError(f"expected 0 <= wrong <= n and n >= 1, found wrong = {wrong} and n = {n}.")
    from scipy.stats import binomtest  # a second to import

    found = binomtest(wrong, n).proportion_ci(confidence, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def half_width(error: float, n: int, confidence: float = CONFIDENCE) -> float:
    """Binomial half-width in percentage points of an error of `error` % measured on `n` texts."""
    if n < 1 or not 0 <= error <= 100:
        raise UlmfitError(f"expected an error in % and n >= 1, found {error} and {n}.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return 100 * z * math.sqrt(error / 100 * (1 - error / 100) / n)


def interval(errors: float | tuple[float, ...] | list[float], n: int,
             confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of an error measured with one or several seeds.

    One seed: Wilson's, which counts the sampling of the test set only. Several, on the same test set: around their
    mean, the root of the squares of the sampling half-width (which more seeds don't shrink) and of Student's half-width
    of the mean over the seeds. With two seeds that is wide, as two seeds say little about their spread.

    Args:
        errors: in %, one a seed.
        n: texts that each was measured on.

    Returns:
        Lower and upper end in %.

    Raises:
        UlmfitError: no error is given.
    """
    values = [float(errors)] if isinstance(errors, (int, float)) else [float(e) for e in errors]
    if not values:
        raise UlmfitError("errors is empty; expected at least one error in %.")
    if len(values) == 1:
        return wilson_interval(round(values[0] / 100 * n), n, confidence)
    from scipy.stats import t

    mean = fmean(values)
    seeds = t.ppf(0.5 + confidence / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    half = math.hypot(half_width(mean, n, confidence), seeds)
    return max(0.0, mean - half), min(100.0, mean + half)
