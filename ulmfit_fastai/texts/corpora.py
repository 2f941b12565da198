"""Large texts for pretraining, as a stream of articles: JSON lines, Parquet, CSV, plain text, WikiText's format."""

from __future__ import annotations

import glob
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from .._errors import UlmfitError
from .._words import shown
from .downloads import cached_or_downloaded
from .files import OPENERS, bare_suffix, existing, open_text
from .tables import LINES, PARQUET, csv_table, errors_named, json_rows, parquet_file

log = logging.getLogger(__name__)

# name -> fastai's name for the address, size of the archive in bytes
CORPORA = {"wikitext-103": ("WIKITEXT", 190_200_704), "wikitext-2": ("WIKITEXT_TINY", 4_070_055)}
TEXT_SUFFIXES = (".txt", ".tokens", ".raw")
SUFFIXES = (*LINES, *PARQUET, ".csv", *TEXT_SUFFIXES)
PART = re.compile(r"(?:^|[._-])(train|valid|validation|val|dev|test)(?:[._-]|$)")
TITLE = re.compile(r"^ ?= [^=\s].* = ?$|^ ?= [^=\s] = ?$")  # ' = Title = '; deeper headings are ' = = Heading = = '
ARTICLES = 1024  # read at a time from a table: they are longer than other rows
CUT_WORDS, LONGEST_WORDS = 1_000, 10_000  # where plain text without titles is cut: at an empty line, at any line


def read_corpus(path: str | os.PathLike[str], *, limit_words: int | None = None,
                split: str | None = None) -> Iterator[str]:
    """Yield the articles of a corpus one by one, in bounded memory, files in the order of their names.

    Args:
        path: a file, a folder or a pattern (`wiki/train-*.jsonl.xz`), or 'wikitext-103' or 'wikitext-2' from fastai's
            cache. Formats: .jsonl (key `text`), .parquet and .csv (column `text`), .txt, .tokens, .raw; each plain or
            with .gz, .bz2, .xz, .zst. Where lines such as ` = Title = ` stand alone (WikiText), they begin the
            articles. Other plain text is cut at empty lines into pieces of at least 1,000 words.
        limit_words: end with the article that reaches this many words (between blanks).
        split: read this part only: files named so (`train-00.jsonl.xz`, `wiki.valid.tokens`), or rows whose column
            `split` says so. By default the training part where files or rows tell one, so that no test text slips
            into pretraining, and otherwise everything.

    Returns:
        An iterator of articles, none of them blank.

    Raises:
        UlmfitError: nothing readable is at `path` (said before the first article), or a file in it is damaged, is not
            UTF-8 or has no texts where they belong.
    """
    if limit_words is not None and limit_words <= 0:
        raise UlmfitError(f"limit_words must be positive, found {limit_words}")
    return _limited(_files(path, split), limit_words, split)  # the path is checked here, before the first article


def _limited(files: list[Path], limit_words: int | None, split: str | None) -> Iterator[str]:
    words = 0
    for file in files:
        for article in _articles(file, split):
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
        log.info("left out, not in the part %s: %s", split or "train", shown(f.name for f in files if f not in kept))
    return kept


def _articles(file: Path, split: str | None) -> Iterator[str]:
    suffix = bare_suffix(file)
    with errors_named(file, "UTF-8", advice="Convert it."):
        if suffix in TEXT_SUFFIXES:
            with open_text(file) as lines:
                yield from _split_lines(lines)
        elif suffix in LINES:
            yield from _rows(_json_texts(file), split)
        elif suffix == ".csv":
            yield from _rows(_csv_texts(file), split)
        else:
            yield from _rows(_parquet_texts(file, split), split)


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


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
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


def _json_texts(file: Path) -> Iterator[tuple[str, str | None]]:
    with open_text(file) as lines:
        for number, row in json_rows(lines, file):
            if not isinstance(row.get("text"), str):
                raise UlmfitError(f"{file}, line {number}: expected a key `text` with a string; found {shown(row)}")
            yield row["text"], row.get("split")


def _csv_texts(file: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the rows of a CSV file; without a header that names `text` (fastai's WikiText), of its first column."""
    with open_text(file) as handle:
        try:
            first = csv_table(handle, header=None, nrows=1).iloc[0]
        except pd.errors.EmptyDataError:
            return
    names = [str(cell).strip().lower() for cell in first]
    headed = "text" in names
    column = names.index("text") if headed else 0
    wanted = [column, names.index("split")] if headed and "split" in names else [column]
    with open_text(file) as handle:  # as text, in which a line within a cell ends alike on every system
        for table in csv_table(handle, header=None, usecols=wanted, chunksize=ARTICLES):
            parts = table[wanted[1]] if len(wanted) > 1 else itertools.repeat(None)
            yield from itertools.islice(zip(table[column], parts), int(headed and table.index[0] == 0), None)


def _parquet_texts(file: Path, split: str | None) -> Iterator[tuple[str, str | None]]:
    table = parquet_file(file)
    names = table.schema_arrow.names
    if "text" not in names:
        raise UlmfitError(f"{file} has no column `text`; its columns are {shown(names)}")
    columns = ["text", "split"] if "split" in names else ["text"]
    parts = set(table.read(columns=["split"]).column(0).unique().to_pylist()) if "split" in names else set()
    only = "train" if split is None and "train" in parts else None
    for batch in table.iter_batches(batch_size=ARTICLES, columns=columns):
        rows = batch.to_pydict()
        for text, part in zip(rows["text"], rows.get("split", [None] * len(rows["text"]))):
            if text and (only is None or part == only):
                yield text, part
