"""The labels of a frame's rows, each as the text that a `Dataset` holds: one class by its name, or several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from .._errors import UlmfitError
from .._words import shown
from .classes import class_name, delimiter, written_lists
from .values import LISTS, is_missing, refuse_absent


def with_lists(frame: Any, label: Any) -> Any:
    """A frame whose labels are lists, where they became text in a file; anything else as it is."""
    if not isinstance(frame, pd.DataFrame):
        return frame
    refuse_absent(frame, [label])
    lists = written_lists(frame[label].tolist())
    if lists is None:
        return frame
    read = frame.copy(deep=False)
    read[label] = pd.Series(lists, index=frame.index, dtype=object)
    return read


def mark_between(labels: Iterable[pd.Series], given: str | None) -> str | None:
    """What stands between the classes of a label: as given, or where labels are lists a mark that no class has."""
    lists = [value for column in labels for value in column if isinstance(value, LISTS)]
    names = sorted({class_name(name) for several in lists for name in several if not is_missing(name)})
    if given is not None and any(given in name for name in names):
        raise UlmfitError(f"the labels are lists, and {given!r} stands in the name of a class: leave it out",
                          field="label_delim", found=given)
    return given or (delimiter(names) if lists else None)


def label_text(value: Any, delim: str | None) -> str | None:
    """The classes of one text by their names, sorted where they are a list; None: it has no label."""
    if isinstance(value, LISTS):
        return str(delim).join(sorted(class_name(name) for name in value if not is_missing(name))) or None
    if is_missing(value):
        return None
    name = class_name(value)
    return name if delim is None else delim.join(filter(None, map(str.strip, name.split(delim)))) or None


def _classes(parts: dict[str, list[Any]], split: str, delim: str | None) -> tuple[set[str], int]:
    """The classes that occur in one part, and its number of rows."""
    labels = [label for label, part in zip(parts["label"], parts["split"]) if part == split]
    return {c for label in labels for c in (label.split(delim) if delim else [label])}, len(labels)


def check_labels(parts: dict[str, list[Any]], column: str | None, delim: str | None) -> None:
    """Refuse labels that nothing can be learnt from.

    Raises:
        UlmfitError: fewer than two classes among the training rows, or as many as rows.
    """
    if column is None:
        return
    classes, rows = _classes(parts, "train", delim)
    if not rows:
        raise UlmfitError("no training row is left: a classifier needs labelled rows in the split 'train'")
    if len(classes) < 2:
        raise UlmfitError(f"column {column} has one class only ({shown(classes)}) in its {rows:,} training rows: "
                          "a classifier needs two or more")
    if len(classes) == rows >= 10 and not delim:
        raise UlmfitError(f"column {column} has another value in each of its {rows:,} rows "
                          f"({shown(sorted(classes), 3)}): is it the column of the labels?")


def unseen_classes(parts: dict[str, list[Any]], delim: str | None) -> list[str]:
    """The note about classes that only test rows have, if there are any."""
    unseen = sorted(_classes(parts, "test", delim)[0] - _classes(parts, "train", delim)[0])
    return [f"class {shown(unseen)} occurs in the test rows only: every such row will be wrong"] if unseen else []
