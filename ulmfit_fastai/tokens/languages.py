"""The tokenizer for each language: chunk by chunk where words stand between spaces, else whole texts at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from .chunks import has_spaces, whole_splitter
from .pieces import Pieces, is_model
from .rules import apply_rules
from .tokenizer import FastTokenizer

MOST_WORDS = 1_000_000  # distinct tokens after which a tokenizer forgets them, so that its memory is bounded
UNSPACED = {"ja": "\u3040-\u30ff", "zh": "\u3400-\u9fff", "th": "\u0e00-\u0e7f", "lo": "\u0e80-\u0eff",
            "my": "\u1000-\u109f", "km": "\u1780-\u17ff"}
"""Characters of languages that set no blanks between words, by spaCy's code; Japanese before Chinese, whose it has."""


class WholeTextTokenizer:
    """Texts -> numbers of tokens, like `FastTokenizer`, by a function that splits whole texts.

    Args:
        split: texts -> the tokens of each.
        first: words that have the first numbers, whether they occur or not.
    """

    def __init__(self, split: Callable[[Sequence[str]], list[list[str]]], first: Sequence[str] = ()) -> None:
        self.split, self.first, self.generation = split, first, -1
        self.reset()

    def reset(self) -> None:
        """Forget every word but the first ones."""
        self.generation += 1
        self.words = list(self.first)
        self._numbers = {word: i for i, word in enumerate(self.words)}

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Number the tokens of some texts.

        Returns:
            The tokens of `texts` one after another (uint32, into `words`), and how many each text has (int64).
        """
        if len(self.words) > MOST_WORDS + len(self.first):
            self.reset()
        split = self.split(texts)
        for word in dict.fromkeys(chain.from_iterable(split)):
            if word not in self._numbers:
                self._numbers[word] = len(self.words)
                self.words.append(word.replace(" ", "▁"))  # fastai's post rule
        counts = np.fromiter(map(len, split), np.int64, len(split))
        flat = map(self._numbers.__getitem__, chain.from_iterable(split))
        return np.fromiter(flat, np.uint32, int(counts.sum())), counts


def make_tokenizer(lang: str, *, max_tokens: int = 1_500_000) -> FastTokenizer | WholeTextTokenizer:
    """What splits texts of `lang` into the tokens that fastai makes of them.

    Args:
        lang: a language's code (spaCy's), or the file of a SentencePiece model (.model).
        max_tokens: tokens that a `FastTokenizer` keeps for the chunks it has seen before it forgets them.

    Returns:
        A `FastTokenizer` where words stand between spaces, a `WholeTextTokenizer` otherwise.

    Raises:
        UlmfitError: spaCy doesn't know the code, or the file is no SentencePiece model.
        ImportError: a package has to be installed for that language; the message names it.
    """
    if is_model(lang):
        pieces = Pieces(lang)
        return WholeTextTokenizer(pieces.split, pieces.words)
    if has_spaces(lang):
        return FastTokenizer(lang, max_tokens=max_tokens)
    split = whole_splitter(lang)
    return WholeTextTokenizer(lambda texts: [split(apply_rules(text)) for text in texts])


def unspaced(sample: str, lang: str) -> list[str]:
    """The doubt, in a line, about text without blanks under a tokenizer that splits at them; none is the usual."""
    if is_model(lang) or not has_spaces(lang):
        return []
    for code, letters in UNSPACED.items():
        if len(re.findall(f"[{letters}]", sample)) > len(sample) / 5:
            return [f"the texts are of a language that sets no blanks between words, and lang is {lang!r}, which "
                    f"splits at blanks: give lang={code!r} (--lang {code}), or a SentencePiece model"]
    return []
