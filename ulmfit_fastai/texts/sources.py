"""Texts in: the paper's data sets by name, a table file, a folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from .._errors import UlmfitError
from .archives import read_members
from .dataset import Dataset, from_frame
from .files import decode, existing
from .imdb import load_imdb
from .tables import UTF8, Layout, read_table
from .tasks import TASKS, load_table_task


def load_task(task: str, path: str | os.PathLike[str] | None = None, *, verify: bool = True,
              train: str | None = None) -> Dataset:
    """Read one of the paper's data sets: 'imdb', 'trec6', 'ag', 'dbpedia', 'yelp-bi' or 'yelp-full'.

    Args:
        path: without it, fastai's cache, filled by a download when empty (TREC-6: from its own address into the same
            cache). Otherwise a folder, an archive, or a single Parquet, CSV or JSON-lines file, compressed or not,
            in the original's layout or Hugging Face's. Titles and bodies are joined by a blank, so the texts are the
            same whatever the layout. IMDb: see `load_imdb`.
        verify: refuse a set whose rows, counted for each part and class, are not those published.
            With False a part of a set is accepted, and the notes say how much of it is there.
        train: the name of the part to train on, where a file has several (default: 'train', or what begins so).

    Returns:
        The data set; classes of yelp-full are its stars '1' to '5', those of yelp-bi and IMDb 'neg' and 'pos'.

    Raises:
        UlmfitError: no data set has that name, the files are not it or (with `verify`) not all of it, or the download
            fails.

    Source: paper, section 4.1 and Table 1.
    """
    if task not in TASKS:
        raise UlmfitError(f"no data set is called {task!r}; choose one of {', '.join(TASKS)}, or use from_file or "
                          "from_frame for your own texts")
    if task == "imdb":
        return load_imdb(path, verify=verify)
    return load_table_task(TASKS[task], None if path is None else existing(path), verify=verify, train=train)


def from_file(path: str | os.PathLike[str], *, text: str | Sequence[str], label: str | None, split: str | None = None,
              id: str | None = None, unlabelled: Any = None, test: Any = None, name: str | None = None,
              drop_missing: bool = False, label_delim: str | None = None, seed: int = 0,
              encoding: str = UTF8, sep: str | None = None, header: bool = True) -> Dataset:
    """Make a `Dataset` of a CSV, TSV, JSON-lines or Parquet file, compressed (.gz .bz2 .xz .zst) or not.

    Args:
        path: the file; row numbers in errors count from 0 behind its header.
        unlabelled: as in `from_frame`, or the path of such a file.
        test: as in `from_frame`, or the path of such a file.
        name: what the data set is called; by default the file's name up to its first dot.
        encoding: of text files; `utf-8-sig` skips a byte-order mark.
        sep: what stands between the cells of CSV; None: a comma, in .tsv a tab, or what the header has instead.
        header: False numbers the columns of CSV 0, 1, ...

    The other options are those of `from_frame`.

    Raises:
        UlmfitError: there is no such file, it is damaged or of another format, or `from_frame` refuses its rows; the
            message names the file.
    """
    found = existing(path)
    layout = Layout(encoding, sep, header)
    frame = read_table(found, layout=layout)
    if isinstance(unlabelled, (str, os.PathLike)):
        unlabelled = read_table(existing(unlabelled), layout=layout)
    if isinstance(test, (str, os.PathLike)):
        test = read_table(existing(test), layout=layout)
    try:
        return from_frame(frame, text=text, label=label, split=split, id=id, unlabelled=unlabelled, test=test,
                          name=name or found.name.split(".")[0], drop_missing=drop_missing, label_delim=label_delim,
                          seed=seed, source=str(found))
    except ValueError as error:
        raise UlmfitError(f"{found}: {error}") from error


def from_folder(path: str | os.PathLike[str], *, test: float | None = None, name: str | None = None,
                drop_missing: bool = False, seed: int = 0, encoding: str = "utf-8") -> Dataset:
    """Make a `Dataset` of a folder with a .txt file for each text and a folder for each class, or of a .tgz of it.

    Args:
        path: the folder or archive: `train/<class>/`, `test/<class>/`, `unsup/`; or `<class>/` alone. Without a `test`,
            a folder `valid` is the test part (fastai's habit); beside a `test` it joins the training part, and a note
            says so.
        test: the fraction of the training texts to set apart, drawn by `seed`.
        name: what the data set is called; by default the folder's name.
        drop_missing: as in `from_frame`.

    Returns:
        The data set; ids are the files' paths without `.txt`.

    Raises:
        UlmfitError: no .txt file is there, or `from_frame` refuses the texts; the message names the folder.
    """
    root = existing(path)
    texts = {name: decode(content, f"{root}: {name}", encoding) for name, content in read_members(root, _is_text)}
    if not texts:
        raise UlmfitError(f"no .txt file in {root}; expected train/<class>/*.txt or <class>/*.txt")
    folders = _below_the_root({name: name.split("/")[:-1] for name in texts})
    tops = {parts[0] for parts in folders.values() if parts}
    part_of = {"train": "train", "test": "test", "valid": "train" if "test" in tops else "test"}
    rows = []
    for name_, text in sorted(texts.items()):
        parts = folders[name_]
        split = part_of.get(parts[0], "unsup") if "train" in tops and parts else "train"
        split = "unsup" if "unsup" in parts else split
        label = parts[-1] if parts and split != "unsup" and parts[-1] not in part_of else None
        rows.append((name_.removesuffix(".txt"), text, label, split))
    frame = pd.DataFrame(rows, columns=["id", "text", "class", "split"], dtype=object)
    frame.index = pd.Index(frame["id"])  # errors name the files
    try:
        made = from_frame(frame, text="text", label="class", split="split", id="id", test=test, name=name or root.stem,
                          drop_missing=drop_missing, seed=seed, source=str(root))
    except ValueError as error:
        raise UlmfitError(f"{root}: {error}") from error
    if "valid" not in tops or "train" not in tops:
        return made
    return replace(made, notes=(f"the folder 'valid' was read as part of the {part_of['valid']} set", *made.notes))


def _below_the_root(folders: dict[str, list[str]]) -> dict[str, list[str]]:
    """Cut off the folders that all texts share, as an archive's own; those above `train` where there is one."""
    depth = next((parts.index("train") for parts in folders.values() if "train" in parts), None)
    if depth is None:  # the last folder is the class and never cut off
        depth = len(os.path.commonprefix([parts[:-1] for parts in folders.values()]))
    return {name: parts[depth:] for name, parts in folders.items()}


def _is_text(name: str) -> bool:
    return name.endswith(".txt") and not name.rsplit("/", 1)[-1].startswith(".")
