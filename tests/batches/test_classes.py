"""What a class is: one value from reading to drawing, found again however a file spells it."""

from __future__ import annotations

import numpy as np
import pytest

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.batches.classes import NUMBER, Spellings, class_name, plain_class


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
