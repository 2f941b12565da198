"""Tables out: frames one after another, to a file that appears whole at the end, or to the screen."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pandas as pd

from .._errors import UlmfitError
from .._files import atomic_file
from .files import OPENERS, bare_suffix
from .table_reader import ABSENT
from .tables import CSV, LINES, PARQUET
from .values import decoded, is_na

WRITERS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda file: gzip.GzipFile("", "wb", fileobj=file),  # it would write the temporary name into its header
    ".bz2": lambda file: bz2.open(file, "wb"),
    ".xz": lambda file: lzma.open(file, "wb"),
}


class TableWriter:
    """Write frames one after another to a file in the format its name says, or to the screen (path None).

    To the screen goes CSV, or with `lines` JSON lines.

    Use it in a `with` block. The file appears, whole, at the end of the block; an error leaves nothing behind.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, lines: bool = False) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self.suffix = (".jsonl" if lines else ".csv") if self.path is None else bare_suffix(self.path)
        expected = (*CSV, *LINES, *PARQUET)
        packed = "" if self.path is None else self.path.suffix.lower()
        if self.suffix not in expected or (packed in OPENERS and packed not in WRITERS) or \
                (self.suffix in PARQUET and packed in WRITERS):
            raise UlmfitError(f"cannot write {self.path}: expected a name that ends in {', '.join(expected)}; the "
                              f"first four also with {', '.join(WRITERS)}")
        if self.path is not None and self.path.is_dir():
            raise UlmfitError(f"{self.path} is a folder: expected the name of a file to write")
        self.columns: list[Any] | None = None
        self._parquet: Any = None
        self._open = ExitStack()

    def __enter__(self) -> TableWriter:
        if self.path is None:
            self._text: IO[str] = sys.stdout
            return self
        file = self._open.enter_context(atomic_file(self.path))
        pack = WRITERS.get(self.path.suffix.lower())
        self._bytes = self._open.enter_context(pack(file)) if pack else file
        if self.suffix not in PARQUET:
            self._text = io.TextIOWrapper(self._bytes, encoding="utf-8", newline="")
            self._open.callback(self._text.detach)  # writes the rest, and leaves the file open to be synced
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Add rows; their columns must be those of the first rows, except in JSON."""
        frame = frame if self.suffix in PARQUET else _without_index(frame)
        if self.suffix in LINES:
            for row in frame.to_dict("records"):
                kept = {key: _json_value(value) for key, value in row.items() if value is not ABSENT}
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
            frame = frame.map(_written) if self._objects(frame) else frame
            frame.to_csv(_Lines(self._text), index=False, header=header,  # type: ignore[call-overload]
                         lineterminator="\r\n", sep="\t" if self.suffix == ".tsv" else ",")

    @staticmethod
    def _objects(frame: pd.DataFrame) -> bool:
        """Whether a column may hold anything, bytes for example, and not plain numbers or text."""
        return any(pd.api.types.is_object_dtype(dtype) or "binary" in str(dtype) for dtype in frame.dtypes)

    def _add(self, frame: pd.DataFrame) -> None:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise UlmfitError(f"writing {self.path} needs a package: pip install pyarrow") from error
        frame = frame.map(lambda value: None if value is ABSENT else value) if self._objects(frame) else frame
        try:
            if self._parquet is None:
                table = pyarrow.Table.from_pandas(frame, preserve_index=not isinstance(frame.index, pd.RangeIndex))
                self._parquet = self._open.enter_context(parquet.ParquetWriter(self._bytes, _readable(table.schema)))
            else:
                table = pyarrow.Table.from_pandas(frame, preserve_index=not isinstance(frame.index, pd.RangeIndex),
                                                  schema=self._parquet.schema)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            raise UlmfitError(f"cannot write these rows as Parquet ({error}); write JSON lines instead "
                              "(--out NAME.jsonl)") from error
        self._parquet.write_table(table)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.path is None:
            self._text.flush()
            return
        self._open.__exit__(kind, error, trace)


def _readable(schema: Any) -> Any:
    """A schema without pandas' own names for arrow's types: pandas cannot read those of lists and categories again."""
    about = schema.pandas_metadata
    for column in about["columns"]:
        if str(column["numpy_type"]).endswith("[pyarrow]"):
            column["numpy_type"] = "object"
    return schema.with_metadata({**schema.metadata, b"pandas": json.dumps(about).encode()})


class _Lines:
    """A file of lines for csv's writer, which before Python 3.11.9 puts only those ends of line into quotes that it
    writes itself: it writes both, and its own one ends here as `\\n`."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, line: str) -> None:
        self.file.write(line.removesuffix("\r\n") + "\n")


def _without_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with what has a name in its index as columns: formats of text have no index."""
    named = [name for name in frame.index.names if name is not None and name not in frame]
    return frame.reset_index(level=named) if named else frame


def _written(value: Any) -> Any:
    return decoded(value) if isinstance(value, bytes) else value


def _json_value(value: Any) -> Any:
    """What JSON has for a numpy number, a date, NaN or pandas' NA."""
    if is_na(value):
        return None
    if isinstance(value, bytes):
        return decoded(value)
    return value.item() if hasattr(value, "item") else value
