"""Tables of any size, some thousand rows at a time: rows in, the same rows out with more columns, in their order."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pandas as pd

from .._errors import UlmfitError
from .files import OPENERS, bare_suffix, damage_named, existing, open_bytes

ROWS = 4096
WRITERS: dict[str, Callable[[Any], IO[bytes]]] = {
    ".gz": lambda path: gzip.open(path, "wb"),  # type: ignore[dict-item,return-value]
    ".bz2": lambda path: bz2.open(path, "wb"),  # type: ignore[dict-item,return-value]
    ".xz": lambda path: lzma.open(path, "wb"),  # type: ignore[dict-item,return-value]
}
LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")


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
        if self.suffix in PARQUET and self.path.suffix.lower() in PARQUET:
            yield from self._parquet()
        elif self.suffix in (".csv", ".tsv", ".txt", *LINES):
            yield from self._stream()
        else:
            whole = read_table(self.path, encoding=self.encoding)
            for first in range(0, len(whole), ROWS):
                self.share = min(1.0, (first + ROWS) / len(whole))
                yield whole.iloc[first:first + ROWS]

    def _stream(self) -> Iterator[pd.DataFrame]:
        size = max(self.path.stat().st_size, 1)
        with damage_named(self.path), open(self.path, "rb") as raw:
            opener = OPENERS.get(self.path.suffix.lower())
            stream = opener(raw) if opener else raw
            try:
                for frame in self._frames(stream):
                    self.share = raw.tell() / size
                    yield frame
            except UnicodeDecodeError as error:
                raise other_encoding(self.path, self.encoding, error) from error
            except pd.errors.EmptyDataError:
                raise UlmfitError(f"{self.path} is empty: expected a line of column names") from None
            except pd.errors.ParserError as error:
                raise UlmfitError(f"cannot read {self.path}: {error}") from error

    def _frames(self, stream: IO[bytes]) -> Iterator[pd.DataFrame]:
        if self.suffix in (".csv", ".tsv"):
            yield from pd.read_csv(stream, sep="\t" if self.suffix == ".tsv" else ",", dtype=str, chunksize=ROWS,
                                   keep_default_na=False, encoding=self.encoding)
            return
        rows: list[Any] = []
        first = 0
        lines = io.TextIOWrapper(stream, self.encoding)  # a name of its own: without one it closes the file at its end
        for number, line in enumerate(lines, 1):
            if self.suffix == ".txt":
                rows.append({"text": line.rstrip("\n")})
            elif line.strip():
                rows.append(self._json(line, number))
            if len(rows) == ROWS:
                yield _of_objects(rows, first)
                first, rows = first + len(rows), []
        if rows:
            yield _of_objects(rows, first)

    def _json(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UlmfitError(f"{self.path}: line {number} is no JSON object ({error})") from error
        if not isinstance(row, dict):
            raise UlmfitError(f"{self.path}: line {number} is a {type(row).__name__}, expected an object with names")
        return row

    def _parquet(self) -> Iterator[pd.DataFrame]:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise UlmfitError(f"reading {self.path} needs a package: pip install pyarrow") from error
        try:
            file = parquet.ParquetFile(self.path)
            total, done = max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(batch_size=ROWS):
                frame = batch.to_pandas(types_mapper=pd.ArrowDtype)  # arrow's own types: what is written is the same
                frame.index = pd.RangeIndex(done, done + len(frame))
                done += len(frame)
                self.share = done / total
                yield frame
        except pyarrow.ArrowInvalid as error:
            raise UlmfitError(f"cannot read {self.path}: {error}") from error


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


class TableWriter:
    """Write frames one after another to a file in the format its name says, or as CSV to the screen (path None).

    Use it in a `with` block. The file appears, whole, at the end of the block; an error leaves nothing behind.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self.suffix = ".csv" if self.path is None else bare_suffix(self.path)
        expected = (".csv", ".tsv", *LINES, *PARQUET)
        packed = "" if self.path is None else self.path.suffix.lower()
        if self.suffix not in expected or (packed in OPENERS and packed not in WRITERS) or \
                (self.suffix in PARQUET and packed in WRITERS):
            raise UlmfitError(f"cannot write {self.path}: expected a name that ends in {', '.join(expected)}; the "
                              f"first four also with {', '.join(WRITERS)}")
        if self.path is not None and self.path.is_dir():
            raise UlmfitError(f"{self.path} is a folder: expected the name of a file to write")
        self.columns: list[Any] | None = None
        self._parquet: Any = None

    def __enter__(self) -> TableWriter:
        if self.path is None:
            self._text: IO[str] = sys.stdout
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.part")
        opener = WRITERS.get(self.path.suffix.lower(), lambda path: open(path, "wb"))
        self._bytes = opener(self._temporary)
        if self.suffix not in PARQUET:
            self._text = io.TextIOWrapper(self._bytes, encoding="utf-8", newline="")
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Add rows; their columns must be those of the first rows, except in JSON."""
        if self.suffix in LINES:
            for row in frame.to_dict("records"):
                kept = {key: _plain(value) for key, value in row.items() if value is not ABSENT}
                self._text.write(json.dumps(kept, ensure_ascii=False, default=str) + "\n")
            return
        header = self.columns is None
        if header:
            self.columns = list(frame.columns)
        elif list(frame.columns) != self.columns:
            other = sorted({*map(str, frame.columns)} ^ {*map(str, self.columns or ())})
            raise UlmfitError(f"rows {frame.index[0]} and following have other columns than those before "
                              f"({', '.join(other) or 'another order'}); write JSON lines instead (--out NAME.jsonl)")
        if self.suffix in PARQUET:
            self._add(frame)
        else:
            frame.to_csv(self._text, index=False, header=header, lineterminator="\n",
                         sep="\t" if self.suffix == ".tsv" else ",")

    @staticmethod
    def _objects(frame: pd.DataFrame) -> bool:
        return any(pd.api.types.is_object_dtype(dtype) for dtype in frame.dtypes)

    def _add(self, frame: pd.DataFrame) -> None:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise UlmfitError(f"writing {self.path} needs a package: pip install pyarrow") from error
        frame = frame.map(lambda value: None if value is ABSENT else value) if self._objects(frame) else frame
        try:
            if self._parquet is None:
                table = pyarrow.Table.from_pandas(frame, preserve_index=False)
                self._parquet = parquet.ParquetWriter(self._bytes, table.schema)
            else:
                table = pyarrow.Table.from_pandas(frame, preserve_index=False, schema=self._parquet.schema)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            raise UlmfitError(f"cannot write these rows as Parquet ({error}); write JSON lines instead "
                              "(--out NAME.jsonl)") from error
        self._parquet.write_table(table)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.path is None:
            self._text.flush()
            return
        try:
            if self._parquet is not None:
                self._parquet.close()
            if self.suffix not in PARQUET:
                self._text.close()
            self._bytes.close()
            if kind is None:
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """What JSON has for a numpy number, a date, NaN or pandas' NA."""
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    return value.item() if hasattr(value, "item") else value


TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")


def other_encoding(path: Path, encoding: str, error: UnicodeDecodeError) -> ValueError:
    """What to say of a file that is not in the encoding it was read in: most often a spreadsheet's, of Windows."""
    return ValueError(f"{path} is not {encoding.removesuffix('-sig')} text ({error.reason}). Give its "
                      "encoding (cp1252, for example), or convert it.")


def read_table(path: Path, content: bytes | None = None, *, encoding: str = "utf-8-sig",
               header: bool = True) -> pd.DataFrame:
    """Read a CSV, TSV, JSON-lines, JSON or Parquet file, compressed or not, into a frame.

    CSV cells come as strings: an empty cell is empty, but `NA` and `null` are words that somebody may have written.
    `header=False` numbers the columns of a CSV file 0, 1, ...; `content` are the bytes of a file in an archive.
    """
    suffix = bare_suffix(path)
    if suffix not in TABLES:
        raise UlmfitError(f"cannot tell the format of {path}: expected {', '.join(TABLES)}, plain or "
                          f"with {', '.join(OPENERS)}")
    with damage_named(path), open_bytes(path, content) as stream:
        try:
            if suffix in (".parquet", ".pq"):
                return pd.read_parquet(io.BytesIO(stream.read()))
            if suffix in (".csv", ".tsv"):
                return pd.read_csv(stream, sep="\t" if suffix == ".tsv" else ",", header=0 if header else None,
                                   dtype=str, keep_default_na=False, encoding=encoding)
            text = io.TextIOWrapper(stream, encoding)
            return _json(text) if suffix == ".json" else _json_lines(text)
        except ImportError as error:
            raise UlmfitError(f"reading {path} needs a package that is not installed: {error}") from error
        except UnicodeDecodeError as error:
            raise other_encoding(path, encoding, error) from error
        except ValueError as error:  # the parsers of pandas and pyarrow say what is wrong, but not where
            raise UlmfitError(f"cannot read {path}: {error}") from error


def _json(file: IO[str]) -> pd.DataFrame:
    """Read a list of objects, one a row, or an object with a list for each column."""
    try:
        given = json.load(file)
    except json.JSONDecodeError as error:
        hint = "; a file with an object on each line is called .jsonl" if error.msg == "Extra data" else ""
        raise UlmfitError(f"{error}{hint}") from error
    try:
        return pd.DataFrame(given)
    except (ValueError, TypeError, AttributeError) as error:  # in pandas' words: about indices and scalars
        found = f"an object with the keys {', '.join(list(given)[:5])}" if isinstance(given, dict) else str(given)[:40]
        raise UlmfitError("expected a list of objects, one a row, or an object with a list for each column, as a table "
                          f"in JSON is; found {found}") from error


def _json_lines(lines: IO[str]) -> pd.DataFrame:
    """Read one object a line; by json and not pandas, which makes a number of the text "2004" and a date of others."""
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UlmfitError(f"line {number} is no JSON object ({error})") from error
            if not isinstance(row, dict):
                raise UlmfitError(f"line {number} is no JSON object but {line.strip()[:40]}")
            rows.append(row)
    return pd.DataFrame(rows)
