"""What a class is: text, a number or a truth value, as JSON keeps it; everything else is kept by its name.

From reading to drawing a class is what `plain_class` made of it, and its name is `class_name`; a file that spells it
otherwise is understood by `Spellings`.
"""

from __future__ import annotations

import ast
import datetime
import fractions
import json
import logging
import math
import pathlib
import re
import unicodedata
import uuid
from collections.abc import Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._words import shown
from .values import decoded, is_missing, mended

log = logging.getLogger(__name__)

BY_NAME = (datetime.date, datetime.time, datetime.timedelta, pd.Period, pd.Interval, fractions.Fraction, uuid.UUID,
           pathlib.PurePath, tuple)
"""Kinds of values whose text says all of them."""
WHOLE = re.compile(r"0|-?[1-9]\d*")
NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d+)?|\.\d+)([eE][-+]?\d+)?")
"""A number as people write it: `007`, `-` and `E10` are none."""
MARKS = (";", "|", "\x1f", "\x1e")
TRUTH = {"true": True, "false": False, "1": True, "0": False}


def plain_class(value: Any) -> str | int | float | bool:
    """A class as JSON keeps it: text without blanks around it and in composed characters, a number or a truth value.

    An Enum that is text or a number is this; another Enum, a date, an interval or a tuple is kept by its name.

    Raises:
        UlmfitError: a kind of value whose text doesn't say which it is, or a number that is infinite.
    """
    if isinstance(value, Enum):  # text or a number equals its value, which files hold
        value = value.value if isinstance(value, (str, int, float)) else value.name
    if isinstance(value, (np.datetime64, np.timedelta64)):
        value = pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (str, bytes)):
        text = decoded(value) if isinstance(value, bytes) else str(value)
        return unicodedata.normalize("NFC", mended(text).strip())
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, Decimal)) and math.isfinite(value):
        return int(value) if isinstance(value, Decimal) and value == int(value) else float(value)
    if isinstance(value, BY_NAME):
        return str(value)
    raise UlmfitError(f"a class is text, a number or a date; {value!r:.60} is a {type(value).__name__}, which no file "
                      "keeps: give its name instead", field="label", found=type(value).__name__)


def class_name(value: Any) -> str:
    """A class as text: '1' for 1 and 1.0."""
    value = plain_class(value)
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


class Spellings:
    """The classes of a model, found by what another file calls them: `true` for True, `1.0` for the number 1.

    A number in the model or in the file stands for all its spellings; two texts are the same only if they are equal,
    since the section 1.10 is not 1.1.
    """

    def __init__(self, classes: Sequence[Any]) -> None:
        self.classes = tuple(classes)
        self._names = {class_name(value): i for i, value in enumerate(self.classes)}
        truth = [TRUTH.get(name.lower()) for name in self._names]
        both = len(truth) == 2 and {*truth} == {True, False}
        self._truth = {value: i for i, value in enumerate(truth)} if both else {}

    def find(self, value: Any) -> int | None:
        """The number of the class that is meant, or None."""
        name = class_name(value)
        if name in self._names:
            return self._names[name]
        if name.lower() in TRUTH and self._truth:
            return self._truth[TRUTH[name.lower()]]
        number, written = _number(name), isinstance(plain_class(value), str)
        same = [i for i, other in enumerate(self.classes) if not (written and isinstance(other, str))
                and number is not None and _number(class_name(other)) == number]
        return same[0] if len(same) == 1 else None


def _number(name: str) -> float | None:
    return float(name) if NUMBER.fullmatch(name) else None


def written_lists(values: list[Any]) -> list[Any] | None:
    """Labels that were lists before they became text in a file, `"['funny', 'warm']"`, as lists; None: they are not.

    Raises:
        UlmfitError: they are written as numpy writes an array, without commas.
    """
    known = [value for value in values if not is_missing(value)]
    if not known or not all(isinstance(v, str) and v.strip()[:1] in "[({" and v.strip()[-1:] in "])}" for v in known):
        return None
    read = {value: _as_list(value.strip()) for value in set(known)}
    if any(several is None for several in read.values()):
        return None
    log.warning("the labels are lists written as text (%s): read as several classes a text", shown(known, 1))
    return [value if is_missing(value) else read[value] for value in values]


def _as_list(text: str) -> list[Any] | None:
    if re.search(r"""['"]\s+['"]""", text):
        raise UlmfitError(f"the label {text:.60} is an array as numpy writes it, without commas: write lists of "
                          "classes, or give a mark between them", field="label_delim", advice="give `label_delim=`")
    for read in (json.loads, ast.literal_eval, lambda text: ast.literal_eval(re.sub(r"\bnan\b", "None", text))):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: brackets by the thousand
            continue
        return list(found) if isinstance(found, (list, tuple, set)) else None
    return None


def delimiter(names: Sequence[str]) -> str:
    """A delimiter that no class has in its name.

    Raises:
        UlmfitError: there is none.
    """
    free = [mark for mark in MARKS if not any(mark in name for name in names)]
    if not free:
        raise UlmfitError(f"each of {', '.join(map(repr, MARKS))} stands in the name of a class: leave one out of them")
    return free[0]
