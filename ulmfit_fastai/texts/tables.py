"""Tables in: CSV, TSV, JSON lines, JSON and Parquet, compressed or not, whole or some thousand rows at a time.

Every table of the package is read here: `read_table` makes one frame of it, `TableReader` frames of `ROWS` rows, and
`corpora` takes the texts out of the same rows.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd

from .._errors import UlmfitError
from .delimited import csv_frames
from .files import OPENERS, bare_suffix, damage_named, existing, marked_encoding, open_bytes
from .values import mended

log = logging.getLogger(__name__)

UTF8 = "utf-8-sig"
"""UTF-8; a mark at the start, which spreadsheets write, is no text."""
CSV = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
TABLES = (*CSV, *LINES, ".json", *PARQUET)


@dataclass(frozen=True)
class Layout:
    """How a file is written, as far as its name and its first bytes don't say."""

    encoding: str = UTF8
    """Of text; a file that begins with the mark of UTF-16 or UTF-32 is read as that."""
    sep: str | None = None
    """What stands between the cells of CSV; None: a comma, in .tsv a tab, or what a header has instead."""
    header: bool = True
    """Whether the first row of CSV names the columns; otherwise they are numbered from 0."""
    suffix: str | None = None
    """The suffix of the format, '.csv' for example; None: that of the file's name."""

    def format_of(self, path: Path, *, also: tuple[str, ...] = ()) -> str:
        """The suffix that stands for the format.

        Raises:
            UlmfitError: no format is known by it.
        """
        suffix = self.suffix or bare_suffix(path)
        if suffix not in (*TABLES, *also):
            raise UlmfitError(f"cannot tell the format of {path}: expected {', '.join((*TABLES, *also))}, plain or "
                              f"with {', '.join(OPENERS)} (or give --format)")
        return suffix

    def text(self, stream: IO[bytes], *, newline: str | None = None) -> IO[str]:
        """A stream of bytes as text; it is closed with its wrapper."""
        buffered = stream if hasattr(stream, "peek") else io.BufferedReader(stream)  # type: ignore[type-var]
        marked = marked_encoding(buffered.peek(4)[:4]) or ""  # type: ignore[attr-defined]
        same = self.encoding == UTF8 or bool(marked) and self.encoding.startswith(marked)  # utf-16-le keeps it
        return io.TextIOWrapper(buffered, marked if marked and same else self.encoding, newline=newline)


PLAIN = Layout()
SAMPLE = 64 * 2**20


def encoding_of(path: Path, own: str | None) -> str:
    """UTF-8 where the file is of it, as far as a sample tells, otherwise `own`, the encoding of files like it."""
    if own is None or path.is_dir() or bare_suffix(path) in PARQUET:
        return UTF8
    with damage_named(path), open_bytes(path) as stream:
        start = stream.read(SAMPLE)
    if marked_encoding(start):
        return UTF8
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # a character may be cut off at the sample's end
    except UnicodeDecodeError:
        return own
    return UTF8


@contextmanager
def errors_named(path: Path, encoding: str = "utf-8-sig", *,
                 advice: str = "Give its encoding (cp1252, for example), or convert it.") -> Iterator[None]:
    """Turn what the parsers raise into an error that names the file; they say what is wrong, but not where.

    Text in another `encoding` is most often a spreadsheet's, of Windows.
    """
    with damage_named(path):
        try:
            yield
        except UlmfitError:
            raise
        except ImportError as error:
            raise UlmfitError(f"reading {path} needs a package that is not installed: {error}") from error
        except UnicodeDecodeError as error:
            raise UlmfitError(f"{path} is not {encoding.removesuffix('-sig')} text ({error.reason}). {advice}"
                              ) from error
        except pd.errors.EmptyDataError:
            raise UlmfitError(f"{path} is empty: expected a line of column names") from None
        except ValueError as error:
            raise UlmfitError(f"cannot read {path}: {error}") from error


