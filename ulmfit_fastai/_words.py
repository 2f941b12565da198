"""Numbers, times and lists in words, for messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def rows_named(index: pd.Index, rows: Sequence[int]) -> str:
    """Some rows of a frame by the names of its index, for a message: 'rows 3, 7 (counted from 0)'."""
    import pandas as pd  # here, since the command line's help needs these words and no tables

    counted = " (counted from 0)" if index.equals(pd.RangeIndex(len(index))) else ""
    return f"row{'s' * (len(rows) > 1)} {shown(index[row] for row in rows)}{counted}"


LONGEST = 200
"""Characters of a value in a message."""


def shown(values: Iterable[Any], most: int = 10) -> str:
    """List some values for a message: 'a, b, c and 12 more'; a value that would fill the screen is cut."""
    every = [text if len(text) <= LONGEST else f"{text[:LONGEST - 3]}..." for text in map(str, values)]
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest:,} more" if rest > 0 else "")


_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: Any) -> str:
    """Text for a terminal: what would move its cursor, colour it or turn it around is shown as an escape."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


_NAMES = "(?<![a-z])(?:api|access|auth|private)?[-_.]?(?:key|token|secret|passw(?:or)?d|pwd|credentials?|signature)"
_SECRET = re.compile(rf"(?i)({_NAMES}\s*[=:]\s*|--[\w-]*?{_NAMES}\s+)(?:'[^']*'|[^\s&]+)")
_QUOTED_SECRET = re.compile(rf"(?i)'(--?[\w-]*?{_NAMES}[=:])[^']*'")
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SHAPE = re.compile(r"\b(?:hf|sk|pk|rk|gh[opsu]|github_pat|glpat|xox[abp]|AKIA|ASIA|AIza|ya29|eyJ)[-_.]?[\w.-]{12,}")


def without_secrets(text: str) -> str:
    """A command line with *** in the place of what looks like a password, a key or a token."""
    text = _QUOTED_SECRET.sub(r"\1***", _USER.sub("***", text))
    return _SHAPE.sub("***", _SECRET.sub(r"\1***", text))


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
