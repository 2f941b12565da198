"""Texts in: a frame, a table file or a folder per class becomes a `Dataset`, checked row by row."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._words import rows_named, shown
from .row_labels import check_labels, label_text, mark_between, unseen_classes, with_lists
from .sampling import stratified
from .values import column_names, mended, refuse_absent, text_of

log = logging.getLogger(__name__)

SPLITS = ("train", "test", "unsup")
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test",
               "unsup": "unsup", "unlabelled": "unsup", "unlabeled": "unsup"}
FIELD_MARK = "xxfld"  # fastai's FLD; the tokeniser keeps it whole


@dataclass(frozen=True, eq=False)
class Dataset:
    """Texts with their labels and their part: the one thing that every later step reads.

    Attributes:
        name: what reports call the data set.
        df: one row a document, with a RangeIndex and the columns id (str, unique), text (str, never empty), label (str,
            None where unlabelled) and split ('train', 'test' or 'unsup').
        classes: the distinct labels of train and test, sorted; empty where labels are numbers.
        source: where the texts are from.
        synthetic: whether they are made up, and results on them no measure of quality.
        notes: what a report must say about the data.
        label_delim: what separates the classes of a document that may have several; None: each has one.

    Raises:
        UlmfitError: a column is missing, an id stands twice, or `split` holds another word.
    """
    name: str
    df: pd.DataFrame
    classes: tuple[str, ...]
    source: str
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    label_delim: str | None = None

    def __post_init__(self) -> None:
        missing = {"id", "text", "label", "split"} - set(self.df.columns)
        if missing:
            raise UlmfitError(f"a Dataset's frame needs the columns id, text, label, split; missing: {sorted(missing)}")
        if not self.df["id"].is_unique:
            twice = self.df["id"][self.df["id"].duplicated()].unique()
            raise UlmfitError(f"ids must be unique; seen more than once: {shown(twice)}")
        strange = set(self.df["split"]) - set(SPLITS)
        if strange:
            raise UlmfitError(f"split must be one of {', '.join(SPLITS)}; found {shown(sorted(strange))}")

    def __len__(self) -> int:
        return len(self.df)

    @property
    def counts(self) -> dict[str, int]:
        """Number of documents in each part, e.g. {'train': 25000, 'test': 25000, 'unsup': 50000}."""
        found = self.df["split"].value_counts()
        return {split: int(found.get(split, 0)) for split in SPLITS}

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a hash of all ids, texts, labels and splits in their order."""
        digest = hashlib.sha256()
        for column in ("id", "text", "label", "split"):
            for value in self.df[column]:
                data = b"" if value is None else value.encode("utf-8", "surrogatepass")
                digest.update(b"\xff%d:" % (-1 if value is None else len(data)))  # lengths: no two frames collide
                digest.update(data)
        return digest.hexdigest()[:16]

    def rows(self, split: str) -> np.ndarray:
        """Row numbers (int64, ascending) of one part: 'train', 'test' or 'unsup'."""
        return np.flatnonzero((self.df["split"] == split).to_numpy())

    def __repr__(self) -> str:
        counts = ", ".join(f"{n:,} {split}" for split, n in self.counts.items() if n)
        kind = " (synthetic)" if self.synthetic else ""
        return f"Dataset {self.name}{kind}: {counts}; classes {shown(self.classes, 15)}; from {self.source}"


def build(name: str, parts: Mapping[str, Sequence[Any]], source: str, *, synthetic: bool = False,
          notes: Iterable[str] = (), label_delim: str | None = None) -> Dataset:
    """Make a `Dataset` of columns that are already clean; columns of objects, so that a missing label stays None."""
    df = pd.DataFrame({name: pd.Series(list(parts[name]), dtype=object) for name in ("id", "text", "label", "split")})
    found = df["label"][df["split"] != "unsup"].dropna().unique()
    classes = sorted(set(found) if label_delim is None else {c for label in found for c in label.split(label_delim)})
    return Dataset(name, df, tuple(classes), source, synthetic, tuple(notes), label_delim)


