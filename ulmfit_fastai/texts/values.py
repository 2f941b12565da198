"""What a single cell says: no value, a text, half a character; columns by their names."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._words import shown

LISTS = (list, tuple, set, frozenset, np.ndarray)
"""What several classes, or several numbers, of one text come in."""
NO_TEXT = (*LISTS, Mapping, pd.Series)
"""What holds values instead of being one."""


def is_na(value: Any) -> bool:
    """None, NaN, NaT or pandas' NA; a list or an array is none of them, whatever it holds."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def is_missing(label: object) -> bool:
    """None, NaN, pandas' NA, or a text of blanks: no label at all. An empty list is one: that of no class."""
    return not label.strip() if isinstance(label, str) else is_na(label)


def decoded(value: bytes | bytearray | memoryview) -> str:
    """The text in bytes.

    Raises:
        UlmfitError: they are not UTF-8.
    """
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UlmfitError(f"expected text, found bytes that are not UTF-8 ({bytes(value)[:20]!r}): decode them "
                          "first") from error


def text_of(value: Any) -> str:
    """A cell as text, '' for no value: bytes are decoded, a number is written out.

    Raises:
        UlmfitError: it is a list or a dictionary, or bytes that are not UTF-8.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return decoded(value)
    if isinstance(value, NO_TEXT):
        raise UlmfitError(f"expected a text, found a {type(value).__name__} ({str(value)[:40]}): join its parts to one "
                          "text first")
    return "" if is_na(value) else str(value)


def mended(value: Any) -> Any:
    """A text, or one in lists and dictionaries of JSON's, with U+FFFD for half a character, two halves joined."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    if isinstance(value, list):
        return [mended(item) for item in value]
    if isinstance(value, dict):
        return {mended(key): mended(item) for key, item in value.items()}
    return value


def column_names(given: Any, frame: pd.DataFrame) -> list[Any]:
    """The names of one column or several: whatever can be a key is a name, a tuple too where the frame has it."""
    if isinstance(given, Hashable) and (isinstance(given, str) or not isinstance(given, Iterable) or given in frame):
        return [given]
    return list(given)


def refuse_absent(frame: pd.DataFrame, names: Iterable[Any]) -> None:
    """Refuse names that no column, or more than one, is called by.

    Raises:
        UlmfitError: a column is not there, or is there twice; the message shows the others.
    """
    names = list(names)
    absent = [name for name in names if name not in frame]
    if absent:
        raise UlmfitError(f"no column {shown(absent)}; the columns are {columns_shown(frame)}")
    twice = [name for name in names if isinstance(frame[name], pd.DataFrame)]
    if twice:
        raise UlmfitError(f"{frame[twice[0]].shape[1]} columns are called {shown(twice)}: rename or drop all but one, "
                          f"or name one wholly; the columns are {columns_shown(frame)}")


def columns_shown(frame: pd.DataFrame) -> str:
    """The names of a frame's columns for a message, in quotes where blanks around them would not be seen."""
    return shown([repr(name) if isinstance(name, str) and name != name.strip() else name for name in frame.columns],
                 30)
