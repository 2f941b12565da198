"""Tables in: CSV, TSV, JSON lines, JSON and Parquet, compressed or not, whole or some thousand rows at a time.

Every table of the package is read here: `read_table` makes one frame of it, `TableReader` frames of `ROWS` rows, and
`corpora` takes the texts out of the same rows.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pandas as pd

from .._errors import UlmfitError
from .files import OPENERS, bare_suffix, damage_named, existing, open_bytes

ROWS = 4096
CSV = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
TABLES = (*CSV, *LINES, ".json", *PARQUET)


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


def csv_table(stream: IO[Any], **how: Any) -> Any:
    """pandas' frame of a CSV file, or with `chunksize=` its frames one by one; a cell is the text that is there.

    An empty cell is empty, but `NA` and `null` are words that somebody may have written.
    """
    return pd.read_csv(stream, dtype=str, keep_default_na=False, **how)


def json_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the object of each line that is not blank.

    By json and not by pandas, which makes NaN of null, a number of the text "2004" and a date of others.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UlmfitError(f"cannot read {path}: line {number} is no JSON object ({error})") from error
        if not isinstance(row, dict):
            raise UlmfitError(f"cannot read {path}: line {number} is no JSON object but {line.strip()[:40]}")
        yield number, row


def parquet_file(path: Path) -> Any:
    """A Parquet file of pyarrow's: `iter_batches` reads a part at a time."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UlmfitError(f"reading {path} needs a package: pip install pyarrow") from error
    return parquet.ParquetFile(path)


def read_table(path: Path, content: bytes | None = None, *, encoding: str = "utf-8-sig",
               header: bool = True) -> pd.DataFrame:
    """Read a CSV, TSV, JSON-lines, JSON or Parquet file, compressed or not, into a frame.

    Args:
        content: the bytes of a file in an archive; None: `path` is read.
        header: False numbers the columns of a CSV file 0, 1, ...

    Raises:
        UlmfitError: the file is damaged, in another encoding, or of no format known here.
    """
    suffix = bare_suffix(path)
    if suffix not in TABLES:
        raise UlmfitError(f"cannot tell the format of {path}: expected {', '.join(TABLES)}, plain or "
                          f"with {', '.join(OPENERS)}")
    with errors_named(path, encoding), open_bytes(path, content) as stream:
        if suffix in PARQUET:
            return pd.read_parquet(io.BytesIO(stream.read()))
        if suffix in CSV:
            return csv_table(stream, sep=CSV[suffix], encoding=encoding, header=0 if header else None)
        text = io.TextIOWrapper(stream, encoding)
        return _json(text, path) if suffix == ".json" else pd.DataFrame([row for _, row in json_rows(text, path)])


def _json(file: IO[str], path: Path) -> pd.DataFrame:
    """Read a list of objects, one a row, or an object with a list for each column."""
    try:
        given = json.load(file)
    except json.JSONDecodeError as error:
        hint = "; a file with an object on each line is called .jsonl" if error.msg == "Extra data" else ""
        raise UlmfitError(f"cannot read {path}: {error}{hint}") from error
    try:
        return pd.DataFrame(given)
    except (ValueError, TypeError, AttributeError) as error:  # in pandas' words: about indices and scalars
        found = f"an object with the keys {', '.join(list(given)[:5])}" if isinstance(given, dict) else str(given)[:40]
        raise UlmfitError(f"cannot read {path}: expected a list of objects, one a row, or an object with a list for "
                          f"each column, as a table in JSON is; found {found}") from error


class TableReader:
    """Iterate over a CSV, TSV, JSON-lines, Parquet or text file, compressed or not, as frames of `ROWS` rows.

    Cells of CSV come as the text that is written there; of Parquet with their own types; of JSON as Python's objects.
    A .txt file is a table with the one column 'text', a row a line. `share` is how much of the file has been read, 0
    to 1. Memory is that of some thousand rows (a .json file, which is one list, and compressed Parquet are read whole).
    """

    def __init__(self, path: str | os.PathLike[str], *, encoding: str = "utf-8-sig") -> None:
        self.path, self.encoding, self.share = existing(path), encoding, 0.0
        self.suffix = bare_suffix(self.path)
        if self.path.is_dir():
            raise UlmfitError(f"{self.path} is a folder; expected a file: {', '.join(TABLES)} or .txt")
        if self.suffix not in (*TABLES, ".txt"):
            raise UlmfitError(f"cannot tell the format of {self.path}: expected {', '.join(TABLES)} or .txt, plain or "
                              f"with {', '.join(OPENERS)}")

    def __iter__(self) -> Iterator[pd.DataFrame]:
        with errors_named(self.path, self.encoding):
            if self.path.suffix.lower() in PARQUET:
                yield from self._parquet()
            elif self.suffix in (*CSV, *LINES, ".txt"):
                yield from self._stream()
            else:
                whole = read_table(self.path, encoding=self.encoding)
                for first in range(0, len(whole), ROWS):
                    self.share = min(1.0, (first + ROWS) / len(whole))
                    yield whole.iloc[first:first + ROWS]

    def _stream(self) -> Iterator[pd.DataFrame]:
        size = max(self.path.stat().st_size, 1)
        with open(self.path, "rb") as raw:
            opener = OPENERS.get(self.path.suffix.lower())
            for frame in self._frames(opener(raw) if opener else raw):
                self.share = raw.tell() / size
                yield frame

    def _frames(self, stream: IO[bytes]) -> Iterator[pd.DataFrame]:
        if self.suffix in CSV:
            yield from csv_table(stream, sep=CSV[self.suffix], encoding=self.encoding, chunksize=ROWS)
            return
        lines = io.TextIOWrapper(stream, self.encoding)  # a name of its own: without one it closes the file at its end
        rows = ({"text": line.rstrip("\n")} for line in lines) if self.suffix == ".txt" else (
            row for _, row in json_rows(lines, self.path))
        for number, part in enumerate(iter(lambda: list(islice(rows, ROWS)), [])):
            yield _of_objects(part, number * ROWS)

    def _parquet(self) -> Iterator[pd.DataFrame]:
        file = parquet_file(self.path)
        total, done = max(file.metadata.num_rows, 1), 0
        for batch in file.iter_batches(batch_size=ROWS):
            frame = batch.to_pandas(types_mapper=pd.ArrowDtype)  # arrow's own types: what is written is the same
            frame.index = pd.RangeIndex(done, done + len(frame))
            done += len(frame)
            self.share = done / total
            yield frame


class _Absent:
    """Stands where a row of JSON lacks a name that others have: null is something else."""

    def __str__(self) -> str:
        return ""


ABSENT = _Absent()


def _of_objects(rows: list[dict[str, Any]], first: int) -> pd.DataFrame:
    """Rows of JSON as they are: a number stays what it was."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pd.Series([row.get(name, ABSENT) for row in rows], dtype=object) for name in names}
    return pd.DataFrame(columns, columns=names).set_axis(range(first, first + len(rows)))