def join_fields(fields: Sequence[str]) -> str:
    """Join several texts of one example into one, each behind fastai's field mark: 'xxfld 1 ... xxfld 2 ...'.

    A single field is returned as it is. Training and prediction both use this function: in fastai the marks are
    set in training and forgotten by `test_dl`.
    """
    if len(fields) == 1:
        return fields[0]
    return " ".join(f"{FIELD_MARK} {number} {field}" for number, field in enumerate(fields, 1))


def from_frame(df: pd.DataFrame, *, text: str | Sequence[str], label: str | None, split: str | None = None,
               id: str | None = None, unlabelled: pd.DataFrame | Sequence[str] | None = None,
               test: pd.DataFrame | float | None = None, name: str = "custom", drop_missing: bool = False,
               label_delim: str | None = None, seed: int = 0, source: str | None = None) -> Dataset:
    """Make a `Dataset` of a frame: one row a document, the columns named here.

    Args:
        text: the column of the texts, or several, which are joined by `join_fields`.
        label: the column of the labels, each a class by its name ('1' for 1 and 1.0; see `texts.classes`) or a list of
            them. None: all texts are unlabelled.
        split: a column with 'train', 'test' or 'unsup' ('unlabelled'). Without it every row is a training row.
        id: a column that names each row; the row's number otherwise.
        unlabelled: more texts for the language model: a frame with the text column(s), or a list of strings.
        test: a frame with the same columns, or the fraction of the labelled rows to set apart, drawn by `seed`
            with the classes in proportion.
        drop_missing: leave out the rows without text, and read the rows without label as unlabelled, instead of
            refusing them. What was done stands in the notes.
        label_delim: what separates the labels of a row that has several ('funny;sad').

    Raises:
        UlmfitError: a column is not there, texts or labels are missing, there are fewer than two classes or as many as
            rows, or `test` and `split` contradict each other.
    """
    if not isinstance(df, pd.DataFrame):
        raise UlmfitError(f"expected a pandas DataFrame, found a {type(df).__name__}; make one, or read a file with "
                          "from_file")
    notes: list[str] = []
    names = column_names(text, df)
    refuse_absent(df, names if label is None else [*names, label])
    if label is not None:
        df, test = (with_lists(part, label) for part in (df, test))
        label_delim = mark_between([part[label] for part in (df, test) if isinstance(part, pd.DataFrame)], label_delim)
    columns = _Columns(names, label, split, id, label_delim)
    pieces = [_rows(df, columns, drop_missing=drop_missing, notes=notes)]
    if isinstance(test, pd.DataFrame):
        pieces.append(_rows(test, columns, part="test", drop_missing=drop_missing, notes=notes))
    if unlabelled is not None:
        extra = unlabelled if isinstance(unlabelled, pd.DataFrame) else _one_column(unlabelled, columns.text)
        without = replace(columns, label=None, id=id if id in extra else None)
        pieces.append(_rows(extra, without, part="unsup", drop_missing=drop_missing, notes=notes))
    parts = {key: [value for piece in pieces for value in piece[key]] for key in ("id", "text", "label", "split")}
    if isinstance(test, (int, float)) and not isinstance(test, bool):
        _set_test_apart(parts, float(test), seed)
    check_labels(parts, label, label_delim)
    notes += unseen_classes(parts, label_delim)
    for note in notes:
        log.warning("%s", note)
    return build(name, parts, source or f"a frame of {len(df):,} rows", notes=notes, label_delim=label_delim)


@dataclass(frozen=True)
class _Columns:
    text: list[Any]
    label: Any
    split: str | None
    id: str | None
    delim: str | None


def _one_column(texts: Sequence[str], columns: list[str]) -> pd.DataFrame:
    if isinstance(texts, str):
        raise UlmfitError("unlabelled must be a frame or a list of texts, found one string")
    if len(columns) > 1:
        raise UlmfitError(f"unlabelled must be a frame with the columns {', '.join(columns)}: a list has one "
                          "field only")
    return pd.DataFrame({columns[0]: pd.Series(list(texts), dtype=object)})