def json_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the object of each line that is not blank.

    By json and not by pandas, which makes NaN of null, a number of the text "2004" and a date of others. Half a
    character, as JSON's escapes may hold, is replaced by U+FFFD; one warning counts the rows.
    """
    halves = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UlmfitError(f"cannot read {path}: line {number} is no JSON object ({error})") from error
        if not isinstance(row, dict):
            raise UlmfitError(f"cannot read {path}: line {number} is no JSON object but {line.strip()[:40]}")
        if "\\ud" in line or "\\uD" in line:  # an escape of one half of a character; two halves json joins
            whole = mended(row)
            row, halves = whole, halves + (whole != row)
        yield number, row
    if halves:
        log.warning("%s: %s with half a character (a lone surrogate): read as U+FFFD", path,
                    f"{halves:,} row{'s' * (halves > 1)}")


def parquet_file(path: Path | IO[bytes]) -> Any:
    """A Parquet file of pyarrow's: `iter_batches` reads a part at a time."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UlmfitError(f"reading {path} needs a package: pip install pyarrow") from error
    return parquet.ParquetFile(path)


def read_table(path: Path, content: bytes | None = None, *, layout: Layout = PLAIN) -> pd.DataFrame:
    """Read a CSV, TSV, JSON-lines, JSON or Parquet file, compressed or not, into a frame.

    A cell of CSV is the text that is there: an empty one is empty, but `NA` and `null` are words that somebody may have
    written. A named index that pandas stored in Parquet is a column like the others.

    Args:
        content: the bytes of a file in an archive; None: `path` is read.

    Raises:
        UlmfitError: the file is damaged, in another encoding, of no format known here, or a row is of another width
            than the header.
    """
    suffix = layout.format_of(path)
    with errors_named(path, layout.encoding), open_bytes(path, content) as stream:
        if suffix in PARQUET:
            frame = pd.read_parquet(io.BytesIO(stream.read()))
            named = [name for name in frame.index.names if name is not None and name not in frame]
            return frame.reset_index(level=named) if named else frame
        if suffix in CSV:
            return next(csv_frames(layout.text(stream, newline=""), path, sep=layout.sep, usual=CSV[suffix],
                                   header=layout.header, size=None))
        text = layout.text(stream)
        if suffix == ".json":
            return _json(text, path)
        return pd.DataFrame([row for _, row in json_rows(text, path)], dtype=object)  # numbers stay what they were


def standard_input(name: str, layout: Layout) -> tuple[Path, bytes | None]:
    """The path of a file, or for '-' one that stands for standard input in messages, and what is there.

    Raises:
        UlmfitError: standard input, and no format of it given.
    """
    if name != "-":
        return existing(name), None
    if layout.suffix is None:
        raise UlmfitError("standard input has no name to tell its format: give --format, such as --format csv")
    return Path("standard input"), sys.stdin.buffer.read()


def _json(file: IO[str], path: Path) -> pd.DataFrame:
    """Read a list of objects, one a row, or an object with a list for each column."""
    try:
        read = json.load(file)
    except json.JSONDecodeError as error:
        hint = "; a file with an object on each line is called .jsonl" if error.msg == "Extra data" else ""
        raise UlmfitError(f"cannot read {path}: {error}{hint}") from error
    given = mended(read)
    if given != read:
        log.warning("%s: halves of characters (lone surrogates) read as U+FFFD", path)
    _refuse_rows_below(given, path)
    try:
        return pd.DataFrame(given)
    except (ValueError, TypeError, AttributeError) as error:  # in pandas' words: about indices and scalars
        found = f"an object with the keys {', '.join(list(given)[:5])}" if isinstance(given, dict) else str(given)[:40]
        raise UlmfitError(f"cannot read {path}: expected a list of objects, one a row, or an object with a list for "
                          f"each column, as a table in JSON is; found {found}") from error


def _refuse_rows_below(given: Any, path: Path) -> None:
    """Refuse an object that holds the rows under a name, of which pandas makes a table of one odd column."""
    below = [name for name, value in given.items() if isinstance(value, list) and value and isinstance(value[0], dict)
             ] if isinstance(given, dict) else []
    if below:
        raise UlmfitError(f"cannot read {path}: expected a list of objects, one a row; the rows seem to stand under "
                          f"{below[0]!r}: write that list alone")
