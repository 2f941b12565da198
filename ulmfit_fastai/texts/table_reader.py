"""Tables in, some thousand rows at a time: frames of any file, of the types and with the index that it has."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pandas as pd

from .._errors import UlmfitError
from .delimited import csv_frames
from .files import OPENERS, open_bytes
from .tables import (
    CSV,
    LINES,
    PARQUET,
    PLAIN,
    TABLES,
    Layout,
    errors_named,
    json_rows,
    parquet_file,
    read_table,
    standard_input,
)

ROWS = 4096


class TableReader:
    """Iterate over a CSV, TSV, JSON-lines, Parquet or text file, compressed or not, as frames of `ROWS` rows.

    Cells of CSV come as the text that is written there; of Parquet with their own types; of JSON as Python's objects.
    A .txt file is a table with the one column 'text', a row a line. An empty table is one frame without rows. `share`
    is how much of the file has been read, 0 to 1. Memory is that of some thousand rows (a .json file, which is one
    list, compressed Parquet and standard input are read whole).

    Args:
        path: '-' is standard input, whose format `layout` must say.
        content: what is there, where it has been read already.
    """

    def __init__(self, path: str | os.PathLike[str], *, layout: Layout = PLAIN, content: bytes | None = None) -> None:
        self.path, self.content = (Path(path), content) if content is not None else standard_input(
            os.fspath(path), layout)
        self.layout, self.share = layout, 0.0
        if self.path.is_dir():
            raise UlmfitError(f"{self.path} is a folder; expected a file: {', '.join(TABLES)} or .txt")
        self.suffix = layout.format_of(self.path, also=(".txt",))
        self.layout = replace(layout, suffix=self.suffix)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        with errors_named(self.path, self.layout.encoding):
            if self.suffix in PARQUET:
                yield from self._parquet()
            elif self.suffix in (*CSV, *LINES, ".txt"):
                yield from self._stream()
            else:
                whole = read_table(self.path, self.content, layout=self.layout)
                for first in range(0, max(len(whole), 1), ROWS):
                    self.share = min(1.0, (first + ROWS) / max(len(whole), 1))
                    yield whole.iloc[first:first + ROWS]

    def _stream(self) -> Iterator[pd.DataFrame]:
        raw = open(self.path, "rb") if self.content is None else io.BytesIO(self.content)
        with raw:
            size = max(raw.seek(0, io.SEEK_END), 1)
            raw.seek(0)
            opener = OPENERS.get(self.path.suffix.lower())
            for frame in self._frames(opener(raw) if opener else raw):
                self.share = raw.tell() / size
                yield frame

    def _frames(self, stream: IO[bytes]) -> Iterator[pd.DataFrame]:
        if self.suffix in CSV:
            lines = self.layout.text(stream, newline="")
            yield from csv_frames(lines, self.path, sep=self.layout.sep, usual=CSV[self.suffix],
                                  header=self.layout.header, size=ROWS)
            return
        lines = self.layout.text(stream)  # a name of its own: without one it closes the file at its end
        rows = ({"text": line.rstrip("\n")} for line in lines) if self.suffix == ".txt" else (
            row for _, row in json_rows(lines, self.path))
        done = 0
        while part := list(islice(rows, ROWS)):
            yield _of_objects(part, done)
            done += len(part)
        if not done:
            yield pd.DataFrame(columns=["text"] if self.suffix == ".txt" else [], dtype=object)

    def _parquet(self) -> Iterator[pd.DataFrame]:
        if self.content is None and self.path.suffix.lower() not in OPENERS:
            file = parquet_file(self.path)
        else:
            with open_bytes(self.path, self.content) as stream:
                file = parquet_file(io.BytesIO(stream.read()))
        total, done = max(file.metadata.num_rows, 1), 0
        for batch in (*file.iter_batches(batch_size=ROWS), *_none(file)):
            frame = batch.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)  # arrow's own types: what is
            frame.index = pd.RangeIndex(done, done + len(frame))                       # written is the same
            done += len(frame)
            self.share = done / total
            yield _with_stored_index(frame, (file.schema_arrow.pandas_metadata or {}).get("index_columns", ()))


def _none(file: Any) -> list[Any]:
    """The table without rows, of a file that has none: it has columns all the same."""
    return [file.schema_arrow.empty_table()] if not file.metadata.num_rows else []


def _with_stored_index(frame: pd.DataFrame, columns: Sequence[Any]) -> pd.DataFrame:
    """The index that pandas stored, as columns or, of numbers in a row with a name, as a range, as an index again."""
    ranges = [index for index in columns if isinstance(index, dict) and index.get("name") is not None]
    if len(ranges) == 1:
        start, step = ranges[0]["start"], ranges[0]["step"]
        return frame.set_axis(pd.Index([start + step * row for row in frame.index], name=ranges[0]["name"]))
    stored = [name for name in columns if isinstance(name, str) and name in frame]
    if not stored:
        return frame
    names = [None if name.startswith("__index_level_") else name for name in stored]
    return frame.set_index(stored).rename_axis(names)


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
