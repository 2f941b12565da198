"""Odd tables and labels, as people have them, with what must come of each: data for the tests of every door.

A table is the bytes of a file; what pandas reads of it is what must be there again behind `predict`. `options` are the
command line's, `pandas` what pandas has to be told to read it right. Refused ones come with the words that name why.
"""

from __future__ import annotations

import datetime
import enum
import io
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse


@dataclass(frozen=True)
class Table:
    """A file and what is to be read from it."""
    name: str
    content: bytes
    options: tuple[str, ...] = ()
    pandas: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    said: str = ""
    missing: int = 0


def _parquet(frame: pd.DataFrame) -> bytes:
    return frame.to_parquet()


ROWS = "id,text,label\n1,a wonderful film,good\n2,a dreadful plot,bad\n"
FRAME = pd.DataFrame({"text": ["a wonderful film", "a dreadful plot"], "n": [1, 2]})
TABLES = (
    Table("plain.csv", ROWS.encode()),
    Table("mark.csv", b"\xef\xbb\xbf" + ROWS.encode()),
    Table("windows.csv", ROWS.replace("\n", "\r\n").encode()),
    Table("old_mac.csv", ROWS.replace("\n", "\r").encode()),
    Table("no_end.csv", ROWS.rstrip("\n").encode()),
    Table("blank_lines.csv", ROWS.replace("\n", "\n\n").encode()),
    Table("trailing.csv", b"id,text,label\n1,a wonderful film,good,\n2,a dreadful plot,bad,\n",
          pandas={"index_col": False}),
    Table("trailing_everywhere.csv", b"id,text,label,\n1,a wonderful film,good,\n2,a dreadful plot,bad,\n"),
    Table("row_numbers.csv", b",text\n0,a wonderful film\n1,a dreadful plot\n"),
    Table("return.csv", b'id,text\n1,"one\rtwo"\n2,"three\r\nfour"\n3,"five\nsix"\n'),
    Table("quotes.csv", b'id,text\n1,"he said ""no"""\n2,5" of film\n3,it\'s a film\n'),
    Table("words.csv", b"id,text\n007,NA\n1e5,null\n,None\n"),
    Table("missing.csv", b"id,text\n1,\n2,a film\n3,  \n", missing=2),
    Table("gap.csv", b'text\n""\na film\n', missing=1),
    Table("header_only.csv", b"id,text\n"),
    Table("commas.tsv", b"id\ttext\n1\ta film, and more\n2\t\"tab\there\"\n", pandas={"sep": "\t"}),
    Table("excel.csv", b"id;text\r\n1;a film, and more\r\n2;dreadful\r\n", pandas={"sep": ";"}, said="semicolons"),
    Table("excels_mark.csv", b"sep=;\r\nid;text\r\n1;a film\r\n", pandas={"sep": ";", "skiprows": 1}),
    Table("tabs.csv", b"id\ttext\n1\ta film, and more\n", pandas={"sep": "\t"}, said="tabs"),
    Table("bars.csv", b"id|text\n1|a film, and; more\n", ("--sep", "|"), {"sep": "|"}),
    Table("bare.csv", b"7,a wonderful film\n7,a dreadful plot\n", ("--no-header", "--text", "1"), {"header": None}),
    Table("blanks.csv", b"id, text\n1, a film\n", ("--text", "text")),
    Table("utf16.csv", ROWS.encode("utf-16"), pandas={"encoding": "utf-16"}),
    Table("utf16.tsv", ROWS.replace(",", "\t").encode("utf-16"), pandas={"encoding": "utf-16", "sep": "\t"}),
    Table("utf16_le.csv", "text,id\na film,1\n".encode("utf-16"), ("--encoding", "utf-16-le"), {"encoding": "utf-16"}),
    Table("excels_mark_utf8.csv", b"\xef\xbb\xbfsep=;\r\nid;text\r\n1;a film\r\n", pandas={"sep": ";", "skiprows": 1}),
    Table("umlaut.csv", "id,text\n1,schön\n".encode("cp1252"), ("--encoding", "cp1252"), {"encoding": "cp1252"}),
    Table("other.dat", ROWS.encode(), ("--format", "csv")),
    Table("a.parquet", _parquet(FRAME)),
    Table("shuffled.parquet", _parquet(FRAME.iloc[::-1])),
    Table("later_rows.parquet", _parquet(FRAME.iloc[1:])),
    Table("named_index.parquet", _parquet(FRAME.set_index("n"))),
    Table("two_indexes.parquet", _parquet(FRAME.assign(m=["x", "y"]).set_index(["n", "m"]))),
    Table("none.parquet", _parquet(FRAME.iloc[:0])),
    Table("bytes.parquet", _parquet(FRAME.assign(text=[b"a film", "sch\u00f6n".encode()]))),
    Table("gaps.parquet", _parquet(FRAME.assign(text=[None, "a film"], n=pd.array([None, 1], "Int64"))), missing=1),
    Table("dates.parquet", _parquet(FRAME.assign(d=pd.to_datetime(["2020-01-01", None])))),
    Table("categories.parquet", _parquet(FRAME.assign(c=pd.Categorical(["a", "b"])))),
    Table("lists.parquet", _parquet(FRAME.assign(tags=[["a", "b"], []]))),
    Table("a.jsonl", b'{"text": "a film", "n": 1}\n\n{"text": null, "n": null}\n', missing=1),
    Table("half.jsonl", b'{"text": "half \\ud83d", "n": "\\ud83d\\ude00"}\n{"text": "film"}\n', said="1 row with half"),
    Table("none.jsonl", b""),
    Table("list.json", b'[{"text": "a film", "n": 1}, {"text": "plot", "n": 2}]'),
    Table("none.json", b"[]"),
    Table("lines.txt", b"a film\na plot\n"),
    # refused, by file and line where there is one
    Table("wide.csv", b"text,label\na film,good\nmoving, and funny,good\n", refused="wide.csv.* in line 3, saw 3"),
    Table("wide_first.csv", b"text,label\nmoving, and funny,good\na film,good\n", refused="in line 2, saw 3"),
    Table("narrow.csv", b"id,text\n1,a film\n2\n", refused="expected 2 fields, as in line 1, in line 3, saw 1"),
    Table("wide_behind_lines.csv", b'id,text\n1,"a\nfilm"\n\n2,x,y\n', refused="in line 5, saw 3"),
    Table("wide.tsv", b"id\ttext\n1\ta\tb\n", refused="in line 2, saw 3"),
    Table("open.csv", b'id,text\n1,fine\n2,"never closed\n3,more\n', refused="quote in line 3 is never closed"),
    Table("stray.csv", b'text,label\n"A film,good\nA plot,bad\n"Fine,good\n', refused="line 2 to 4 has text behind"),
    Table("twice.csv", b"text,text\na,b\n", refused="the column 'text' is there twice"),
    Table("nul.csv", b"text,label\na \x00film,good\nb\x00,\x00,x\n", refused="in line 3|line 2"),
    Table("nothing.csv", b"", refused="nothing.csv is empty"),
    Table("umlaut_untold.csv", "id,text\n1,schön\n".encode("cp1252"), refused="not utf-8 text.*Give its encoding"),
    Table("tokens.parquet", _parquet(FRAME.assign(text=[["a", "film"], ["b"]])), refused="row 0.*expected a text"),
    Table("image.parquet", _parquet(FRAME.assign(text=[b"\xff\xd8\xff", b"a"])), refused="bytes that are not UTF-8"),
    Table("objects.jsonl", b'{"text": {"en": "a film"}}\n', refused="expected a text, found a dict"),
    Table("below.json", b'{"data": [{"text": "a film"}], "version": "1"}', refused="rows seem to stand under 'data'"),
    Table("unknown.dat", ROWS.encode(), refused="cannot tell the format"),
)


