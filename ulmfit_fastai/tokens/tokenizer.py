"""fastai's training-time tokens, one for one, several times faster: rules and spaCy run once per distinct chunk.

fastai tokenises a data frame in three steps (`fastai.text.core`): text rules, spaCy's blank tokenizer, post rules.
All but one of the rules, and spaCy, look at one run of non-space characters (a *chunk*) at a time, so their result is
kept per chunk and a text becomes one dictionary look-up per chunk. What crosses chunks is found by cheap tests:
three equal words in a row (`mark_word_repeats`), after which the text takes the whole way, and spaCy's special cases
that match over a space, after which the neighbours are split together.

Tokens here are numbers into `FastTokenizer.words`; `ulmfit_fastai.tokens` turns them into a store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from .chunks import ChunkSplitter
from .rules import (
    BOS,
    WHITE_SPACE,
    apply_rules,
    fix_html,
    lower_marked,
    mark_case,
    mark_repeats,
    single_spaces,
    space_out,
)

_WORD = re.compile(r"\w+")

NO_WORD = 0
# Flags. The chunk is white space; has equal words in a row; has several words (after `mark_repeats`); begins, or ends,
# with a token that may be a part of one of spaCy's special cases.
SPACE, REPEATS, MANY, RIGHT, LEFT = 1, 2, 4, 8, 16


class Chunks(NamedTuple):
    """The table of chunks by its columns, int64 (chunks,) each."""

    start: np.ndarray  # where a chunk's tokens start
    n_tokens: np.ndarray  # how many they are
    first: np.ndarray  # the word it begins with, as a number to compare, for `mark_word_repeats`
    last: np.ndarray  # the word it ends with
    stem: np.ndarray  # the letters it begins with
    flags: np.ndarray


class FastTokenizer:
    """Texts -> numbers of fastai's tokens; `words[number]` is the token.

    The dictionary of chunks is bounded, so that memory does not grow with the number of texts.

    Args:
        lang: spaCy's code of a language whose words stand between spaces.
        max_tokens: past so many stored tokens everything is forgotten (`generation` counts how often) and built anew.
    """

    def __init__(self, lang: str = "en", *, max_tokens: int = 1_500_000) -> None:
        self.lang, self.max_tokens, self.generation = lang, max_tokens, -1
        self.reset()

    def reset(self) -> None:
        """Forget every chunk and word, and take a fresh spaCy tokenizer (its store of strings only grows)."""
        self.generation += 1
        self.splitter = ChunkSplitter(self.lang)
        self._left, self._right = ({pair[side] for pair in self.splitter.pairs} for side in (0, 1))
        self.words: list[str] = []
        self._word_ids: dict[str, int] = {}
        self._chunks: dict[str, int] = {}
        self._spaces: dict[str, int] = {}
        self._joined: dict[str, int] = {}
        self._texts: list[str] = []  # of all chunks
        self._edges: list[int] = []  # 2: a chunk begins with a space after the rules, 1: ends with one, 3: both
        self._table, self._tokens, self._n_tokens = _Columns(np.int64, len(Chunks._fields)), _Columns(np.uint32, 1), 0
        self._empty = self._add("", [])
        self._bos = self._add(BOS, [BOS])

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Number the tokens of some texts.

        Returns:
            The tokens of `texts` one after another (uint32, into `words`), and how many each text has (int64).
        """
        if self._n_tokens > self.max_tokens:
            self.reset()
        chunks = [self._document(fix_html(text)) for text in texts]
        counts = np.fromiter(map(len, chunks), np.int64, len(chunks))
        ends = np.cumsum(counts)
        starts = ends - counts
        flat = np.fromiter(chain.from_iterable(chunks), np.int64, int(ends[-1]))
        for row in self._repeating_rows(flat, ends):
            flat[starts[row] : ends[row]] = self._empty
            flat[starts[row]] = self._add("", self.splitter.spacy(apply_rules(texts[row])))
        self._join_crossing(flat)
        return self._gather(flat, starts)

    def _gather(self, flat: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of the chunks `flat`; `starts`: where a text's first chunk stands."""
        table = Chunks(*self._table.array())
        counts = table.n_tokens[flat]
        ends = np.cumsum(counts)
        source = np.arange(ends[-1]) + np.repeat(table.start[flat] - (ends - counts), counts)
        return self._tokens.array()[0][source], np.add.reduceat(counts, starts)

    def _repeating_rows(self, flat: np.ndarray, ends: np.ndarray) -> list[int]:
        """Rows of texts in which `mark_word_repeats` may find something: words A A and then A or `A,`."""
        table = Chunks(*self._table.array())
        flags = table.flags[flat]
        words = np.flatnonzero((flags & SPACE) == 0)
        number, many = flat[words], flags[words] & MANY > 0
        # Few are worth a closer look: equal neighbours, and chunks of several words, whose ends may be equal.
        first = np.flatnonzero((number[:-2] == number[1:-1]) | many[:-2] | many[1:-1])
        second, third = number[first + 1], number[first + 2]
        word = table.first[second]
        thrice = (table.last[number[first]] == word) & (word != NO_WORD)
        thrice &= (table.stem[third] == word) | many[first + 1]
        hits = np.concatenate([np.flatnonzero(flags & REPEATS), words[first[thrice]]])
        return np.unique(np.searchsorted(ends, hits, side="right")).tolist()

    def _join_crossing(self, flat: np.ndarray) -> None:
        """Put one joined chunk for neighbours between which a special case of spaCy's may match (in place)."""
        table, tokens = Chunks(*self._table.array()), self._tokens.array()[0]
        flags = table.flags[flat]
        runs: list[list[int]] = []
        for i in np.flatnonzero((flags[:-1] & LEFT > 0) & (flags[1:] & RIGHT > 0)).tolist():
            left, right = flat[i], flat[i + 1]
            last = tokens[table.start[left] + table.n_tokens[left] - 1]
            pair = self.words[last], self.words[tokens[table.start[right]]]
            if pair in self.splitter.pairs:
                if runs and runs[-1][-1] == i:
                    runs[-1].append(i + 1)
                else:
                    runs.append([i, i + 1])
        for run in runs:
            text = " ".join(self._texts[number] for number in flat[run])
            if text not in self._joined:
                rules = lower_marked(space_out(mark_repeats(text)))
                self._joined[text] = self._add("", self.splitter.split(rules.strip()))
            flat[run] = self._empty
            flat[run[0]] = self._joined[text]

    def _document(self, text: str) -> list[int]:
        """Chunks of a text, `xxbos` first, and of the white space in it that spaCy makes tokens of.

        Most texts have single spaces and line ends only; what else there is goes the slower way.
        """
        found = [self._bos]
        run = ""  # white space since the last chunk
        for line in text.strip().split("\n"):
            core = line.strip(" ") if line[:1] == " " or line[-1:] == " " else line
            if not core:
                run += "\n" + line
                continue
            ids = self._line(core)
            if ids is None:
                return [self._bos, *self._runs(text)]
            if len(found) > 1:
                run += "\n" + line[: len(line) - len(line.lstrip(" "))]
                found += self._between(found[-1], run, ids[0])
            found += ids
            run = line[len(line.rstrip(" ")) :]
        return found

    def _line(self, text: str) -> list[int] | None:
        """Chunks of a text with single spaces only; None when it has other white space."""
        pieces = text.split(" ")
        ids: list[Any] = list(map(self._chunks.get, pieces))
        if None in ids:
            i = -1
            for _ in range(ids.count(None)):
                i = ids.index(None, i + 1)
                piece = pieces[i]
                if piece.split() != [piece]:
                    return None
                ids[i] = self._chunk(piece)
        return ids

    def _runs(self, text: str) -> list[int]:
        """Chunks of a text with any white space."""
        parts = WHITE_SPACE.split(text.strip())
        if parts == [""]:
            return []
        ids = [self._chunk(parts[0])]
        for run, part in zip(parts[1::2], parts[2::2]):
            after = self._chunk(part)
            if run != " ":
                ids += self._between(ids[-1], run, after)
            ids.append(after)
        return ids

    def _between(self, before: int, run: str, after: int) -> list[int]:
        """The run of white space between two chunks as a chunk, if spaCy makes a token of it."""
        run = single_spaces(" " * (self._edges[before] & 1) + run + " " * (self._edges[after] >> 1))
        run = run[1:] if run[0] == " " else run  # spaCy takes one space as the end of the token before
        return [self._space(run)] if run else []

    def _chunk(self, chunk: str) -> int:
        found = self._chunks.get(chunk)
        if found is not None:
            return found
        repeats = mark_repeats(chunk)
        spaced = space_out(repeats)
        lower = lower_marked(spaced).strip() if " " in spaced else mark_case(spaced)
        tokens = self.splitter.split(lower)
        parts, flags = [chunk], RIGHT * (tokens[0] in self._right) | LEFT * (tokens[-1] in self._left)
        if repeats is not chunk:
            parts = repeats.split()
            flags |= MANY * (len(parts) > 1) | REPEATS * any(a == b for a, b in zip(parts, parts[1:]))
        edges = 2 * (spaced[0] == " ") + (spaced[-1] == " ")
        found = self._chunks[chunk] = self._add(chunk, tokens, flags=flags, edges=edges, words=_words(parts))
        return found

    def _space(self, run: str) -> int:
        found = self._spaces.get(run)
        if found is None:
            found = self._spaces[run] = self._add(run, self.splitter.spacy(f"a{run}b")[1:-1], flags=SPACE)
        return found

    def _add(
        self,
        text: str,
        tokens: list[str],
        *,
        flags: int = 0,
        edges: int = 0,
        words: tuple[int, int, int] = (NO_WORD, NO_WORD, NO_WORD),
    ) -> int:
        """Keep a chunk's tokens; the post rule of fastai (`replace_space`) is applied here."""
        ids = self._word_ids
        for token in tokens:
            number = ids.get(token)
            if number is None:
                number = ids[token] = len(self.words)
                self.words.append(token.replace(" ", "▁"))
            self._tokens.pending.append(number)
        self._table.pending.append((self._n_tokens, len(tokens), *words, flags))  # in the order of `Chunks`
        self._texts.append(text)
        self._edges.append(edges)
        self._n_tokens += len(tokens)
        return len(self._texts) - 1


def _words(parts: list[str]) -> tuple[int, int, int]:
    """The word a chunk begins with, ends with, and the letters it begins with, as numbers to compare (their hashes).

    Two words with one hash would only send a text the long way.
    """
    found = _WORD.match(parts[0])
    stem = hash(found[0]) if found else NO_WORD
    first = stem if found and found.end() == len(parts[0]) else NO_WORD
    last = first if len(parts) == 1 else hash(parts[-1]) if _WORD.fullmatch(parts[-1]) else NO_WORD
    return first, last, stem


class _Columns:
    """Growing arrays of one length: rows are appended to a list, columns read as numpy."""

    def __init__(self, dtype: Any, width: int) -> None:
        self.data, self.size = np.zeros((width, 1024), dtype), 0
        self.pending: list[Any] = []

    def array(self) -> np.ndarray:
        """All columns: (width, rows)."""
        total = self.size + len(self.pending)
        if total > self.data.shape[1]:
            self.data = np.concatenate([self.data, np.zeros((len(self.data), total), self.data.dtype)], axis=1)
        if self.pending:
            self.data[:, self.size : total] = np.array(self.pending).T
        self.size, self.pending = total, []
        return self.data[:, :total]
