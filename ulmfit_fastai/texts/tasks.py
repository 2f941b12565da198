"""The paper's six data sets as tables: their classes, their sizes, and the layouts in which they circulate.

Read from fastai's cache, from the original files (headerless CSV, TREC's `.label`), or from Parquet, CSV or JSON-lines
files as on Hugging Face, loose, in a folder or in an archive. The same texts and labels come out of each.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from .. import paper
from .._errors import UlmfitError
from .._words import shown
from .archives import is_archive, read_members
from .dataset import Dataset, build
from .downloads import cached_or_downloaded, downloaded_file, sha256
from .files import bare_suffix, decode
from .tables import CSV, TABLES, Layout, read_table

log = logging.getLogger(__name__)

TREC_ADDRESS = "https://cogcomp.seas.upenn.edu/Data/QA/QC/"
TREC_FILES = {  # name -> bytes, sha256
    "train_5500.label": (335_858, "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3"),
    "TREC_10.label": (23_354, "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e"),
}
LABEL_COLUMNS = ("label", "coarse_label", "label-coarse", "class index", "class", "polarity", "stars", "sentiment")
TEXT_COLUMNS = (("text",), ("title", "content"), ("title", "description"), ("review",), ("sentence",), ("question",))
PARTS = {"train": "train", "test": "test", "unsup": "unsup", "unsupervised": "unsup", "unlabelled": "unsup",
         "unlabeled": "unsup"}
SAME_CLASS = {"negative": "neg", "positive": "pos", "sci_tech": "Sci/Tech", "science": "Sci/Tech"}


@dataclass(frozen=True)
class Task:
    """One data set of the paper (Table 1): `train` and `test` are the rows of each class, in the order of `classes`."""
    name: str
    classes: tuple[str, ...]  # in the order of their numbers in the files
    train: tuple[int, ...]
    test: tuple[int, ...]
    unsup: int = 0
    address: str = ""  # attribute of fastai's URLs
    size: int = 0  # bytes of fastai's archive

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each part."""
        return {"train": sum(self.train), "test": sum(self.test), "unsup": self.unsup}


