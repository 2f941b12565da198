"""Texts in: a frame, a table file or a folder per class becomes a `Dataset`, checked row by row."""
from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .reading import decode, existing, read_members, read_table

log = logging.getLogger(__name__)

SPLITS = ("train", "test", "unsup")
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test",
               "unsup": "unsup", "unlabelled": "unsup", "unlabeled": "unsup"}
FIELD_MARK = "xxfld"  # fastai's FLD; the tokeniser keeps it whole


@dataclass(frozen=True, eq=False)
class Dataset:
    """Texts with their labels and their part: the one thing that every later step reads.

    `df` has a RangeIndex and the columns id (str, unique), text (str, never empty), label (str, None where
    unlabelled) and split ('train', 'test' or 'unsup'). `classes` are the distinct labels of train and test, sorted.
    `notes` are what a report must say about the data. With `label_delim`, a label holds several classes.
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
            raise ValueError(f"a Dataset's frame needs the columns id, text, label, split; missing: {sorted(missing)}")
        if not self.df["id"].is_unique:
            twice = self.df["id"][self.df["id"].duplicated()].unique()
            raise ValueError(f"ids must be unique; seen more than once: {shown(twice)}")
        strange = set(self.df["split"]) - set(SPLITS)
        if strange:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; found {shown(sorted(strange))}")

    def __len__(self) -> int:
        return len(self.df)

    @property
    def counts(self) -> dict[str, int]:
        """Number of texts in each part, e.g. {'train': 25000, 'test': 25000, 'unsup': 50000}."""
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
        """Row numbers (int64, ascending) of one part."""
        return np.flatnonzero((self.df["split"] == split).to_numpy())

    def __repr__(self) -> str:
        counts = ", ".join(f"{n:,} {split}" for split, n in self.counts.items() if n)
        kind = " (synthetic)" if self.synthetic else ""
        return f"Dataset {self.name}{kind}: {counts}; classes {shown(self.classes, 15)}; from {self.source}"


def build(name: str, parts: dict[str, Sequence[Any]], source: str, *, synthetic: bool = False,
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
    return " ".join(f"{FIELD_MARK} {number} {field}".rstrip() for number, field in enumerate(fields, 1))


def from_frame(df: pd.DataFrame, *, text: str | Sequence[str], label: str | None, split: str | None = None,
               id: str | None = None, unlabelled: pd.DataFrame | Sequence[str] | None = None,
               test: pd.DataFrame | float | None = None, name: str = "custom", drop_missing: bool = False,
               label_delim: str | None = None, seed: int = 0, source: str | None = None) -> Dataset:
    """Make a `Dataset` of a frame: one row a text, the columns named here.

    Args:
        text: the column of the texts, or several, which are joined by `join_fields`.
        label: the column of the labels; numbers become strings ('1', not '1.0'). None: all texts are unlabelled.
        split: a column with 'train', 'test' or 'unsup' ('unlabelled'). Without it every row is a training row.
        id: a column that names each row; the row's number otherwise.
        unlabelled: more texts for the language model: a frame with the text column(s), or a list of strings.
        test: a frame with the same columns, or the fraction of the labelled rows to set apart, drawn by `seed`
            with the classes in proportion.
        drop_missing: leave out the rows without text, and read the rows without label as unlabelled, instead of
            refusing them. What was done stands in the notes.
        label_delim: what separates the labels of a row that has several ('funny;sad').

    Raises ValueError: a column is not there, texts or labels are missing, fewer than two classes.
    """
    columns = [text] if isinstance(text, str) else list(text)
    notes: list[str] = []
    if any(isinstance(value, (list, tuple, set)) for value in (df[label] if label in df else ())):
        label_delim = label_delim or ";"
    read = dict(columns=columns, label=label, id=id, drop_missing=drop_missing, label_delim=label_delim, notes=notes)
    pieces = [_rows(df, split=split, prefix="", **read)]
    if isinstance(test, pd.DataFrame):
        pieces.append(_rows(test, split="test", fixed=True, prefix="test-" if id is None else "", **read))
    if unlabelled is not None:
        extra = unlabelled if isinstance(unlabelled, pd.DataFrame) else _one_column(unlabelled, columns)
        read |= dict(label=None, id=id if id in extra else None)
        pieces.append(_rows(extra, split="unsup", fixed=True, prefix="unsup-" if read["id"] is None else "", **read))
    parts = {key: [value for piece in pieces for value in piece[key]] for key in ("id", "text", "label", "split")}
    if isinstance(test, (int, float)) and not isinstance(test, bool):
        _set_test_apart(parts, float(test), seed)
    _check_labels(parts, label, label_delim)
    dataset = build(name, parts, source or f"a frame of {len(df):,} rows", notes=notes, label_delim=label_delim)
    if label is not None:
        notes.extend(_unseen_classes(dataset))
    for note in notes:
        log.warning("%s", note)
    return build(name, parts, dataset.source, notes=notes, label_delim=label_delim)


def _one_column(texts: Sequence[str], columns: list[str]) -> pd.DataFrame:
    if isinstance(texts, str):
        raise ValueError("unlabelled must be a frame or a list of texts, found one string")
    if len(columns) > 1:
        raise ValueError(f"unlabelled must be a frame with the columns {', '.join(columns)}: a list has one field only")
    return pd.DataFrame({columns[0]: pd.Series(list(texts), dtype=object)})


def _rows(df: pd.DataFrame, *, columns: list[str], label: str | None, split: str | None, id: str | None, prefix: str,
          drop_missing: bool, label_delim: str | None, notes: list[str], fixed: bool = False) -> dict[str, list[Any]]:
    """Read one frame into clean lists; `fixed` says that `split` is the part itself and not a column."""
    named = [*columns, *(c for c in (label, id, None if fixed else split) if c is not None)]
    absent = [column for column in named if column not in df.columns]
    if absent:
        raise ValueError(f"no column {shown(absent)}; the columns are {shown(list(df.columns), 30)}")
    fields = [[_text(value) for value in df[column]] for column in columns]
    texts = [join_fields(row) if any(field.strip() for field in row) else "" for row in zip(*fields)]
    labels = [None] * len(df) if label is None else [_label(value, label_delim) for value in df[label]]
    splits = [split or "train"] * len(df) if fixed or split is None else _split_names(df[split], split)
    if label is None:
        splits = ["unsup"] * len(df)
    labels = [None if part == "unsup" else value for part, value in zip(splits, labels)]
    ids = [str(value) for value in df[id]] if id else [f"{prefix}{number}" for number in range(len(df))]
    empty = [row for row, value in enumerate(texts) if not value]
    bare = [row for row, value in enumerate(labels) if value is None and splits[row] != "unsup" and texts[row]]
    _report_missing(df, empty, f"column {' + '.join(columns)}", "empty", drop_missing, notes)
    _report_missing(df, bare, f"column {label}", "without a label", drop_missing, notes)
    splits = ["unsup" if row in set(bare) else part for row, part in enumerate(splits)] if bare else splits
    gone = set(empty)
    keep = [row for row in range(len(df)) if row not in gone]
    every = {"id": ids, "text": texts, "label": labels, "split": splits}
    return {key: [values[row] for row in keep] for key, values in every.items()}


def _report_missing(df: pd.DataFrame, rows: list[int], where: str, what: str, drop: bool, notes: list[str]) -> None:
    if not rows:
        return
    which = f"row{'s' * (len(rows) > 1)} {shown([df.index[row] for row in rows])} of {where} " \
            f"{'are' if len(rows) > 1 else 'is'} {what}"
    if not drop:
        raise ValueError(f"{which} ({len(rows):,} of {len(df):,}). Fill them in, or give drop_missing=True"
                         + (" to leave them out" if what == "empty" else " to use them as unlabelled texts"))
    notes.append(f"{which}: {'left out' if what == 'empty' else 'used as unlabelled texts'}")


def _text(value: Any) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value)


def _label(value: Any, delim: str | None) -> str | None:
    if isinstance(value, (list, tuple, set)):
        return (delim or ";").join(sorted(str(v) for v in value)) or None
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)  # pandas turns a column of whole numbers with a gap into floats
    return str(value).strip() or None


def _split_names(values: Iterable[Any], column: str) -> list[str]:
    found = [str(value).strip().lower() for value in values]
    strange = sorted(set(found) - set(SPLIT_NAMES))
    if strange:
        raise ValueError(f"column {column} must say train, test or unsup; found {shown(strange)}. A validation part "
                         "is drawn from the training rows later, so call those rows train")
    return [SPLIT_NAMES[value] for value in found]


def _check_labels(parts: dict[str, list[Any]], column: str | None, delim: str | None) -> None:
    train = [label for label, part in zip(parts["label"], parts["split"]) if part == "train"]
    if column is None:
        return
    if not train:
        raise ValueError("no training row is left: a classifier needs labelled rows in the split 'train'")
    classes = {c for label in train for c in (label.split(delim) if delim else [label])}
    if len(classes) < 2:
        raise ValueError(f"column {column} has one class only ({shown(classes)}) in its {len(train):,} training rows: "
                         "a classifier needs two or more")
    if len(classes) == len(train) >= 10 and not delim:
        raise ValueError(f"column {column} has a different value in each of its {len(train):,} rows ({shown(sorted(classes), 3)}): "
                         "is it the column of the labels?")


def _unseen_classes(dataset: Dataset) -> list[str]:
    df, delim = dataset.df, dataset.label_delim
    seen, tested = ({c for label in df["label"][df["split"] == part] for c in (label.split(delim) if delim else [label])}
                    for part in ("train", "test"))
    unseen = sorted(tested - seen)
    return [f"class {shown(unseen)} occurs in the test rows only: every such row will be wrong"] if unseen else []


def _set_test_apart(parts: dict[str, list[Any]], fraction: float, seed: int) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"test must be a frame or a fraction between 0 and 1, found {fraction}")
    if "test" in parts["split"]:
        raise ValueError("test rows are given twice: by the split column and by test=")
    rows = np.array([row for row, part in enumerate(parts["split"]) if part == "train"], dtype=np.int64)
    labels = [parts["label"][row] for row in rows]
    for row in rows[stratified(labels, fraction, np.random.default_rng([seed, 3]))]:
        parts["split"][row] = "test"


def stratified(labels: Sequence[str], fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Draw about `fraction` of the positions of `labels`, each class in proportion; sorted positions (int64).

    The number drawn is the nearest whole one. A class with five or more gives at least one, none gives all.
    """
    values = np.asarray(labels, dtype=object)
    classes = sorted(set(labels))
    where = {c: np.flatnonzero(values == c) for c in classes}
    exact = {c: len(where[c]) * fraction for c in classes}
    take = {c: int(exact[c]) for c in classes}
    short = max(0, round(len(values) * fraction) - sum(take.values()))
    for c in sorted(classes, key=lambda c: (take[c] - exact[c], c))[:short]:  # largest remainder first
        take[c] += 1
    drawn = []
    for c in classes:
        n = min(take[c], len(where[c]) - 1)
        n = max(n, 1) if len(where[c]) >= 5 and fraction > 0 else n
        drawn.append(rng.permutation(where[c])[:n])
    return np.sort(np.concatenate(drawn)).astype(np.int64) if drawn else np.empty(0, np.int64)


