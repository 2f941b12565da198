"""fastai's training-time tokens, one for one, several times faster: rules and spaCy run once per distinct chunk.

fastai tokenises a data frame in three steps (`fastai.text.core`): text rules, spaCy's blank tokenizer, post rules.
All but one of the text rules, and spaCy, look at one run of non-space characters (a *chunk*) at a time, so their
result is kept per chunk and a text becomes one dictionary look-up per chunk. What crosses chunks is found by cheap
tests, and the few texts where it happens take the whole way: `replace_wrep` (three equal words in a row) and spaCy's
multi-token special cases (`:` and `)` on two sides of a space hide the smiley next to them).

Tokens here are numbers into `FastTokenizer.words`; `ulmfit_fastai.tokens` turns them into a store.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

BOS = "xxbos"
SPECIAL_TOKENS = ("xxunk", "xxpad", BOS, "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")

# The literal replacements of fastai's `fix_html`, in its order.
_HTML = (
    ("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"), ("\\n", "\n"), ("quot;", "'"),
    ("<br />", "\n"), ('\\"', '"'), ("<unk>", "xxunk"), (" @.@ ", "."), (" @-@ ", "-"), ("...", " …"),
)  # fmt: skip
_THRICE = re.compile(r"(\S)(\1{2,})")
_WORD_THRICE = re.compile(r"(?:\s|^)(\w+)\s+((?:\1\s+)+)\1(\s|\W|$)")
_SLASHES = re.compile(r"([/#\\])")
_SPACES = re.compile(" {2,}")
_RUNS = re.compile(r"(\s+)")
_UPPER = re.compile("[A-Z]+[^a-z]*")
_TITLE = re.compile("[A-Z][^A-Z]*")


def fix_html(text: str) -> str:
    """Undo the HTML leftovers that fastai undoes."""
    for old, new in _HTML:
        text = text.replace(old, new)
    return html.unescape(text)


def mark_repeats(text: str) -> str:
    """`soooo` -> `s xxrep 4 o `."""
    return _THRICE.sub(lambda m: f" xxrep {len(m[2]) + 1} {m[1]} ", text)


def mark_word_repeats(text: str) -> str:
    """`so so so` -> ` xxwrep 3 so `."""
    return _WORD_THRICE.sub(lambda m: f" xxwrep {len(m[2].split()) + 2} {m[1]} {m[3]}", text)


def space_out(text: str) -> str:
    """Spaces around `/`, `#` and the backslash, then no two spaces in a row."""
    return _SPACES.sub(" ", _SLASHES.sub(r" \1 ", text))


def mark_case(chunk: str) -> str:
    """`GOOD` -> `xxup good`, `Good` -> `xxmaj good`, `gOOd` -> `good`; `chunk` holds no white space.

    fastai has two rules here, all capitals then capitalised. The first leaves no ASCII capital in what it changes,
    so a chunk meets at most one of them.
    """
    if _UPPER.fullmatch(chunk):
        return f"xxup {chunk.lower()}" if len(chunk) > 1 else chunk.lower()
    if len(chunk) > 1 and _TITLE.fullmatch(chunk):
        return f"xxmaj {chunk.lower()}"
    return chunk.lower()


def lower_marked(text: str) -> str:
    """`mark_case` on every chunk, white space as it was."""
    return "".join(mark_case(part) if i % 2 == 0 and part else part for i, part in enumerate(_RUNS.split(text)))


def apply_rules(text: str) -> str:
    """All of fastai's text rules on a whole text: what is given to spaCy."""
    text = space_out(mark_word_repeats(mark_repeats(fix_html(text))))
    return f"{BOS} {lower_marked(text).strip()}"


def new_spacy_tokenizer(lang: str) -> Any:
    """spaCy's blank tokenizer of `lang` with fastai's special tokens (imports spaCy: 1 to 3 seconds)."""
    try:
        import spacy
        from spacy.symbols import ORTH
    except ImportError as error:
        raise ImportError(
            "spaCy is needed to tokenise texts and could not be imported; `pip install spacy`. "
            "Training from a finished token store does not need it."
        ) from error
    tokenizer: Any = spacy.blank(lang).tokenizer
    if not hasattr(tokenizer, "add_special_case"):
        raise ValueError(f"expected a language whose words stand between spaces, found {lang!r}: split its texts first")
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

    plain = Tokenizer(
        tokenizer.vocab,
        prefix_search=tokenizer.prefix_search,
        suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer,
        token_match=tokenizer.token_match,
        url_match=tokenizer.url_match,
    )
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


class _Column:
    """A growing array: appended to as a list, read as numpy."""

    def __init__(self, dtype: Any) -> None:
        self.data, self.size, self.pending = np.zeros(1024, dtype), 0, []  # type: ignore[var-annotated]

    def array(self) -> np.ndarray:
        total = self.size + len(self.pending)
        if total > len(self.data):
            self.data = np.concatenate([self.data, np.zeros(total, self.data.dtype)])
        self.data[self.size : total] = self.pending
        self.size, self.pending = total, []
        return self.data[:total]


