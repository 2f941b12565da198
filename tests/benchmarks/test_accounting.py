"""The count of tokens and texts says what was read twice, or not at all."""

from __future__ import annotations

from copy import deepcopy

import pytest

from benchmarks import accounting

LM = {"phase": "lm", "there": 13, "streams": 4, "steps": 3, "read": {"5": 7, "6": 5}}
CLASSIFIER = {"phase": "classifier", "there": 4, "streams": 2, "steps": 2, "read": {"0": 1, "1": 1, "2": 1, "3": 1}}
FIRST = [{**LM, "read": {"5": 7}}, {**CLASSIFIER, "read": {"0": 1, "2": 1}}]
SECOND = [{**LM, "read": {"6": 5}}, {**CLASSIFIER, "read": {"1": 1, "3": 1}}]


@pytest.mark.parametrize(("epoch", "read", "said"), [
    (None, None, "12 of 12 tokens predicted (13 there), each once; by process [7, 5]"),
    (0, {"6": 4}, "11 of 12 tokens predicted (13 there), NOT EACH ONCE"),
    (0, {"5": 5}, "12 of 12 tokens predicted (13 there), NOT EACH ONCE"),
    (1, {"1": 1}, "3 of 4 texts read, NOT EACH ONCE"), (1, {"1": 1, "2": 1}, "4 of 4 texts read, NOT EACH ONCE")])
def test_what_is_read_twice_or_not_at_all_is_said(monkeypatch, capsys, epoch, read, said):
    parts = deepcopy([FIRST, SECOND])
    if epoch is not None:
        parts[1][epoch]["read"] = read
    monkeypatch.setattr(accounting, "counts", lambda n, folder: [[LM, CLASSIFIER]] if n == 1 else parts)
    monkeypatch.setattr("sys.argv", ["accounting", "--processes", "2"])
    assert accounting.main() == (epoch is not None)
    assert said in capsys.readouterr().out