def from_file(path: str | os.PathLike[str], *, text: str | Sequence[str], label: str | None, split: str | None = None,
              id: str | None = None, unlabelled: Any = None, test: Any = None, name: str | None = None,
              drop_missing: bool = False, label_delim: str | None = None, seed: int = 0,
              encoding: str = "utf-8-sig") -> Dataset:
    """Make a `Dataset` of a CSV, TSV, JSON-lines or Parquet file, compressed (.gz .bz2 .xz .zst) or not.

    The options are those of `from_frame`; `unlabelled` and `test` may be paths of such files too. Row numbers in
    errors count from 0 behind the header.
    """
    found = existing(path)
    if isinstance(unlabelled, (str, os.PathLike)):
        unlabelled = read_table(existing(unlabelled), encoding=encoding)
    if isinstance(test, (str, os.PathLike)):
        test = read_table(existing(test), encoding=encoding)
    try:
        return from_frame(read_table(found, encoding=encoding), text=text, label=label, split=split, id=id,
                          unlabelled=unlabelled, test=test, name=name or found.name.split(".")[0],
                          drop_missing=drop_missing, label_delim=label_delim, seed=seed, source=str(found))
    except ValueError as error:
        raise error if str(found) in str(error) else ValueError(f"{found}: {error}") from error


