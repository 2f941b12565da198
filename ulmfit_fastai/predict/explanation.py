"""What an explanation shows: the words of a text as written, each with its score, as HTML, shell text or a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import pandas as pd

from ..tokens.rules import BOS, fix_html

FAINT = 0.06  # share of the largest score below which a word is not shaded
# Blue and orange: readable under dark ink and under light, and told apart by the colour-blind.
_FOR, _AGAINST = "56,124,255", "240,128,16"
_ANSI = {True: (153, 111, 75), False: (223, 216, 208)}  # three strengths each, from the palette of 256 colours
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MARKS = ("xxmaj", "xxup")
_BEGINS = re.compile(r"▁\w")  # a piece that begins a word, as only SentencePiece makes it
_NEAR = 60  # characters within which a word is looked for after one that was not found as written


@dataclass(frozen=True)
class Word:
    """A word as the text has it. Tokens that stand for its case or its repetition are counted in."""

    text: str
    score: float
    tokens: tuple[str, ...]
    """What the model read."""
    known: bool = True
    """False when the model read xxunk: the word is not in its vocabulary."""
    before: str = " "
    """White space between this word and the one before."""


@dataclass(frozen=True)
class Explanation:
    """A decision, and every word's part in it. In a notebook it shows itself as shaded text."""

    words: tuple[Word, ...]
    kind: str
    """'single', 'multi' or 'regression'"""
    target: str
    """the class (or number) that is explained"""
    predicted: str
    """the most probable class"""
    outputs: dict[str, float] = field(repr=False)
    """probability of each class, averaged over the directions; for regression the numbers"""
    value: float
    """log-odds of the target; for regression the number"""
    baseline: float
    """the same for a text without words"""

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each class; empty for regression."""
        return {} if self.kind == "regression" else dict(self.outputs)

    @property
    def tokens(self) -> list[str]:
        """The words as shown."""
        return [word.text for word in self.words]

    @property
    def scores(self) -> np.ndarray:
        """A score a word, float64 (words,), in log-odds: above 0 it spoke for the target, below 0 against it."""
        return np.array([word.score for word in self.words])

    @property
    def gap(self) -> float:
        """What the scores leave unexplained: value - baseline - sum of scores; nearer 0 with more `steps`."""
        return self.value - self.baseline - float(self.scores.sum())

    def top(self, n: int = 10) -> list[Word]:
        """The words that moved the decision most, either way."""
        return sorted(self.words, key=lambda word: -abs(word.score))[:n]

    def to_frame(self) -> pd.DataFrame:
        """A row a word in reading order: word, score, known, tokens."""
        rows = [(word.text, word.score, word.known, " ".join(word.tokens)) for word in self.words]
        return pd.DataFrame(rows, columns=["word", "score", "known", "tokens"])

    def strengths(self) -> Iterator[tuple[Word, float]]:
        """Each word with its score as a share of the largest, -1 to 1: how strongly to colour it."""
        largest = max((abs(word.score) for word in self.words), default=0.0) or 1.0
        return ((word, word.score / largest) for word in self.words)

    @property
    def summary(self) -> str:
        """The decision in a line."""
        if self.kind == "regression":
            return f"{self.target} {self.outputs[self.target]:.4g}"
        said = sorted(self.outputs.items(), key=lambda item: -item[1])[:4]
        return ", ".join(f"{name} {100 * p:.1f} %" for name, p in said)

    @property
    def legend(self) -> tuple[str, str]:
        """What the two colours mean."""
        if self.kind == "regression":
            return f"raised {self.target}", f"lowered {self.target}"
        return f"spoke for {self.target}", "spoke against it"

    def marked(self, first: int = 0, last: int | None = None) -> str:
        """The words as HTML, shaded by their scores; safe whatever they hold.

        Args:
            first: number of the first word that is shown.
            last: number of the word before which it ends; None: all the rest.
        """
        parts = []
        for word, strength in list(self.strengths())[first:last]:
            style = [f"background:rgba({_FOR if strength > 0 else _AGAINST},{0.08 + 0.42 * abs(strength):.2f})",
                     "border-radius:3px"] if abs(strength) >= FAINT else []
            style += [] if word.known else ["text-decoration:underline dotted", "text-underline-offset:3px"]
            title = f"{word.score:+.3f}" + ("" if word.known else ", not in the model's vocabulary")
            shown = f'<span style="{";".join(style)}" title="{title}">{escape(word.text)}</span>'
            parts.append(_space(word, "<br>") + (shown if style else escape(word.text)))
        return "".join(parts).strip()

    def _repr_html_(self) -> str:
        for_, against = (escape(said) for said in self.legend)
        key = "".join(f'<span style="background:rgba({rgb},.4);border-radius:3px;padding:0 .4em;margin-right:.6em">'
                      f"{said}</span>" for rgb, said in ((_FOR, for_), (_AGAINST, against)))
        key += "" if all(word.known for word in self.words) else "dotted: unknown to the model"
        return ('<div style="max-width:70ch;line-height:1.65;overflow-wrap:anywhere">'
                f'<div style="margin-bottom:.4em"><b>{escape(self.summary)}</b></div>'
                f'<div style="margin-bottom:.5em;font-size:.85em">{key}</div><div>{self.marked()}</div></div>')

    def to_html(self) -> str:
        """A page of its own, which opens offline."""
        return ('<!DOCTYPE html>\n<html><head><meta charset="utf-8">'
                '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
                f'<title>{escape(self.summary)}</title><style>body{{font:1rem/1.5 system-ui,sans-serif;margin:2rem}}'
                f'</style></head>\n<body>{self._repr_html_()}</body></html>\n')

    def to_ansi(self, *, colour: bool = True) -> str:
        """For a shell: the decision, then the text with coloured words.

        A last line names the words that the model does not know.

        Args:
            colour: False gives the strongest words with their scores instead.
        """
        strange = dict.fromkeys(_plain(word.text) for word in self.words if not word.known)
        unknown = [f"unknown to the model: {', '.join(strange)}"] if strange else []
        for_, against = self.legend
        if not colour:
            strongest = [f"{word.score:+8.3f}  {_plain(word.text)}" for word in self.top()]
            left = len(self.words) - len(strongest)
            weaker = [f"and {left:,} weaker word{'s' * (left > 1)}"] if left else []
            return "\n".join([_plain(self.summary), _plain(f"+ {for_}, - {against}"), *strongest, *weaker, *unknown])
        words = "".join(_space(word, "\n") + _paint(word.text, strength) for word, strength in self.strengths())
        key = f"{_paint(for_, 1.0)} {_paint(against, -1.0)}"
        return "\n".join([_plain(self.summary), key, words.strip(), *unknown])

    def __str__(self) -> str:
        return self.to_ansi(colour=False)


def _space(word: Word, line_end: str) -> str:
    return line_end if "\n" in word.before else " " if word.before else ""


def _plain(text: str) -> str:
    """Without control characters: a text must not steer the terminal that shows it."""
    return _CONTROL.sub("�", text)


def _paint(text: str, strength: float) -> str:
    if abs(strength) < FAINT:
        return _plain(text)
    shade = _ANSI[strength > 0][min(int(abs(strength) * 3), 2)]
    return f"\x1b[48;5;{shade}m\x1b[38;5;16m{_plain(text)}\x1b[0m"


def words_of_text(text: str, tokens: Sequence[str], scores: Sequence[float] | np.ndarray, known: Sequence[bool]
                  ) -> list[Word]:
    """The tokens of a text put back on the words they came from.

    `xxmaj` and `xxup` go to the word behind them, `xxrep 4 o` is `oooo` again, `xxwrep 3 so` is `so so so`; `xxbos`
    goes to the first word, white space to the word before; SentencePiece's pieces of a word are put together. Words
    are as written, capitals included; where that place cannot be found, as the token has them.
    """
    reader, pieces = _Reader(fix_html(text)), any(_BEGINS.match(token) for token in tokens)
    items = _items(tokens, pieces)
    words: list[Word] = []
    pending: list[int] = []  # tokens that belong to the next word
    repeated, times = "", 1
    for n, (surface, own) in enumerate(items):
        pending += own
        if surface == BOS and n == 0 or surface in _MARKS:
            continue
        if surface in ("xxrep", "xxwrep") and n + 2 < len(items) and items[n + 1][0].isdigit():
            repeated = surface
            continue
        if repeated and surface.isdigit() and items[n - 1][0] == repeated:
            times = int(surface)
            continue
        if not surface and not words:
            continue  # white space in front of the first word
        if surface:
            shown, before = reader.take(surface, times, repeated)
            seen = known[own[-1]]
            if pieces and words and not before and shown[0].isalnum() and words[-1].text[-1].isalnum():
                last = words.pop()
                shown, before, seen = last.text + shown, last.before, last.known and seen
                words.append(Word(shown, last.score, last.tokens, seen, before))
            else:
                words.append(Word(shown, 0.0, (), seen, before))
        words[-1] = _with(words[-1], tokens, scores, pending)
        pending, repeated, times = [], "", 1
    if pending:
        words.append(_with(words.pop() if words else Word("", 0.0, ()), tokens, scores, pending))
    return words


def _items(tokens: Sequence[str], pieces: bool) -> list[tuple[str, list[int]]]:
    """Each token as it looks, with its number; among pieces, a mark of a word's beginning goes to the piece behind."""
    items: list[tuple[str, list[int]]] = []
    waiting: list[int] = []
    for i, token in enumerate(tokens):
        waiting.append(i)
        if not pieces or token != "▁" or i == len(tokens) - 1:
            items.append((token.replace("▁", " ").strip(), waiting))
            waiting = []
    return items


