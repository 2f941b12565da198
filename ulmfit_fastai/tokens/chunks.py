"""spaCy's blank tokenizer on single chunks, the way it splits them inside a text.

spaCy splits at spaces first and then each chunk by itself, by patterns and special cases (`don't`, `:)`). Two things
here make that fast: a vocabulary without attributes, and for English *shapes*: `movie,` and `plot,` are split alike,
so that spaCy is asked once for both.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from string import punctuation
from typing import Any

from .._errors import UlmfitError
from .rules import SPECIAL_TOKENS

log = logging.getLogger(__name__)

# Runs of letters whose identity cannot matter. Behind a digit it can: spaCy knows units, `10km` is two tokens.
_LETTERS = re.compile("(?<![0-9a-z])[a-z]{2,}")
_PLACE = "qxq"  # stands for such a run in a shape
_CASE = (["xxmaj"], ["xxup"])
_SPECIAL = re.compile(rf"(?<!\S)({'|'.join(SPECIAL_TOKENS)})(?!\S)")
_NEEDS = {"ja": '`pip install "spacy[ja]"` (SudachiPy and its dictionary)',
          "ko": '`pip install "spacy[ko]"` (natto-py, and mecab-ko by hand)',
          "th": '`pip install "spacy[th]"` (PyThaiNLP)', "vi": "`pip install pyvi`"}
_RUN = re.compile(r"(?:[^\w\s]|_|['’]s(?![^\W_])){257,}")  # what spaCy takes off word by word, from both ends
LONG_RUN, PIECE, SEEN = 256, 128, 32
"""Marks in a row that are cut, in pieces of how many, and how far around a cut is looked whether it matters."""
_LONG = 60  # longer chunks have no shape: spaCy's pattern for addresses of web pages counts up to 62 letters


class ChunkSplitter:
    """Splits chunks, or several with single spaces between them, into spaCy's tokens.

    `pairs` holds (last token of a chunk, first token of the next) between which a special case may match. Where
    neighbours are such a pair, they have to be split together; all others can be split one by one.
    """

    def __init__(self, lang: str) -> None:
        self._spacy = spacy_tokenizer(lang)
        self.pairs = crossing_pairs(self._spacy)
        self._known: dict[str, list[str]] = {}
        self._said = False
        self._shapes: dict[str, str] | None = {} if lang == "en" else None
        words = " ".join([*self._spacy.rules, *(token for pair in self.pairs for token in pair)])
        self._fixed = frozenset(re.findall("[a-z]+", words))

    def spacy(self, text: str) -> list[str]:
        """spaCy's tokens of any text; a long run of marks is cut first, since spaCy takes the square of its length."""
        if len(text) <= LONG_RUN or not (cuts := self._cuts(text)):
            return [token.text for token in self._spacy(text)]
        ends = [*cuts, len(text)]
        return [token for start, end in zip([0, *cuts], ends) for token in self._tokens(text[start:end])]

    def _cuts(self, text: str) -> list[int]:
        """Where to cut the runs of marks in a text: about every `PIECE` characters, where spaCy begins a token anyway.

        Runs that spaCy leaves whole, such as -=-=-=, take it no time, and stay whole.
        """
        found: list[int] = []
        for run in _RUN.finditer(text):
            start = run.start()
            for place in range(start + PIECE, run.end() - PIECE // 2, PIECE):
                if max(map(len, self._tokens(text[place - SEEN:place + SEEN]))) > SEEN // 2:
                    continue
                cut = next((at for at in range(place, place + SEEN // 2)
                            if self._parts_at(text, start, at, min(run.end(), at + PIECE))), None)
                if cut is None:
                    self._say_cut(run[0])
                start = place if cut is None else cut
                found.append(start)
        return found

    def _say_cut(self, run: str) -> None:
        if not self._said:
            self._said = True
            log.warning("a text has a run of %s marks, %s...: it is cut into pieces, since spaCy would take the square "
                        "of its length, and its tokens may differ from fastai's there", f"{len(run):,}", run[:20])

    def _parts_at(self, text: str, start: int, place: int, end: int) -> bool:
        """Whether the marks around a place have the same tokens when they are cut there."""
        before, after = text[start:place], text[place:end]
        return self._tokens(before + after) == self._tokens(before) + self._tokens(after)

    def _tokens(self, text: str) -> list[str]:
        """spaCy's tokens of a short text, remembered: runs of marks repeat themselves."""
        if text not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[text] = [token.text for token in self._spacy(text)]
        return self._known[text]

    def split(self, text: str) -> list[str]:
        """Tokens of chunks in lower case with single spaces between them.

        In an English shape every run of two or more letters that is in no special case is one and the same. spaCy's
        English patterns name no letters but units behind digits, `'s`, and single ones, which all stay as they are.
        """
        if self._shapes is None or len(text) > _LONG or not text.isascii():
            return self.spacy(text)
        *marks, last = text.split(" ")
        if marks in _CASE:
            return [*marks, *self.split(last)]
        if not marks:
            word = last.strip(punctuation)
            if word.isalpha() and len(word) > 1 and word not in self._fixed:  # the usual: a word, or one in marks
                if word == last:
                    return [word]
                template = self._template(last.replace(word, _PLACE, 1), 1)
                if template:
                    return (template % word).split("\n")
        runs: list[str] = []

        def place(found: re.Match[str]) -> str:
            word = found[0]
            if word in self._fixed:
                return word
            runs.append(word)
            return _PLACE

        template = self._template(_LETTERS.sub(place, text), len(runs))
        return (template % tuple(runs)).split("\n") if template else self.spacy(text)

    def _template(self, shape: str, places: int) -> str:
        """The tokens of a shape, one a line, `%s` for each place; '' for texts with a `qxq` or a `%s` of their own."""
        assert self._shapes is not None
        template = self._shapes.get(shape)
        if template is None:
            template = "\n".join(self.spacy(shape)).replace("%", "%%").replace(_PLACE, "%s")
            template = self._shapes[shape] = template if template.count("%s") == places else ""
        return template


@lru_cache(maxsize=4)
def blank_tokenizer(lang: str) -> Any:
    """The tokenizer of spaCy's blank pipeline for `lang` (imports spaCy: 1 to 3 seconds)."""
    try:
        import spacy
    except ImportError as error:
        raise ImportError(
            "spaCy is needed to tokenise texts and could not be imported; `pip install spacy`. "
            "Training from a finished token store does not need it."
        ) from error
    try:
        return spacy.blank(lang).tokenizer
    except ImportError as error:
        if "E048" in str(error):
            raise UlmfitError(f"lang: expected a language's code that spaCy knows, such as en, de or fr ('xx' for any "
                              f"other), or the file of a SentencePiece model (.model), found {lang!r}") from error
        needed = f": {_NEEDS[lang]}" if lang in _NEEDS else ""
        raise ImportError(f"spaCy needs another package to split texts with lang={lang!r}{needed}. Or let "
                          f"SentencePiece split them, which does without. spaCy says: {error}") from error


def has_spaces(lang: str) -> bool:
    """Do words stand between spaces in this language, as spaCy sees it?"""
    blank = blank_tokenizer(lang)  # says what is missing, before anything else is imported
    from spacy.tokenizer import Tokenizer

    return type(blank) is Tokenizer


def whole_splitter(lang: str) -> Callable[[str], list[str]]:
    """spaCy's tokens of a text in a language without spaces between words; fastai's special tokens stay whole."""
    tokenizer = blank_tokenizer(lang)

    def split(text: str) -> list[str]:
        found: list[str] = []
        for part in filter(None, map(str.strip, _SPECIAL.split(text))):
            found += [part] if part in SPECIAL_TOKENS else [token.text for token in tokenizer(part)]
        return found

    return split


def spacy_tokenizer(lang: str) -> Any:
    """spaCy's blank tokenizer of `lang` with fastai's special tokens."""
    blank: Any = blank_tokenizer(lang)
    from spacy.symbols import ORTH
    from spacy.tokenizer import Tokenizer
    from spacy.vocab import Vocab

    if type(blank) is not Tokenizer:
        raise UlmfitError(f"expected a language whose words stand between spaces, found {lang!r}: split its "
                          "texts first")
    # A bare vocabulary: with the language's own, spaCy works out twenty attributes of every new word.
    tokenizer = Tokenizer(Vocab(), rules=blank.rules, **_patterns(blank))
    for word in SPECIAL_TOKENS:
        tokenizer.add_special_case(word, [{ORTH: word}])
    return tokenizer


def crossing_pairs(tokenizer: Any) -> frozenset[tuple[str, str]]:
    """Pairs (last token of a chunk, first token of the next) at which a special case of spaCy's may match across.

    spaCy merges or splits special cases such as `:)` in a last pass over the whole text, where it also finds them
    with a space inside. Those it leaves alone, but they hide special cases that overlap with them. The pass sees the
    tokens before special cases were applied; a chunk of ours knows them after, hence the widening at both sides.
    """
    from spacy.attrs import ORTH
    from spacy.tokenizer import Tokenizer

    plain = Tokenizer(tokenizer.vocab, **_patterns(tokenizer))
    phrases: list[list[str]] = []
    lefts: dict[str, set[str]] = {}
    rights: dict[str, set[str]] = {}
    for case, parts in tokenizer.rules.items():
        before = [token.text for token in plain(case)]
        after = [part[ORTH] if ORTH in part else part["ORTH"] for part in parts]
        phrases.append(before)
        if before:
            lefts.setdefault(before[-1], {before[-1]}).add(after[-1])
            rights.setdefault(before[0], {before[0]}).add(after[0])
    return frozenset(
        (left, right)
        for before in phrases
        for a, b in zip(before, before[1:])
        for left in lefts.get(a, {a})
        for right in rights.get(b, {b})
    )


def _patterns(tokenizer: Any) -> dict[str, Any]:
    names = ("prefix_search", "suffix_search", "infix_finditer", "token_match", "url_match")
    return {name: getattr(tokenizer, name) for name in names}
