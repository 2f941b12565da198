"""What a class is: one value from reading to drawing, found again however a file spells it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from odd_tables import LABELS

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.classifier.labels import read_labels
from ulmfit_fastai.texts.classes import NUMBER, Spellings, class_name, delimiter, plain_class, written_lists
from ulmfit_fastai.texts.dataset import from_frame


@pytest.mark.parametrize("written", ["0", "-1.5", "1e3", ".5", "-.5", "10.0"])
def test_a_number_is_one(written):
    assert NUMBER.fullmatch(written)


@pytest.mark.parametrize("written", ["", "-", ".", "E10", "007", "1,5", "1.", "--1", "e", "-e5", "inf", "nan"])
def test_what_lacks_a_digit_or_begins_with_nought_is_no_number(written):
    assert not NUMBER.fullmatch(written)


def test_a_number_stands_for_its_spellings_and_a_text_for_itself():
    assert [Spellings((1, 2.5)).find(v) for v in ("1", "1.0", 1.0, "2.50", "3", "x")] == [0, 0, 0, 1, None, None]
    assert [Spellings(("1.1", "n/a")).find(v) for v in ("1.1", "1.10", 1.1)] == [0, None, 0]
    assert Spellings(("1.0", "n/a")).find(1) == 0, "as Parquet has it"
    assert Spellings(("1", "1.0")).find(1.0) == 0 and Spellings(("1.0", "1.00")).find(1) is None, "it could be either"


def test_truth_values_are_known_in_every_spelling_where_there_are_two():
    for classes in ((False, True), ("FALSE", "TRUE"), ("0", "1"), (0, 1)):
        for false in (False, "false", "False", "FALSE", 0, "0", np.False_):
            assert Spellings(classes).find(false) == 0
    assert Spellings(("false", "true", "maybe")).find(0) is None


def test_equal_names_are_one_class():
    assert class_name(1) == class_name(1.0) == class_name(np.float32(1)) == "1"
    assert plain_class("cafe\u0301 ") == "caf\u00e9"
    with pytest.raises(UlmfitError, match="no file keeps"):
        plain_class(object())


@pytest.mark.parametrize("labels", [labels for labels in LABELS if not isinstance(labels.two[0], tuple)],
                         ids=lambda labels: labels.name)
def test_a_frame_and_a_list_of_labels_have_the_same_classes(labels):
    values = [labels.two[i % 2] for i in range(12)]
    column = pd.Series(values, dtype=object) if labels.whole is None else pd.Series(np.ravel(labels.whole(values)))
    made = from_frame(pd.DataFrame({"text": [f"text {i}" for i in range(12)], "label": column}), text="text",
                      label="label", drop_missing=True)
    assert made.classes == tuple(sorted(read_labels(values).names))


def test_a_mark_between_classes_is_one_that_none_of_them_has():
    assert delimiter(["a", "b"]) == ";" and delimiter(["a;b", "c|d"]) not in ";|"
    frame = pd.DataFrame({"text": list("abcd"), "label": [["x;y"], ["z"], [], ["z", None]]})
    assert from_frame(frame, text="text", label="label", drop_missing=True).classes == ("x;y", "z")
    with pytest.raises(UlmfitError, match="';' stands in the name of a class"):
        from_frame(frame, text="text", label="label", label_delim=";")
    frame["label"] = ["x ; y", "y;", "x", "y"]
    made = from_frame(frame, text="text", label="label", label_delim=";")
    assert made.classes == ("x", "y") and made.df["label"].tolist() == ["x;y", "y", "x", "y"]


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "(0, 2]", "[CLS]", "{'a': 1}", "[__import__('os')]"])
def test_what_only_looks_like_a_list_is_none(text):
    assert written_lists([text]) is None