class FastTokenizer:
    """Texts -> numbers of fastai's tokens; `words[number]` is the token.

    The dictionary of chunks is bounded: past `max_tokens` stored tokens everything is forgotten (`generation` counts
    how often) and built anew, so that memory does not grow with the number of texts.
    """

    def __init__(self, lang: str = "en", *, max_tokens: int = 3_000_000) -> None:
        self.lang, self.max_tokens, self.generation = lang, max_tokens, -1
        self.reset()

    def reset(self) -> None:
        """Forget every chunk and word, and take a fresh spaCy tokenizer (its store of strings only grows)."""
        self.spacy = new_spacy_tokenizer(self.lang)
        self.generation += 1
        self.pairs = crossing_pairs(self.spacy)
        self._left, self._right = {left for left, _ in self.pairs}, {right for _, right in self.pairs}
        self.words: list[str] = []
        self._word_ids: dict[str, int] = {}
        self._parts: dict[str, int] = {}  # distinct words after `mark_repeats`, to compare neighbours
        self._chunks: dict[str, int] = {}
        self._spaces: dict[str, int] = {}
        self._tokens = _Column(np.uint32)  # tokens of all chunks, one after another
        self._starts, self._counts = _Column(np.int64), _Column(np.int64)
        self._first_part, self._last_part = _Column(np.int64), _Column(np.int64)
        self._flags = _Column(np.uint8)  # 1 white space, 2 repeats within, 4 may cross leftwards, 8 rightwards
        self._edges: list[tuple[bool, bool]] = []  # does the chunk, after the rules, begin / end with a space?
        self._n_tokens = 0
        self._empty = self._add([], first=-1, last=-2)
        self._bos = self._add([BOS], first=-1, last=-2)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of `texts` one after another (uint32, into `words`) and how many each text has (int64)."""
        if self._n_tokens > self.max_tokens:
            self.reset()
        get, chunks = self._chunks.get, []
        for text in texts:
            text = fix_html(text)
            ids = list(map(get, text.split(" ")))
            chunks.append(self._resolve(text) if None in ids else ids)
        counts = np.fromiter(map(len, chunks), np.int64, len(chunks)) + 1
        ends = np.cumsum(counts)
        flat = np.full(int(counts.sum()), self._bos, np.int64)
        inner = np.ones(len(flat), bool)
        inner[ends - counts] = False
        flat[inner] = np.fromiter(chain.from_iterable(chunks), np.int64, len(flat) - len(chunks))
        for row in self._crossing_rows(flat, ends):
            start, end = ends[row] - counts[row], ends[row]
            flat[start:end] = self._empty
            flat[start] = self._add([token.text for token in self.spacy(apply_rules(texts[row]))])
        return self._gather(flat, ends - counts)

    def _gather(self, flat: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = self._counts.array()[flat]
        ends = np.cumsum(counts)
        source = np.arange(ends[-1]) + np.repeat(self._starts.array()[flat] - (ends - counts), counts)
        return self._tokens.array()[source], np.add.reduceat(counts, starts)

    def _crossing_rows(self, flat: np.ndarray, ends: np.ndarray) -> list[int]:
        """Rows of texts in which a rule or special case may match across chunks."""
        flags = self._flags.array()[flat]
        hits = np.flatnonzero(flags & 2)
        words = np.flatnonzero(~flags & 1)
        first, last = self._first_part.array()[flat[words]], self._last_part.array()[flat[words]]
        repeated = words[:-1][last[:-1] == first[1:]]
        crossing = np.flatnonzero((flags[:-1] & 8 > 0) & (flags[1:] & 4 > 0))
        tokens, starts, counts = self._tokens.array(), self._starts.array(), self._counts.array()
        crossing = np.array([
            i for i in crossing
            if (self.words[tokens[starts[flat[i]] + counts[flat[i]] - 1]], self.words[tokens[starts[flat[i + 1]]]])
            in self.pairs
        ], np.int64)  # fmt: skip
        rows = np.searchsorted(ends, np.concatenate([hits, repeated, crossing]), side="right")
        return sorted(set(rows.tolist()))

    def _resolve(self, text: str) -> list[int]:
        """Chunks of a text with unseen chunks or with white space other than single spaces."""
        parts = _RUNS.split(text.strip())
        if parts == [""]:
            return []
        found = [self._chunk(part) for part in parts[::2]]
        ids = [found[0]]
        for before, run, after in zip(found, parts[1::2], found[1:]):
            if run != " ":
                run = _SPACES.sub(" ", " " * self._edges[before][1] + run + " " * self._edges[after][0])
                run = run[1:] if run[0] == " " else run  # spaCy takes one space as the end of the token before
                if run:
                    ids.append(self._space(run))
            ids.append(after)
        return ids

    def _chunk(self, chunk: str) -> int:
        found = self._chunks.get(chunk)
        if found is None:
            repeats = mark_repeats(chunk)
            spaced = space_out(repeats)
            tokens = [token.text for token in self.spacy(lower_marked(spaced).strip())]
            parts = [self._parts.setdefault(part, len(self._parts)) for part in repeats.split()]
            flags = 2 * any(a == b for a, b in zip(parts, parts[1:]))
            if tokens:
                flags |= 4 * (tokens[0] in self._right) | 8 * (tokens[-1] in self._left)
            found = self._add(tokens, parts[0], parts[-1], flags, (spaced[0] == " ", spaced[-1] == " "))
            self._chunks[chunk] = found
        return found

    def _space(self, run: str) -> int:
        found = self._spaces.get(run)
        if found is None:
            found = self._spaces[run] = self._add([token.text for token in self.spacy(f"a{run}b")][1:-1], flags=1)
        return found

    def _add(self, tokens: list[str], first: int = -1, last: int = -2, flags: int = 0,
             edges: tuple[bool, bool] = (False, False)) -> int:  # fmt: skip
        """Keep a chunk's tokens; the post rule of fastai (`replace_space`) is applied here."""
        ids = self._word_ids
        for token in tokens:
            token = token.replace(" ", "▁")
            if token not in ids:
                ids[token] = len(self.words)
                self.words.append(token)
            self._tokens.pending.append(ids[token])
        self._starts.pending.append(self._n_tokens)
        self._counts.pending.append(len(tokens))
        self._first_part.pending.append(first)
        self._last_part.pending.append(last)
        self._flags.pending.append(flags)
        self._edges.append(edges)
        self._n_tokens += len(tokens)
        return len(self._edges) - 1
