"""Large texts for pretraining, as a stream of articles: JSON lines, Parquet, CSV, plain text, WikiText's format."""

from __future__ import annotations

import csv
import glob
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .._errors import UlmfitError
from .._words import shown
from .delimited import csv_rows, even, peeked
from .downloads import cached_or_downloaded
from .files import OPENERS, bare_suffix, existing, open_bytes
from .tables import CSV, LINES, PARQUET, PLAIN, UTF8, Layout, errors_named, json_rows, parquet_file
from .values import text_of

log = logging.getLogger(__name__)
Item = TypeVar("Item")

# name -> fastai's name for the address, size of the archive in bytes
CORPORA = {"wikitext-103": ("WIKITEXT", 190_200_704), "wikitext-2": ("WIKITEXT_TINY", 4_070_055)}
TEXT_SUFFIXES = (".txt", ".tokens", ".raw")
SUFFIXES = (*LINES, *PARQUET, *CSV, *TEXT_SUFFIXES)
PART = re.compile(r"(?:^|[._-])(train|valid|validation|val|dev|test)(?:[._-]|$)")
TITLE = re.compile(r"^ ?= [^=\s].* = ?$|^ ?= [^=\s] = ?$")  # ' = Title = '; deeper headings are ' = = Heading = = '
ARTICLES = 1024  # read at a time from a table: they are longer than other rows
CUT_WORDS, LONGEST_WORDS = 1_000, 10_000  # where plain text without titles is cut: at an empty line, at any line


def read_corpus(path: str | os.PathLike[str], *, limit_words: int | None = None,
                split: str | None = None, text: str | None = None, encoding: str = UTF8) -> Iterator[str]:
    """Yield the articles of a corpus one by one, in bounded memory, files in the order of their names.

    Args:
        path: a file, a folder or a pattern (`wiki/train-*.jsonl.xz`), or 'wikitext-103' or 'wikitext-2' from fastai's
            cache. Formats: .jsonl (key `text`), .parquet, .csv and .tsv (column `text`), .txt, .tokens, .raw; plain or
            with .gz, .bz2, .xz, .zst. Where lines such as ` = Title = ` stand alone (WikiText), they begin the
            articles. Other plain text is cut at empty lines into pieces of at least 1,000 words.
        limit_words: end with the article that reaches this many words (between blanks).
        split: read this part only: files named so (`train-00.jsonl.xz`, `wiki.valid.tokens`), or rows whose column
            `split` says so. By default the training part where files or rows tell one, so that no test text slips
            into pretraining, and otherwise everything.
        text: the key or column of the texts in tables; None: `text`.
        encoding: of files of text; those that begin with the mark of UTF-16 are read as that.

    Returns:
        An iterator of articles, none of them blank.

    Raises:
        UlmfitError: nothing readable is at `path` (said before the first article), or a file in it is damaged, is in
            another encoding or has no texts where they belong.
    """
    if limit_words is not None and limit_words <= 0:
        raise UlmfitError(f"limit_words must be positive, found {limit_words}")
    how = _How(split, text, Layout(encoding))
    return _limited(_files(path, split), limit_words, how)  # the path is checked here, before the first article


@dataclass(frozen=True)
class _How:
    """Which texts of a file are read."""
    split: str | None
    text: str | None
    layout: Layout

    @property
    def column(self) -> str:
        return "text" if self.text is None else self.text

    def without(self, where: str, found: Iterable[Any]) -> UlmfitError:
        """The error of a table that lacks the texts' column."""
        return UlmfitError(f"{where}: no column `{self.column}` of texts; found {shown(found)}", field="text",
                           expected=self.column, advice="name the column by `text=`")


def _limited(files: list[Path], limit_words: int | None, how: _How) -> Iterator[str]:
    words = 0
    for file in files:
        for article in _articles(file, how):
            if article.strip():
                yield article
                words += len(article.split()) if limit_words else 0
                if limit_words and words >= limit_words:
                    return
    if limit_words:
        log.warning("the corpus ended after %s of the %s words asked for", f"{words:,}", f"{limit_words:,}")


def _files(path: str | os.PathLike[str], split: str | None) -> list[Path]:
    name = os.fspath(path)
    if name in CORPORA and not Path(name).exists():
        from fastai.data.external import URLs
        attribute, size = CORPORA[name]
        path = cached_or_downloaded(getattr(URLs, attribute), size)
    if glob.has_magic(name) and not Path(name).exists():
        files = [Path(found) for found in sorted(glob.glob(os.path.expanduser(name), recursive=True))]
        if not files:
            raise UlmfitError(f"no file matches {name}")
        return files
    root = existing(path)
    if root.is_file():
        if bare_suffix(root) not in SUFFIXES:
            raise UlmfitError(f"cannot tell the format of {root}: expected {', '.join(SUFFIXES)}, plain or "
                              f"with {', '.join(OPENERS)}")
        return [root]
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and bare_suffix(file) in SUFFIXES
             and not file.name.startswith(".") and not file.name.lower().startswith(("readme", "licen"))]
    if not files:
        raise UlmfitError(f"no text in {root}: expected files such as *{', *'.join(SUFFIXES)}")
    return _part(files, split)