def from_folder(path: str | os.PathLike[str], *, test: float | None = None, name: str | None = None,
                drop_missing: bool = False, seed: int = 0, encoding: str = "utf-8") -> Dataset:
    """Make a `Dataset` of a folder of .txt files, one folder a class: train/<class>/, test/<class>/, unsup/.

    Without a `train` folder, the folders directly below are the classes. A `valid` folder is the test part when
    there is no `test` (fastai's habit); beside a `test` it joins the training part. The same for a .tgz of such a folder.
    """
    root = existing(path)
    members = sorted((n, decode(b, n, encoding)) for n, b in read_members(root, _is_text))
    if not members:
        raise ValueError(f"{root}: no .txt file found; expected train/<class>/*.txt, or <class>/*.txt")
    table = [(n.removesuffix(".txt"), n.split("/")[:-1], body) for n, body in members]
    while len({folders[0] if folders else "" for _, folders, _ in table}) == 1 and len(table[0][1]) > 1 \
            and table[0][1][0] not in ("train", "unsup"):
        table = [(n.split("/", 1)[1], folders[1:], body) for n, folders, body in table]
    tops = {folders[0] for _, folders, _ in table if folders}
    notes, valid_is = [], "test"
    if "valid" in tops and "train" in tops:
        valid_is = "train" if "test" in tops else "test"
        notes.append(f"the folder 'valid' was read as part of the {valid_is} set")
    rows = []
    for key, folders, body in table:
        part = {"valid": valid_is}.get(folders[0], folders[0]) if folders and "train" in tops else "train"
        part = "unsup" if "unsup" in folders else part
        label = None if part == "unsup" or not folders else folders[-1]
        rows.append((key, body, label, part))
    frame = pd.DataFrame(rows, columns=["id", "text", "label", "split"], dtype=object).set_index("id", drop=False)
    made = from_frame(frame, text="text", label="label", split="split", id="id", test=test, name=name or root.name,
                      drop_missing=drop_missing, seed=seed, source=str(root))
    return Dataset(made.name, made.df, made.classes, made.source, notes=(*notes, *made.notes))


def _is_text(name: str) -> bool:
    return name.endswith(".txt") and not name.rsplit("/", 1)[-1].startswith(".")


def shown(values: Iterable[Any], most: int = 10) -> str:
    """List some values for a message: 'a, b, c and 12 more'."""
    every = [str(value) for value in values]
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest:,} more" if rest > 0 else "")
