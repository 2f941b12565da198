"""Numbers, times and lists in words, for messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def rows_named(index: pd.Index, rows: Sequence[int]) -> str:
    """Some rows of a frame by the names of its index, for a message: 'rows 3, 7 (counted from 0)'."""
    import pandas as pd  # here, since the command line's help needs these words and no tables

    counted = " (counted from 0)" if index.equals(pd.RangeIndex(len(index))) else ""
    return f"row{'s' * (len(rows) > 1)} {shown(index[row] for row in rows)}{counted}"


def shown(values: Iterable[Any], most: int = 10) -> str:
    """List some values for a message: 'a, b, c and 12 more'."""
    every = [str(value) for value in values]
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def duration(seconds: float) -> str:
    """Seconds as 0.4 s, 45 s, 12 min, 3 h 20 min."""
    if 0 < seconds < 9.5:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def megabytes(size: int) -> str:
    """Say a size in bytes as people do: '144 MB', '0.3 MB'."""
    return f"{size / 1e6:,.0f} MB" if size > 1e7 else f"{size / 1e6:.1f} MB"