def _even(name: str, classes: Sequence[str], **more: Any) -> Task:
    """A data set of Table 1 whose classes are all of one size."""
    known, n = paper.TASKS[name], len(classes)
    return Task(name, tuple(classes), (known.train // n,) * n, (known.test // n,) * n, unsup=known.unlabelled, **more)


TASKS: dict[str, Task] = {task.name: task for task in (
    _even("imdb", ("neg", "pos"), address="IMDB", size=144_440_600),
    Task("trec6", ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"), (86, 1250, 1162, 1223, 835, 896),
         (9, 94, 138, 65, 81, 113)),
    _even("ag", ("World", "Sports", "Business", "Sci/Tech"), address="AG_NEWS", size=11_784_419),
    _even("dbpedia", ("Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder", "MeanOfTransportation",
                      "Building", "NaturalPlace", "Village", "Animal", "Plant", "Album", "Film", "WrittenWork"),
          address="DBPEDIA", size=68_341_743),
    _even("yelp-bi", ("neg", "pos"), address="YELP_REVIEWS_POLARITY", size=166_373_201),
    _even("yelp-full", ("1", "2", "3", "4", "5"), address="YELP_REVIEWS", size=196_146_755),
)}


def load_table_task(task: Task, path: Path | None, *, verify: bool = True, train: str | None = None) -> Dataset:
    """Read one of the paper's data sets from tables: fastai's cache without a path; see `load_task`."""
    place = path or _fetched(task)
    notes: list[str] = []
    frame = pd.concat([_read(name, content, notes) for name, content in _tables(place)], ignore_index=True)
    frame["label"] = _labels(task, frame["label"], place)  # all files at once: one may hold a single class
    frame["split"] = _parts(frame["split"], task, place, verify=verify, train=train, notes=notes)
    frame = frame[frame["split"].notna()]
    order = {"train": 0, "test": 1, "unsup": 2}
    frame = frame.sort_values("split", key=lambda column: column.map(order), kind="stable", ignore_index=True)
    _check_counts(task, frame, place, verify=verify, notes=notes)
    empty = [row for row, text in enumerate(frame["text"]) if not text.strip()]
    if empty:
        notes.append(f"{len(empty):,} texts are empty: rows {shown(empty)}")
    for note in notes:
        log.warning("%s: %s", place, note)
    number = frame.groupby("split").cumcount()
    return build(task.name, {
        "id": [f"{part}/{row}" for part, row in zip(frame["split"], number)],
        "text": frame["text"],
        "label": [None if part == "unsup" else label for part, label in zip(frame["split"], frame["label"])],
        "split": frame["split"],
    }, str(place), notes=notes)


def has_tables(path: Path) -> bool:
    """Say whether a path is, or a folder holds, a table (or TREC's label files) rather than one file a text."""
    if path.is_dir():
        folders = [path, path / "data"]
        return any(_is_table(file.name) for folder in folders if folder.is_dir() for file in folder.iterdir())
    return _is_table(path.name)


def _is_table(name: str) -> bool:
    file = PurePosixPath(name)
    return not file.name.startswith(".") and (bare_suffix(Path(name)) in TABLES or name.endswith(".label")) and \
        file.name not in ("dataset_infos.json", "dataset_info.json", "state.json")


def _fetched(task: Task) -> Path:
    if task.name == "trec6":
        for name, (size, expected) in TREC_FILES.items():
            file = downloaded_file(TREC_ADDRESS + name, size, "trec6")
            if sha256(file.read_bytes()) != expected:
                raise UlmfitError(f"{file} is not the original ({size:,} bytes, sha256 {expected[:16]}...): delete it "
                                  f"and fetch {TREC_ADDRESS}{name} again, or give its path to use it as it is")
        return file.parent
    from fastai.data.external import URLs
    return cached_or_downloaded(getattr(URLs, task.address), task.size)


def _tables(place: Path) -> list[tuple[str, bytes | Path]]:
    """Name and content of each table of a data set, in the order of the names; loose files by their path."""
    found: list[tuple[str, bytes | Path]]
    if place.is_file() and is_archive(place):
        found = [*read_members(place, _is_table)]
    elif place.is_file():
        return [(place.name, place)]
    else:
        found = [(file.relative_to(place).as_posix(), file) for file in place.rglob("*")
                 if file.is_file() and _is_table(file.name)]
    if len(found) > 1:
        named = [(name, content) for name, content in found if _part_of_name(name)]
        found = named or found
    if not found:
        raise UlmfitError(f"no table in {place}: expected train.csv and test.csv, Parquet or JSON-lines files with "
                          "these words in their names, or one file with a column `split`")
    return sorted(found, key=lambda item: item[0])


def _part_of_name(name: str) -> str | None:
    """Tell the part from a file's name: 'train' of train-00000-of-00001.parquet and train_5500.label."""
    stem = PurePosixPath(name).name.lower()
    if stem == "trec_10.label":
        return "test"
    words = stem.replace("-", "_").replace(".", "_").split("_")
    return next((word for word in words if word in (*PARTS, "validation", "valid", "dev")), None)


def _read(name: str, content: bytes | Path, notes: list[str]) -> pd.DataFrame:
    """Read one file into the columns text, label (as it stands) and split (as the row or the file's name says)."""
    path = content if isinstance(content, Path) else Path(name)
    data = None if isinstance(content, Path) else content
    if name.endswith(".label"):
        return _trec(path, content.read_bytes() if isinstance(content, Path) else content, notes)
    frame = _headed(read_table(path, data, layout=Layout(header=bare_suffix(path) not in CSV)))
    if _column(frame, LABEL_COLUMNS) is None and bare_suffix(path) in CSV:  # the original files have no header
        if frame.shape[1] < 2:
            raise UlmfitError(f"{path}: expected a label and one or more texts in each row, found one column")
        frame.columns = pd.Index(["label", *(f"text {number}" for number in range(1, frame.shape[1]))])
        texts: list[str] | None = list(frame.columns[1:])
    else:
        texts = next((found for names in TEXT_COLUMNS
                      if all(found := [_column(frame, (name,)) or "" for name in names])), None)
    label = _column(frame, LABEL_COLUMNS)
    if texts is None or label is None:
        raise UlmfitError(f"{path}: expected a column {' or '.join(LABEL_COLUMNS[:3])} and a column text (or title and "
                          f"content); found {shown(frame.columns)}")
    split = _column(frame, ("split",))
    cells = zip(*(frame[column].map(_clean) for column in texts))
    joined = [" ".join(cell for cell in row if cell) for row in cells]
    parts = frame[split].astype(str) if split else [_part_of_name(name) or "train"] * len(frame)
    labels = _old_trec_numbers(frame[label]) if label == "label-coarse" else frame[label]
    return pd.DataFrame({"text": joined, "label": labels.tolist(), "split": list(parts)}, dtype=object)


def _headed(frame: pd.DataFrame) -> pd.DataFrame:
    """A CSV file that was read as if it had no header, with its first row as header if that names the labels."""
    first = frame.iloc[0].tolist() if len(frame) else []
    if isinstance(frame.columns, pd.RangeIndex) and any(str(name).lower() in LABEL_COLUMNS for name in first):
        return frame.iloc[1:].set_axis(pd.Index(first), axis=1).reset_index(drop=True)
    return frame


def _old_trec_numbers(column: pd.Series) -> pd.Series:
    """Translate TREC's numbers in its first release on Hugging Face (DESC, ENTY, ABBR, HUM, NUM, LOC) to names."""
    names = dict(enumerate(("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC")))
    return column.map(lambda value: names.get(int(value), value) if str(value).isdecimal() else value)


def _clean(cell: Any) -> str:
    return cell.strip() if isinstance(cell, str) else ""


def _column(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    return next((column for name in names for column in frame.columns if str(column).lower() == name), None)


def _trec(path: Path, content: bytes, notes: list[str]) -> pd.DataFrame:
    """Read one of TREC's own files: a line is `DESC:manner How did serfdom develop ... ?`, in Latin-1."""
    expected = TREC_FILES.get(path.name)
    if expected and sha256(content) != expected[1]:
        notes.append(f"{path.name} is not byte for byte the original")
    lines = [line for line in decode(content, str(path), "latin-1").split("\n") if line.strip()]
    wrong = [number for number, line in enumerate(lines, 1) if ":" not in line.split(" ", 1)[0]]
    if wrong:
        raise UlmfitError(f"{path}, line {shown(wrong)}: expected 'DESC:manner How did ...'")
    return pd.DataFrame({"text": [line.split(" ", 1)[1].strip() for line in lines], "label": [
        line.split(":", 1)[0] for line in lines], "split": _part_of_name(path.name) or "train"}, dtype=object)


def _labels(task: Task, column: pd.Series, place: Path) -> list[str]:
    """Turn what the files have for labels, names or numbers, into the names of the classes; '' where there is none."""
    words = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v).strip() for v in column]
    if task.name == "trec6":
        words = [word.partition(":")[0] for word in words]  # the coarse class of 'DESC:manner'
    distinct = set(words) - {"-1", ""}
    by_name = {name.lower(): name for name in task.classes} | {k: v for k, v in SAME_CLASS.items() if v in task.classes}
    first = _first_number(task, distinct)
    if first is not None:
        by_name = {str(number): name for number, name in enumerate(task.classes, first)}
    strange = sorted(word for word in distinct if word.lower() not in by_name)
    if strange:
        raise UlmfitError(f"{place}: labels must be {shown(task.classes, 14)}, or their numbers from 0 or 1; found "
                          f"{shown(strange)}")
    return [by_name.get(word.lower(), "") for word in words]


def _first_number(task: Task, distinct: set[str]) -> int | None:
    """Return 0 or 1, the number of the first class, when the labels are numbers and tell; None otherwise."""
    if not distinct or not all(word.isdecimal() for word in distinct):
        return None
    numbers = {int(word) for word in distinct}
    if max(numbers) == len(task.classes) and min(numbers) >= 1:
        return 1
    return 0 if min(numbers) == 0 and max(numbers) < len(task.classes) else None


def _parts(column: pd.Series, task: Task, place: Path, *, verify: bool, train: str | None,
           notes: list[str]) -> pd.Series:
    """Name each row's part; rows of other parts get none and are named in the notes."""
    names = list(dict.fromkeys(column))
    if train is not None and train not in names:
        raise UlmfitError(f"{place} has no part {train!r}; found {shown(names)}")
    source = train or _training_part(names)
    if source is None or (verify and (source != "train" or "test" not in names)):
        raise UlmfitError(f"{task.name} in {place}: expected the parts train and test, found {shown(names)}. "
                          + ("Accept a part of the data set with verify=False." if source else "Name the part to train "
                            "on with train=."))
    known = {name: part for name, part in PARTS.items() if part != "train"} | {source: "train"}
    left = [name for name in names if name not in known]
    if source != "train":
        notes.append(f"the training rows are the part {source!r}" + (f"; not used: {shown(left)}" if left else ""))
    elif left:
        notes.append(f"not used: the part {shown(left)}")
    return column.map(known.get).astype(object)


def _training_part(names: list[str]) -> str | None:
    exact = [name for name in names if name == "train"]
    similar = [name for name in names if name.startswith("train")]
    other = [name for name in names if name in ("dev", "validation", "valid")]
    return next(iter(exact + similar + other), None)


def _check_counts(task: Task, frame: pd.DataFrame, place: Path, *, verify: bool, notes: list[str]) -> None:
    """Compare the rows of each part and class with the published numbers."""
    wrong = []
    found = Counter(zip(frame["split"], frame["label"]))
    for part, expected in (("train", task.train), ("test", task.test)):
        for name, number in zip(task.classes, expected):
            if found[part, name] != number:
                wrong.append(f"{part}, class {name}: expected {number:,} rows, found {found[part, name]:,}")
    rows = Counter(frame["split"])
    if rows["unsup"] != task.unsup:
        wrong.append(f"unsup: expected {task.unsup:,} rows, found {rows['unsup']:,}")
    if wrong and verify:
        raise UlmfitError(f"the data set {task.name} in {place} is not whole:\n  " + "\n  ".join(wrong) +
                          "\nFetch it again, or accept it as it is with verify=False.")
    if not rows["train"] or len({label for part, label in found if part == "train"}) < 2:
        raise UlmfitError(f"{task.name} in {place}: no training rows of two classes or more")
    words = {"train": "training", "test": "test", "unsup": "unlabelled"}
    notes += [f"not the whole data set: {rows[part]:,} of {total:,} {words[part]} rows"
              for part, total in task.counts.items() if rows[part] != total]
    if wrong and all(rows[part] == total for part, total in task.counts.items()):
        notes.append(f"classes in other proportions than published: {'; '.join(wrong)}")