def _rows(df: pd.DataFrame, columns: _Columns, *, part: str | None = None, drop_missing: bool,
          notes: list[str]) -> dict[str, list[Any]]:
    """Read one frame into clean lists of ids, texts, labels and splits; `part`: the split of all its rows."""
    split = columns.split if part is None else None
    refuse_absent(df, [name for name in (*columns.text, columns.label, columns.id, split) if name is not None])
    part = "unsup" if columns.label is None else part
    splits = _split_names(df[split], split) if split is not None and part is None else [part or "train"] * len(df)
    texts = joined_texts(df, columns.text)
    labels: list[str | None] = [None] * len(df)
    if columns.label is not None:
        read = (label_text(value, columns.delim) for value in df[columns.label])
        labels = [None if place == "unsup" else value for place, value in zip(splits, read)]
    prefix = f"{part}-" if part else ""
    ids = ([f"{prefix}{row}" for row in range(len(df))] if columns.id is None else
           [str(value) for value in df[columns.id]])
    empty = [row for row, value in enumerate(texts) if not value]
    bare = [row for row, value in enumerate(labels) if value is None and splits[row] != "unsup" and texts[row]]
    report_missing(df, empty, f"column {' + '.join(map(str, columns.text))}", "empty", drop_missing, notes)
    report_missing(df, bare, f"column {columns.label}", "without a label", drop_missing, notes)
    for row in bare:
        splits[row] = "unsup"
    gone = set(empty)
    keep = [row for row in range(len(df)) if row not in gone]
    every: dict[str, list[Any]] = {"id": ids, "text": texts, "label": labels, "split": splits}
    return {key: [values[row] for row in keep] for key, values in every.items()}


def joined_texts(df: pd.DataFrame, columns: Sequence[Any]) -> list[str]:
    """Return the text of each row, of one column or several (`join_fields`); '' where nothing stands in any of them.

    Half a character (a lone surrogate) becomes U+FFFD; one warning counts the rows.

    Raises:
        UlmfitError: a cell is a list, a dictionary or bytes that are not UTF-8; the message names its row.
    """
    fields = [_fields(df, column) for column in columns]
    texts = [join_fields(row) if any(field.strip() for field in row) else "" for row in zip(*fields, strict=True)]
    whole = [mended(text) for text in texts]
    halves = sum(new is not text for new, text in zip(whole, texts))
    if halves:
        log.warning("%s with half a character (a lone surrogate): read as U+FFFD",
                    f"{halves:,} text{'s' * (halves > 1)}")
    return whole


def _fields(df: pd.DataFrame, column: Any) -> list[str]:
    found = []
    for row, value in enumerate(df[column]):
        try:
            found.append(text_of(value))
        except UlmfitError as error:
            raise UlmfitError(f"{rows_named(df.index, [row])} of column {column}: {error}") from error
    return found


def report_missing(df: pd.DataFrame, rows: list[int], where: str, what: str, drop: bool, notes: list[str]) -> None:
    """Refuse rows that lack something by their names, or, where they may be dropped, say so in the notes."""
    if not rows:
        return
    which = f"{rows_named(df.index, rows)} of {where} {'are' if len(rows) > 1 else 'is'} {what}"
    if not drop:
        raise UlmfitError(f"{which} ({len(rows):,} of {len(df):,})", advice="fill them in, or give `drop_missing=True`"
                          + (" to leave them out" if what == "empty" else " to use them as unlabelled texts"))
    notes.append(f"{which}: {'left out' if what == 'empty' else 'used as unlabelled texts'}")


def _split_names(values: Iterable[Any], column: str) -> list[str]:
    found = [str(value).strip().lower() for value in values]
    strange = sorted(set(found) - set(SPLIT_NAMES))
    if strange:
        raise UlmfitError(f"column {column} must say train, test or unsup; found {shown(strange)}. A validation part "
                          "is drawn from the training rows later, so call those rows train")
    return [SPLIT_NAMES[value] for value in found]


def _set_test_apart(parts: dict[str, list[Any]], fraction: float, seed: int) -> None:
    if not 0 < fraction < 1:
        raise UlmfitError(f"test must be a frame or a fraction between 0 and 1, found {fraction}")
    if "test" in parts["split"]:
        raise UlmfitError("test rows are given twice: by the split column and by test=")
    rows = np.array([row for row, part in enumerate(parts["split"]) if part == "train"], dtype=np.int64)
    labels = [parts["label"][row] for row in rows]
    for row in rows[stratified(labels, fraction, np.random.default_rng([seed, 3]))]:
        parts["split"][row] = "test"