def _part(files: list[Path], split: str | None) -> list[Path]:
    """Keep the files of one part, if any file's name tells a part."""
    parts = {file: match.group(1) if (match := PART.search(file.name)) else None for file in files}
    if split is None and "train" not in parts.values():
        return files
    kept = [file for file in files if parts[file] == (split or "train")]
    if not kept:
        kept = [file for file in files if parts[file] is None]  # the rows may tell
    if not kept:
        raise UlmfitError(f"no file of the part {split!r} among {shown(file.name for file in files)}")
    if len(kept) < len(files):
        log.warning("left out, not in the part %s: %s", split or "train", shown(f.name for f in files if f not in kept))
    return kept


def _articles(file: Path, how: _How) -> Iterator[str]:
    suffix = bare_suffix(file)
    encoding = "UTF-8" if how.layout == PLAIN else how.layout.encoding
    with errors_named(file, encoding, advice="Give its encoding (--encoding, encoding=), or convert it."):
        if suffix in PARQUET:
            yield from _rows(_parquet_texts(file, how), how.split)
            return
        if suffix in TEXT_SUFFIXES:
            with how.layout.text(open_bytes(file)) as lines:
                yield from _split_lines(lines)
            return
        rows = _table_rows(file, how)
        first = next(rows, None)
        if first is not None:
            yield from _rows(_chain(first, rows), _training_part(file, how) if first[1] is not None else how.split)


def _table_rows(file: Path, how: _How) -> Iterator[tuple[str, str | None]]:
    with how.layout.text(open_bytes(file)) as lines:  # a line within a cell ends alike on every system
        yield from (_json_texts if bare_suffix(file) in LINES else _csv_texts)(file, lines, how)


def _training_part(file: Path, how: _How) -> str | None:
    """The part asked for; where none is, that of training if a row says so."""
    return "train" if how.split is None and any(part == "train" for _, part in _table_rows(file, how)) else how.split


def _rows(rows: Iterator[tuple[str, str | None]], split: str | None) -> Iterator[str]:
    """Yield the texts of rows (text, part); rows of WikiText (whole files or single lines) are split at the titles."""
    texts = (text for text, part in rows if part is None or split is None or part == split)
    first = next((text for text in texts if text.strip()), None)
    if first is None:
        return
    every = _chain(first, texts)
    if TITLE.match(next(line for line in first.splitlines() if line.strip())):
        yield from _split_lines(line + "\n" for text in every for line in text.removesuffix("\n").split("\n"))
    else:
        yield from every


def _chain(first: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield first
    yield from rest


def _split_lines(lines: Iterable[str]) -> Iterator[str]:
    """Put lines together to articles: at titles where there are any, at empty lines otherwise."""
    article: list[str] = []
    words, titled, blank = 0, False, True
    here, ahead = itertools.tee(lines)
    next(ahead, None)
    for line, after in itertools.zip_longest(here, ahead, fillvalue=""):
        empty = not line.strip()
        # a title stands alone; WikiText-2 has a line of this form within a bibliography
        starts = blank and not after.strip() and TITLE.match(line.rstrip("\r\n")) is not None
        full = not titled and (words >= CUT_WORDS and blank or words >= LONGEST_WORDS)
        if article and (starts or full):
            yield "".join(article)
            article, words = [], 0
        titled = titled or starts
        article.append(line)
        words += 0 if titled else len(line.split())
        blank = empty
    if article:
        yield "".join(article)


def _json_texts(file: Path, lines: Iterable[str], how: _How) -> Iterator[tuple[str, str | None]]:
    for number, row in json_rows(lines, file):
        text = row.get(how.column, number)
        if text is not None and not isinstance(text, str):
            found = (f"{key} ({type(value).__name__})" for key, value in row.items())
            raise how.without(f"{file}, line {number}", found)
        yield text or "", row.get("split")


def _csv_texts(file: Path, lines: Iterable[str], how: _How) -> Iterator[tuple[str, str | None]]:
    """Yield the rows of a CSV file; of one column without a header that names it (fastai's WikiText), all of them."""
    first, lines = peeked(lines)
    usual = CSV[bare_suffix(file)]
    headers = {mark: _folded(next(csv.reader([first], delimiter=mark), [])) for mark in (usual, ",", ";", "\t")}
    mark = next((mark for mark, names in headers.items() if how.column.lower() in names), usual)
    names = headers[mark]
    headed = how.column.lower() in names
    other = [found for found in headers.values() if len(found) > 1 and all(map(str.isidentifier, found))]
    if not headed and (len(names) > 1 or how.text is not None or other):  # `id;body` is a header, if not of texts
        raise how.without(str(file), [*other, names][0])
    if not headed and names:
        log.warning("%s: no column is called text: every row of its one column is read as a text", file)
    column, part = names.index(how.column.lower()) if headed else 0, names.index("split") if "split" in names else None
    rows = even(csv_rows(lines, file, sep=mark), file, mark)
    for row in itertools.islice(rows, int(headed), None):
        yield row[column], None if part is None else row[part] or None


def _folded(names: list[str]) -> list[str]:
    return [name.strip().lower() for name in names]


def _parquet_texts(file: Path, how: _How) -> Iterator[tuple[str, str | None]]:
    table = parquet_file(file)
    names = table.schema_arrow.names
    if how.column not in names:
        raise how.without(str(file), names)
    columns = [how.column, "split"] if "split" in names else [how.column]
    parts = set(table.read(columns=["split"]).column(0).unique().to_pylist()) if "split" in names else set()
    only = "train" if how.split is None and "train" in parts else None
    for batch in table.iter_batches(batch_size=ARTICLES, columns=columns):
        rows = batch.to_pydict()
        for text, part in zip(map(text_of, rows[how.column]), rows.get("split", [None] * batch.num_rows)):
            if text and (only is None or part == only):
                yield text, part
