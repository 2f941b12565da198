"""The report's wrong answers, worst first, with their texts and the words that led there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
    from ..predict.explanation import Explanation
    from .words import Explain

LONG_TEXT = 900  # characters of a text that are shown before the reader has to open the rest


class Wrong(NamedTuple):
    """A wrong answer, in words."""

    id: str
    label: str
    predicted: str
    sure: str
    towards: str | None
    """The class that an explanation is of; None: of the number."""


class Mistake(NamedTuple):
    id: str
    label: str
    predicted: str
    sure: str
    shown: Markup
    hidden: Markup
    """What of a long text is seen when the reader opens it."""
    length: int


class Mistakes(NamedTuple):
    """What mistakes.html.jinja shows."""

    title: str
    lead: str
    colours: str
    """What blue and orange words did."""
    head: tuple[str, ...]
    rows: list[Mistake]
    with_texts: bool
    explained: bool


def told(title: str, lead: str, colours: str, head: tuple[str, ...], wrong: Sequence[Wrong],
         texts: dict[str, str] | None, explain: Explain | None) -> Mistakes | None:
    """Wrong answers with what is shown of their texts, None where there is no wrong one.

    Args:
        head: of the table that stands in place of the texts.
        texts: id -> text; None: no texts.
    """
    if not wrong:
        return None
    why = [explain(texts.get(one.id, ""), one.towards) if explain and texts is not None else None for one in wrong]
    rows = [_mistake(one, (texts or {}).get(one.id, ""), reason) for one, reason in zip(wrong, why, strict=True)]
    return Mistakes(title, lead, colours, head, rows, texts is not None, any(why))


def _mistake(one: Wrong, full: str, why: Explanation | None) -> Mistake:
    """A wrong answer with its text, of which a long one's end is hidden at first."""
    if len(full) <= LONG_TEXT:
        shown, hidden = (Markup(why.marked()) if why else _lines(full)), Markup()
    elif why:
        words = int(np.searchsorted(np.cumsum([len(word.before + word.text) for word in why.words]), LONG_TEXT))
        shown, hidden = Markup(why.marked(last=words)), Markup(why.marked(first=words))
    else:
        cut = full.rfind(" ", 0, LONG_TEXT)
        cut = cut if cut > LONG_TEXT // 2 else LONG_TEXT
        shown, hidden = _lines(full[:cut]), _lines(full[cut:])
    return Mistake(one.id, one.label, one.predicted, one.sure, shown, hidden, len(full))


def _lines(raw: str) -> Markup:
    """A text made safe, with the one tag that IMDb's reviews hold, <br />, taken as what it means."""
    return Markup("<br>").join(re.split(r"(?:\s*<br\s*/?>)+\s*|\n+", raw))