class Mood(str, enum.Enum):
    BAD, GOOD = "bad", "good"


class Stars(enum.IntEnum):
    ONE, TWO = 1, 2


class Colour(enum.Enum):
    RED, BLUE = object(), object()


@dataclass(frozen=True)
class Labels:
    """Labels of two texts in turn, the classes that they must become, and other spellings of the first in a file."""
    name: str
    two: tuple[Any, Any]
    classes: tuple[Any, ...]
    spelt: tuple[Any, ...] = ()
    whole: Callable[[list[Any]], Any] | None = None


DAY, NOON = datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 12)
LABELS = (
    Labels("text", ("bad", "good"), ("bad", "good"), (" bad ",)),
    Labels("text with blanks", (" bad", "good "), ("bad", "good"), ("bad",)),
    Labels("composed and not", ("cafe\u0301", "tea"), ("caf\u00e9", "tea"), ("caf\u00e9", "cafe\u0301")),
    Labels("dollars", ("$", "$$"), ("$", "$$")),
    Labels("more dollars", ("$0-$10", "$10_$20^{"), ("$0-$10", "$10_$20^{")),
    Labels("marks", ("a;b", "c|d"), ("a;b", "c|d")),
    Labels("words of pandas", ("NA", "null"), ("NA", "null")),
    Labels("codes", ("E10", "E11"), ("E10", "E11")),
    Labels("exponents", ("1E2", "100"), ("100", "1E2")),
    Labels("sections", ("1.1", "1.10"), ("1.1", "1.10")),
    Labels("zeros", ("007", "7"), ("007", "7")),
    Labels("whole numbers", (1, 2), (1, 2), ("1", "1.0", 1.0, np.int64(1))),
    Labels("floats", (1.0, 2.0), (1.0, 2.0), ("1", 1, "1.0")),
    Labels("signs", (-1, 1), (-1, 1), ("-1", -1.0)),
    Labels("truth", (False, True), (False, True), ("false", "False", "FALSE", 0, "0", np.bool_(False))),
    Labels("truth as text", ("FALSE", "TRUE"), ("FALSE", "TRUE"), ("false", False, 0)),
    Labels("truth as numbers", (0, 1), (0, 1), ("false", False)),
    Labels("Decimal", (Decimal("1"), Decimal("2.0")), (1, 2), (1, "1.0")),
    Labels("Fraction", (Fraction(1, 2), Fraction(1, 3)), ("1/2", "1/3")[::1]),
    Labels("str Enum", (Mood.BAD, Mood.GOOD), ("bad", "good"), ("bad", Mood.BAD)),
    Labels("IntEnum", (Stars.ONE, Stars.TWO), (1, 2), (1, "1")),
    Labels("Enum", (Colour.RED, Colour.BLUE), ("BLUE", "RED")),
    Labels("dates", (DAY, DAY.replace(year=2021)), ("2020-01-02", "2021-01-02"), ("2020-01-02",)),
    Labels("datetimes", (NOON, NOON.replace(year=2021)), ("2020-01-02 12:00:00", "2021-01-02 12:00:00")),
    Labels("timestamps", (NOON, NOON.replace(year=2021)), ("2020-01-02 12:00:00", "2021-01-02 12:00:00"),
           whole=lambda values: np.array(values, "datetime64[ns]")),
    Labels("periods", (pd.Period("2020"), pd.Period("2021")), ("2020", "2021")),
    Labels("intervals", (pd.Interval(0, 2), pd.Interval(2, 5)), ("(0, 2]", "(2, 5]"), whole=pd.Series),
    Labels("categories", ("bad", "good"), ("bad", "good"), whole=lambda values: pd.Series(values, dtype="category")),
    Labels("UUIDs", (uuid.UUID(int=1), uuid.UUID(int=2)), (str(uuid.UUID(int=1)), str(uuid.UUID(int=2)))),
    Labels("bytes", (b"bad", b"good"), ("bad", "good"), ("bad",)),
    Labels("an array of one column", ("bad", "good"), ("bad", "good"), whole=lambda v: np.array(v)[:, None]),
    Labels("a nullable column", (1, 2), (1, 2), whole=lambda values: pd.Series(values, dtype="Int64")),
    Labels("lists", (["x", "y"], ["z"]), ("x", "y", "z")),
    Labels("lists with gaps", ([np.nan], ["x", None, "y"]), ("x", "y")),
    Labels("lists of NA", ([pd.NA, "x"], ["y", ""]), ("x", "y")),
    Labels("arrays of classes", (np.array(["x", "y"]), np.array(["z"])), ("x", "y", "z")),
    Labels("tuples in lists", ([("a", 1)], [("a", 1), ("b", 2)]), ("('a', 1)", "('b', 2)")),
    Labels("lists as text", ("['x', 'y']", "['z']"), ("x", "y", "z")),
    Labels("lists as JSON", ('["x", "y"]', "[]"), ("x", "y")),
    Labels("lists as text with nan", ("['x', nan]", "['y']"), ("x", "y")),
    Labels("sets as text", ("{'x', 'y'}", "{'z'}"), ("x", "y", "z")),
    Labels("columns of 0 and 1", ((1, 0), (0, 1)), ("x", "y"),
           whole=lambda values: pd.DataFrame(values, columns=["x", "y"])),
    Labels("columns of truth", ((True, False), (True, True)), (0, 1), whole=np.array),
    Labels("a sparse matrix", ((1, 0), (0, 1)), (0, 1), whole=scipy.sparse.csr_matrix),
    Labels("a sparse array", ((1, 0), (0, 1)), (0, 1), whole=lambda v: scipy.sparse.csr_array(np.array(v))),
    Labels("sparse columns", ((1, 0), (0, 1)), ("x", "y"),
           whole=lambda v: pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csr_matrix(v), columns=["x", "y"])),
)
REFUSED_LABELS = (
    ("objects", [object(), object()] * 6, "no file keeps"),
    ("complex numbers", [1j, 2j] * 6, "no file keeps"),
    ("infinite", [float("inf"), 1] * 6, "no file keeps"),
    ("dictionaries", [{"a": 1}, {"b": 2}] * 6, "no file keeps"),
    ("a set", {"a", "b"}, "no order of its own"),
    ("a mapping", {0: "a", 1: "b"}, "no order of its own"),
    ("numpy's lists as text", ["['x' 'y']", "['z']"] * 6, "numpy writes"),
    ("bytes of no text", [b"\xff", b"a"] * 6, "not UTF-8"),
)


def frame_of(content: bytes, name: str, **how: Any) -> pd.DataFrame:
    """What pandas reads of a table, as it is written."""
    if name.endswith(".parquet"):
        return pd.read_parquet(io.BytesIO(content))
    if name.endswith(".jsonl"):
        return pd.read_json(io.BytesIO(content), lines=True, dtype=False)
    if name.endswith(".json"):
        return pd.read_json(io.BytesIO(content), dtype=False)
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, **how)
