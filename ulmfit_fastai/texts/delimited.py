"""CSV and TSV in: rows of cells with the lines they stand in, each as wide as the header, or refused by its line.

By Python's csv and not by pandas, which makes an index of what a first row has more than the header, fills up what a
later one lacks, and counts rows where people count lines.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import pandas as pd

from .._errors import UlmfitError

log = logging.getLogger(__name__)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_CELL = 2**31 - 1  # csv's own limit is 128 KiB; a C long on Windows holds no more than this
EXCELS_MARK = "sep="
QUOTE_ADVICE = "a quote at the start of a cell opens one that may run over several lines: double those that are meant"


def csv_frames(lines: Iterable[str], path: Path, *, sep: str | None, usual: str, header: bool,
               size: int | None) -> Iterator[pd.DataFrame]:
    """A CSV file as frames of `size` rows (None: one of all), of text as it is written; one frame at least.

    Args:
        lines: with their ends, as a file opened with newline="" gives them.
        sep: what stands between cells; None: `usual`, or what the header has instead of it, which is said.
        header: False numbers the columns 0, 1, ...

    Raises:
        UlmfitError: no line is there, a row is of another width than the first, a name stands twice, or a quote is
            not closed. The message names file and line.
    """
    first, lines = peeked(lines)
    if first[:len(EXCELS_MARK)].lower() == EXCELS_MARK and len(first.strip()) <= len(EXCELS_MARK) + 1:
        sep = sep or first.rstrip("\r\n")[len(EXCELS_MARK):] or None  # how some of Excel's files begin
        lines = chain("\n", islice(lines, 1, None))  # a blank line for it: they are counted
        first, lines = peeked(lines)
    sep = sep or (_guessed(first, path, usual) if header else usual)
    rows = even(csv_rows(lines, path, sep=sep), path, sep)
    names = next(rows, None)
    if names is None:
        raise UlmfitError(f"{path} is empty: expected a line of column names")
    columns: list[str] | range = range(len(names))
    if header:
        columns = _names(names, path)
    else:
        rows = chain([names], rows)
    yield from _cut(rows, columns, size)


def csv_rows(lines: Iterable[str], path: Path, *, sep: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The line in which each row that isn't blank starts, counted from 1, and its cells.

    Raises:
        UlmfitError: a quote is not closed, or text follows a closing one after several lines: it was a stray one.
    """
    csv.field_size_limit(LONGEST_CELL)
    here: list[str] = []  # the lines of the row that is being read
    reader, number = csv.reader(_noted(lines, here), delimiter=sep), 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UlmfitError(f"cannot read {path}: line {number}: {error}") from error
        if row is None:
            return
        if here[-1] is _END and len(here) > 1:
            raise UlmfitError(f"cannot read {path}: the file ends inside string: the quote in line {number} is never "
                              f"closed; {QUOTE_ADVICE}")
        if len(here) > 1:
            _refuse_stray(here, path, number, sep)
        if here[-1] is not _END and any(line.strip("\r\n \t") for line in here):
            yield number, row
        number += len(here)
        here.clear()


_END = "the end"


def _noted(lines: Iterable[str], here: list[str]) -> Iterator[str]:
    """Note each line that the reader takes, and behind the last one a row that shows whether a quote is still open."""
    for line in chain(lines, [_END]):
        here.append(line)
        yield line


def _refuse_stray(here: list[str], path: Path, number: int, sep: str) -> None:
    try:
        list(csv.reader(here, delimiter=sep, strict=True))
    except csv.Error as error:
        raise UlmfitError(f"cannot read {path}: a cell from line {number} to {number + len(here) - 1} has text behind "
                          f"its closing quote; {QUOTE_ADVICE}") from error


def peeked(lines: Iterable[str]) -> tuple[str, Iterator[str]]:
    """The first line that isn't blank, and all lines still."""
    rest = iter(lines)
    blank: list[str] = []
    for line in rest:
        if line.strip():
            return line, chain(blank, [line], rest)
        blank.append(line)
    return "", iter(blank)


def _guessed(header: str, path: Path, usual: str) -> str:
    """What separates the names of a header: the usual mark, or another that alone occurs in it."""
    other = [mark for mark in (",", ";", "\t") if mark in header]
    if usual in header or len(other) != 1:
        return usual
    log.warning("%s: no %s in its header, read as separated by %s (--sep, sep=: another mark)", path,
                SEPARATORS[usual], SEPARATORS[other[0]])
    return other[0]


def even(rows: Iterator[tuple[int, list[str]]], path: Path, sep: str) -> Iterator[list[str]]:
    """Rows as wide as the first; empty cells behind that, of separators at the ends of the lines, are left out."""
    width, where = 0, 0
    for number, row in rows:
        if not width:
            width, where = len(row), number
        if len(row) > width and not any(row[width:]):
            row = row[:width]
        if len(row) != width:
            mark = SEPARATORS.get(sep, f"the separator {sep!r}")
            raise UlmfitError(f"cannot read {path}: expected {width} fields, as in line {where}, in line {number}, saw "
                              f"{len(row)}; put texts with {mark} in them into quotes, or give another separator "
                              "(--sep, sep=)", path=path, expected=width, found=len(row))
        yield row


def _names(names: list[str], path: Path) -> list[str]:
    """The names of a header, those that lack one as pandas calls them."""
    found = [name or f"Unnamed: {number}" for number, name in enumerate(names)]
    twice = [name for number, name in enumerate(found) if name in found[:number]]
    if twice:
        raise UlmfitError(f"{path}: the column {twice[0]!r} is there twice: rename one of them")
    return found


def _cut(rows: Iterator[list[str]], columns: list[str] | range, size: int | None) -> Iterator[pd.DataFrame]:
    done = 0
    while True:
        part = list(islice(rows, size)) if size else list(rows)
        if part or not done:
            cells = list(zip(*part)) or [()] * len(columns)
            frame = pd.DataFrame({number: pd.Series(cell, dtype=str) for number, cell in enumerate(cells)})
            frame.columns = pd.RangeIndex(len(columns)) if isinstance(columns, range) else pd.Index(columns)
            yield frame.set_axis(pd.RangeIndex(done, done + len(part)))
        done += len(part)
        if not part or size is None:
            return
