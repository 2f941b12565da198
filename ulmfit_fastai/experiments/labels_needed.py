"""How many labels a curve of errors needs for an error, between its points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .._errors import UlmfitError


@dataclass(frozen=True)
class Needed:
    """How many labels a curve needs for an error: a number, or a bound where the curve doesn't reach that far."""

    labels: float | None
    text: str
    """'1,250', 'more than 5,000' or 'at most 100'"""

    def __str__(self) -> str:
        return self.text


def labels_needed(curve: Mapping[int, float], error: float) -> Needed:
    """How many labels a curve needs for an error.

    Between two points the error is taken to be linear in the logarithm of the labels. Where a curve that goes up and
    down has the error several times, the fewest labels count: that favours the curve asked about. Beyond the curve's
    ends there is no number, only a bound.

    Args:
        curve: labels -> error in %.
        error: in %.

    Raises:
        UlmfitError: a curve without points.
    """
    points = sorted((n, e) for n, e in curve.items() if math.isfinite(e))
    if not points:
        raise UlmfitError("the curve has no points to compare with")
    if points[0][1] <= error:
        equal = points[0][1] == error
        return Needed(float(points[0][0]) if equal else None, f"{'' if equal else 'at most '}{points[0][0]:,}")
    for (few, worse), (many, better) in zip(points, points[1:]):
        if better <= error:
            share = (worse - error) / (worse - better)
            labels = math.exp(math.log(few) + share * (math.log(many) - math.log(few)))
            return Needed(labels, f"{labels:,.0f}")
    return Needed(None, f"more than {points[-1][0]:,}")