def _with(word: Word, tokens: Sequence[str], scores: Sequence[float] | np.ndarray, more: Sequence[int]) -> Word:
    return Word(word.text, word.score + float(sum(scores[i] for i in more)),
                (*word.tokens, *(tokens[i] for i in more if tokens[i].lstrip("▁") != BOS)), word.known, word.before)


class _Reader:
    """Finds tokens, one behind the other, in the text they were made of."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.lost = text, 0, False
        self.lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)  # of the same length

    def take(self, surface: str, times: int, repeated: str) -> tuple[str, str]:
        """The next occurrence as (text as written, white space before it)."""
        wanted = surface * times if repeated == "xxrep" else surface
        start = self.lower.find(wanted, self.place, self.place + len(wanted) + _NEAR)
        if start < 0 or (self.text[self.place : start].strip() and not self.lost):  # not the next thing in the text
            self.lost = True
            again = " " if repeated == "xxwrep" else ""
            return again.join([surface] * times), " "
        end = start + len(wanted)
        if repeated == "xxwrep":
            for _ in range(times - 1):
                found = self.lower.find(surface, end)
                end = end if found < 0 else found + len(surface)
        skipped, shown = self.text[self.place : start], self.text[start:end]
        before = skipped if not skipped.strip() else " " if skipped[-1].isspace() else ""
        self.place, self.lost = end, False
        return shown, before
